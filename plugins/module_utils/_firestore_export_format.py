# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a Firestore export without Firestore, and proves that it is whole.

An export is a folder ``NAME`` with ``NAME.overall_export_metadata``, a log whose first record is the format's version
and whose others point to the parts. A part is one ``*.export_metadata`` file that lists the part's output files,
beside which they lie. An output file is a log of documents (EntityProto messages). A log is LevelDB's: blocks of
32 KiB, records cut into fragments, each fragment with a masked CRC32C of its own.
"""

from __future__ import annotations

import os
import posixpath
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import IO

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load

#: Opens a file of the export by its name, with ``/`` between folders; FileNotFoundError when it is not there.
Opener = Callable[[str], AbstractContextManager[IO[bytes]]]

#: Collections and ids from the root to the document: (("users", "alice"), ("orders", "7")).
DocumentPath = tuple[tuple[str, str], ...]

METADATA_SUFFIX = ".overall_export_metadata"

_VERSION = b"3"
_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_CRC_MASK = 0xA282EAD8
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


class ExportFormatError(Exception):
    """The export is damaged, incomplete or of an unknown format; the text names the file and what is wrong."""


@dataclass(frozen=True)
class ExportPart:
    """One part of an export as the overall metadata lists it: one collection group, or everything."""

    metadata_name: str
    collections: tuple[str, ...]
    documents: int
    bytes: int


@dataclass(frozen=True)
class ExportMetadata:
    """What the overall metadata says of an export, unproved."""

    name: str
    parts: tuple[ExportPart, ...]

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @property
    def bytes(self) -> int:
        """Size of all output files."""
        return sum(part.bytes for part in self.parts)

    @property
    def collections(self) -> dict[str, int]:
        """Documents per collection group; empty when the export was made of all groups together."""
        return {part.collections[0]: part.documents for part in self.parts if len(part.collections) == 1}


@dataclass(frozen=True)
class PartMetadata:
    """What a part's own metadata says: when it was made and of which output files it consists."""

    outputs: tuple[str, ...]
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True)
class ExportSummary:
    """What was read back: every figure was counted, none was copied from the metadata."""

    documents: int
    bytes: int
    outputs: int
    collections: Mapping[str, int]


def folder_opener(root: str) -> Opener:
    """Opens the files of an export that lies in a local folder."""

    def read(name: str) -> IO[bytes]:
        return open(os.path.join(root, *name.split("/")), "rb")

    return read


def metadata_name(prefix: str) -> str:
    """Name of the overall metadata of the export in folder ``prefix``: the two always carry the same last name."""
    folder = prefix.rstrip("/")
    return f"{folder}/{posixpath.basename(folder)}{METADATA_SUFFIX}"


def read_metadata(read: Opener, name: str) -> ExportMetadata:
    """The overall metadata called ``name``. Raises ExportFormatError, or FileNotFoundError when it is not there."""
    with read(name) as stream:
        found = list(records(stream, name))
    if not found or found[0] != _VERSION:
        raise ExportFormatError(f"{name}: no overall metadata of format {_VERSION.decode()}")
    folder = posixpath.dirname(name)
    parts = (_part(folder, pointer, name) for record in found[1:] for pointer in _values(record, 1, _BYTES, name))
    return ExportMetadata(name, tuple(parts))


def read_part(read: Opener, part: ExportPart) -> PartMetadata:
    """A part's own metadata. Raises ExportFormatError, also when it is missing."""
    name = part.metadata_name
    with _listed(read, name) as stream:
        content = stream.read()
    folder = posixpath.dirname(name)
    outputs = tuple(
        posixpath.join(folder, _text(output, name))
        for section in _values(content, 2, _BYTES, name)
        for output in _values(section, 2, _BYTES, name)
    )
    made = _bytes(content, 1, name)
    return PartMetadata(outputs, _moment(_number(made, 2, name), name), _moment(_number(made, 3, name), name))


def entities(read: Opener, outputs: tuple[str, ...]) -> Iterator[bytes]:
    """Every document of some output files, as the serialized message. Raises ExportFormatError."""
    for name in outputs:
        with _listed(read, name) as stream:
            yield from records(stream, name)


