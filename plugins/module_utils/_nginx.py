# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running nginx: its configuration tested, taken over by new workers, and the old ones seen out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ansible_collections.upkeep.ops.plugins.module_utils._programs import ProgramError, Runner

_POLL = 0.05
_TIMEOUT = 30.0


class NginxError(Exception):
    """nginx refuses its configuration, does not run, or does not take over; the text carries its own words."""


@dataclass(frozen=True)
class Worker:
    """A worker process; ``leaving`` when it takes no connections any more and only ends its requests."""

    pid: int
    started: str
    leaving: bool


@dataclass(frozen=True)
class Nginx:
    """nginx as this host runs it. ``command`` is the program with the options that name its configuration."""

    command: Sequence[str]
    pid_file: str
    run: Runner
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def test(self) -> None:
        """Raises NginxError with what nginx says of its configuration when it would not start with it."""
        self._demand("-t", "-q")

    def reload(self) -> list[Worker]:
        """Let new workers take over with the configuration on disk; returns the old ones, which end their requests.

        ``nginx -s reload`` succeeds as soon as the signal is sent, whatever becomes of it. So this waits until new
        workers are there and every old one has stopped taking connections. Raises NginxError.
        """
        self.test()
        old = {(worker.pid, worker.started) for worker in self.workers()}
        self._demand("-s", "reload")
        deadline = self.monotonic() + _TIMEOUT
        while True:
            now = self.workers()
            ours = [worker for worker in now if (worker.pid, worker.started) in old]
            if len(now) > len(ours) and all(worker.leaving for worker in ours):
                return ours
            if self.monotonic() > deadline:
                raise NginxError(
                    f"nginx goes on with its old configuration {_TIMEOUT:g} s after the reload: see its error log"
                )
            self.sleep(_POLL)

    def drained(self, old: Sequence[Worker], timeout: float) -> bool:
        """Whether the old workers ended their last requests, and with them themselves, within ``timeout`` seconds."""
        left = {(worker.pid, worker.started) for worker in old}
        deadline = self.monotonic() + timeout
        while left & {(worker.pid, worker.started) for worker in self.workers()}:
            if self.monotonic() > deadline:
                return False
            self.sleep(_POLL)
        return True

    def workers(self) -> list[Worker]:
        """The workers of the running master. Raises NginxError when it does not run."""
        master = self._master()
        return [worker for pid in os.listdir("/proc") if pid.isdigit() and (worker := _worker(int(pid), master))]

    def _master(self) -> int:
        with suppress(OSError, ValueError):
            with open(self.pid_file, encoding="utf-8") as stream:
                pid = int(stream.read())
            if b"nginx" in _command_line(pid):
                return pid
        raise NginxError(f"nginx does not run: the pid file {self.pid_file} names no nginx")

    def _demand(self, *arguments: str) -> None:
        try:
            ended = self.run([*self.command, *arguments], _TIMEOUT)
        except ProgramError as error:
            raise NginxError(str(error)) from error
        if ended.rc != 0:
            raise NginxError(f"nginx {' '.join(arguments)} failed: {_complaint(ended.stderr) or ended.complaint}")


def _complaint(text: str) -> str:
    """The first thing that nginx calls an error; its last line only says that the test failed."""
    lines = [line.strip() for line in text.splitlines() if "[emerg]" in line or "[error]" in line]
    return lines[0].split("] ", 1)[-1][:300] if lines else ""


def _worker(pid: int, master: int) -> Worker | None:
    with suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # The name in parentheses may hold spaces and parentheses itself.
            fields = stream.read().rsplit(")", 1)[1].split()
        if int(fields[1]) == master and fields[0] != "Z":
            return Worker(pid, fields[19], b"shutting down" in _command_line(pid))
    return None


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        return stream.read()
