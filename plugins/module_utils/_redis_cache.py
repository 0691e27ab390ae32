# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module redis_cache does with a server, in each of its states. Each returns the module's answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils import _redis_figures as figures
from ansible_collections.upkeep.ops.plugins.module_utils import _redis_keys as keys
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import Login, client
from ansible_collections.upkeep.ops.plugins.module_utils._redis_memory import purge
from ansible_collections.upkeep.ops.plugins.module_utils._redis_policy import RefusedError, Wish, configure
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import Sentinels, find_master
from ansible_collections.upkeep.ops.plugins.module_utils._sizes import human
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat, parse_duration
from ansible_collections.upkeep.ops.plugins.module_utils._warm_up import (
    Limits,
    Pace,
    Warmed,
    check_urls,
    fetcher,
    warm_keys,
    warm_urls,
)

Clock = Callable[[], float]
Sleep = Callable[[float], None]


#: Argument spec of the options that :class:`Scope` is made of.
SCOPE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "interval": {"type": "float", "default": 5},
    "sample_keys": {"type": "int", "default": 5000, "no_log": False},
    "sample_seconds": {"type": "float", "default": 10},
    "sample_elements": {"type": "int", "default": 5},
    "prefixes": {"type": "int", "default": 20},
    "largest": {"type": "int", "default": 10},
    "slow_log_entries": {"type": "int", "default": 128},
    "slow_log_age": {"type": "str", "default": "7d"},
}


@dataclass(frozen=True)
class Server:
    """How to reach the server."""

    library: ModuleType
    login: Login

    @classmethod
    def found(cls, library: ModuleType, login: Login, options: Mapping[str, Any]) -> Server:
        """The server itself, or the master that the Sentinels of the options know. Raises SentinelError."""
        sentinels = Sentinels.of(options, login)
        return cls(library, find_master(library, sentinels, login) if sentinels else login)

    def client(self) -> AbstractContextManager[Any]:
        """A client with one connection; names of keys survive it also where they are no text."""
        settings = {"encoding_errors": "surrogateescape", "max_connections": 1}
        made: AbstractContextManager[Any] = client(self.library, self.login, **settings)
        return made


@dataclass(frozen=True)
class Scope:
    """How much to look at."""

    interval: float
    sample_keys: int
    sample_seconds: float
    sample_elements: int
    prefixes: int
    largest: int
    slow_log_entries: int
    slow_log_age: float

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Scope:
        """From the options of the module. Raises ValueError when one makes no sense."""
        chosen = {name: options[name] for name in SCOPE_OPTIONS}
        chosen["slow_log_age"] = parse_duration(options["slow_log_age"])
        for name, value in chosen.items():
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be less than 0")
        return cls(**chosen)

    def budget(self, clock: Clock) -> keys.Budget:
        """For a sample that begins at a random place, so that not always the same keys are seen."""
        return keys.Budget(self.sample_keys, self.sample_seconds, clock, lambda: random.randrange(keys.CURSORS))


def progress(
    server: Server, options: Mapping[str, Any], unit: str, clock: Clock, log: Callable[[str], None]
) -> Progress:
    """Tells how far a sweep or warm-up is. Raises ValueError when its file cannot be written."""
    path = options["progress_file"] or ""
    try:
        return Progress(f"{options['state']} {server.login.url}", path, clock, log, unit=unit)
    except OSError as error:
        raise ValueError(f"the progress_file {path} cannot be written: {error.strerror}") from error


def look(server: Server, scope: Scope, now: datetime, clock: Clock, sleep: Sleep) -> dict[str, Any]:
    """All figures, and under ``missing`` what could not be looked at and why."""
    missing: dict[str, str] = {}
    with server.client() as asked:
        before, begun = asked.info(), clock()
        sleep(scope.interval)
        after = asked.info()
        seconds = clock() - begun

        def tried(what: str, ask: Callable[[], Any]) -> Any:
            return figures.tried(server.library, what, ask, missing)

        return {
            "changed": False,
            "server": figures.server(after),
            "interval": figures.interval(before, after, seconds),
            "memory": figures.memory(after),
            "current": figures.state(after),
            "memory_parts": tried("MEMORY STATS", lambda: figures.memory_parts(asked)),
            "advice": tried("MEMORY DOCTOR", lambda: figures.memory_advice(asked)),
            "slow_log": tried("the slow log", lambda: _slow_log(asked, scope, now)),
            # Last, because looking at keys counts as look-ups.
            "keys": tried("keys", lambda: _sample(asked, scope, after, clock)) if scope.sample_keys else None,
            "missing": missing,
        }


def _slow_log(asked: Any, scope: Scope, now: datetime) -> list[dict[str, Any]]:
    oldest = isoformat(now - timedelta(seconds=scope.slow_log_age))
    return [entry for entry in figures.slow_log(asked, scope.slow_log_entries) if entry["at"] >= oldest]


def _sample(asked: Any, scope: Scope, info: figures.Info, clock: Clock) -> dict[str, Any]:
    looker = keys.Looker(scope.prefixes, scope.largest, scope.sample_elements)
    found = keys.sample(asked, figures.databases(info), scope.budget(clock), looker.look)
    return keys.told(found, figures.state(info)["keys"], figures.is_replica(info))


def swept(server: Server, pause: Callable[[], None], shown: Progress, clock: Clock) -> dict[str, Any]:
    """Remove the expired keys of all databases. Raises RefusedError on a replica."""
    with server.client() as asked:
        info, begun = _of_master(asked), clock()
        done = keys.sweep(asked, figures.databases(info), pause, shown)
    expired = sum(database.expired for database in done.values())
    seen = sum(database.seen for database in done.values())
    shown.finish(seen + expired)
    seconds = round(clock() - begun, 2)
    by_number = {str(number): asdict(database) for number, database in done.items()}
    return {
        "changed": expired > 0,
        "server": figures.server(info),
        "message": f"{expired} expired keys were removed, {seen} living ones seen",
        "sweep": {"expired": expired, "estimated": False, "seconds": seconds, "databases": by_number},
    }


