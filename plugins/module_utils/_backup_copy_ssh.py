# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backup sets on another host: written by rsync, everything else by short scripts over ssh.

The other host needs an account with a shell, rsync and GNU find. Its key must be known already: nobody is there who
could say yes to a new one.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._age import Readable
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import PlaceError
from ansible_collections.upkeep.ops.plugins.module_utils._programs import dies_with_us

_CONNECT_TIMEOUT = 15
_ALIVE_EVERY = 10  # seconds; a link that is silent for three of them is dead
_LONGEST = 900  # seconds that a script may take; putting all on disk is the longest
_NO_FOLDER = 66
_SSH_FAILED = 255
_POLL = 0.02

_CUT = "the link was cut: run it again, it goes on from there"
_SILENT = "the link fell silent: run it again, it goes on from there"
#: A part of what ssh, rsync or the other host says, with what it means and what to do; the first that fits is told.
_CAUSES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known. Find out why before anything else; only then take the new one "
        "into the file of known hosts (ssh-keygen -R, ssh-keyscan)",
    ),
    (
        "Host key verification failed",
        "its host key is not known here: compare it with what ssh-keyscan says, and take it into the file of known "
        "hosts",
    ),
    (
        "Permission denied (",
        "it does not let this user in: is ssh_key_file right, is its public key in authorized_keys?",
    ),
    ("No space left on device", "it is full: make room there"),
    ("Disk quota exceeded", "the quota of this user is used up: make room there"),
    ("Could not resolve hostname", "its name has no address: is the url right?"),
    ("Connection refused", "nothing listens there: does sshd run, is the port right?"),
    ("timed out", "it does not answer: is the host up, and the way to it open?"),
    ("rsync: command not found", "it has no rsync: install it there"),
    ("rsync: not found", "it has no rsync: install it there"),
    ("Permission denied", "this user may not write there"),
    ("Read-only file system", "its file system can only be read"),
    ("Broken pipe", _CUT),
    ("closed by", _CUT),
    ("Shared connection to", _CUT),
    ("mux_client", _CUT),
    ("Connection reset", _CUT),
    ("connection unexpectedly closed", _CUT),
    ("timeout in data", _SILENT),
    ("not responding", _SILENT),
)


@dataclass(frozen=True)
class SshAccess:
    """How the host is reached. ``timeout`` is how many seconds it may stay silent."""

    key_file: str = ""
    known_hosts_file: str = ""
    timeout: float = 60


