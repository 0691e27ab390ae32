# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is a unit of systemd, which stops it as the unit says: TimeoutStopSec and KillMode are its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ansible_collections.upkeep.ops.plugins.module_utils._programs import Ended, ProgramError
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

_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Type", "Result", "MainPID", "NRestarts"),
    *("ExecMainCode", "ExecMainStatus", "KillMode", "SendSIGKILL", "TimeoutStopUSec", "NeedDaemonReload"),
    *("ControlGroup", "RequiredBy", "BoundBy", "ConsistsOf"),
)
_ASK_TIMEOUT = 20.0
_LOG_LINES = 20
#: Beside TimeoutStopSec: after SIGKILL systemd waits the same time once more, and ExecStop has one of its own.
_STOP_PHASES = 3
#: Exit statuses of programs that ended because of SIGTERM, and said so: 128 + 15, as of Node.js and Java.
_ENDED_BY_TERM = ("0", "143", "15")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|min|h|d|w)")


class SystemdService:
    """A Backend."""

    kind = "systemd"

    def __init__(self, unit: str, limits: Limits, means: Means, proc: str = "/proc") -> None:
        self._unit = unit
        self._limits = limits
        self._means = means
        self._proc = proc
        self._with: list[str] = []

    def state(self) -> str:
        unit = self._show()
        if unit["SubState"] == "auto-restart":
            # It has died, and systemd will start it again in a moment, maybe for ever.
            return STALE
        return RUNNING if unit["ActiveState"] in ("active", "reloading", "activating") else STOPPED

    def judge(self) -> list[tuple[str, str]]:
        return judge_unit(self._show(), self._limits.stop)

    def stop(self) -> Stopped:
        before = self._show()
        if before["ActiveState"] in ("inactive", "failed"):
            return Stopped("absent", "it did not run")
        self._with = self._stopped_along(before)
        began = self._means.monotonic()
        limit = seconds_of(before["TimeoutStopUSec"])
        patience = self._limits.stop + self._limits.kill if limit is None else _STOP_PHASES * limit + self._limits.kill
        self._demand(patience, "stop", self._unit)
        after = self._show()
        ended = how_ended(after)
        told = ended_told(ended, self._means.monotonic() - began, self._limits.stop if limit is None else limit)
        if ended == "failed":
            told += f" (systemd: {after['Result']}, status {after['ExecMainStatus']})"
        return Stopped(ended, told, self._left(before["ControlGroup"]))

    def start(self) -> str:
        if self._show()["ActiveState"] == "failed":
            # Else systemd may refuse a start because there were too many of them.
            self._ask("reset-failed", self._unit)
        ended = self._ask("start", self._unit, *self._with, timeout=self._limits.start)
        since = self._means.monotonic()
        if ended.rc != 0:
            raise self._died(f"systemd cannot start it: {ended.complaint}")
        first = self._show()
        while self._means.monotonic() - since < self._limits.settle:
            self._means.sleep(0.1)
        now = self._show()
        if now["ActiveState"] != "active" or now["NRestarts"] != first["NRestarts"]:
            raise self._died(
                f"it ended right after its start (systemd: {now['ActiveState']}, {now['Result']}, "
                f"status {now['ExecMainStatus']})"
            )
        also = f", and with it {', '.join(self._with)}" if self._with else ""
        return f"systemd started it as pid {now['MainPID']}{also}"

    def _stopped_along(self, unit: Mapping[str, str]) -> list[str]:
        """Units that run and that systemd stops with this one, but would not start again with it."""
        names = sorted({name for key in ("RequiredBy", "BoundBy", "ConsistsOf") for name in unit[key].split()})
        return [name for name in names if self._ask("is-active", "--quiet", name).rc == 0]

    def _left(self, group: str) -> str:
        """Processes of the unit that survived its end."""
        pids = sorted(self._members(group), key=int) if group else []
        return f"pid {', '.join(pids[:5])}" if pids else ""

    def _members(self, group: str) -> Iterator[str]:
        """Pids of the processes in a control group, of either version of these."""
        for pid in os.listdir(self._proc):
            with suppress(OSError), open(f"{self._proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
                if pid.isdigit() and any(f"{group}/" in f"{line.rstrip()}/" for line in stream):
                    yield pid

    def _show(self) -> dict[str, str]:
        ended = self._demand(_ASK_TIMEOUT, "show", self._unit, f"--property={','.join(_PROPERTIES)}")
        found = dict.fromkeys(_PROPERTIES, "")
        found.update(
            (name, value) for name, _mark, value in (line.partition("=") for line in ended.stdout.splitlines())
        )
        if found["LoadState"] != "loaded":
            raise ServiceError(f"systemd has no unit {self._unit} that it can load ({found['LoadState']})")
        return found

    def _died(self, told: str) -> ServiceError:
        with suppress(ProgramError):
            argv = ["journalctl", f"--unit={self._unit}", f"--lines={_LOG_LINES}", "--no-pager", "--output=cat"]
            log = [line for line in self._means.run(argv, _ASK_TIMEOUT).stdout.splitlines() if line.strip()]
            own = [line for line in log if not line.startswith((f"{self._unit}", "Started ", "Stopped ", "Starting "))]
            return ServiceError(f"{told}; its log ends: {own[-1][:300]}" if own else told, log)
        return ServiceError(told)

    def _demand(self, timeout: float, *arguments: str) -> Ended:
        ended = self._ask(*arguments, timeout=timeout)
        if ended.rc != 0:
            raise ServiceError(f"systemctl {' '.join(arguments[:2])} failed: {ended.complaint}")
        return ended

    def _ask(self, *arguments: str, timeout: float = _ASK_TIMEOUT) -> Ended:
        try:
            return self._means.run(["systemctl", *arguments], timeout)
        except ProgramError as error:
            raise ServiceError(f"systemctl {' '.join(arguments[:2])}: {error}; see systemctl list-jobs") from error


def how_ended(unit: Mapping[str, str]) -> str:
    """How a unit ended that was stopped, by what systemd says of it."""
    if unit["Result"] == "timeout" or (unit["ExecMainCode"], unit["ExecMainStatus"]) == ("2", "9"):
        return "killed"
    if unit["Result"] == "success" or unit["ExecMainStatus"] in _ENDED_BY_TERM:
        return "terminated"
    return "failed"


def judge_unit(unit: Mapping[str, str], needed: float) -> list[tuple[str, str]]:
    """What is wrong with how systemd would stop a unit whose last requests need so many seconds."""
    problems = []
    limit = seconds_of(unit["TimeoutStopUSec"])
    if limit is None:
        problems.append((
            "TimeoutStopSec is infinity (or 0, which means the same): a service that hangs is never ended",
            f"Set TimeoutStopSec={needed:g} in the unit",
        ))  # fmt: skip
    elif limit < needed:
        problems.append((
            f"TimeoutStopSec is {limit:g} s, though its last requests may take {needed:g} s: systemd kills it earlier",
            f"Set TimeoutStopSec={needed:g} in the unit, or a shorter stop_timeout in the catalogue",
        ))  # fmt: skip
    if unit["KillMode"] in ("process", "none"):
        whom = "its children" if unit["KillMode"] == "process" else "all of its processes"
        problems.append((
            f"KillMode is {unit['KillMode']}: {whom} may outlive it, and keep its port",
            "Set KillMode=control-group or mixed in the unit",
        ))  # fmt: skip
    if unit["SendSIGKILL"] == "no":
        problems.append(("SendSIGKILL is off: a service that hangs is never ended", "Remove SendSIGKILL=no"))
    if unit["NeedDaemonReload"] == "yes":
        problems.append(("its unit was changed, and systemd has not read it yet", "Run systemctl daemon-reload"))
    return problems


def seconds_of(text: str) -> float | None:
    """Seconds of a time span as systemctl shows it (``1min 30s``); None when it is infinity.

    Raises ServiceError for anything else.
    """
    if text == "infinity":
        return None
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ServiceError(f"systemd shows a time that cannot be read: {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
