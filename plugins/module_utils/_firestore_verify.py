# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds an export in a bucket against the record of it that a backup set keeps, and against the live database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    FirestoreUnreachableError,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportFormatError,
    Opener,
    metadata_name,
    read_metadata,
    verify_export,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: From this level on every byte of the export is read back.
READ_BACK_LEVEL = 2
#: On this level its documents are counted in the live database as well.
LIVE_LEVEL = 4
_TAKE_ANOTHER = "do not import it; take a new backup set"
_COMPARE = "Look which of the two is right: documents may have been lost there, or the export is one of something else"
_FEW_DOCUMENTS = 10  # so many documents more or less in a group are never a difference between two times


class RecordError(Exception):
    """A file is no record of an export; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class ExportRecord:
    """What was recorded of an export when it was made. ``taken_at`` is the age of its oldest state, if it is known."""

    uri: str
    documents: int
    bytes: int
    collections: Mapping[str, int]
    snapshot_time: datetime | None = None
    taken_at: datetime | None = None


@dataclass(frozen=True)
class Live:
    """The database to compare with: ``counts`` as it is now (None) or was at a time. ``tolerance`` in percent."""

    counts: Callable[[datetime | None], LiveCounts]
    tolerance: float


@dataclass(frozen=True)
class Verification:
    """What was found out about an export: the figures are those that were read back, None when they were not.

    ``live`` are the documents per collection group that the database has, or had at ``live_at``; None when they were
    not counted.
    """

    level: int = 0
    documents: int | None = None
    bytes: int | None = None
    collections: Mapping[str, int] | None = None
    live: Mapping[str, int] | None = None
    live_at: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        return dict(vars(self))


def read_record(path: str) -> ExportRecord:
    """The record that ``firestore_export`` returned as ``export``, from a file. Raises RecordError and OSError."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        uri = content["output_uri_prefix"]
        split_uri(uri)
        collections = {str(name): int(count) for name, count in content["collections"].items()}
        snapshot_time, taken_at = (
            parse_time(told) if told else None
            for told in (content.get("snapshot_time"), content.get("snapshot_time") or content.get("started_at"))
        )
        return ExportRecord(uri, int(content["documents"]), int(content["bytes"]), collections, snapshot_time, taken_at)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no record of an export: {error!r}") from error


def verify_record(
    record: ExportRecord,
    subject: str,
    level: int,
    open_bucket: Callable[[str], Opener],
    found: FindingsBuilder,
    live: Live | None = None,
) -> Verification:
    """Level 1: the metadata is in the bucket and agrees with the record. From level 2 on all is read back as well.

    On level 4 the documents are counted in the ``live`` database. ``open_bucket`` gives the opener of a bucket by its
    name. What cannot be reached is unknown, what is not as it should be is critical.
    """
    reached = Verification()
    for number, check in ((1, _check_metadata), (READ_BACK_LEVEL, _check_content)):
        if number > level:
            break
        try:
            reached = check(record, open_bucket, found, subject)
        except ExportFormatError as error:
            found.add(_CHECKS[number], subject, "critical", f"{record.uri}: {error}", hint=_TAKE_ANOTHER)
            break
        except FirestoreAccessError as error:
            hint = "See whether the bucket can be reached from this host, then verify again"
            found.add(_CHECKS[number], subject, "unknown", f"{record.uri} could not be read: {error}", hint=hint)
            break
    if level >= LIVE_LEVEL and live is not None and reached.level == READ_BACK_LEVEL:
        reached = _check_live(record, open_bucket, found, subject, live, reached)
    return reached


_CHECKS = {1: "export_metadata", READ_BACK_LEVEL: "export_content", LIVE_LEVEL: "export_live"}


def _check_metadata(
    record: ExportRecord, open_bucket: Callable[[str], Opener], found: FindingsBuilder, subject: str
) -> Verification:
    bucket, folder = split_uri(record.uri)
    try:
        metadata = read_metadata(open_bucket(bucket), metadata_name(folder))
    except FileNotFoundError as error:
        raise ExportFormatError(f"{error} is missing: the export was removed from the bucket") from error
    _compare(record, metadata.documents, metadata.bytes, "its metadata lists")
    summary = f"the metadata of {record.uri} is in the bucket and lists {metadata.documents} documents as recorded"
    found.add(_CHECKS[1], subject, "ok", summary, value=metadata.documents, unit="documents")
    return Verification(1)


