# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed import from plan to proof: what it would leave is told, the export is proved first, the counts last.

An import merges: it writes the export's documents and leaves every other one. Only into a fresh database, or after a
deletion of named collection groups, the result is what was exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AdminApi,
    AnyOperation,
    DeletionOperation,
    ImportOperation,
    LiveCounts,
    Operation,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreUnreachableError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_databases import Database, Databases
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportMetadata,
    Opener,
    metadata_name,
    read_metadata,
    verify_export,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import (
    FOUND,
    RESUMED,
    STARTED,
    Patience,
    fault_of,
    wait,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_running import Running, Writing
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener, split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat

MERGE, FRESH_DATABASE, DELETE_FIRST = "merge", "fresh_database", "delete_first"
_MERGES = "an import merges, it removes nothing"


class ImportFailedError(Exception):
    """The import cannot be made, or is no good one; the text says why and what to do."""

    def __init__(self, text: str, told: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.told = told


class NotRestoredError(ImportFailedError):
    """The export is not there, or the database does not hold it after the import: trying again does not help."""


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported, and how exact the result must be. ``database`` is the full name."""

    uri: str
    database: str
    collection_ids: Sequence[str] = ()
    mode: str = MERGE
    delete_collections: Sequence[str] = ()
    location: str = ""
    count_tolerance: float = 0.0

    def check(self) -> None:
        """Raises ValueError when the options contradict each other."""
        if (self.mode == DELETE_FIRST) != bool(self.delete_collections):
            raise ValueError(
                f"delete_collections and exact={DELETE_FIRST} belong together: name every collection group whose "
                "documents are to be deleted before the import, there is no way to name all of them"
            )
        if not all(self.delete_collections) or not all(self.collection_ids):
            raise ValueError("delete_collections and collection_ids are names of collection groups, one is empty")


@dataclass(frozen=True)
class Group:
    """Documents of one collection group; None where nothing was or could be counted."""

    collection: str
    exported: int
    before: int | None = None
    after: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it; ``beyond`` are those that the export does not hold."""
        last = self.before if self.after is None else self.after
        beyond = None if last is None else max(0, last - self.exported)
        return {**vars(self), "beyond": beyond}


@dataclass(frozen=True)
class ImportPlan:
    """What is to be done, and what the database holds before it. Without ``exists`` the database is to be created."""

    action: str
    exists: bool
    exported: Mapping[str, int]
    documents: int
    before: Mapping[str, int] = field(default_factory=dict)
    operation: ImportOperation | None = None
    deletion: DeletionOperation | None = None
    #: What goes on in the database and must come to its end first.
    others: Sequence[Writing] = ()

    def groups(self, deleted: Iterable[str] = (), after: Mapping[str, int] | None = None) -> list[Group]:
        """What is known of every collection group; of ``deleted`` ones nothing stays."""
        names = sorted({*self.exported, *self.before, *(after or {})})
        return [
            Group(
                name,
                self.exported.get(name, 0),
                0 if name in deleted else self.before.get(name, 0),
                (after or {}).get(name, 0) if after is not None else None,
            )
            for name in names
        ]


class DatabaseMaker(Protocol):
    """The part of _firestore_databases.Databases that an import needs."""

    def find(self, identifier: str) -> Database | None: ...

    def create(self, identifier: str, location: str) -> Database: ...

    def await_creation(self, identifier: str) -> Database: ...


class Importer:
    """Carries out one import. ``read`` opens objects of the export's bucket, ``running`` knows what goes on there."""

    def __init__(
        self,
        request: ImportRequest,
        admin: AdminApi,
        databases: DatabaseMaker,
        live: LiveCounts,
        read: Opener,
        running: Running,
    ) -> None:
        self._request = request
        self._admin, self._databases, self._live, self._read = admin, databases, live, read
        self._running, self._patience = running, running.patience
        self._identifier = request.database.rpartition("/")[2]

    def alone(self, lock_file: str) -> AbstractContextManager[None]:
        """Keep off modules of this host that import into the database, see :class:`Running`."""
        return self._running.alone(lock_file)

    def plan(self) -> ImportPlan:
        """Prove the export and look at the database.

        Raises ImportFailedError, RunningError, FirestoreAccessError and others.
        """
        documents, exported = self._exported()
        if self._databases.find(self._identifier) is None:
            self._must_be_creatable()
            return ImportPlan(STARTED, False, exported, documents)
        found = self._running.found()
        others = self._others(found)
        before = self._count({*exported, *self._request.delete_collections})
        plan = ImportPlan(STARTED, True, exported, documents, before, others=others)
        if others:
            return plan
        for operation in found:
            if isinstance(operation, ImportOperation):
                return replace(plan, action=RESUMED, operation=operation)
            plan = replace(plan, deletion=operation)
        # A collection may be there without a document of its own, for what lies below missing ones.
        if self._request.mode == FRESH_DATABASE and (any(before.values()) or self._live.root_collections()):
            return self._filled(replace(plan, action=FOUND))
        return plan

    def predict(self, plan: ImportPlan) -> dict[str, Any]:
        """What the module returns in check mode."""
        if plan.action == FOUND:
            return self._answer(False, f"{plan.documents} documents of {self._request.uri} are there already", plan)
        groups = plan.groups(self._request.delete_collections)
        first = self._running.foretold(plan.others)
        steps = [first] if first else []
        if not plan.exists:
            steps.append(f"create {self._request.database} in {self._request.location}")
        if self._request.mode == DELETE_FIRST and plan.action == STARTED:
            lost = {name: plan.before.get(name, 0) for name in self._request.delete_collections}
            steps.append(f"delete {sum(lost.values())} documents ({_told(lost)})")
        verb = "wait for the import of" if plan.action == RESUMED else "import"
        steps.append(f"{verb} {plan.documents} documents from {self._request.uri} into {self._request.database}")
        message = f"would {', then '.join(steps)}; {_left(groups, 'would stay')}"
        return self._answer(True, message, plan, groups)

    def carry_out(self, plan: ImportPlan) -> dict[str, Any]:
        """Do what the plan says; what the module returns of it.

        Raises ImportFailedError when the result is not what was wanted, RunningError, FirestoreAccessError,
        DatabaseError.
        """
        if plan.others:
            ended = self._running.end(plan.others)
            answer = self.carry_out(self.plan())
            others = [operation.name for operation in plan.others]
            return {**answer, "changed": True, "msg": f"{ended}; {answer['msg']}", "others": others}
        if plan.action == FOUND:
            return self.predict(plan)
        if not plan.exists:
            self._databases.create(self._identifier, self._request.location)
        elif self._request.mode == FRESH_DATABASE:
            self._databases.await_creation(self._identifier)
        deleted: Sequence[str] = ()
        if self._request.mode == DELETE_FIRST and plan.action == STARTED:
            deleted = self._request.delete_collections
            self._finish(plan.deletion or self._admin.start_deletion(deleted), "deletion before the import")
            self._must_be_empty(deleted)
        operation = plan.operation or self._admin.start_import(self._request.uri, self._request.collection_ids)
        operation = self._finish(operation, f"import of {self._request.uri} into {self._request.database}")
        return self._prove(plan, operation)

    def _prove(self, plan: ImportPlan, operation: ImportOperation) -> dict[str, Any]:
        after = self._count({*plan.exported, *plan.before})
        groups = plan.groups(after=after)
        wrong = [problem for group in groups if (problem := self._difference(group))]
        record = self._record(operation)
        if wrong:
            raise NotRestoredError(
                f"the import of {self._request.uri} is done, but {self._request.database} is not what was wanted: "
                f"{'; '.join(wrong)}. Does somebody write to it? Import again, or raise count_tolerance where "
                "documents come and go",
                {"import": record, "counts": _counts(groups)},
            )
        message = f"imported {plan.documents} documents from {self._request.uri} into {self._request.database}"
        return self._answer(True, f"{message}; {_left(groups, 'stayed')}", plan, groups, record)

    def _difference(self, group: Group) -> str:
        """Why a group is not as it should be, empty when it is."""
        after, room = group.after or 0, group.exported * self._request.count_tolerance / 100
        exact = self._request.mode == FRESH_DATABASE or group.collection in self._request.delete_collections
        if after < group.exported - room or (exact and after > group.exported + room):
            return f"{group.collection} has {after} documents, the export {group.exported}"
        return ""

    def _exported(self) -> tuple[int, dict[str, int]]:
        """Documents to import, in all and per collection group; the export is proved on the way.

        Raises ImportFailedError when it cannot be imported, FirestoreAccessError, ExportFormatError.
        """
        name = metadata_name(split_uri(self._request.uri)[1])
        try:
            metadata = read_metadata(self._read, name)
        except FileNotFoundError:
            raise NotRestoredError(
                f"there is no export to import in {self._request.uri}: its overall metadata {name} is missing. "
                "Use output_uri_prefix as the export told it"
            ) from None
        held = verify_export(self._read, name).collections
        wanted = self._request.collection_ids
        if not wanted:
            return metadata.documents, dict(held)
        self._must_hold(metadata, wanted)
        chosen = {group: held[group] for group in wanted}
        return sum(chosen.values()), chosen

    def _must_hold(self, metadata: ExportMetadata, wanted: Sequence[str]) -> None:
        if not metadata.parts or any(len(part.collections) != 1 for part in metadata.parts):
            raise ImportFailedError(
                f"the export {self._request.uri} was made without collection_ids, and Firestore imports parts only of "
                "one that was made with them: leave collection_ids out, or import into another database and copy"
            )
        missing = sorted(set(wanted) - set(metadata.collections))
        if missing:
            raise ImportFailedError(
                f"the export {self._request.uri} does not hold {', '.join(missing)}, it holds "
                f"{', '.join(sorted(metadata.collections))}"
            )

    def _must_be_creatable(self) -> None:
        if self._request.mode != FRESH_DATABASE:
            raise ImportFailedError(
                f"{self._request.database} does not exist: check its name, or have it created with "
                f"exact={FRESH_DATABASE}"
            )
        if not self._request.location:
            raise ImportFailedError(f"{self._request.database} is to be created: set location, it can never be changed")

    def _others(self, found: Sequence[Writing]) -> list[Writing]:
        """What must end before this import begins. One of ours is gone on with, unless others went on beside it.

        Raises RunningError when others' operations are not to be touched.
        """
        others = [operation for operation in found if not self._is_ours(operation)] or found[1:]
        for operation in others:
            self._running.refuse(operation)
        return list(found) if others else []

    def _is_ours(self, operation: Writing) -> bool:
        """Whether an earlier run began it for the very same import."""
        request, groups = self._request, set(operation.collection_ids)
        if isinstance(operation, ImportOperation):
            return operation.input_uri_prefix.rstrip("/") == request.uri and groups == set(request.collection_ids)
        return request.mode == DELETE_FIRST and groups == set(request.delete_collections)

    def _filled(self, plan: ImportPlan) -> ImportPlan:
        """The plan for a database that holds documents: it is ours only when an import of ours filled it."""
        imports = self._admin.operations(ImportOperation)
        ours = [each for each in imports if each.input_uri_prefix.rstrip("/") == self._request.uri]
        filled = {name: count for name, count in plan.before.items() if count}
        if any(not fault_of(operation) for operation in ours) and filled == _positive(plan.exported):
            return plan
        raise ImportFailedError(
            f"{self._request.database} is not empty, it holds {_told(filled or plan.before)}: with "
            f"exact={FRESH_DATABASE} a database is demanded that does not exist or is empty. Name another one"
        )

    def _must_be_empty(self, deleted: Iterable[str]) -> None:
        left = {name: count for name in deleted if (count := self._live.count(name))}
        if left:
            raise ImportFailedError(
                f"documents of {self._request.database} were deleted before the import, but some are there: "
                f"{_told(left)}. Does somebody write to it? Nothing was imported yet; run the task again"
            )

    def _count(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self._live.count(name) for name in sorted({*names, *self._live.root_collections()})}

    def _finish(self, operation: AnyOperation, what: str) -> AnyOperation:
        """Wait until it is done. Raises ImportFailedError when it is no success, FirestoreAccessError."""
        try:
            operation = wait(operation, self._admin.poll(type(operation)), self._patience, self._running.tell)
        except FirestoreUnreachableError as error:
            raise ImportFailedError(
                f"{error}; the {what} may go on as {operation.name}: run the task again, and it is resumed"
            ) from error
        why = fault_of(operation)
        if why and operation.done:
            raise ImportFailedError(
                f"the {what} failed, its operation {operation.name} {why}. Part of it may have been done. Remove the "
                "cause and run the task again"
            )
        if why:
            raise ImportFailedError(
                f"the {what} {why} after {format_duration(self._patience.timeout)} ({operation.documents} of "
                f"{operation.documents_expected} documents, operation {operation.name}). It goes on in Firestore: run "
                "the task again, and it is resumed"
            )
        return operation

    def _answer(
        self,
        changed: bool,
        message: str,
        plan: ImportPlan,
        groups: list[Group] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"changed": changed, "action": plan.action, "msg": message}
        answer["counts"] = _counts(plan.groups() if groups is None else groups)
        if plan.others:
            answer["others"] = [operation.name for operation in plan.others]
        if record is not None:
            answer["import"] = record
        return answer

    def _record(self, operation: ImportOperation) -> dict[str, Any]:
        started, ended = operation.started_at, operation.ended_at
        return {
            "operation": operation.name,
            "input_uri_prefix": self._request.uri,
            "documents": operation.documents,
            "bytes": operation.bytes,
            "started_at": isoformat(started) if started else None,
            "ended_at": isoformat(ended) if ended else None,
            "seconds": round((ended - started).total_seconds(), 3) if started and ended else None,
            "state": operation.state,
        }


def importer_of(
    request: ImportRequest,
    target: Target,
    timeout: float,
    patience: Patience,
    policy: str,
    tell: Callable[[Operation], None],
) -> Importer:
    """For an import into ``target``. A request takes ``timeout`` seconds, ``policy`` is that of :class:`Running`."""
    admin, bucket = AdminApi(target, timeout), split_uri(request.uri)[0]
    return Importer(
        request,
        admin,
        Databases(target, timeout, patience),
        LiveCounts(target, timeout),
        bucket_opener(storage_client(target), bucket, target.storage_url, timeout),
        Running(admin, request.database, policy, patience, tell),
    )


def _counts(groups: Iterable[Group]) -> list[dict[str, Any]]:
    return [group.as_dict() for group in groups]


def _left(groups: Iterable[Group], verb: str) -> str:
    """What the export does not hold and the database does, as a clause."""
    beyond = _positive({group.collection: group.as_dict()["beyond"] or 0 for group in groups})
    if not beyond:
        return f"by their counts no documents {verb} that the export does not hold"
    return (
        f"at least {sum(beyond.values())} documents that the export does not hold {verb} ({_told(beyond)}): {_MERGES}"
    )


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
