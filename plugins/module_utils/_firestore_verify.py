# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds an export in a bucket against the record of it that a backup set keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import FirestoreAccessError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportFormatError,
    Opener,
    metadata_name,
    read_metadata,
    verify_export,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri

#: From this level on every byte of the export is read back.
READ_BACK_LEVEL = 2
_TAKE_ANOTHER = "do not import it; take a new backup set"


class RecordError(Exception):
    """A file is no record of an export; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class ExportRecord:
    """What was recorded of an export when it was made."""

    uri: str
    documents: int
    bytes: int
    collections: Mapping[str, int]


@dataclass
class Verification:
    """What was found out about an export: the figures are those that were read back, None when they were not."""

    level: int = 0
    documents: int | None = None
    bytes: int | None = None
    collections: Mapping[str, int] | None = None

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
        return ExportRecord(uri, int(content["documents"]), int(content["bytes"]), collections)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no record of an export: {error!r}") from error


def verify_record(
    record: ExportRecord, subject: str, level: int, open_bucket: Callable[[str], Opener], found: FindingsBuilder
) -> Verification:
    """Level 1: the metadata is in the bucket and agrees with the record. From level 2 on all is read back as well.

    ``open_bucket`` gives the opener of a bucket by its name. What cannot be reached is unknown, what is not as it
    should be is critical.
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
    return reached


_CHECKS = {1: "export_metadata", READ_BACK_LEVEL: "export_content"}


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


def _compare(record: ExportRecord, documents: int, size: int, what: str) -> None:
    for unit, recorded, actual in (("documents", record.documents, documents), ("bytes", record.bytes, size)):
        if recorded != actual:
            raise ExportFormatError(
                f"{what} {actual} {unit}, recorded are {recorded}: it is another export, or spoiled"
            )