def sweep_estimate(server: Server, scope: Scope, clock: Clock) -> dict[str, Any]:
    """About how many keys a sweep would remove. Raises RefusedError on a replica."""
    with server.client() as asked:
        info, begun = _of_master(asked), clock()
        found = keys.sample(asked, figures.databases(info), scope.budget(clock), keys.look_at_nothing)
    present = found.expired_present(figures.state(info)["keys"]) or 0
    met = found.seen + found.expired
    return {
        "changed": present > 0,
        "server": figures.server(info),
        "message": f"about {present} expired keys would be removed: an estimate, {found.expired} of {met} sampled were",
        "sweep": {"expired": present, "estimated": True, "seconds": round(clock() - begun, 2), "databases": {}},
    }


def _of_master(asked: Any) -> figures.Info:
    info: figures.Info = asked.info()
    if figures.is_replica(info):
        raise RefusedError(
            f"it is a replica of {info.get('master_host')}:{info.get('master_port')}, on which SCAN removes nothing: "
            "only a master removes expired keys, so sweep there"
        )
    return info


def purged(server: Server, sleep: Sleep, dry: bool) -> dict[str, Any]:
    """Give unused memory back, or with ``dry`` tell about how much that would be."""
    with server.client() as asked:
        found = purge(asked, sleep, dry)
        about = figures.server(asked.info())
    given, before = human(abs(found["given_back_bytes"])), human(found["before_bytes"])
    message = f"{given} of {before} were given back"
    if dry:
        message = f"about {given} of {before} would be given back: an estimate"
    elif found["given_back_bytes"] < 0:
        message = f"nothing was given back, and the memory of {before} grew by {given} meanwhile"
    return {"changed": found["worthwhile"], "server": about, "message": message, "purge": found}


def configured(server: Server, wish: Wish, dry: bool) -> dict[str, Any]:
    """Change the policy. Raises RefusedError."""
    local = server.login.unix_socket or server.login.host in ("localhost", "127.0.0.1", "::1")
    with server.client() as asked:
        found = configure(server.library, asked, wish, dry, _content if local else None)
        about = figures.server(asked.info())
    changed, before, after = found.pop("changed"), found["before"], found["after"]
    difference = {"before": {"maxmemory-policy": before}, "after": {"maxmemory-policy": after}}
    if before != after:
        kept = {None: "would be", True: "was", False: "was, only until the next restart,"}[found["persisted"]]
        message = "; ".join([f"maxmemory-policy {kept} changed from {before} to {after}", *found["obstacles"]])
    else:
        message = f"maxmemory-policy is {after} already"
        if changed:
            message += f", and {'would be' if dry else 'was'} written into the configuration file, which knew another"
            difference = {when: {"maxmemory-policy": after, "persisted": when == "after"} for when in difference}
    return {"changed": changed, "server": about, "message": message, "policy": found, "diff": difference}


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


@dataclass(frozen=True)
class WarmUp:
    """What to ask for, and how. ``verify`` is how certificates are checked, as requests has it."""

    urls: list[str]
    keys: list[str]
    database: int
    limits: Limits
    verify: bool | str

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> WarmUp:
        """From the options of the module. Raises ValueError when one makes no sense."""
        limits = Limits(options["rate"], options["concurrency"], options["latency_limit_ms"], options["timeout"])
        limits.check()
        if not options["urls"] and not options["keys"]:
            raise ValueError("there is nothing to warm up: name urls or keys")
        check_urls(options["urls"])
        verify = options["ca_certs"] or True if options["validate_certs"] else False
        return cls(options["urls"], options["keys"], options["database"], limits, verify)


def warmed(
    server: Server, plan: WarmUp, requests: ModuleType | None, shown: Progress, clock: Clock, sleep: Sleep
) -> dict[str, Any]:
    """Ask for the URLs, then touch the keys. ``requests`` is the library, None when there are no URLs."""
    pace, came = Pace(plan.limits.rate, clock, sleep), Warmed(len(plan.urls) + len(plan.keys))
    begun = clock()
    with server.client() as asked:
        about = figures.server(asked.info())
        if requests:
            fetch = fetcher(requests, plan.limits.timeout, plan.verify)
            warm_urls(plan.urls, fetch, plan.limits, pace, came, shown)
        answered = came.answered
        warm_keys(asked, plan.database, plan.keys, plan.limits, pace, came, shown)
    shown.finish(came.done)
    told = f"{came.answered} of {came.total} were warmed up"
    told += f", {came.missing} keys are not there" if came.missing else ""
    told += (
        f", {came.failed} failed, such as {came.errors[0]['what']}: {came.errors[0]['error']}" if came.errors else ""
    )
    told += f"; stopped, because {came.stopped}" if came.stopped else ""
    return {"changed": answered > 0, "server": about, "message": told, "warm_up": came.as_dict(clock() - begun)}


def warm_up_foretold(server: Server, plan: WarmUp) -> dict[str, Any]:
    """What a warm-up would ask for."""
    with server.client() as asked:
        about = figures.server(asked.info())
    total = len(plan.urls) + len(plan.keys)
    at_least = format_duration(total / plan.limits.rate)
    message = f"would ask for {len(plan.urls)} URLs and touch {len(plan.keys)} keys, in at least {at_least}"
    return {"changed": bool(plan.urls), "server": about, "message": message, "warm_up": Warmed(total).as_dict(0)}
