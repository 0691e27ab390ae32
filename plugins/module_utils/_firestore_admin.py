# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long-running operations of Firestore's Admin API, and live counts to hold exports against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    Target,
    admin_client,
    data_client,
    explained,
)


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported, and where to; empty sequences mean everything."""

    uri: str
    collection_ids: Sequence[str] = ()
    namespace_ids: Sequence[str] = ()
    snapshot_time: datetime | None = None


@dataclass(frozen=True)
class Operation:
    """An operation as the Admin API told it. ``state`` is a name of OperationState, ``error`` empty without one."""

    name: str
    done: bool
    state: str
    error: str
    documents: int = 0
    documents_expected: int = 0
    bytes: int = 0
    bytes_expected: int = 0
    collection_ids: tuple[str, ...] = ()
    namespace_ids: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class ExportOperation(Operation):
    """The export of documents to a folder in a bucket."""

    output_uri_prefix: str = ""
    snapshot_time: datetime | None = None


@dataclass(frozen=True)
class ImportOperation(Operation):
    """The import of an export."""

    input_uri_prefix: str = ""


@dataclass(frozen=True)
class DeletionOperation(Operation):
    """The deletion of all documents of some collection groups."""


@dataclass(frozen=True)
class CreationOperation(Operation):
    """The creation of a database. It has no state but done and error."""


AnyOperation = TypeVar("AnyOperation", bound=Operation)
#: By the kind of operation, the message that describes one.
_MESSAGES: dict[type[Operation], str] = {
    Operation: "DeleteDatabaseMetadata",
    ExportOperation: "ExportDocumentsMetadata",
    ImportOperation: "ImportDocumentsMetadata",
    DeletionOperation: "BulkDeleteDocumentsMetadata",
    CreationOperation: "CreateDatabaseMetadata",
}
_TIMES = {"snapshot_time": "snapshot_time", "started_at": "start_time", "ended_at": "end_time"}


class AdminApi:
    """The Admin API of one database. ``timeout``: seconds that one request may take."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._client = admin_client(target)
        # Each request is tried once: who waits for an operation asks again anyway, and a start must not be doubled.
        self._calls = {"timeout": timeout, "retry": None}
        self._types = load("google.cloud.firestore_admin_v1", "types")

    def start_export(self, request: ExportRequest) -> ExportOperation:
        """Raises FirestoreAccessError; then it is not known whether the export was started."""
        wanted: dict[str, Any] = {
            "name": self._target.name,
            "output_uri_prefix": request.uri,
            "collection_ids": list(request.collection_ids),
            "namespace_ids": list(request.namespace_ids),
        }
        if request.snapshot_time is not None:
            wanted["snapshot_time"] = request.snapshot_time
        with explained(self._target.admin_address):
            return self._told(self._client.export_documents(request=wanted, **self._calls).operation, ExportOperation)

    def start_import(self, uri: str, collection_ids: Sequence[str] = ()) -> ImportOperation:
        """Raises FirestoreAccessError; then it is not known whether the import was started."""
        wanted = {"name": self._target.name, "input_uri_prefix": uri, "collection_ids": list(collection_ids)}
        with explained(self._target.admin_address):
            return self._told(self._client.import_documents(request=wanted, **self._calls).operation, ImportOperation)

    def start_deletion(self, collection_ids: Sequence[str]) -> DeletionOperation:
        """Delete all documents of some collection groups. Raises FirestoreAccessError as ``start_import``.

        Raises ValueError without any: the service would take that for all.
        """
        if not collection_ids or not all(collection_ids):
            raise ValueError("documents are deleted of named collection groups only")
        wanted = {"name": self._target.name, "collection_ids": list(collection_ids)}
        with explained(self._target.admin_address):
            started = self._client.bulk_delete_documents(request=wanted, **self._calls).operation
        return self._told(started, DeletionOperation)

    def poll(self, kind: type[AnyOperation]) -> Callable[[str], AnyOperation]:
        """A function that asks for an operation of that kind by its name. It raises FirestoreAccessError."""

        def ask(name: str) -> AnyOperation:
            with explained(self._target.admin_address):
                return self._told(self._client.get_operation({"name": name}, **self._calls), kind)

        return ask

    def cancel(self, name: str) -> None:
        """Ask the service to end an operation; it goes on until it is done. Raises FirestoreAccessError."""
        with explained(self._target.admin_address):
            self._client.cancel_operation({"name": name}, **self._calls)

    def operations(self, kind: type[AnyOperation]) -> Iterator[AnyOperation]:
        """All of that kind that the service still remembers of the database. Raises FirestoreAccessError."""
        metadata_type = getattr(self._types, _MESSAGES[kind]).pb().DESCRIPTOR
        token = ""
        while True:
            with explained(self._target.admin_address):
                page = self._client.list_operations({"name": self._target.name, "page_token": token}, **self._calls)
            for operation in page.operations:
                if operation.metadata.Is(metadata_type):
                    yield self._told(operation, kind)
            token = page.next_page_token
            if not token:
                return

    def _told(self, operation: Any, kind: type[AnyOperation]) -> AnyOperation:
        return told(operation, kind, self._types)


