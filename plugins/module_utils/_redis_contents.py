# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Redis server holds, in figures that two servers can be compared by, and when one has copied another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience, ScratchError

_POLL = 0.05  # seconds
_NOTHING = {"keys": 0, "expires": 0}


@dataclass(frozen=True)
class Contents:
    """Keys and keys with a TTL per database, number of function libraries (None before Redis 7), digest when asked."""

    databases: Mapping[str, Mapping[str, int]]
    functions: int | None
    digest: str | None = None

    @property
    def keys(self) -> int:
        """Keys in all databases."""
        return sum(counts["keys"] for counts in self.databases.values())


def contents(client: Any, digest: bool = False) -> Contents:
    """What the server holds now. The digest blocks it for some seconds per million keys. Raises redis-py's errors."""
    return Contents(
        databases=keyspace(client.info("keyspace")),
        functions=client.info("memory").get("number_of_libraries"),
        digest=str(client.execute_command("DEBUG", "DIGEST")) if digest else None,
    )


def keyspace(info: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Number of ``keys`` and ``expires`` by number of the database, from redis-py's answer to INFO."""
    return {
        name[2:]: {"keys": int(counts["keys"]), "expires": int(counts["expires"])}
        for name, counts in info.items()
        if re.fullmatch(r"db\d+", name)
    }


def unlike(expected: Contents, found: Contents) -> list[str]:
    """In words, where what was found differs from what was expected; nothing may differ."""
    told = []
    for number in sorted({*expected.databases, *found.databases}, key=int):
        wanted, is_there = expected.databases.get(number, _NOTHING), found.databases.get(number, _NOTHING)
        for what, words in (("keys", "keys"), ("expires", "keys with a TTL")):
            if wanted[what] != is_there[what]:
                told.append(f"database {number} has {is_there[what]} {words} instead of {wanted[what]}")
    if None not in (expected.functions, found.functions) and expected.functions != found.functions:
        told.append(f"there are {found.functions} function libraries instead of {expected.functions}")
    if None not in (expected.digest, found.digest) and expected.digest != found.digest:
        told.append(f"the digest of the data is {found.digest} instead of {expected.digest}")
    return told


def wait_until_copied(
    copy: Any, source: Any, patience: Patience, progress: Callable[[int], object] = lambda _bytes: None
) -> None:
    """Return when ``copy``, a replica of ``source``, has all of its data; ``progress`` hears of bytes that came.

    Raises ScratchError when that takes too long, and redis-py's errors.
    """
    deadline = patience.monotonic() + patience.seconds
    while True:
        link = copy.info("replication")
        if link.get("role") != "slave":
            raise ScratchError("the server is no replica any more: somebody else promoted it, or it was restarted")
        progress(int(link.get("master_sync_read_bytes", 0)))
        if _has_all(link, source):
            return
        if patience.monotonic() > deadline:
            raise ScratchError(f"the data had not been copied after {patience.seconds:g} s; {_link_in_words(link)}")
        patience.sleep(_POLL)


def _has_all(link: Mapping[str, Any], source: Any) -> bool:
    if link.get("master_link_status") != "up" or link.get("master_sync_in_progress"):
        return False
    return bool(link["slave_repl_offset"] == source.info("replication")["master_repl_offset"])


def _link_in_words(link: Mapping[str, Any]) -> str:
    if link.get("master_sync_in_progress"):
        return f"{link.get('master_sync_left_bytes', '?')} bytes are left"
    return f"its link to the scratch server is {link.get('master_link_status')}: can it reach it? Its log says why"
