# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a loaded snapshot against the live server that it was taken of: numbers of keys, and a sample of keys.

The live server goes on working, so that some keys will have changed, gone or come. It is asked only for what it
answers at once, in small batches, and for small values; nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._rdb import server_version_of
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    Login,
    client,
    explained,
)

_BATCH = 50  # keys that are asked for at once
_LARGEST_VALUE = 128 * 1024  # bytes of memory; of larger ones only type and length are compared
_FEW_KEYS = 100  # so many keys more or less are never a difference
_LENGTHS = {
    "string": "STRLEN",
    "list": "LLEN",
    "set": "SCARD",
    "hash": "HLEN",
    "zset": "ZCARD",
    "stream": "XLEN",
}
_READERS: Mapping[str, Callable[[Any, bytes], Any]] = {
    "string": lambda pipe, key: pipe.get(key),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "set": lambda pipe, key: pipe.smembers(key),
    "hash": lambda pipe, key: pipe.hgetall(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "stream": lambda pipe, key: pipe.xrange(key),
}


@dataclass(frozen=True)
class Live:
    """The server to compare with. ``sample`` keys of the snapshot and of the server each are looked at.

    ``tolerance`` is the percentage by which the numbers of keys may differ, and of the sample that may be different.
    """

    login: Login
    sample: int
    tolerance: float


@dataclass
class SpotCheck:
    """How many keys of the sample are what, and where more differs than is allowed.

    ``new`` keys came since. Those whose time to live has passed since are none of them.
    """

    compared: int = 0
    equal: int = 0
    changed: int = 0
    gone: int = 0
    new: int = 0

    def as_dict(self) -> dict[str, int]:
        """As results carry it."""
        return asdict(self)

    @property
    def different(self) -> int:
        return self.changed + self.gone + self.new

    def in_words(self) -> str:
        """For a person."""
        told = f"{self.equal} equal, {self.changed} changed, {self.gone} gone, {self.new} new"
        return f"of {self.compared} keys looked at {told}"


@dataclass(frozen=True)
class _Key:
    """What is known of a key without its value."""

    type: str
    expires: bool
    length: int | None


def live_version(library: ModuleType, live: Live) -> str:
    """The version of the live server, as ``_rdb.can_load`` takes it. Raises RedisAccessError."""
    with explained(library, live.login), client(library, live.login) as server:
        return server_version_of(server.info("server"))


def spot_check(
    library: ModuleType, scratch: Any, databases: Mapping[str, Mapping[str, int]], live: Live
) -> tuple[SpotCheck, list[str]]:
    """Compare, and tell in words where more differs than is allowed.

    ``scratch`` is a client of a server that has loaded the snapshot and holds ``databases``. Raises RedisAccessError
    for the live server and redis-py's errors for the scratch server.
    """
    with explained(library, live.login), client(library, live.login) as server:
        keyspace = {name[2:]: int(counts["keys"]) for name, counts in server.info("keyspace").items()}
    counts = {number: int(held["keys"]) for number, held in databases.items()}
    told = _count_differences(counts, keyspace, live.tolerance)
    found = SpotCheck()
    everything = sum(counts.values()) or 1
    for number, keys in counts.items():
        share = max(1, round(live.sample * keys / everything))
        with _bytes_client(library, scratch, number) as ours, _live_client(library, live, number) as theirs:
            _compare(library, live.login, ours, theirs, share, found)
    if found.different * 100 > live.tolerance * found.compared:
        told.append(found.in_words())
    return found, told


def _count_differences(counts: Mapping[str, int], live: Mapping[str, int], tolerance: float) -> list[str]:
    told = []
    for number in sorted({*counts, *live}, key=int):
        snapshot, now = counts.get(number, 0), live.get(number, 0)
        if abs(snapshot - now) > max(_FEW_KEYS, math.ceil(max(snapshot, now) * tolerance / 100)):
            told.append(f"database {number} has {now} keys and had {snapshot} in the snapshot")
    return told


def _compare(library: ModuleType, login: Login, ours: Any, theirs: Any, share: int, found: SpotCheck) -> None:
    keys = {*_sample(ours, share)}
    with explained(library, login):
        keys.update(_sample(theirs, share))
        digests = _allows_digests(library, theirs)
    for batch in _batches(sorted(keys)):
        here, sizes = _described(ours, batch), _sizes(ours, batch)
        with explained(library, login):
            there = _described(theirs, batch)
        alike = [key for key in batch if key in here and here[key] == there.get(key)]
        small = [key for key in alike if sizes[key] <= _LARGEST_VALUE]
        values = _values(ours, small, here, digests)
        with explained(library, login):
            live_values = _values(theirs, small, here, digests)
        unlike = {key for key in small if values[key] != live_values[key]}
        for key in batch:
            _count(found, key in here, key in there, key in set(alike) - unlike)


def _count(found: SpotCheck, in_snapshot: bool, is_there: bool, equal: bool) -> None:
    if not in_snapshot and not is_there:
        return  # it has expired
    found.compared += 1
    if not in_snapshot:
        found.new += 1
    elif not is_there:
        found.gone += 1
    elif equal:
        found.equal += 1
    else:
        found.changed += 1


def _sample(server: Any, share: int) -> list[bytes]:
    """Some keys of a database: all of a small one, else by chance."""
    if server.dbsize() <= share:
        return list(server.scan_iter(count=1000))
    keys: list[bytes] = []
    for some in _batches(range(share)):
        pipe = server.pipeline(transaction=False)
        for _one in some:
            pipe.randomkey()
        keys += [key for key in pipe.execute() if key is not None]
    return keys


def _described(server: Any, keys: Sequence[bytes]) -> dict[bytes, _Key]:
    """Type, expiry and length of the keys that are there. A key of the snapshot that has expired since is not."""
    pipe = server.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
        pipe.pttl(key)
    answers = iter(pipe.execute())
    known = [(key, next(answers).decode(), next(answers)) for key in keys]
    there = [entry for entry in known if entry[1] != "none"]
    for key, kind, _ttl in there:
        # Of a type that is not known here nothing else can be compared.
        pipe.execute_command(_LENGTHS.get(kind, "EXISTS"), key)
    lengths = _answers(pipe)
    return {
        key: _Key(kind, ttl >= 0, length)
        for (key, kind, ttl), length in zip(there, lengths)
        if not isinstance(length, Exception)
    }


def _sizes(scratch: Any, keys: Sequence[bytes]) -> dict[bytes, int]:
    pipe = scratch.pipeline(transaction=False)
    for key in keys:
        pipe.memory_usage(key, samples=0)
    return {key: size or 0 for key, size in zip(keys, pipe.execute())}


def _values(server: Any, keys: Sequence[bytes], known: Mapping[bytes, _Key], digests: bool) -> dict[bytes, Any]:
    """The values of keys, or digests of them: equal if and only if the data is, however it is stored."""
    pipe = server.pipeline(transaction=False)
    asked = [key for key in keys if digests or known[key].type in _READERS]
    for key in asked:
        if digests:
            pipe.execute_command("DEBUG", "DIGEST-VALUE", key)
        else:
            _READERS[known[key].type](pipe, key)
    told = dict(zip(asked, _answers(pipe)))
    return {key: told.get(key) for key in keys}


def _answers(pipe: Any) -> list[Any]:
    """All answers; an error only where a key has become something else since its type was asked for."""
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    return answers


def _allows_digests(library: ModuleType, server: Any) -> bool:
    try:
        server.execute_command("DEBUG", "DIGEST-VALUE", b"")
    except library.ResponseError:
        return False
    return True


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    whole = list(items)
    for start in range(0, len(whole), _BATCH):
        yield whole[start : start + _BATCH]


def _live_client(library: ModuleType, live: Live, database: str) -> Any:
    return client(library, live.login, db=int(database), decode_responses=False)


def _bytes_client(library: ModuleType, scratch: Any, database: str) -> Any:
    """Another client of the scratch server, for a database and for keys that need not be text."""
    pool = scratch.connection_pool
    settings = {**pool.connection_kwargs, "db": int(database), "decode_responses": False}
    return library.Redis(connection_pool=library.ConnectionPool(pool.connection_class, **settings))