def verify_export(read: Opener, name: str) -> ExportSummary:
    """Read a whole export back and prove it against its overall metadata called ``name``.

    Proved are the CRC32C of each fragment of each record, that every listed file is there and whole, that no
    document is in it twice, and that documents and bytes of each part are those of the metadata. Needs memory for
    one number per document. Raises ExportFormatError with the first thing that is wrong, and what ``read`` raises.
    """
    try:
        metadata = read_metadata(read, name)
    except FileNotFoundError:
        raise ExportFormatError(f"{name} is missing: the export was never completed, or was removed") from None
    whole = _Tally()
    for part in metadata.parts:
        before = (whole.documents, whole.bytes)
        for output in read_part(read, part).outputs:
            whole.add(read, output)
        _compare(part, whole.documents - before[0], whole.bytes - before[1])
    return ExportSummary(whole.documents, whole.bytes, whole.outputs, dict(sorted(whole.collections.items())))


class _Tally:
    """Counts what the output files hold, and refuses a document that comes twice."""

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self.outputs = 0
        self.collections: Counter[str] = Counter()
        # Fingerprints of 64 bits in place of the paths: an export may hold millions.
        self._seen: set[int] = set()

    def add(self, read: Opener, name: str) -> None:
        with _listed(read, name) as stream:
            for entity in records(stream, name):
                self._add_document(document_path(entity, name), name)
            self.bytes += stream.tell()
        self.outputs += 1

    def _add_document(self, path: DocumentPath, name: str) -> None:
        fingerprint = hash(path)
        if fingerprint in self._seen:
            raise ExportFormatError(f"{name}: document {format_path(path)} is in the export twice")
        self._seen.add(fingerprint)
        self.documents += 1
        self.collections[path[-1][0]] += 1


def _compare(part: ExportPart, documents: int, size: int) -> None:
    """Raises ExportFormatError when a part does not hold what the overall metadata says."""
    what = " and ".join(part.collections) or "all collections"
    for unit, listed, held in (("documents", part.documents, documents), ("bytes", part.bytes, size)):
        if listed != held:
            raise ExportFormatError(
                f"{part.metadata_name}: the export lists {listed} {unit} of {what}, its output files hold {held}"
            )


def document_path(entity: bytes, name: str) -> DocumentPath:
    """Where a document lies. ``name`` is the file's, for the error. Raises ExportFormatError."""
    path = _bytes(_bytes(entity, 13, name), 14, name)
    elements = tuple(_path_element(element, name) for element in _values(path, 1, _GROUP, name))
    if not elements:
        raise ExportFormatError(f"{name}: a document without a path")
    return elements


def format_path(path: DocumentPath) -> str:
    """A document's path for people: ``users/alice/orders/7``."""
    return "/".join(f"{collection}/{identifier}" for collection, identifier in path)


