# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server as a child of nobody: started with a pid file, waited for, stopped by its own pid and no other's."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

#: Marks of ports that were given away; one process holds so many open.
_MOST_RESERVED = 200
_reserved: deque[socket.socket] = deque()


class PartError(Exception):
    """A part of the platform did not start or stop; the text carries the end of its log."""


def free_port() -> int:
    """A free TCP port of loopback that stays free while its server is down.

    No other process of these tests gets it while this one lives. It lies below the range from which the kernel serves
    outgoing connections: a port of that range can be taken by any of them, even by the very connection that asks
    whether a server listens on it yet.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(1024, lowest - 12000), lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _reserve(port)
            return port


def _reserve(port: int) -> None:
    """Mark a port by one of the same number for UDP, which nobody uses. Raises OSError when another one has done so."""
    mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        mark.bind(("127.0.0.1", port))
    except OSError:
        mark.close()
        raise
    _reserved.append(mark)
    if len(_reserved) > _MOST_RESERVED:
        _reserved.popleft().close()


def accepts(port: int) -> bool:
    """Whether something listens on the port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class ServerProcess:
    """One server process, known by a pid file that also holds its start time.

    The pid file makes it survive the program that started it: ``stop`` works from another process, and never
    touches a pid that has been given to somebody else meanwhile.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.pid_file = folder / f"{name}.pid"

    def start(
        self,
        argv: Sequence[str],
        ready: Callable[[], bool],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 30,
    ) -> None:
        """Start it unless it runs, and wait until ``ready`` says so. Raises PartError with the log's end."""
        if self.pid() is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=cwd or self.folder,
                env={**os.environ, **(env or {})},
            )
        self._note(process.pid)
        deadline = time.monotonic() + timeout
        while not ready():
            self._demand(process.poll() is None and time.monotonic() < deadline)
            time.sleep(0.02)
        # What answered may have been somebody else, who keeps this one from its port.
        self._demand(process.poll() is None)

    def _demand(self, fine: bool) -> None:
        if not fine:
            self.stop()
            raise PartError(f"{self.name} did not get ready: {self._end_of_log()}")

    def pid(self) -> int | None:
        """The pid of the running process, or None."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = (int(word) for word in self.pid_file.read_text().split())
            if start_time(pid) == started:
                return pid
        return None

    def stop(self, timeout: float = 20) -> None:
        """SIGTERM, wait, SIGKILL after ``timeout`` seconds; nothing is left running when it returns."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not self._gone_within(timeout):
                os.kill(pid, signal.SIGKILL)
                if not self._gone_within(timeout):
                    raise PartError(f"{self.name} (pid {pid}) survives SIGKILL")
        self.pid_file.unlink(missing_ok=True)

    def _note(self, pid: int) -> None:
        self.pid_file.write_text(f"{pid} {start_time(pid)}\n")

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (pid := self.pid()) is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "it wrote no log"


def start_time(pid: int) -> int:
    """Clock ticks after boot at which the process started (field 22 of /proc/PID/stat); 0 when it has ended.

    A process whose first thread is a zombie has not ended while others of its threads live: its ports are still open.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ended = fields[0] == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    return 0 if ended else int(fields[19])


@contextlib.contextmanager
def running(process: ServerProcess, argv: Sequence[str], ready: Callable[[], bool]) -> Iterator[ServerProcess]:
    """A server for the length of a with block."""
    process.start(argv, ready)
    try:
        yield process
    finally:
        process.stop()
