# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore for practice: the export of a backup set goes into a database of its own, is compared, and is deleted.

The scratch database is named after the set and after who drills, so that nobody takes it for something else and the
next drill finds what a killed one left. One drill at a time works on the sets of one folder; the kernel frees that
lock with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import Operation
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_compare import (
    Comparison,
    Documents,
    compare_documents,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_databases import DatabaseError, Databases
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_entities import IncomparableError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportFormatError,
    Opener,
    metadata_name,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_import import (
    FRESH_DATABASE,
    Importer,
    ImportFailedError,
    ImportRequest,
    NotRestoredError,
    importer_of,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_running import REFUSE, RunningError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener, split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_verify import ExportRecord, RecordError, read_record
from ansible_collections.upkeep.ops.plugins.module_utils._signals import not_stopped
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

PREFIX = "upkeep-drill-"
_SET = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_AGAIN = "Remove the cause and drill again; the export itself may be sound"
_ANOTHER = "Do not rely on this export: take a new set and drill that, or use an older one"
_RESTORE = "export_restore"


class BusyError(Exception):
    """Another drill is at work; the text says where."""


#: What keeps a drill from being made, or from telling, and says nothing about the export.
_NOT_MADE = (
    BusyError, FirestoreAccessError, DatabaseError, ImportFailedError, IncomparableError, MissingDependencyError,
    RunningError,
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What is to be drilled: ``path`` is the record of the export, relative to the folder of the set."""

    root: str
    set: str
    path: str
    subject: str
    location: str
    most_documents: int

    def check(self) -> None:
        """Raises ValueError when it can be no order."""
        if not _SET.fullmatch(self.set):
            raise ValueError(f"{self.set!r} is no id of a backup set such as 20260131T235959Z")
        if self.most_documents < 1:
            raise ValueError("compare_documents must be at least 1: a restore that is not compared proves nothing")

    @property
    def record(self) -> str:
        return os.path.join(self.root, self.set, self.path)


@dataclass(frozen=True)
class Names:
    """How the scratch databases of one place are named: ``place`` tells it from others, ``chance`` one drill."""

    place: str
    chance: str

    @classmethod
    def of(cls, host: str, root: str, chance: str) -> Names:
        """For the drills that this host makes of the sets in ``root``."""
        return cls(hashlib.sha256(f"{host}:{os.path.realpath(root)}".encode()).hexdigest()[:6], chance)

    def scratch(self, identifier: str) -> str:
        """The name for a drill of a set."""
        return f"{PREFIX}{identifier.lower()}-{self.place}-{self.chance}"

    def is_leftover(self, database: str) -> bool:
        """Whether only an earlier drill of this place can have left it."""
        return bool(re.fullmatch(rf"{PREFIX}[0-9]{{8}}t[0-9]{{6}}z-{self.place}-[0-9a-f]+", database))


@dataclass(frozen=True)
class Drill:
    """What a drill measured; None is what it did not come to.

    ``rto_seconds`` is the whole way: reading the export back, creating a database, importing, comparing.
    ``rpo_seconds`` is the age of the export.
    """

    database: str
    create_seconds: float | None = None
    restore_seconds: float | None = None
    compare_seconds: float | None = None
    rto_seconds: float | None = None
    documents: int | None = None
    collections: dict[str, int] | None = None
    compared: int | None = None
    digest: str | None = None
    rpo_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The drill as results carry it."""
        return asdict(self)


@dataclass(frozen=True)
class Access:
    """How Firestore is reached, for any database of the project. ``timeout``: seconds that one request may take."""

    target: Target
    timeout: float
    patience: Patience

    def databases(self) -> Databases:
        return Databases(self.target, self.timeout, self.patience)

    def documents(self, database: str) -> Documents:
        return Documents(replace(self.target, database=database), self.timeout)

    def read(self, uri: str) -> Opener:
        return bucket_opener(storage_client(self.target), split_uri(uri)[0], self.target.storage_url, self.timeout)

    def importer(self, uri: str, database: str, location: str, tell: Callable[[Operation], None]) -> Importer:
        target = replace(self.target, database=database)
        request = ImportRequest(uri, target.name, mode=FRESH_DATABASE, location=location)
        return importer_of(request, target, self.timeout, self.patience, REFUSE, tell)


class Driller:
    """Carries out one drill and adds findings for each step. ``start`` chooses documents where not all are compared."""

    def __init__(
        self,
        order: Order,
        names: Names,
        access: Access,
        found: FindingsBuilder,
        now: datetime,
        start: int,
        tell: Callable[[Operation], None],
    ) -> None:
        self._order, self._names, self._access, self._found = order, names, access, found
        self._now, self._start, self._tell = now, start, tell
        self._scratch = names.scratch(order.set)

    def drill(self, check_mode: bool) -> Drill:
        """Nothing is raised for what goes wrong: that is a finding."""
        drilled = Drill(self._scratch)
        try:
            with _alone(self._order.root):
                record = read_record(self._order.record)
                drilled = self._recovery_point(drilled, record)
                if check_mode:
                    self._predict(record)
                    return drilled
                databases = self._access.databases()
                self._remove_leftovers(databases)
                with self._scratch_removed(databases):
                    drilled = self._restore(databases, record, drilled)
        except (RecordError, ExportFormatError, NotRestoredError) as error:
            self._found.add(_RESTORE, self._order.subject, "critical", str(error), hint=_ANOTHER)
        except _NOT_MADE as error:
            self._found.add(_RESTORE, self._order.subject, "unknown", str(error), hint=_AGAIN)
        except OSError as error:
            self._found.add(_RESTORE, self._order.subject, "unknown", str(error), hint=_AGAIN)
        return drilled

    def _restore(self, databases: Databases, record: ExportRecord, drilled: Drill) -> Drill:
        monotonic = self._access.patience.monotonic
        begun = monotonic()
        location = self._location(databases)
        importer = self._access.importer(record.uri, self._scratch, location, self._tell)
        databases.create(self._scratch, location)
        created = monotonic()
        drilled = replace(drilled, create_seconds=round(created - begun, 3))
        importer.carry_out(importer.plan())
        imported = monotonic()
        drilled = replace(drilled, restore_seconds=round(imported - created, 3))
        comparison = compare_documents(
            self._access.read(record.uri),
            metadata_name(split_uri(record.uri)[1]),
            self._order.most_documents,
            self._start,
            self._access.documents(self._scratch).fields,
        )
        ended = monotonic()
        drilled = replace(drilled, compare_seconds=round(ended - imported, 3), compared=comparison.compared)
        return self._judged(record, drilled, comparison, round(ended - begun, 3))

    def _judged(self, record: ExportRecord, drilled: Drill, comparison: Comparison, seconds: float) -> Drill:
        if not comparison.is_equal:
            told = (
                f"{comparison.missing} documents of {record.uri} are missing after the restore and "
                f"{comparison.different} differ, of {comparison.compared} compared: {'; '.join(comparison.told)}"
            )
            self._found.add(_RESTORE, self._order.subject, "critical", told, hint=_ANOTHER)
            return drilled
        compared = "all" if comparison.compared == record.documents else str(comparison.compared)
        told = f"{record.documents} documents were restored into a database of their own in {format_duration(seconds)}"
        told += f", their counts and {compared} documents compared one by one are equal to the export's"
        self._found.add(_RESTORE, self._order.subject, "ok", told, value=seconds, unit="s")
        return replace(
            drilled,
            rto_seconds=seconds,
            documents=record.documents,
            collections=dict(record.collections),
            digest=comparison.digest,
        )

    def _predict(self, record: ExportRecord) -> None:
        databases = self._access.databases()
        importer = self._access.importer(record.uri, self._scratch, self._location(databases), self._tell)
        self._found.add(_RESTORE, self._order.subject, "ok", importer.predict(importer.plan())["msg"])
        for database in self._leftovers(databases):
            told = f"{database}, which a drill that was killed left, would be deleted"
            self._found.add("drill_leftovers", self._order.subject, "ok", told)

    def _recovery_point(self, drilled: Drill, record: ExportRecord) -> Drill:
        if record.taken_at is None:
            return drilled
        seconds = round((self._now - record.taken_at).total_seconds(), 3)
        told = f"the export is {format_duration(seconds)} old"
        self._found.add("recovery_point", self._order.subject, "ok", told, value=seconds, unit="s")
        return replace(drilled, rpo_seconds=seconds)

    def _location(self, databases: Databases) -> str:
        """Raises DatabaseError when nobody says where the scratch database is to live."""
        if self._order.location:
            return self._order.location
        source = databases.find(self._access.target.database)
        if source is None:
            raise DatabaseError(
                f"{self._access.target.name} does not exist, so that its location is not known: check its name, or set "
                "location"
            )
        return source.location

    def _leftovers(self, databases: Databases) -> list[str]:
        return [database.id for database in databases.all() if self._names.is_leftover(database.id)]

    def _remove_leftovers(self, databases: Databases) -> None:
        for database in self._leftovers(databases):
            self._remove(databases, database, "drill_leftovers")

    @contextmanager
    def _scratch_removed(self, databases: Databases) -> Iterator[None]:
        try:
            yield
        finally:
            with not_stopped():
                self._remove(databases, self._scratch, "drill_cleanup")

    def _remove(self, databases: Databases, database: str, check: str) -> None:
        """Delete a scratch database; what could not be deleted is a warning, and the next drill tries again."""
        try:
            if databases.find(database) is None:
                return
            with suppress(DatabaseError):  # a creation that failed leaves something that can be deleted, or nothing
                databases.await_creation(database)
            if databases.find(database) is not None:
                databases.delete(database)
        except (DatabaseError, FirestoreAccessError) as error:
            told = f"the scratch database {database} could not be deleted: {error}"
            hint = "The next drill tries again; to be rid of it now use firestore_database with state absent"
            self._found.add(check, self._order.subject, "warning", told, hint=hint)
            return
        if check == "drill_leftovers":
            told = f"{database}, which a drill that was killed left, was deleted"
            self._found.add(check, self._order.subject, "ok", told)


@contextmanager
def _alone(root: str) -> Iterator[None]:
    """Hold the folder of the sets while drilling. Raises BusyError and OSError."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another drill of the sets in {root} is at work: drill again when it has ended") from None
        yield
    finally:
        os.close(descriptor)
