# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live server of a restore: what it tells of itself, how its writers are held, and settings changed for a time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._lock import start_time
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import Login, client, explain
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience, Reach, ScratchError

_HOLD_AGAIN = 1.0  # seconds
_INSIST_AGAIN = 0.005
_POLL = 0.05
_PROGRAMS = ("redis", "valkey")
_SAME_AGE = 3  # seconds
_HELLO = "__sentinel__:hello"
#: Settings of a target while it copies a scratch server. Writers are held, not refused; readers are served as long as
#: that can be; and the old data stays until all of the new is there.
_WHILE_COPYING = {
    "replica-read-only": "no",
    "replica-serve-stale-data": "yes",
    "replica-lazy-flush": "yes",
    "repl-diskless-load": "disabled",
    "tls-replication": "no",
    "masteruser": "",
}
#: Kept short for the safety snapshot: by default a server waits five seconds for further replicas.
_WHILE_SAVING = {"repl-diskless-sync-delay": "0"}
#: Commands that a restore needs, wrong on purpose, so that nothing comes of those that are allowed.
_PROBES = (
    ("REPLICAOF", "127.0.0.1", "no-port"),
    ("CLIENT", "PAUSE", "no-number", "WRITE"),
    ("CONFIG", "SET", "upkeep-no-such-setting", "1"),
    ("DUMP", "upkeep:no:such:key"),
    ("PEXPIRETIME", "upkeep:no:such:key"),
)


class TargetError(Exception):
    """The live server does not do what a restore needs; the text says what and why."""


@dataclass(frozen=True)
class Facts:
    """A live server at one moment: ``local`` on this host, ``forbidden`` what the user may not do."""

    info: Mapping[str, Any]
    config: Mapping[str, str]
    forbidden: list[str]
    sentinels: int
    debug: bool
    local: bool

    @property
    def version(self) -> tuple[int, ...]:
        """Its version as numbers."""
        return tuple(int(number) for number in str(self.info["redis_version"]).split(".")[:3] if number.isdigit())

    @property
    def aof(self) -> bool:
        """Whether it appends to a file."""
        return self.config.get("appendonly") == "yes"


class Target:
    """The live server. Every method raises redis-py's errors."""

    def __init__(self, library: ModuleType, login: Login, patience: Patience) -> None:
        self.library = library
        self.login = login
        self.patience = patience
        self.client = client(library, login)

    def get_library(self) -> ModuleType:
        """The library redis-py, for those who load it only when they need it."""
        return self.library

    def raw(self, database: int) -> Any:
        """A client of one database that returns bytes."""
        return client(self.library, self.login, db=database, decode_responses=False)

    def facts(self) -> Facts:
        """What it tells of itself."""
        info = self.client.info()
        forbidden = [word for probe in _PROBES if (word := self._forbidden(probe))]
        try:
            config = self.client.config_get("*")
        except self.library.exceptions.ResponseError:
            config, forbidden = {}, [*forbidden, "config|get"]
        return Facts(
            info=info,
            config=config,
            forbidden=forbidden,
            sentinels=self._sentinels(),
            debug=not self._forbidden(("DEBUG", "DIGEST-VALUE")),
            local=_is_local(info, config),
        )

    def wait_until_there(self) -> Mapping[str, Any]:
        """Its INFO, as soon as it answers and has loaded its data. Raises TargetError when that takes too long."""
        deadline = self.patience.monotonic() + self.patience.seconds
        while True:
            try:
                info: Mapping[str, Any] = self.client.info()
                if not info.get("loading"):
                    return info
                why = "it is still loading its data"
            except (self.library.RedisError, OSError) as error:
                why = explain(self.library, self.login, error)
            if self.patience.monotonic() > deadline:
                raise TargetError(f"the server did not come back within {self.patience.seconds:g} s: {why}")
            self.patience.sleep(_POLL)

    def wait_until_gone(self, pid: int) -> None:
        """Return when the process of a server on this host has ended."""
        deadline = self.patience.monotonic() + self.patience.seconds
        while start_time(pid):
            if self.patience.monotonic() > deadline:
                raise TargetError(f"the server, process {pid}, still runs {self.patience.seconds:g} s after its stop")
            self.patience.sleep(_POLL)

    def change(self, wanted: Mapping[str, str], config: Mapping[str, str]) -> None:
        """Change settings at run time; those that it does not have are left out."""
        for name, value in wanted.items():
            if name in config:
                self.client.config_set(name, value)

    def put_back(self, changed: Mapping[str, list[str]]) -> None:
        """Give settings their old values, unless somebody else has changed them since.

        ``changed`` has the old and the new value of each.
        """
        now = self.client.config_get("*")
        ours = {name: old for name, (old, new) in changed.items() if now.get(name) == new and old != new}
        self.change(ours, now)

    def wait_for_aof(self) -> None:
        """Return when the data is in the append-only file, if it has one. Raises TargetError."""
        deadline = self.patience.monotonic() + self.patience.seconds
        while True:
            info = self.client.info("persistence")
            if not info["aof_enabled"]:
                return
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                break
            if self.patience.monotonic() > deadline:
                raise TargetError(f"its append-only file was not written within {self.patience.seconds:g} s")
            self.patience.sleep(_POLL)
        for name in ("aof_last_bgrewrite_status", "aof_last_write_status"):
            if info[name] != "ok":
                raise TargetError(
                    f"its append-only file could not be written ({name} is {info[name]}): is its disk full?"
                )

    def _forbidden(self, command: tuple[str, ...]) -> str:
        try:
            self.client.execute_command(*command)
        except self.library.exceptions.NoPermissionError:
            return "|".join(command[:2]).lower() if command[0] in ("CLIENT", "CONFIG") else command[0].lower()
        except self.library.exceptions.ResponseError as error:
            told = str(error).lower()
            return command[0].lower() if "unknown command" in told or "not allowed" in told else ""
        return ""

    def _sentinels(self) -> int:
        try:
            return int(self.client.execute_command("PUBSUB", "NUMSUB", _HELLO)[1])
        except self.library.exceptions.ResponseError:
            return 0


