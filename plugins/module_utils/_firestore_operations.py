# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations of Firestore: what is to be done about exports, when one is a success, and the wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AnyOperation,
    ExportOperation,
    ExportRequest,
    Operation,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import FirestoreUnreachableError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import ExportMetadata
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

_FIRST_PAUSE = 0.5  # seconds; small databases are exported in a few
_PAUSE_GROWTH = 1.5
_SNAPSHOT_WINDOW = timedelta(days=7)
_NEVER = datetime.min.replace(tzinfo=timezone.utc)

#: What was done, or is to be done, about an export.
STARTED, RESUMED, FOUND = "started", "resumed", "found"


class ExportFailedError(Exception):
    """There is no good export; the text says why and what to do. ``export`` is what is known of it."""

    def __init__(self, text: str, export: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.export = export


@dataclass(frozen=True)
class Patience:
    """How long an operation is waited for and how often it is asked for, in seconds, with a clock in seconds."""

    timeout: float
    interval: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True)
class Plan:
    """What is to be done, with the operation that is there already."""

    action: str
    operation: ExportOperation | None = None


def must_be_snapshot_time(moment: datetime, now: datetime) -> None:
    """Raises ValueError when Firestore could not export the state of that moment."""
    if moment.second or moment.microsecond:
        raise ValueError(f"snapshot_time {isoformat(moment)} is no whole minute")
    if not now - _SNAPSHOT_WINDOW < moment < now:
        raise ValueError(f"snapshot_time {isoformat(moment)} is not within the past seven days")


def make_plan(request: ExportRequest, exports: Iterable[ExportOperation], metadata: ExportMetadata | None) -> Plan:
    """What is to be done, given the operations that Firestore knows and the overall metadata, if there is any.

    Raises ExportFailedError when the folder holds, or is being filled with, something else than is wanted.
    """
    ours = [operation for operation in exports if operation.output_uri_prefix.rstrip("/") == request.uri]
    newest = max(ours, key=lambda operation: operation.started_at or _NEVER, default=None)
    if newest is not None and not newest.done:
        _must_match(request, newest)
        return Plan(RESUMED, newest)
    if metadata is None:
        return Plan(STARTED)
    if newest is not None:
        _must_match(request, newest)
        why = fault_of(newest)
        if why:
            raise ExportFailedError(
                f"{request.uri} holds an export whose operation {newest.name} {why}: do not use it, export to another "
                "folder"
            )
    elif set(metadata.collections) != set(request.collection_ids):
        raise ExportFailedError(_other(request, tuple(metadata.collections)))
    return Plan(FOUND, newest)


def _must_match(request: ExportRequest, operation: ExportOperation) -> None:
    if set(operation.collection_ids) != set(request.collection_ids):
        raise ExportFailedError(_other(request, operation.collection_ids))
    if set(operation.namespace_ids) != set(request.namespace_ids) or operation.snapshot_time != request.snapshot_time:
        raise ExportFailedError(
            f"{request.uri} belongs to an export of other namespaces or another snapshot_time ({operation.name}): "
            "export to another folder"
        )


def _other(request: ExportRequest, found: Iterable[str]) -> str:
    return (
        f"{request.uri} belongs to an export of {_groups(found)}, wanted is one of {_groups(request.collection_ids)}: "
        "export to another folder"
    )


def _groups(collections: Iterable[str]) -> str:
    return ", ".join(sorted(collections)) or "all collections"


def fault_of(operation: Operation) -> str:
    """Why an operation is no success, as the rest of a sentence; empty when it is one.

    Without an error is not enough, nor is done: a cancelled export is done, and leaves files that cannot be imported.
    """
    if not operation.done:
        return f"is still {operation.state}"
    if operation.error:
        return f"ended in the state {operation.state} with the error: {operation.error}"
    if operation.state != "SUCCESSFUL":
        return f"is done, but in the state {operation.state} and not SUCCESSFUL"
    return ""


def wait(
    operation: AnyOperation,
    poll: Callable[[str], AnyOperation],
    patience: Patience,
    tell: Callable[[AnyOperation], None],
) -> AnyOperation:
    """Ask for the operation until it is done or patience ends; the last answer, done or not.

    ``tell`` hears of each answer. A service that cannot be reached for a while is asked again: the operation goes on
    without us. Raises FirestoreUnreachableError when it cannot be reached at the end either.
    """
    deadline = patience.monotonic() + patience.timeout
    pause = min(_FIRST_PAUSE, patience.interval)
    tell(operation)
    while not operation.done:
        left = deadline - patience.monotonic()
        if left <= 0:
            break
        patience.sleep(min(pause, left))
        pause = min(pause * _PAUSE_GROWTH, patience.interval)
        try:
            operation = poll(operation.name)
        except FirestoreUnreachableError:
            if patience.monotonic() >= deadline:
                raise
            continue
        tell(operation)
    return operation
