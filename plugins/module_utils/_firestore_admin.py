# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export operations of Firestore's Admin API, and live counts to hold exports against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

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
class ExportOperation:
    """An operation as the Admin API told it. ``state`` is a name of OperationState, ``error`` empty without one."""

    name: str
    done: bool
    state: str
    error: str
    output_uri_prefix: str
    documents: int = 0
    documents_expected: int = 0
    bytes: int = 0
    bytes_expected: int = 0
    collection_ids: tuple[str, ...] = ()
    namespace_ids: tuple[str, ...] = ()
    snapshot_time: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


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
            return self._told(self._client.export_documents(request=wanted, **self._calls).operation)

    def operation(self, name: str) -> ExportOperation:
        """Raises FirestoreAccessError."""
        with explained(self._target.admin_address):
            return self._told(self._client.get_operation({"name": name}, **self._calls))

    def exports(self) -> Iterator[ExportOperation]:
        """All exports of the database that the service still remembers. Raises FirestoreAccessError."""
        metadata_type = self._types.ExportDocumentsMetadata.pb().DESCRIPTOR
        token = ""
        while True:
            with explained(self._target.admin_address):
                page = self._client.list_operations({"name": self._target.name, "page_token": token}, **self._calls)
            for operation in page.operations:
                if operation.metadata.Is(metadata_type):
                    yield self._told(operation)
            token = page.next_page_token
            if not token:
                return

    def _told(self, operation: Any) -> ExportOperation:
        packed = self._types.ExportDocumentsMetadata.pb()()
        operation.metadata.Unpack(packed)
        metadata = self._types.ExportDocumentsMetadata.wrap(packed)
        has_error = operation.HasField("error")
        return ExportOperation(
            name=operation.name,
            done=operation.done,
            state=metadata.operation_state.name,
            error=f"{operation.error.message} (code {operation.error.code})" if has_error else "",
            output_uri_prefix=metadata.output_uri_prefix,
            documents=metadata.progress_documents.completed_work,
            documents_expected=metadata.progress_documents.estimated_work,
            bytes=metadata.progress_bytes.completed_work,
            bytes_expected=metadata.progress_bytes.estimated_work,
            collection_ids=tuple(metadata.collection_ids),
            namespace_ids=tuple(metadata.namespace_ids),
            snapshot_time=_moment(metadata.snapshot_time),
            started_at=_moment(metadata.start_time),
            ended_at=_moment(metadata.end_time),
        )


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