class Hold:
    """Writers wait while this is in force. Ended by :meth:`release`, or by the server ``seconds`` after our death."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._milliseconds = str(int(seconds * 1000))
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """From now on writers wait. Raises redis-py's errors."""
        if self._thread is None:
            self._pause(self._target.client)
            self._begun = self._target.patience.monotonic()
            self._over.clear()
            self._thread = threading.Thread(target=self._keep, daemon=True)
            self._thread.start()

    def insist(self) -> None:
        """Hold the writers of a server that was just started, from the first moment on at which it listens."""
        deadline = self._target.patience.monotonic() + self._target.patience.seconds
        while True:
            try:
                self._pause(self._target.client)
                break
            except (self._target.library.RedisError, OSError):
                if self._target.patience.monotonic() > deadline:
                    raise
            self._target.patience.sleep(_INSIST_AGAIN)
        self.start()

    def release(self) -> None:
        """Let writers go on. Raises redis-py's errors; then the server lets them go by itself, or was restarted."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        self.seconds = round(self.seconds + self._target.patience.monotonic() - self._begun, 3)
        self._target.client.execute_command("CLIENT", "UNPAUSE")

    def _keep(self) -> None:
        with client(self._target.library, self._target.login) as connection:
            while not self._over.wait(min(_HOLD_AGAIN, int(self._milliseconds) / 4000)):
                try:
                    self._pause(connection)
                except (self._target.library.RedisError, OSError):
                    continue  # it is down or busy; a server that comes back is to hold its writers too

    def _pause(self, connection: Any) -> None:
        connection.execute_command("CLIENT", "PAUSE", self._milliseconds, "WRITE")


def position(info: Mapping[str, Any]) -> list[Any] | None:
    """Replication id and offset: equal ones are equal data. None while the server does not count what is written."""
    return [info["master_replid"], info["master_repl_offset"]] if info.get("repl_backlog_active") else None


def local_address(host: str, port: int, timeout: float) -> str:
    """The address of this host that a server sees. Raises OSError."""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        return str(connection.getsockname()[0])


def changes_for_copying(config: Mapping[str, str], reachable: Reach) -> dict[str, list[str]]:
    """Old and new value of each setting that a target needs to copy from a scratch server and to be saved before."""
    wanted = {**_WHILE_COPYING, **_WHILE_SAVING, "masterauth": reachable.password}
    return {name: [config[name], value] for name, value in wanted.items() if name in config}


def new_values(changed: Mapping[str, list[str]]) -> dict[str, str]:
    """The values that settings are changed to."""
    return {name: new for name, (_old, new) in changed.items()}


def _is_local(info: Mapping[str, Any], config: Mapping[str, str]) -> bool:
    """Whether the server's process runs on this host: its working folder is its data folder."""
    folder = config.get("dir", "")
    if not os.path.isdir(folder):
        return False
    try:
        return os.path.samefile(f"/proc/{info['process_id']}/cwd", folder)
    except PermissionError:  # as for root in a container, which may not look into others' processes
        return _is_of_that_age(int(info["process_id"]), int(info["uptime_in_seconds"]))
    except OSError:
        return False


def _is_of_that_age(pid: int, seconds: int) -> bool:
    try:
        with open("/proc/uptime", encoding="ascii") as uptime, open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
            age = float(uptime.read().split()[0]) - start_time(pid) / os.sysconf("SC_CLK_TCK")
            return comm.read().startswith(_PROGRAMS) and abs(age - seconds) < _SAME_AGE
    except (OSError, ValueError):
        return False


def wait_for_contact(source: Any, target: Target, seconds: float) -> None:
    """Return when the target has reached the scratch server. Raises ScratchError, so that nobody waits in vain."""
    deadline = target.patience.monotonic() + seconds
    while not source.info("replication")["connected_slaves"]:
        if target.patience.monotonic() > deadline:
            raise ScratchError(
                f"the server did not reach the scratch server within {seconds:g} s: a firewall, or a wrong "
                "scratch_address? Its log says why"
            )
        target.patience.sleep(_POLL)