def records(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The records of a LevelDB log. Raises ExportFormatError on a wrong CRC and on a log that was cut off."""
    parts: list[bytes] = []
    for kind, data, position in _fragments(stream, name):
        if (kind in (_FULL, _FIRST)) == bool(parts):
            raise ExportFormatError(f"{name}: a record is torn before byte {position}")
        parts.append(data)
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
    if parts:
        raise ExportFormatError(f"{name}: the file ends in the middle of a record, it was cut off")


def _fragments(stream: IO[bytes], name: str) -> Iterator[tuple[int, bytes, int]]:
    """Kind, data and position of each fragment, its CRC32C proved."""
    crc32c: Callable[[bytes], int] = load("google_crc32c").value
    start = 0
    while block := _read_block(stream):
        offset = 0
        while len(block) - offset >= _HEADER.size:
            masked, length, kind = _HEADER.unpack_from(block, offset)
            if not (masked or length or kind):
                break
            data = block[offset + _HEADER.size : offset + _HEADER.size + length]
            if len(data) < length:
                raise ExportFormatError(f"{name}: cut off inside the record at byte {start + offset}")
            # The checksum covers the kind and the data.
            if crc32c(block[offset + _HEADER.size - 1 : offset + _HEADER.size + length]) != _unmask(masked):
                raise ExportFormatError(f"{name}: damaged, the CRC32C of the record at byte {start + offset} is wrong")
            if not _FULL <= kind <= _LAST:
                raise ExportFormatError(f"{name}: record of unknown kind {kind} at byte {start + offset}")
            yield kind, data, start + offset
            offset += _HEADER.size + length
        if any(block[offset:]) or (0 < len(block) - offset < _HEADER.size and len(block) < _BLOCK):
            raise ExportFormatError(f"{name}: damaged or cut off at byte {start + offset}")
        start += len(block)


def _read_block(stream: IO[bytes]) -> bytes:
    """The next block, shorter than others only at the end of the file."""
    block = stream.read(_BLOCK)
    while 0 < len(block) < _BLOCK:
        more = stream.read(_BLOCK - len(block))
        if not more:
            break
        block += more
    return block


def _unmask(masked: int) -> int:
    rotated = (masked - _CRC_MASK) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _listed(read: Opener, name: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file that the metadata lists. Raises ExportFormatError when it is missing."""
    try:
        return read(name)
    except FileNotFoundError:
        raise ExportFormatError(f"{name} is missing although the export lists it") from None


def _part(folder: str, pointer: bytes, name: str) -> ExportPart:
    collections = tuple(
        _text(kind, name) for spec in _values(pointer, 1, _BYTES, name) for kind in _values(spec, 2, _BYTES, name)
    )
    listed = posixpath.join(folder, _text(_bytes(pointer, 2, name), name))
    return ExportPart(listed, collections, _number(pointer, 3, name), _number(pointer, 4, name))


def _path_element(element: bytes, name: str) -> tuple[str, str]:
    found = {number: value for number, _wire, value in _fields(element, name)}
    kind, identifier = found.get(2), found.get(4, found.get(3))
    if not isinstance(kind, bytes) or identifier is None:
        raise ExportFormatError(f"{name}: a document without a path")
    return _text(kind, name), _text(identifier, name) if isinstance(identifier, bytes) else f"__id{identifier}__"


def _moment(microseconds: int, name: str) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ExportFormatError(f"{name}: a time that is out of range") from None


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ExportFormatError(f"{name}: a name that is no UTF-8 text") from None


def _bytes(message: bytes, number: int, name: str) -> bytes:
    """The first field of that number. Raises ExportFormatError when there is none."""
    for value in _values(message, number, _BYTES, name):
        return value
    raise ExportFormatError(f"{name}: field {number} is missing")


def _number(message: bytes, number: int, name: str) -> int:
    """The first integer field of that number; 0, as protocol buffers have it, when there is none."""
    for found, wire, value in _fields(message, name):
        if found == number and wire == _VARINT:
            if not isinstance(value, int):
                raise AssertionError("a varint is an integer")
            return value
    return 0


def _values(message: bytes, number: int, wire_type: int, name: str) -> Iterator[bytes]:
    """All fields of that number and wire type."""
    for found, wire, value in _fields(message, name):
        if found == number and wire == wire_type and isinstance(value, bytes):
            yield value


def _fields(message: bytes, name: str) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field of a message; groups come as their content."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position, name)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            integer, position = _varint(message, position, name)
            yield number, wire, integer
        else:
            start, end, position = _extent(message, position, wire, name)
            yield number, wire, message[start:end]


def _extent(message: bytes, position: int, wire: int, name: str) -> tuple[int, int, int]:
    """Start and end of the value of the field whose tag ends at ``position``, and where the next field starts."""
    if wire == _GROUP:
        return (position, *_end_of_group(message, position, name))
    if wire == _BYTES:
        length, position = _varint(message, position, name)
    elif wire in (_FIXED64, _FIXED32):
        length = 8 if wire == _FIXED64 else 4
    else:
        raise ExportFormatError(f"{name}: a message with the unknown wire type {wire}")
    if position + length > len(message):
        raise ExportFormatError(f"{name}: a message is cut off")
    return position, position + length, position + length


def _end_of_group(message: bytes, position: int, name: str) -> tuple[int, int]:
    """End of a group's content and start of what follows its end tag; groups may hold groups."""
    depth = 1
    while True:
        end = position
        tag, position = _varint(message, position, name)
        wire = tag & 7
        if wire == _END_GROUP:
            depth -= 1
            if not depth:
                return end, position
        elif wire == _GROUP:
            depth += 1
        elif wire == _VARINT:
            _value, position = _varint(message, position, name)
        else:
            position = _extent(message, position, wire, name)[2]


def _varint(message: bytes, position: int, name: str) -> tuple[int, int]:
    """An integer in base 128 and the position after it. Raises ExportFormatError when the message ends within it."""
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ExportFormatError(f"{name}: a message is cut off")
