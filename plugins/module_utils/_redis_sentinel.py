# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks Redis Sentinel where a master and its replicas are, and chooses from which of them a snapshot is taken.

Sentinel knows who the servers are. How far a replica is behind it learns only every ten seconds, so that is asked of
the servers themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    Login,
    RedisAccessError,
    client,
    explain,
    explained,
)

#: Argument spec of the options in the documentation fragment ``upkeep.ops._redis_connection.sentinel``.
SENTINEL_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "sentinel_hosts": {"type": "list", "elements": "str", "default": []},
    "sentinel_master": {"type": "str", "default": "mymaster"},
    "sentinel_user": {"type": "str"},
    "sentinel_password": {"type": "str", "no_log": True},
}

_PORT = 26379
#: What Sentinel says of a replica that cannot be asked.
_GONE = frozenset(("s_down", "o_down", "disconnected"))


class SentinelError(Exception):
    """No Sentinel says where the master is; the text names each with its reason."""


@dataclass(frozen=True)
class Sentinels:
    """The Sentinels of one master. ``logins`` say how each is reached, in the order in which they are asked."""

    master: str
    logins: tuple[Login, ...]

    @classmethod
    def of(cls, options: Mapping[str, Any], server: Login) -> Sentinels | None:
        """From a module's options; None when no Sentinel is named. They speak TLS as the servers do.

        Raises ValueError when one of ``sentinel_hosts`` is no address.
        """
        if not options["sentinel_hosts"]:
            return None
        user, password = options["sentinel_user"] or "", options["sentinel_password"] or ""
        logins = tuple(
            replace(server, host=host, port=port, unix_socket="", user=user, password=password)
            for host, port in map(sentinel_address, options["sentinel_hosts"])
        )
        return cls(options["sentinel_master"], logins)


@dataclass(frozen=True)
class Topology:
    """A master and its replicas as one Sentinel knows them. ``gone`` are the addresses that it cannot reach itself."""

    master: tuple[str, int]
    replicas: tuple[tuple[str, int], ...]
    gone: frozenset[tuple[str, int]]
    sentinel: str


@dataclass(frozen=True)
class Limits:
    """How far a replica may be behind: bytes of the replication stream, and seconds of silence from its master."""

    bytes: int
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The server to take a snapshot from, and why this one.

    ``lag`` is how many bytes of the replication stream it was behind its master.
    """

    login: Login
    master: str
    role: str
    lag: int
    reason: str


def sentinel_address(text: str) -> tuple[str, int]:
    """Host and port of a Sentinel. Raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?", text.strip())
    if not found:
        raise ValueError(f"sentinel_hosts holds {text!r}, which is no address such as sentinel1.example.org:26379")
    return found[1] or found[2], int(found[3] or _PORT)


def find_servers(library: ModuleType, sentinels: Sentinels) -> Topology:
    """What the first Sentinel that answers and knows the master says. Raises SentinelError when none does."""
    problems: list[str] = []
    for login in sentinels.logins:
        try:
            with client(library, login) as asked:
                return _topology(library, asked, login, sentinels.master)
        except SentinelError as error:
            problems.append(str(error))
    raise SentinelError(f"no Sentinel tells where the master {sentinels.master!r} is: {'; '.join(problems)}")


def find_master(library: ModuleType, sentinels: Sentinels, login: Login) -> Login:
    """How the present master is reached, with the user, password and TLS of ``login``. Raises SentinelError."""
    return _at(login, find_servers(library, sentinels).master)


def choose_source(library: ModuleType, sentinels: Sentinels, login: Login, limits: Limits) -> Choice:
    """The replica that is least behind, when its link is up and it is within the limits; else the master.

    Raises SentinelError when no Sentinel answers, and RedisAccessError when the master does not: then nobody can
    say how far a replica is behind.
    """
    topology = find_servers(library, sentinels)
    # Replicas first: what the master writes meanwhile makes the lag look larger, never smaller.
    seen = [(address, _state_of(library, login, address, topology)) for address in topology.replicas]
    master = _at(login, topology.master)
    with explained(library, master), client(library, master) as asked:
        state = asked.info("replication")
    if state.get("role") != "master":
        raise SentinelError(
            f"{topology.sentinel} says that {master.url} is the master, which says that it is {state.get('role')}: "
            "a failover may go on, try again when it is over"
        )
    fit, unfit = _judged(seen, state, limits, login)
    if fit:
        lag, chosen = min(fit, key=lambda found: (found[0], found[1].url))
        beside = f" (not taken: {'; '.join(unfit)})" if unfit else ""
        told = f"replica {chosen.url} is {lag} bytes behind its master {master.url}{beside}"
        return Choice(chosen, master.url, "replica", lag, told)
    why = "; ".join(unfit) or f"{topology.sentinel} knows no replica"
    return Choice(master, master.url, "master", 0, f"no replica will do, so the master is taken: {why}")


