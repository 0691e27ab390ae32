# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is a plain process with a pid file: nobody but its start command and that file know of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text
from ansible_collections.upkeep.ops.plugins.module_utils._processes import (
    Patience,
    Process,
    ProcessError,
    StalePidFileError,
    end,
    find_by_pid_file,
)
from ansible_collections.upkeep.ops.plugins.module_utils._service_control import (
    RUNNING,
    STALE,
    STOPPED,
    Limits,
    Means,
    ServiceError,
    Stopped,
    ended_told,
)

_POLL = 0.05
_LOG_LINES = 20
_LOG_BYTES = 4000
#: What a service takes over of the environment of this program; all else is Ansible's own.
_INHERITED = ("PATH", "HOME", "LANG", "LOGNAME", "USER", "SHELL", "TZ")


@dataclass(frozen=True)
class Launch:
    """How the process is started. ``forks``: the command ends and leaves a daemon, which writes the pid file."""

    command: Sequence[str]
    pid_file: str
    working_dir: str | None = None
    log: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    forks: bool = False


class ProcessService:
    """A Backend."""

    kind = "process"

    def __init__(self, launch: Launch, limits: Limits, means: Means) -> None:
        self._launch = launch
        self._limits = limits
        self._means = means

    def state(self) -> str:
        try:
            return RUNNING if self._process() else STOPPED
        except StalePidFileError:
            return STALE

    def judge(self) -> list[tuple[str, str]]:
        # It is stopped by this very code, with the time that the catalogue gives it.
        return []

    def stop(self) -> Stopped:
        try:
            process = self._process()
        except StalePidFileError as error:
            self._forget()
            return Stopped("stale", f"{error}; nobody was stopped")
        if process is None:
            return Stopped("absent", "it did not run")
        try:
            patience = Patience(self._limits.stop, self._limits.kill, self._means.monotonic)
            ending = end(process, True, signal.SIGTERM, patience)
        except ProcessError as error:
            raise ServiceError(str(error)) from error
        self._forget()
        ended = "killed" if ending.killed else "terminated"
        return Stopped(ended, ended_told(ended, ending.seconds, self._limits.stop))

    def start(self) -> str:
        """Start it in a session of its own, so that it outlives this program and is told apart from it."""
        self._forget()
        written = self._log_size()
        child = self._popen()
        if not self._launch.forks:
            # At once: whatever becomes of this program, the next one finds the process. Services that write their
            # pid file themselves write the same pid.
            publish_text(self._launch.pid_file, f"{child.pid}\n", 0o644)
        process = self._settled(child, written)
        return f"it was started as {process.told}"

    def _settled(self, child: subprocess.Popen[bytes], written: int) -> Process:
        began = self._means.monotonic()
        while True:
            passed = self._means.monotonic() - began
            process = self._alive()
            code = child.poll()
            if code is not None and (code != 0 or not self._launch.forks) and process is None:
                self._forget()
                raise self._died(f"it {_exit(code)} {passed:.1f} s after its start", written)
            if process is not None and passed >= self._limits.settle:
                return process
            if passed > self._limits.start:
                raise self._died(
                    f"no process has the pid in {self._launch.pid_file} {self._limits.start:g} s after the start: "
                    "see whether the service writes it there, and whether command is its true command line",
                    written,
                )
            self._means.sleep(_POLL)

    def _alive(self) -> Process | None:
        with suppress(StalePidFileError):
            return self._process()
        return None

    def _process(self) -> Process | None:
        try:
            return find_by_pid_file(self._launch.pid_file, self._launch.command)
        except StalePidFileError:
            raise
        except ProcessError as error:
            raise ServiceError(str(error)) from error

    def _forget(self) -> None:
        """Remove the pid file, which the process may have done itself."""
        with suppress(FileNotFoundError):
            os.unlink(self._launch.pid_file)

    def _popen(self) -> subprocess.Popen[bytes]:
        launch = self._launch
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        identity: dict[str, Any] = {"user": launch.user} if launch.user else {}
        try:
            with open(launch.log or os.devnull, "ab") as log:
                child: subprocess.Popen[bytes] = subprocess.Popen(
                    list(launch.command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=launch.working_dir or "/",
                    env={**kept, **launch.environment},
                    start_new_session=True,
                    **identity,
                )
                return child
        except (OSError, KeyError, subprocess.SubprocessError) as error:
            told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            name = getattr(error, "filename", None) or launch.command[0]
            raise ServiceError(f"it cannot be started: {name}: {told}") from error

    def _log_size(self) -> int:
        with suppress(OSError):
            return os.path.getsize(self._launch.log or "")
        return 0

    def _died(self, told: str, written: int) -> ServiceError:
        log = self._end_of_log(written)
        if log:
            return ServiceError(f"{told}; its log ends: {log[-1][:300]}", log)
        where = f"it wrote nothing to {self._launch.log}" if self._launch.log else "it has no log: name one in runner"
        return ServiceError(f"{told}; {where}")

    def _end_of_log(self, written: int) -> list[str]:
        """The last lines of what it wrote since it was started."""
        with suppress(OSError), open(self._launch.log or "", "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(written if size >= written else 0, size - _LOG_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
            return [line for line in lines if line.strip()][-_LOG_LINES:]
        return []


def _exit(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit status {code}"