def _check_content(
    record: ExportRecord, open_bucket: Callable[[str], Opener], found: FindingsBuilder, subject: str
) -> Verification:
    bucket, folder = split_uri(record.uri)
    held = verify_export(open_bucket(bucket), metadata_name(folder))
    _compare(record, held.documents, held.bytes, "it holds")
    if record.collections and dict(record.collections) != dict(held.collections):
        raise ExportFormatError(f"it holds the collections {dict(held.collections)}, recorded are {record.collections}")
    summary = f"{held.documents} documents of {record.uri} were read back, every checksum is right"
    found.add(_CHECKS[READ_BACK_LEVEL], subject, "ok", summary, value=held.documents, unit="documents")
    return Verification(READ_BACK_LEVEL, held.documents, held.bytes, dict(held.collections))


def _check_live(
    record: ExportRecord,
    open_bucket: Callable[[str], Opener],
    found: FindingsBuilder,
    subject: str,
    live: Live,
    reached: Verification,
) -> Verification:
    exported = reached.collections or {}
    try:
        bucket, folder = split_uri(record.uri)
        metadata = read_metadata(open_bucket(bucket), metadata_name(folder))
        partial = any(part.collections for part in metadata.parts)
        counted, moment = _live_counts(live, exported, partial, record.snapshot_time)
    except FirestoreAccessError as error:
        hint = "See whether the database can be reached from this host, then verify again; the export itself is whole"
        found.add(_CHECKS[LIVE_LEVEL], subject, "unknown", f"the documents could not be counted: {error}", hint=hint)
        return reached
    reached = replace(reached, live=counted, live_at=isoformat(moment) if moment else None)
    when = f"had at the time of the export, {isoformat(moment)}," if moment else "has"
    differences = _differences(exported, counted, None if moment else live.tolerance)
    if not differences:
        total = sum(counted.values())
        about = "" if moment else "about "
        told = f"the database {when} {total} documents in {len(counted)} collection groups, {about}as many as exported"
        found.add(_CHECKS[LIVE_LEVEL], subject, "ok", told, value=total, unit="documents")
        return replace(reached, level=LIVE_LEVEL)
    told = f"the database {when} other documents than the export: {', '.join(differences)}"
    # What the database had at that very time cannot change any more, so it is the export that is wrong.
    status, hint = ("critical", _TAKE_ANOTHER) if moment else ("warning", _COMPARE)
    found.add(_CHECKS[LIVE_LEVEL], subject, status, told, value=len(differences), unit="groups", hint=hint)
    return reached


def _live_counts(
    live: Live, exported: Mapping[str, int], partial: bool, snapshot_time: datetime | None
) -> tuple[dict[str, int], datetime | None]:
    """Documents per collection group, and as of when; None is now. Raises FirestoreAccessError."""
    try:
        return _counted(live.counts(snapshot_time), exported, partial), snapshot_time
    except FirestoreUnreachableError:
        raise
    except FirestoreAccessError:
        # A database forgets what it held: after an hour, or after seven days with point-in-time recovery.
        if snapshot_time is None:
            raise
    return _counted(live.counts(None), exported, partial), None


def _counted(counts: LiveCounts, exported: Mapping[str, int], partial: bool) -> dict[str, int]:
    names = {*exported} if partial else {*exported, *counts.root_collections()}
    return {name: counts.count(name) for name in sorted(names)}


def _differences(exported: Mapping[str, int], live: Mapping[str, int], tolerance: float | None) -> list[str]:
    """A phrase for each group that differs by more than a percentage; without one none may differ."""
    told = []
    for name, count in live.items():
        held = exported.get(name, 0)
        allowed = 0.0 if tolerance is None else max(_FEW_DOCUMENTS, tolerance * max(count, held) / 100)
        if abs(count - held) > allowed:
            told.append(f"{name} {count} instead of {held}")
    return told


def _compare(record: ExportRecord, documents: int, size: int, what: str) -> None:
    for unit, recorded, actual in (("documents", record.documents, documents), ("bytes", record.bytes, size)):
        if recorded != actual:
            raise ExportFormatError(
                f"{what} {actual} {unit}, recorded are {recorded}: it is another export, or spoiled"
            )
