# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two Redis servers hold the same values: a sample of one, looked up in the other.

Values are compared as the bytes of DUMP. Where these differ, as the order in a large set may, both are loaded into the
scratch server and compared by their digests there; so the live server needs no DEBUG command.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_FEWEST = 20  # of each database
_EXPIRES_SOON = 2000  # milliseconds

#: A client of the given database that returns bytes.
Raw = Callable[[int], Any]


@dataclass(frozen=True)
class Sampled:
    """One key; ``expires_at`` in milliseconds since 1970, -1 when it never does."""

    database: int
    key: bytes
    dump: bytes
    expires_at: int


def sample(raw: Raw, databases: Mapping[str, Mapping[str, int]], size: int) -> list[Sampled]:
    """About ``size`` keys chosen at random, from each database its share. Raises redis-py's errors."""
    total = sum(counts["keys"] for counts in databases.values())
    chosen = []
    for number, counts in databases.items():
        share = max(_FEWEST, math.ceil(size * counts["keys"] / total)) if total else 0
        client = raw(int(number))
        with client.pipeline(transaction=False) as pipeline:
            for _nth in range(share):
                pipeline.randomkey()
            keys = sorted({key for key in pipeline.execute() if key is not None})
        chosen += [
            Sampled(int(number), key, dump, expires_at)
            for key, (dump, expires_at) in zip(keys, _look_up(client, keys))
            if dump is not None
        ]
    return chosen


def other_than(expected: list[Sampled], live: Raw, scratch: Raw, spare: int) -> list[str]:
    """What differs on the live server, in words. ``spare`` is an empty database of the scratch server.

    Keys whose time is over are left out. Raises redis-py's errors.
    """
    over = time.time() * 1000 + _EXPIRES_SOON
    told = []
    for number in sorted({one.database for one in expected}):
        ours = [one for one in expected if one.database == number and not 0 <= one.expires_at < over]
        found = _look_up(live(number), [one.key for one in ours])
        told += [
            f"database {number}: {_name(one.key)} {what}"
            for one, (dump, expires_at) in zip(ours, found)
            if (what := _difference(one, dump, expires_at, scratch, spare))
        ]
    return told


def _look_up(client: Any, keys: list[bytes]) -> list[tuple[bytes | None, int]]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.dump(key)
            pipeline.execute_command("PEXPIRETIME", key)
        answers = pipeline.execute()
    return list(zip(answers[::2], answers[1::2]))


def _difference(one: Sampled, dump: bytes | None, expires_at: int, scratch: Raw, spare: int) -> str:
    if dump is None:
        return "is not there"
    if expires_at != one.expires_at:
        return "expires at another time"
    return "" if dump == one.dump or _same_value(scratch(spare), one.dump, dump) else "has another value"


def _same_value(client: Any, first: bytes, second: bytes) -> bool:
    client.restore("first", 0, first, replace=True)
    client.restore("second", 0, second, replace=True)
    digests = client.execute_command("DEBUG", "DIGEST-VALUE", "first", "second")
    client.delete("first", "second")
    return bool(digests[0] == digests[1])


def _name(key: bytes) -> str:
    return repr(key.decode("utf-8", "replace")[:60])
