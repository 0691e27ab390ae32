# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of an RDB, the snapshot format of Redis and Valkey, by reading it once from front to back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._crc64 import crc64, crc64_bytewise

_MAGIC = re.compile(rb"REDIS(\d{4})|VALKEY(\d{3})")
_MAGIC_BYTES = 9
_AUX = 0xFA  # opcode: a field with facts about the snapshot follows
_END = 0xFF  # opcode: the end; eight bytes of CRC follow
_CRC_BYTES = 8
_HEAD = 4096  # the AUX fields stand in the first few hundred bytes
_TAIL = 4096  # held back until the end, to find an end mark with something after it
_OLDEST_VERSION = 5  # the first that ends with a CRC (Redis 2.6)

#: First version of a server that writes an RDB version; it reads its own and all older ones.
_REDIS = ((9, (5, 0)), (10, (7, 0)), (11, (7, 2)), (12, (7, 4)))
_VALKEY = ((11, (7, 2)), (80, (9, 0)))
# From here on a server may read newer versions than the tables know.
_REDIS_UNKNOWN_FROM = (8, 2)
_VALKEY_UNKNOWN_FROM = (9, 1)
#: Valkey refuses what Redis has written since 7.4, and Redis what Valkey has written since 9: the two have parted.
_ONLY_REDIS = range(12, 80)
_FIRST_ONLY_VALKEY = 80
_VALKEY_PREFIX = "valkey "


class RdbError(Exception):
    """This is no whole RDB; the text says what is wrong with it."""


@dataclass(frozen=True)
class Rdb:
    """Facts about a whole RDB. ``crc64`` is None when the server was told not to write one (rdbchecksum no).

    ``redis_version`` is that of the server that wrote it, as :func:`can_load` takes it; empty when it does not tell.
    """

    version: int
    bytes: int
    crc64: str | None
    redis_version: str
    used_memory: int | None


class RdbReader:
    """Takes an RDB in pieces of any size and checks it on the way; memory does not grow with its size."""

    def __init__(self) -> None:
        self.bytes = 0
        self._head = b""
        self._tail = b""
        self._crc = 0

    def feed(self, data: bytes) -> None:
        """The next piece. Raises RdbError as soon as the first bytes are those of something else."""
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
            _check_magic(self._head)
        self.bytes += len(data)
        data = self._tail + data
        self._crc = crc64(memoryview(data)[:-_TAIL], self._crc)
        self._tail = data[-_TAIL:]

    def finish(self) -> Rdb:
        """Facts about the RDB when all of it was fed. Raises RdbError when it is not whole or damaged."""
        if not self.bytes:
            raise RdbError("it is empty")
        version = rdb_version(self._head)
        aux = aux_fields(self._head)
        used_memory = aux.get("used-mem", "")
        return Rdb(
            version,
            self.bytes,
            self._checksum(),
            _VALKEY_PREFIX + aux["valkey-ver"] if "valkey-ver" in aux else aux.get("redis-ver", ""),
            int(used_memory) if used_memory.isdigit() else None,
        )

    def _checksum(self) -> str | None:
        stored = self._tail[-_CRC_BYTES:]
        computed = crc64_bytewise(self._tail[:-_CRC_BYTES], self._crc)
        ends = len(self._tail) > _CRC_BYTES and self._tail[-_CRC_BYTES - 1] == _END
        if ends and computed == int.from_bytes(stored, "little"):
            return f"{computed:016x}"
        if ends and not any(stored):
            return None
        surplus = self._bytes_after_the_end()
        if surplus:
            raise RdbError(f"{surplus} bytes follow the end of the snapshot")
        if not ends:
            raise RdbError(f"its end mark is missing after {self.bytes} bytes: it was cut short or damaged")
        told = int.from_bytes(stored, "little")
        raise RdbError(
            f"its CRC-64 is {computed:016x} and should be {told:016x}: bytes were changed or lost, or it was written "
            "over an older, larger snapshot"
        )

    def _bytes_after_the_end(self) -> int:
        # The CRC over data that ends with its own CRC is 0: that is how an earlier end shows.
        crc = self._crc
        for position, byte in enumerate(self._tail):
            crc = crc64_bytewise(bytes((byte,)), crc)
            mark = position - _CRC_BYTES
            if crc == 0 and mark >= 0 and self._tail[mark] == _END:
                return len(self._tail) - position - 1
        return 0


