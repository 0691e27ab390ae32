# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds the documents of a database against those of an export, which is read without Firestore, one by one.

What the database holds beyond the export is not seen here: counts show that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import Target, data_client, explained
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_entities import (
    Fields,
    exported_fields,
    stored_fields,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    Opener,
    document_path,
    entities,
    format_path,
    read_metadata,
    read_part,
)

_BATCH_DOCUMENTS = 300
_BATCH_BYTES = 4 << 20
_TOLD = 3  # differences that are described


class Documents:
    """Reads documents of one database by their paths. ``timeout``: seconds that one request may take."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._client = data_client(target)
        retry = load("google.api_core", "retry").Retry(timeout=timeout)
        metadata = [("authorization", "Bearer owner")] if target.is_stand_in else []
        self._calls = {"timeout": timeout, "retry": retry, "metadata": metadata}
        self._answer = load("google.cloud.firestore_v1", "types").BatchGetDocumentsResponse

    def fields(self, paths: Sequence[str]) -> dict[str, Fields]:
        """The fields of some documents by their paths; those that are not there are not in it.

        Raises FirestoreAccessError.
        """
        parent = f"{self._target.name}/documents/"
        request = {"database": self._target.name, "documents": [parent + path for path in paths]}
        found = {}
        with explained(f"{self._target.data_address}, documents of {self._target.database}"):
            for answer in self._client.batch_get_documents(request=request, **self._calls):
                document = self._answer.pb(answer).found
                if document.name:
                    found[document.name[len(parent) :]] = stored_fields(document.fields)
        return found


@dataclass
class Comparison:
    """What came out. ``digest`` is of the documents that were compared, as the database has them."""

    compared: int = 0
    missing: int = 0
    different: int = 0
    told: list[str] = field(default_factory=list)
    _digest: int = 0

    @property
    def digest(self) -> str:
        return f"{self._digest:064x}"

    @property
    def is_equal(self) -> bool:
        return not self.missing and not self.different

    def add(self, path: str, exported: Fields, stored: Fields | None) -> None:
        """Take one document of the export, and what the database has in its place."""
        self.compared += 1
        if stored is None:
            self.missing += 1
            self._tell(f"{path} is missing")
            return
        # Sums of hashes do not depend on the order in which documents come.
        self._digest = (self._digest + _fingerprint(path, stored)) % (1 << 256)
        if stored != exported:
            self.different += 1
            names = sorted(name for name in {*exported, *stored} if exported.get(name) != stored.get(name))
            self._tell(f"{path} differs in {', '.join(names[:_TOLD])}")

    def _tell(self, difference: str) -> None:
        if len(self.told) < _TOLD:
            self.told.append(difference)


def compare_documents(
    read: Opener,
    metadata_name: str,
    limit: int,
    start: int,
    fetch: Callable[[Sequence[str]], Mapping[str, Fields]],
) -> Comparison:
    """Compare all documents of an export, or ``limit`` of them that are evenly spread, beginning anywhere.

    ``start`` is any number: another one takes other documents. ``fetch`` gives what the database holds by paths.
    Raises ExportFormatError, IncomparableError, and what ``read`` and ``fetch`` raise.
    """
    total = read_metadata(read, metadata_name).documents
    wanted = min(limit, total)
    comparison = Comparison()
    for batch in _batches(_spread(_all_entities(read, metadata_name), total, wanted, start), metadata_name):
        stored = fetch(list(batch))
        for path, entity in batch.items():
            comparison.add(path, exported_fields(entity, path), stored.get(path))
    return comparison


def _all_entities(read: Opener, metadata_name: str) -> Iterator[bytes]:
    for part in read_metadata(read, metadata_name).parts:
        yield from entities(read, read_part(read, part).outputs)


def _spread(documents: Iterable[bytes], total: int, wanted: int, start: int) -> Iterator[bytes]:
    """``wanted`` of ``total`` documents, evenly spread."""
    for number, document in enumerate(documents, start % max(total, 1)):
        if (number + 1) * wanted // total > number * wanted // total:
            yield document


def _batches(documents: Iterable[bytes], metadata_name: str) -> Iterator[dict[str, bytes]]:
    """Documents by their paths, as many at once as one request should ask for."""
    batch: dict[str, bytes] = {}
    size = 0
    for document in documents:
        batch[format_path(document_path(document, metadata_name))] = document
        size += len(document)
        if len(batch) == _BATCH_DOCUMENTS or size > _BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _fingerprint(path: str, fields: Fields) -> int:
    return int.from_bytes(hashlib.sha256(repr((path, sorted(fields.items()))).encode()).digest(), "big")