class SshPlace:
    """A folder on another host, of a URL such as ``ssh://user@host:22/srv/copies``. Raises ValueError for others."""

    renames = True

    def __init__(self, url: str, access: SshAccess) -> None:
        parts = urlsplit(url)
        self._path = unquote(parts.path).rstrip("/")
        if not parts.hostname or not self._path or parts.password or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no address such as ssh://user@host:22/folder (without a password)")
        user, host = unquote(parts.username or ""), parts.hostname
        if host.startswith("-") or user.startswith("-"):
            raise ValueError(f"{url!r} has a user or host that begins with a dash")
        self._host = f"{user}@{host}" if user else host
        port = f":{parts.port}" if parts.port else ""
        self.address = f"ssh://{self._host}{port}{self._path}"
        self._timeout = access.timeout
        self._ssh = ["ssh", *_options(access), *(["-p", str(parts.port)] if parts.port else [])]
        self._own = len(self._ssh)

    @contextmanager
    def session(self) -> Iterator[None]:
        """One connection for all: making one takes longer than most of what is done over it."""
        socket = os.path.join(tempfile.gettempdir(), f"upkeep-ssh-{secrets.token_hex(8)}")
        # Told to end it removes its socket, which it would not do when it is killed.
        master = self._popen([*self._ssh, "-N", "-M", "-S", socket, self._host], signal.SIGTERM)
        try:
            self._wait_for(socket, master)
            self._ssh += ["-S", socket]
            yield
        finally:
            self._ssh = self._ssh[: self._own]
            master.terminate()
            master.communicate()

    def _wait_for(self, socket: str, master: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _CONNECT_TIMEOUT + self._timeout
        while not os.path.exists(socket):
            if master.poll() is not None:
                raise self._error(cast(IO[bytes], master.stderr).read().decode(errors="replace"), master.returncode)
            if time.monotonic() > deadline:
                raise PlaceError(f"{self.address}: it did not let us in in time: is the host overloaded?")
            time.sleep(_POLL)

    def listing(self) -> dict[str, int]:
        told = self._script("find . -type f -printf '%s %P\\0'")
        entries = (entry.split(" ", 1) for entry in told.decode(errors="surrogateescape").split("\0") if entry)
        return {name: int(size) for size, name in entries}

    def texts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        files = " ".join(map(shlex.quote, names))
        script = (
            f'for f in {files}; do [ -f "$f" ] || continue; printf "%s %s\\0" "$(wc -c <"$f")" "$f"; cat "$f"; done'
        )
        told = self._script(script) if names else b""
        found = {}
        while told:
            head, _mark, rest = told.partition(b"\0")
            size, name = head.decode().split(" ", 1)
            found[name], told = rest[: int(size)], rest[int(size) :]
        return found

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        process = self._start(f"exec cat {shlex.quote(name)}")
        stdout, stderr = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        try:
            yield _Patient(stdout, self._timeout, self.address)
            stdout.close()
            complaint = stderr.read().decode(errors="replace")
            if process.wait() != 0:
                raise self._error(complaint, process.returncode)
        finally:
            process.kill()
            process.wait()
            stdout.close()
            stderr.close()

    def begin(self, folder: str) -> None:
        self._script(f"umask 077; mkdir -p {shlex.quote(folder)}")

    def write(self, root: str, name: str, folder: str) -> None:
        # Its own comparison of size and time is not trusted: what is there is compared block by block.
        argv = ["rsync", "--relative", "--ignore-times", "--partial", "--inplace", "--protect-args"]
        argv += ["--chmod=D700,F600", f"--timeout={max(1, round(self._timeout))}", "-e", shlex.join(self._ssh)]
        argv += [f"{os.path.abspath(root)}/./{name}", f"{self._host}:{self._path}/{folder}/"]
        self._ended(self._popen(argv), None)

    def remove(self, names: Iterable[str]) -> None:
        listed = list(names)
        folders = sorted({name.split("/", 1)[0] for name in listed if "/" in name})
        if listed:
            script = f"rm -f -- {' '.join(map(shlex.quote, listed))}"
            if folders:
                inside = " ".join(map(shlex.quote, folders))
                script += f"; find {inside} -depth -type d -exec rmdir {{}} \\; 2>/dev/null || :"
            self._script(script)

    def rename(self, old: str, new: str) -> None:
        before, after = shlex.quote(old), shlex.quote(new)
        script = f"[ ! -d {after} ] || find {after} -depth -type d -exec rmdir {{}} \\; ; [ ! -d {after} ] || exit 1; "
        script += f"mv {before} {after} || exit 1; "
        self._script(script + f"sync -f {after} 2>/dev/null || sync")

    def _script(self, script: str) -> bytes:
        return self._ended(self._start(script), _LONGEST)

    def _start(self, script: str) -> subprocess.Popen[bytes]:
        whole = f"cd {shlex.quote(self._path)} 2>/dev/null || exit {_NO_FOLDER}; {script}"
        return self._popen([*self._ssh, self._host, f"exec sh -c {shlex.quote(whole)}"])

    def _popen(self, argv: Sequence[str], end: signal.Signals = signal.SIGKILL) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
                preexec_fn=dies_with_us(end),
            )
        except OSError as error:
            program = {"ssh": "openssh-client"}.get(argv[0], argv[0])
            raise PlaceError(
                f"{argv[0]} cannot be run: {error.strerror}. Install it with 'apt install {program}'"
            ) from error

    def _ended(self, process: subprocess.Popen[bytes], timeout: float | None) -> bytes:
        try:
            output, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise PlaceError(f"{self.address}: it did not answer within {timeout:g} s: does its disk hang?") from error
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise self._error(complaint.decode(errors="replace"), process.returncode)
        return output

    def _error(self, complaint: str, code: int) -> PlaceError:
        if code == _NO_FOLDER:
            return PlaceError(f"{self.address}: there is no such folder; mount it, or make it with mode 0700")
        lines = [line.strip() for line in complaint.splitlines() if line.strip(" @")]
        for part, cause in _CAUSES:
            said = next((line for line in lines if part in line), "")
            if said:
                return PlaceError(f"{self.address}: {cause} ({_short(said)})")
        if code == _SSH_FAILED and not lines:  # as when the connection that all share has ended
            return PlaceError(f"{self.address}: {_CUT}")
        said = next((line for line in lines if not line.startswith("rsync error")), "") or f"code {code}"
        return PlaceError(f"{self.address}: {_short(said)}")


class _Patient:
    """Reads from a pipe and gives up when nothing comes for a while."""

    def __init__(self, stream: IO[bytes], timeout: float, address: str) -> None:
        self._descriptor, self._timeout, self._address = stream.fileno(), timeout, address

    def read(self, size: int = -1, /) -> bytes:
        if not select.select([self._descriptor], [], [], self._timeout)[0]:
            raise PlaceError(f"{self._address}: nothing came for {self._timeout:g} s: does the link or the disk hang?")
        return os.read(self._descriptor, size if size > 0 else 1 << 20)


def _options(access: SshAccess) -> list[str]:
    settings = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(_CONNECT_TIMEOUT),
        "ServerAliveInterval": str(_ALIVE_EVERY),
        "ServerAliveCountMax": "3",
    }
    if access.known_hosts_file:
        settings["UserKnownHostsFile"] = f'"{access.known_hosts_file}"'
    if access.key_file:
        settings["IdentitiesOnly"] = "yes"
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return options + (["-i", access.key_file] if access.key_file else [])


def _short(line: str) -> str:
    return re.sub(r"\s+", " ", line.strip("@ "))[:200]