def told(operation: Any, kind: type[AnyOperation], types: Any) -> AnyOperation:
    """A google.longrunning.Operation of that kind; ``types`` is google.cloud.firestore_admin_v1.types."""
    message = getattr(types, _MESSAGES[kind])
    packed = message.pb()()
    operation.metadata.Unpack(packed)
    metadata = message.wrap(packed)
    known = message.pb().DESCRIPTOR.fields_by_name
    has_error = operation.HasField("error")
    details: dict[str, Any] = {}
    for name in ("output_uri_prefix", "input_uri_prefix"):
        if name in known:
            details[name] = getattr(metadata, name)
    for name in ("collection_ids", "namespace_ids"):
        if name in known:
            details[name] = tuple(getattr(metadata, name))
    for unit in ("documents", "bytes"):
        if f"progress_{unit}" in known:
            progress = getattr(metadata, f"progress_{unit}")
            details.update({unit: progress.completed_work, f"{unit}_expected": progress.estimated_work})
    for field, name in _TIMES.items():
        if name in known and field in kind.__dataclass_fields__:
            details[field] = _moment(getattr(metadata, name))
    if "operation_state" in known:
        state = metadata.operation_state.name
    else:
        state = "SUCCESSFUL" if operation.done and not has_error else "FAILED" if operation.done else "PROCESSING"
    error = f"{operation.error.message} (code {operation.error.code})" if has_error else ""
    return kind(name=operation.name, done=operation.done, state=state, error=error, **details)


class LiveCounts:
    """Counts documents of one database as it is now, or as it was at ``read_time``.

    ``timeout``: seconds that one count may take. Google bills one read for up to 1,000 documents counted.
    """

    def __init__(self, target: Target, timeout: float, read_time: datetime | None = None) -> None:
        self._target, self._read_time = target, read_time
        self._client = data_client(target)
        retry = load("google.api_core", "retry").Retry(timeout=timeout)
        # Without this word, which every emulator takes, it would apply the rules for users.
        metadata = [("authorization", "Bearer owner")] if target.is_stand_in else []
        self._calls = {"timeout": timeout, "retry": retry, "metadata": metadata}
        self._documents = f"{target.name}/documents"

    def count(self, collection: str) -> int:
        """Documents of a collection group, at any depth. Raises FirestoreAccessError."""
        return self.count_query({"from_": [{"collection_id": collection, "all_descendants": True}]}, collection)

    def count_query(self, query: Mapping[str, Any], what: str) -> int:
        """Documents that a structured query finds; ``what`` names them. Raises FirestoreAccessError."""
        counted = {"structured_query": query, "aggregations": [{"alias": "documents", "count": {}}]}
        request: dict[str, Any] = {"parent": self._documents, "structured_aggregation_query": counted}
        if self._read_time is not None:
            request["read_time"] = self._read_time
        with explained(f"{self._target.data_address}, count of {what}"):
            answers = self._client.run_aggregation_query(request=request, **self._calls)
            return sum(int(answer.result.aggregate_fields["documents"].integer_value) for answer in answers)

    def root_collections(self) -> list[str]:
        """The collections at the root of the database. Raises FirestoreAccessError."""
        request: dict[str, Any] = {"parent": self._documents}
        if self._read_time is not None:
            request["read_time"] = self._read_time
        with explained(self._target.data_address):
            return sorted(self._client.list_collection_ids(request=request, **self._calls))


def _moment(timestamp: Any) -> datetime | None:
    """A proto-plus timestamp as a plain moment in UTC."""
    return datetime.fromtimestamp(timestamp.timestamp(), timezone.utc) if timestamp else None
