# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private redis-server for a while: it loads a snapshot where nobody else can reach it, and is gone afterwards.

It listens on a unix socket in a 0700 folder. It is a replica of a master that does not exist, so that it neither
expires nor evicts anything: what it holds is what the snapshot holds. It listens on a TCP port only when another
server is to copy its data, and then behind a password; :func:`become_master` lets it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._programs import dies_with_us
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import Login, client

_PREFIX = "upkeep-scratch-"
_UNCLAIMED = "upkeep-claimed-soon-"
_RDB = "dump.rdb"
_SOCKET = "s"
_PROGRAMS = ("redis-server", "valkey-server")
_LONGEST_SOCKET_PATH = 107  # bytes, a limit of the kernel
_CLAIMED_AFTER = 60  # seconds; an older folder without a claim has no owner
_POLL = 0.02  # seconds
_QUIET = 12000  # ports
_CANDIDATES = 20
_FROZEN = ("replicaof 127.0.0.1 1",)


class ScratchError(Exception):
    """The scratch server could not do its work; the text says why."""


class RefusedError(ScratchError):
    """redis-server refused to load the snapshot; the text is its own reason."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and with which clock and sleep."""

    seconds: float
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Reach:
    """Where other servers reach a scratch server to copy its data, and the password that they need."""

    address: str
    port: int
    password: str = field(repr=False)

    @property
    def settings(self) -> list[str]:
        """What the scratch server is told; its waiting for further replicas would only take time."""
        return [
            f"bind {self.address}",
            f"port {self.port}",
            f"requirepass {self.password}",
            "repl-diskless-sync yes",
            "repl-diskless-sync-delay 0",
            "client-output-buffer-limit replica 0 0 0",
        ]


def reach(address: str, port: int = 0, password: str = "") -> Reach:
    """A reach, at a free port and with a new password when none are given. Raises OSError when it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for candidate in [port] if port else [*_quiet_ports(), 0]:
        try:
            with socket.create_server((address, candidate), family=family) as server:
                return Reach(address, server.getsockname()[1], password or secrets.token_hex(32))
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("some port is free")


def _quiet_ports() -> list[int]:
    """Some ports from which no connection goes out, so that none is taken before the server listens on it."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as stream:
            lowest = int(stream.read().split()[0])
    except OSError:
        return []
    return random.sample(range(max(1024, lowest - _QUIET), lowest), _CANDIDATES) if lowest > 1024 + _QUIET else []


def scratch_login(folder: str, reachable: Reach, seconds: float) -> Login:
    """Where the scratch server of a folder is for this process."""
    return Login(unix_socket=os.path.join(folder, _SOCKET), password=reachable.password, timeout=seconds)


