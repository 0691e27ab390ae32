# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed export from plan to proof: found or started, waited for, judged, read back, and held against live counts.

The folder in the bucket is an export's identity. Run again with the same folder, a finished export is found, a
running one is resumed, and after a failed one a new one is started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AdminApi,
    ExportOperation,
    ExportRequest,
    LiveCounts,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import FirestoreUnreachableError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_counts import Counts, compare_counts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportMetadata,
    ExportSummary,
    Opener,
    metadata_name,
    read_metadata,
    read_part,
    verify_export,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import (
    FOUND,
    ExportFailedError,
    Patience,
    Plan,
    fault_of,
    make_plan,
    wait,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat


@dataclass(frozen=True)
class Rules:
    """When an export is good. ``count_tolerance`` is in percent; 100 accepts all counts and takes none."""

    allow_empty: bool = False
    count_tolerance: float = 5.0
    verify: bool = True


class Exporter:
    """Carries out one export. ``read`` opens objects of the request's bucket, ``tell`` hears of the progress."""

    def __init__(
        self,
        request: ExportRequest,
        rules: Rules,
        admin: AdminApi,
        live: LiveCounts,
        read: Opener,
        patience: Patience,
        tell: Callable[[ExportOperation], None],
    ) -> None:
        self._request, self._rules = request, rules
        self._admin, self._live, self._read = admin, live, read
        self._patience, self._tell = patience, tell

    def plan(self) -> Plan:
        """Raises FirestoreAccessError, ExportFailedError, ExportFormatError."""
        # In this order: an export that ends in between is then resumed, and never started a second time.
        exports = list(self._admin.operations(ExportOperation))
        return make_plan(self._request, exports, self._metadata(self._request.uri))

    def predict(self, plan: Plan) -> dict[str, Any]:
        """What the module returns in check mode of a plan other than FOUND. Raises FirestoreAccessError."""
        names = self._request.collection_ids or self._live.root_collections()
        live = {name: self._live.count(name) for name in names}
        told = ", ".join(f"{name} {count}" for name, count in live.items()) or "no documents"
        verb = "wait for the export" if plan.operation else "export"
        return {
            "changed": True,
            "msg": f"would {verb} to {self._request.uri}: {told}",
            "counts": Counts(self._rules.count_tolerance, "nothing was exported, check mode", live).as_dict(),
            **({"export": self._record(plan.operation)} if plan.operation else {}),
        }

    def carry_out(self, plan: Plan, wait_for_it: bool) -> dict[str, Any]:
        """Do what the plan says; what the module returns of it.

        Raises ExportFailedError when there is no good export, FirestoreAccessError, ExportFormatError.
        """
        if plan.action == FOUND:
            record, counts = self._prove(plan.operation, compare=False)
            message = f"{record['documents']} documents had been exported to {record['output_uri_prefix']} before"
            return {"changed": False, "msg": message, "export": record, "counts": counts.as_dict()}
        operation = plan.operation or self._admin.start_export(self._request)
        if not wait_for_it:
            message = f"the export to {operation.output_uri_prefix} is going on as {operation.name}"
            return {"changed": plan.operation is None, "msg": message, "export": self._record(operation)}
        record, counts = self._prove(self._finish(operation), compare=True)
        message = f"exported {record['documents']} documents to {record['output_uri_prefix']}"
        return {"changed": True, "msg": message, "export": record, "counts": counts.as_dict()}

    def _finish(self, operation: ExportOperation) -> ExportOperation:
        """Wait until it is done. Raises ExportFailedError when it is no success, FirestoreAccessError."""
        again = f"run the task again with output_uri_prefix {self._request.uri}"
        try:
            operation = wait(operation, self._admin.poll(ExportOperation), self._patience, self._tell)
        except FirestoreUnreachableError as error:
            raise ExportFailedError(
                f"{error}; the operation {operation.name} may go on: {again}, and it is resumed",
                self._record(operation),
            ) from error
        why = fault_of(operation)
        if why and operation.done:
            raise ExportFailedError(
                f"the export to {self._request.uri} failed, its operation {operation.name} {why}. What it left in the "
                f"bucket cannot be imported. Remove the cause and {again}: a new export is started",
                self._record(operation),
            )
        if why:
            raise ExportFailedError(
                f"the export to {self._request.uri} {why} after {format_duration(self._patience.timeout)} "
                f"({operation.documents} of {operation.documents_expected} documents, operation {operation.name}). "
                f"It goes on in Firestore: {again}, and it is resumed",
                self._record(operation),
            )
        return operation

    def _prove(self, operation: ExportOperation | None, compare: bool) -> tuple[dict[str, Any], Counts]:
        """The record of a finished export and the counts it was held against.

        Raises ExportFailedError when it is not good, FirestoreAccessError, ExportFormatError.
        """
        uri = operation.output_uri_prefix.rstrip("/") if operation else self._request.uri
        metadata = self._metadata(uri)
        if metadata is None:
            raise ExportFailedError(
                f"the export to {uri} claims success, but its overall metadata is not there: it cannot be imported. "
                "Was it removed from the bucket? Run the task again: a new export is started",
                self._record(operation),
            )
        summary = verify_export(self._read, metadata.name) if self._rules.verify else None
        record = self._record(operation, metadata, summary)
        if not record["documents"] and not self._rules.allow_empty:
            raise ExportFailedError(
                f"the export to {uri} holds no documents: are project, database and collection_ids right? "
                "Set allow_empty if the database may be empty",
                record,
            )
        return record, self._compared(record, summary is not None, compare)

    def _compared(self, record: Mapping[str, Any], read_back: bool, compare: bool) -> Counts:
        if not compare:
            return Counts(self._rules.count_tolerance, "the export was there already, the database may have changed")
        tolerance = self._rules.count_tolerance
        counts = compare_counts(self._request, record["collections"], read_back, tolerance, self._live)
        differences = counts.differences()
        if differences:
            raise ExportFailedError(
                f"the export to {record['output_uri_prefix']} differs from the database by more than "
                f"{tolerance:g} percent: {'; '.join(differences)}. Export to another folder; where "
                "documents come and go so fast, raise count_tolerance or give a snapshot_time",
                record,
            )
        return counts

    def _metadata(self, uri: str) -> ExportMetadata | None:
        try:
            return read_metadata(self._read, metadata_name(split_uri(uri)[1]))
        except FileNotFoundError:
            return None

    def _record(
        self,
        operation: ExportOperation | None,
        metadata: ExportMetadata | None = None,
        summary: ExportSummary | None = None,
    ) -> dict[str, Any]:
        """What is known of the export, as the module returns it. Figures that were counted win over claimed ones."""
        uri = operation.output_uri_prefix.rstrip("/") if operation else self._request.uri
        bucket, folder = split_uri(uri)
        started, ended = self._times(operation, metadata)
        snapshot = operation.snapshot_time if operation else self._request.snapshot_time
        described = summary or metadata
        counted = described or operation
        return {
            "operation": operation.name if operation else "",
            "output_uri_prefix": uri,
            "metadata_uri": f"gs://{bucket}/{metadata_name(folder)}",
            "documents": counted.documents if counted else 0,
            "bytes": counted.bytes if counted else 0,
            "collections": dict(described.collections) if described else {},
            "started_at": isoformat(started) if started else None,
            "ended_at": isoformat(ended) if ended else None,
            "seconds": round((ended - started).total_seconds(), 3) if started and ended else None,
            "snapshot_time": isoformat(snapshot) if snapshot else None,
            "state": operation.state if operation else "SUCCESSFUL",
            "verified": summary is not None,
        }

    def _times(
        self, operation: ExportOperation | None, metadata: ExportMetadata | None
    ) -> tuple[datetime | None, datetime | None]:
        """Start and end as the operation has them, else as the export itself does."""
        if operation is not None:
            return operation.started_at, operation.ended_at
        parts = [read_part(self._read, part) for part in metadata.parts] if metadata else []
        return (
            min((part.started_at for part in parts), default=None),
            max((part.ended_at for part in parts), default=None),
        )