def rdb_version(head: bytes) -> int:
    """The RDB version in the first nine bytes. Raises RdbError when there is none that can be checked."""
    match = _MAGIC.match(head)
    if match is None:
        raise RdbError(f"it is no RDB: it begins with {head[:_MAGIC_BYTES]!r} instead of REDIS and a version")
    version = int(match[1] or match[2])
    if version < _OLDEST_VERSION:
        raise RdbError(f"its RDB version {version} is older than {_OLDEST_VERSION} and has no checksum")
    return version


def can_load(server: str, version: int) -> bool | None:
    """Whether a server such as ``7.0.15`` or ``valkey 8.1.1`` loads this RDB version; None when that is not known."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", server)[:2])
    valkey = server.lower().startswith(_VALKEY_PREFIX)
    writers, unknown_from = (_VALKEY, _VALKEY_UNKNOWN_FROM) if valkey else (_REDIS, _REDIS_UNKNOWN_FROM)
    known = [newest for newest, first in writers if first <= numbers]
    if not known:
        return None
    if version in _ONLY_REDIS if valkey else version >= _FIRST_ONLY_VALKEY:
        return False
    if version <= known[-1]:
        return True
    return False if numbers < unknown_from else None


def server_version_of(info: Mapping[str, Any]) -> str:
    """The version of a server as :func:`can_load` takes it, from redis-py's answer to INFO."""
    # Valkey also tells the version of Redis that it takes the place of.
    if "valkey_version" in info:
        return _VALKEY_PREFIX + str(info["valkey_version"])
    return str(info.get("redis_version", ""))


def server_in_words(version: str) -> str:
    """A server for messages: ``Redis 7.0.15``, ``Valkey 8.1.1``."""
    if not version:
        return "a server of unknown version"
    return version.capitalize() if version.lower().startswith(_VALKEY_PREFIX) else f"Redis {version}"


def newest_written_by(server: str) -> int | None:
    """The RDB version that a server such as ``7.0.15`` or ``valkey 8.1.1`` writes; None when that is not known."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", server)[:2])
    valkey = server.lower().startswith(_VALKEY_PREFIX)
    writers, unknown_from = (_VALKEY, _VALKEY_UNKNOWN_FROM) if valkey else (_REDIS, _REDIS_UNKNOWN_FROM)
    known = [newest for newest, first in writers if first <= numbers]
    return known[-1] if known and numbers < unknown_from else None


def aux_fields(head: bytes) -> dict[str, str]:
    """The AUX fields at the start of an RDB, as far as ``head`` holds them."""
    fields = {}
    position = _MAGIC_BYTES
    while position < len(head) and head[position] == _AUX:
        try:
            name, position = _string(head, position + 1)
            value, position = _string(head, position)
        except IndexError:
            break
        fields[name] = value
    return fields


def _string(data: bytes, position: int) -> tuple[str, int]:
    """A short string or an integer at ``position``, and where it ends. Raises IndexError when it is neither."""
    first = data[position]
    kind, low = first >> 6, first & 63
    if kind == 3 and low <= 2:
        width = 1 << low
        return str(int.from_bytes(data[position + 1 : position + 1 + width], "little", signed=True)), (
            position + 1 + width
        )
    if kind == 0:
        length, start = low, position + 1
    elif kind == 1:
        length, start = low << 8 | data[position + 1], position + 2
    else:
        raise IndexError("no short string")
    if start + length > len(data):
        raise IndexError("string goes beyond the data")
    return data[start : start + length].decode("utf-8", "replace"), start + length


def _check_magic(head: bytes) -> None:
    may_become_one = any(magic.startswith(head[: len(magic)]) for magic in (b"REDIS", b"VALKEY"))
    if len(head) >= _MAGIC_BYTES or not may_become_one:
        rdb_version(head)