@contextlib.contextmanager
def scratch_folder(root: str) -> Iterator[str]:
    """A private folder under ``root``, removed at the end with all that is in it.

    Folders that killed runs left there are removed first. Raises OSError.
    """
    remove_abandoned_scratch(root)
    unclaimed = tempfile.mkdtemp(prefix=_UNCLAIMED, dir=root)
    folder = os.path.join(root, _PREFIX + os.path.basename(unclaimed)[len(_UNCLAIMED) :])
    claim = os.open(unclaimed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The kernel takes this mark of a living owner away when the owner dies, however that happens.
        with contextlib.suppress(OSError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(unclaimed, folder)
        yield folder
    finally:
        os.close(claim)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def scratch_server(
    library: ModuleType,
    binary: str,
    folder: str,
    rdb: str,
    databases: int,
    patience: Patience,
    reachable: Reach | None = None,
) -> Iterator[Any]:
    """A client of a scratch server that has loaded ``rdb``, an uncompressed RDB that it only reads.

    ``folder`` is one of :func:`scratch_folder`; the server can hold ``databases`` of them. It is killed at the end,
    and by the kernel when this process dies. Raises ScratchError, and RefusedError when the server does not load it.
    """
    place = os.path.join(folder, _RDB)
    if os.path.abspath(rdb) != place:
        os.symlink(os.path.abspath(rdb), place)
    settings = [*_FROZEN, *(reachable.settings if reachable else ["port 0"])]
    password = reachable.password if reachable else ""
    with _server(library, binary, folder, [f"databases {databases}", *settings], patience, password) as connection:
        yield connection


@contextlib.contextmanager
def scratch_copy(
    library: ModuleType, binary: str, folder: str, databases: int, patience: Patience, master: Reach
) -> Iterator[Any]:
    """A client of an empty scratch server that knows the password of ``master``; ended like any other one."""
    settings = [f"databases {databases}", "port 0", f"masterauth {master.password}"]
    with _server(library, binary, folder, settings, patience, "") as connection:
        yield connection


def become_master(connection: Any) -> None:
    """Let other servers copy what a scratch server loaded, all of it: it goes on keeping what has expired."""
    connection.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    connection.execute_command("REPLICAOF", "NO", "ONE")


def server_programs(name: str) -> list[str]:
    """Where a server is installed here: the one of that name, or without a name every one that is known."""
    found = (shutil.which(program) for program in ([name] if name else _PROGRAMS))
    return [path for path in found if path is not None]


def server_version(binary: str) -> str:
    """The version of a server program: ``7.0.15``, ``valkey 8.1.1``. Raises ScratchError when it does not tell."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScratchError(f"{binary} does not run: {error}") from error
    match = re.search(r"(Valkey )?.*\bv=(\d+(?:\.\d+)+)", answer.stdout)
    if match is None:
        raise ScratchError(f"{binary} --version says {answer.stdout.strip()[:100]!r}: is it redis-server?")
    return (match[1] or "").lower() + match[2]


def available_memory() -> int | None:
    """Bytes of memory that can be used without swapping, None where the kernel does not tell."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def _server(
    library: ModuleType, binary: str, folder: str, settings: Sequence[str], patience: Patience, password: str
) -> Iterator[Any]:
    socket_path = os.path.join(folder, _SOCKET)
    if len(os.fsencode(socket_path)) > _LONGEST_SOCKET_PATH:
        raise ScratchError(f"the path {folder} is too long for a unix socket; choose a shorter scratch_dir")
    process = _start(binary, folder, [*_settings(server_version(binary), folder, socket_path), *settings])
    try:
        login = Login(unix_socket=socket_path, password=password, timeout=patience.seconds)
        with client(library, login) as connection:
            _wait_until_loaded(library, process, connection, os.path.join(folder, "log"), patience)
            yield connection
    finally:
        process.kill()
        process.wait()


def _settings(version: str, folder: str, socket_path: str) -> list[str]:
    settings = [
        f'unixsocket "{socket_path}"',
        "unixsocketperm 700",
        f'dir "{folder}"',
        f"dbfilename {_RDB}",
        'save ""',
        "appendonly no",
        "maxmemory 0",
        f'logfile "{os.path.join(folder, "log")}"',
    ]
    if int(version.split(".")[0].split()[-1]) >= 7:  # older servers know no such setting and always allow DEBUG
        settings.append("enable-debug-command local")
    return settings


def _start(binary: str, folder: str, settings: list[str]) -> subprocess.Popen[bytes]:
    config = os.path.join(folder, "redis.conf")
    with open(os.open(config, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write("\n".join(settings) + "\n")
    return subprocess.Popen(
        [binary, config],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=dies_with_us(),
    )


def _wait_until_loaded(
    library: ModuleType, process: subprocess.Popen[bytes], connection: Any, log: str, patience: Patience
) -> None:
    deadline = patience.monotonic() + patience.seconds
    while True:
        code = process.poll()
        if code == -signal.SIGKILL:
            raise ScratchError("redis-server was killed while it loaded the snapshot; was there not enough memory?")
        if code is not None:
            raise RefusedError(_reason(log) or f"redis-server ended with code {code}")
        with contextlib.suppress(library.RedisError):
            connection.ping()
            return
        if patience.monotonic() > deadline:
            raise ScratchError(f"redis-server had not loaded the snapshot after {patience.seconds:g} s")
        patience.sleep(_POLL)


def _reason(log: str) -> str:
    """The warnings with which a redis-server ended, from its log."""
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as stream:
        warnings = [line.split(" # ", 1)[1].strip() for line in stream if " # " in line]
        return "; ".join(line for line in warnings if "vercommit" not in line)[-600:]
    return ""


def remove_abandoned_scratch(root: str) -> None:
    """Remove the scratch folders that killed runs left under ``root``: they hold data."""
    for name in os.listdir(root):
        if name.startswith((_PREFIX, _UNCLAIMED)):
            with contextlib.suppress(OSError):
                _remove_if_abandoned(os.path.join(root, name), 0 if name.startswith(_PREFIX) else _CLAIMED_AFTER)


def _remove_if_abandoned(folder: str, age: float) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid() or time.time() - state.st_mtime < age:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
