# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes Firestore exports of chosen collection groups, as the managed service does and the emulator cannot.

The format is described in ``_firestore_export_format.py``, which reads it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import google_crc32c

_BLOCK = 32768
_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
#: The field of a key that names the database; a key of the default one has none.
_DATABASE_ID = 23


def write_export(folder: Path, groups: Mapping[str, Sequence[bytes]], outputs: int = 2) -> Path:
    """Write an export named as its folder, with that many output files for each group; returns its metadata file.

    ``groups`` holds the documents (EntityProto messages) of each collection group.
    """
    started = time.time()
    pointers = b""
    for group, documents in groups.items():
        part = folder / "all_namespaces" / f"kind_{group}"
        part.mkdir(parents=True)
        names = [f"output-{number}" for number in range(outputs)]
        size = sum(write_log(part / name, documents[number::outputs]) for number, name in enumerate(names))
        metadata = part / f"all_namespaces_kind_{group}.export_metadata"
        metadata.write_bytes(_part_metadata(folder.name, names, started))
        pointers += _pointer(group, metadata.relative_to(folder).as_posix(), len(documents), size)
    overall = folder / f"{folder.name}.overall_export_metadata"
    overall.parent.mkdir(parents=True, exist_ok=True)
    write_log(overall, [b"3", pointers])
    return overall


def document(path: Sequence[tuple[str, str]], payload: bytes = b"") -> bytes:
    """A document's message: its key, and ``payload`` as the one property, which nobody reads."""
    elements = b"".join(
        _varint(1 << 3 | 3) + _field(2, group.encode()) + _field(4, name.encode()) + _varint(1 << 3 | 4)
        for group, name in path
    )
    return _field(13, _field(14, elements)) + _field(15, payload)


def moved(entity: bytes, database: str) -> bytes:
    """A document's message with a key of another database; references in its fields stay what they are."""
    length, start = _read_varint(entity, 1)
    if entity[0] != 13 << 3 | 2:
        raise ValueError("a document whose message does not begin with its key")
    key, rest = entity[start : start + length], entity[start + length :]
    place = 0
    kept = b""
    while place < len(key):
        tag, begins = _read_varint(key, place)
        size, begins = _read_varint(key, begins)
        if tag >> 3 != _DATABASE_ID:
            kept += key[place : begins + size]
        place = begins + size
    named = b"" if database == "(default)" else _field(_DATABASE_ID, database.encode())
    return _field(13, kept + named) + rest


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def write_log(path: Path, records: Iterable[bytes]) -> int:
    """Write a LevelDB log; returns its size in bytes."""
    log = bytearray()
    for record in records:
        _append(log, record)
    path.write_bytes(log)
    return len(log)


def _append(log: bytearray, record: bytes) -> None:
    """Append one record, cut where a block ends."""
    first = True
    while True:
        room = _BLOCK - len(log) % _BLOCK
        if room < _HEADER:
            log += bytes(room)
            room = _BLOCK
        part, record = record[: room - _HEADER], record[room - _HEADER :]
        kind = (_FULL if not record else _FIRST) if first else (_LAST if not record else _MIDDLE)
        checked = bytes([kind]) + part
        log += struct.pack("<IH", _masked_crc(checked), len(part)) + checked
        first = False
        if not record:
            return


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _part_metadata(name: str, outputs: Iterable[str], started: float) -> bytes:
    times = _field(2, int(started * 1e6)) + _field(3, int(time.time() * 1e6))
    listed = b"".join(_field(2, output.encode()) for output in outputs)
    return _field(1, _field(1, name.encode()) + times) + _field(2, _field(1, b"") + listed)


def _pointer(group: str, metadata: str, documents: int, size: int) -> bytes:
    spec = _field(1, 1) + _field(2, group.encode()) + _field(3, 3)
    return _field(1, _field(1, spec) + _field(2, metadata.encode()) + _field(3, documents) + _field(4, size))


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