def _topology(library: ModuleType, asked: Any, login: Login, name: str) -> Topology:
    where = f"Sentinel {login.host}:{login.port}"
    try:
        found = _raw(asked, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        if found is None:
            known = ", ".join(sorted(_table(entry)["name"] for entry in _raw(asked, "SENTINEL", "MASTERS"))) or "none"
            raise SentinelError(f"{where} knows no master {name!r}; it knows: {known}")
        # The name SLAVES is understood by every version.
        replicas = [_table(entry) for entry in _raw(asked, "SENTINEL", "SLAVES", name)]
    except library.exceptions.ResponseError as error:
        if "unknown command" in str(error):
            raise SentinelError(f"{where} is no Sentinel but another server: is its port right?") from error
        raise SentinelError(_explained(library, login, error, where)) from error
    except (library.RedisError, OSError) as error:
        raise SentinelError(_explained(library, login, error, where)) from error
    addresses = {(entry["ip"], int(entry["port"])): set(entry["flags"].split(",")) for entry in replicas}
    gone = frozenset(address for address, flags in addresses.items() if flags & _GONE)
    return Topology((str(found[0]), int(found[1])), tuple(sorted(addresses)), gone, where)


def _explained(library: ModuleType, login: Login, error: Exception, where: str) -> str:
    """The words for a server, with the names of the options that are a Sentinel's."""
    told = explain(library, login, error).replace(login.url, where, 1)
    return told.replace("login_host", "sentinel_hosts").replace("login_", "sentinel_")


def _raw(asked: Any, *words: str) -> Any:
    """The answer as it comes over the wire: what redis-py makes of these differs between its versions."""
    connection = asked.connection_pool.make_connection()
    try:
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


def _table(fields: Sequence[str]) -> dict[str, str]:
    return dict(zip(fields[::2], fields[1::2]))


def _state_of(library: ModuleType, login: Login, address: tuple[str, int], topology: Topology) -> Any:
    """What a replica says of its replication, or in words why it says nothing."""
    if address in topology.gone:
        return f"{topology.sentinel} cannot reach it"
    server = _at(login, address)
    try:
        with explained(library, server), client(library, server) as asked:
            return asked.info("replication")
    except RedisAccessError as error:
        return str(error).replace(f"{server.url}: ", "", 1)


def _judged(
    seen: Sequence[tuple[tuple[str, int], Any]], master: Mapping[str, Any], limits: Limits, login: Login
) -> tuple[list[tuple[int, Login]], list[str]]:
    """The replicas that will do, and in words why each of the others will not."""
    fit: list[tuple[int, Login]] = []
    unfit = []
    for address, state in seen:
        server = _at(login, address)
        problem = state if isinstance(state, str) else _problem(state, master, limits)
        if problem:
            unfit.append(f"{server.url}: {problem}")
        else:
            fit.append((_lag(state, master), server))
    return fit, unfit


def _problem(state: Mapping[str, Any], master: Mapping[str, Any], limits: Limits) -> str:
    if state.get("role") != "slave":
        return f"it says that it is {state.get('role')}"
    if state.get("master_link_status") != "up":
        return "its link to the master is down"
    if state.get("master_sync_in_progress"):
        return "it is still loading from its master"
    if state.get("master_replid") != master.get("master_replid"):
        return "it replicates other data than that of the master"
    silence = int(state.get("master_last_io_seconds_ago", -1))
    if not 0 <= silence <= limits.seconds:
        return f"it has heard nothing from its master for {silence} s, {limits.seconds:g} s are allowed"
    lag = _lag(state, master)
    return f"it is {lag} bytes behind its master, {limits.bytes} are allowed" if lag > limits.bytes else ""


def _lag(state: Mapping[str, Any], master: Mapping[str, Any]) -> int:
    return max(0, int(master["master_repl_offset"]) - int(state["slave_repl_offset"]))


def _at(login: Login, address: tuple[str, int]) -> Login:
    return replace(login, host=address[0], port=address[1], unix_socket="")
