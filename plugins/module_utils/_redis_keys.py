# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks over keys by SCAN, which never holds a server up: samples of them, and the sweep of expired ones.

SCAN removes every expired key that it comes across, as a look at the key would, unless MATCH passes it over first. So
a pass without MATCH is a sweep, and no command of the sweep can remove a key that lives. How many keys a step removed
is exact: the counter is asked before and after it in one transaction, in which nobody else can remove any.

All of it goes over the one connection of the client that is passed in: a server may have no room for a second one. Each
step selects its database anew, because a connection that was lost comes back with the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._redis_figures import databases, shown

#: Cursors to begin a sample at: SCAN takes any number, and begins at that place of its table.
CURSORS = 1 << 48
_STEP = 1000  # keys of one step of the sweep
_SAMPLE_STEP = 250  # each costs three commands more
_OTHERS = "(others)"
_NO_PREFIX = "(no prefix)"


@dataclass(frozen=True)
class Step:
    """What one step of SCAN gave: where to go on (0 is the end), living keys, and how many expired ones went."""

    cursor: int
    keys: list[str]
    expired: int


def step(client: Any, database: int, cursor: int, count: int) -> Step:
    """One step of SCAN through a database. Raises redis-py's errors."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("SELECT", database)
        pipeline.execute_command("INFO", "stats")
        pipeline.execute_command("SCAN", cursor, "COUNT", count)
        pipeline.execute_command("INFO", "stats")
        _selected, before, (following, keys), after = pipeline.execute()
    return Step(int(following), keys, int(after["expired_keys"]) - int(before["expired_keys"]))


@dataclass
class Swept:
    """What a sweep did to one database. ``seen`` are living keys that SCAN returned, some perhaps twice."""

    keys_before: int
    keys_after: int = 0
    expired: int = 0
    seen: int = 0


def sweep(
    client: Any,
    counts: Mapping[int, Mapping[str, int]],
    pause: Callable[[], None],
    progress: Callable[[int, int | None], None],
) -> dict[int, Swept]:
    """Go once over all keys of all databases, so that the server removes those that are expired.

    ``pause`` is called after each step. A sweep that is broken off has removed expired keys alone.
    """
    total = sum(database["keys"] for database in counts.values())
    done = 0
    swept = {number: Swept(database["keys"]) for number, database in counts.items()}
    for number, database in swept.items():
        cursor = -1
        while cursor:
            found = step(client, number, max(cursor, 0), _STEP)
            cursor = found.cursor
            database.seen += len(found.keys)
            database.expired += found.expired
            done += len(found.keys) + found.expired
            progress(done, max(done, total))
            pause()
        database.keys_after = databases(client.info("keyspace")).get(number, {"keys": 0})["keys"]
    return swept


@dataclass(frozen=True)
class Budget:
    """How much a sample may look at. ``clock`` is in seconds, ``cursor`` gives a place to begin at."""

    keys: int
    seconds: float
    clock: Callable[[], float]
    cursor: Callable[[], int]


@dataclass
class Sample:
    """What was seen of some keys, and what became of others in it: ``expired`` ones went when they were met."""

    seen: int = 0
    expired: int = 0
    lasting: int = 0
    largest: list[dict[str, Any]] = field(default_factory=list)
    prefixes: dict[str, Counter[str]] = field(default_factory=dict)
    out_of_time: bool = False

    def expired_present(self, keys: int) -> int | None:
        """About how many of so many keys are expired and still present; None when nothing was seen."""
        met = self.seen + self.expired
        return round(keys * self.expired / met) if met else None


def sample(
    client: Any,
    counts: Mapping[int, Mapping[str, int]],
    budget: Budget,
    look: Callable[[Any, int, list[str], Sample], None],
) -> Sample:
    """Look at some keys of each database, in the proportion of their numbers, from a random place on."""
    found = Sample()
    total = sum(database["keys"] for database in counts.values())
    end = budget.clock() + budget.seconds
    for number, database in counts.items():
        wanted = max(_SAMPLE_STEP, budget.keys * database["keys"] // total) if total else 0
        _sample_database(client, number, min(wanted, database["keys"]), budget, end, look, found)
    return found


def _sample_database(
    client: Any,
    number: int,
    wanted: int,
    budget: Budget,
    end: float,
    look: Callable[[Any, int, list[str], Sample], None],
    found: Sample,
) -> None:
    """From a random place to the end of the table, then from its beginning, until there is enough or no time."""
    cursor, met, beginnings = budget.cursor(), 0, 0
    while met < wanted and beginnings < 2:
        if budget.clock() >= end:
            found.out_of_time = True
            return
        stepped = step(client, number, cursor, min(_SAMPLE_STEP, wanted - met))
        cursor = stepped.cursor
        beginnings += not cursor
        met += len(stepped.keys) + stepped.expired
        found.seen += len(stepped.keys)
        found.expired += stepped.expired
        look(client, number, stepped.keys, found)


def look_at_nothing(_client: Any, _number: int, _keys: list[str], _found: Sample) -> None:
    """For samples that only count."""


@dataclass(frozen=True)
class Looker:
    """Looks at expiry, size and type of keys: ``look`` is for :func:`sample`."""

    groups: int
    largest: int
    elements: int

    def look(self, client: Any, number: int, keys: list[str], found: Sample) -> None:
        """Ask for three things of each key in one go; a key that went meanwhile is left out."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("SELECT", number)
            for key in keys:
                pipeline.execute_command("PTTL", key)
                pipeline.execute_command("MEMORY", "USAGE", key, "SAMPLES", self.elements)
                pipeline.execute_command("TYPE", key)
            _selected, *answers = pipeline.execute(raise_on_error=False)
        for refusal in (answer for answer in answers if isinstance(answer, Exception)):
            raise refusal  # as it is: redis-py would put the command with its key into it
        for position, key in enumerate(keys):
            remaining, size, kind = answers[3 * position : 3 * position + 3]
            if remaining != -2 and size is not None:
                self._count(found, key, remaining == -1, int(size))
                found.largest.append({"key": shown(key), "database": number, "type": str(kind), "bytes": int(size)})
        once = {(each["database"], each["key"]): each for each in found.largest}  # SCAN may return a key twice
        found.largest = sorted(once.values(), key=lambda each: -int(each["bytes"]))[: self.largest]

    def _count(self, found: Sample, key: str, lasting: bool, size: int) -> None:
        prefix = shown(key.split(":", 1)[0]) if ":" in key else _NO_PREFIX
        if prefix not in found.prefixes and len(found.prefixes) >= self.groups:
            prefix = _OTHERS
        group = found.prefixes.setdefault(prefix, Counter())
        group.update(keys=1, without_expiry=int(lasting), bytes=size)
        found.lasting += lasting


def told(found: Sample, keys: int, replica: bool) -> dict[str, Any]:
    """The sample as the module returns it. On a replica nothing is removed, so that nothing can be said of it."""
    met = found.seen + found.expired
    return {
        "sampled": met,
        "out_of_time": found.out_of_time,
        "expired": None if replica else found.expired,
        "expired_percent": None if replica or not met else round(100 * found.expired / met, 2),
        "expired_present": None if replica else found.expired_present(keys),
        "without_expiry_percent": round(100 * found.lasting / found.seen, 1) if found.seen else None,
        "prefixes": [
            {"prefix": prefix, **{name: group[name] for name in ("keys", "without_expiry", "bytes")}}
            for prefix, group in sorted(found.prefixes.items(), key=lambda pair: -pair[1]["bytes"])
        ],
        "largest": found.largest,
    }
