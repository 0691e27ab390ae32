# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of one host started, stopped and restarted, one after the other, whatever runs them.

How each is run (systemd, docker, process) is a :class:`Backend`'s business. Here is decided what to do, in which
order, and what is said of it: a service that does not end or come back ends the whole, and those after it are left
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._programs import Runner
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: How a service can be found.
RUNNING, STOPPED, STALE = "running", "stopped", "stale"


class ServiceError(Exception):
    """A service cannot be told, does not end or does not come back; ``log`` is the end of what it wrote."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = list(log)


@dataclass(frozen=True)
class Limits:
    """Seconds: to end by itself, to end after SIGKILL, to start, and to live before it counts as started."""

    stop: float
    kill: float
    start: float
    settle: float


@dataclass(frozen=True)
class Means:
    """What backends work with."""

    run: Runner
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True)
class Stopped:
    """How a service ended: terminated, killed, failed, stale or absent; and in words.

    ``left`` names what of it still runs.
    """

    ended: str
    told: str
    left: str = ""


class Backend(Protocol):
    """One service as something runs it. Every method may raise ServiceError."""

    kind: str

    def state(self) -> str:
        """RUNNING, STOPPED, or STALE when only its traces are left."""

    def stop(self) -> Stopped:
        """Stop it, and clear away its traces."""

    def start(self) -> str:
        """Start it and return once it has lived for a while; what was started, in words."""

    def judge(self) -> list[tuple[str, str]]:
        """What is wrong with how it would be stopped, each with what to do."""


@dataclass
class Outcome:
    """What became of one service."""

    name: str
    backend: str
    before: str
    ended: str = ""
    stop_seconds: float = 0.0
    start_seconds: float = 0.0
    running: bool = False
    changed: bool = False
    message: str = ""
    log: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        return dict(vars(self))


class Control:
    """Brings services into a state. ``check``: only says what would be done."""

    def __init__(self, findings: FindingsBuilder, monotonic: Callable[[], float], check: bool) -> None:
        self._findings = findings
        self._monotonic = monotonic
        self._check = check

    def bring(self, services: Sequence[tuple[str, Backend]], state: str) -> list[Outcome]:
        """All services in this order into the state started, stopped or restarted."""
        outcomes: list[Outcome] = []
        failed = ""
        for name, backend in services:
            if failed:
                self._findings.add(
                    f"service_{_CHECKS[state]}", name, "unknown",
                    f"it was left as it is, because {failed} before it failed",
                    hint=f"Mend {failed} first, and run this again",
                )  # fmt: skip
                continue
            outcome = Outcome(name, backend.kind, STOPPED)
            outcomes.append(outcome)
            try:
                self._one(outcome, backend, state)
            except ServiceError as error:
                failed = name
                outcome.message, outcome.log = str(error), error.log
                check = "service_start" if outcome.ended or state == "started" else "service_stop"
                hint = "See its log, mend the cause, and start it again" if check == "service_start" else ""
                self._findings.add(check, name, "critical", str(error), hint=hint)
        return outcomes

    def _one(self, outcome: Outcome, backend: Backend, state: str) -> None:
        outcome.before = backend.state()
        outcome.running = outcome.before == RUNNING
        self._judge(outcome.name, backend)
        stops = state == "restarted" or (state == "stopped" and outcome.before != STOPPED)
        starts = state == "restarted" or (state == "started" and not outcome.running)
        outcome.changed = stops or starts
        if not outcome.changed:
            outcome.message = f"it is {outcome.before} already"
            return
        if self._check:
            outcome.message = f"it would be {state}"
            outcome.running = starts
            return
        if stops:
            self._stop(outcome, backend)
        if starts:
            self._start(outcome, backend)

    def _judge(self, name: str, backend: Backend) -> None:
        problems = backend.judge()
        for summary, hint in problems:
            self._findings.add("stop_settings", name, "warning", summary, hint=hint)
        if not problems:
            self._findings.add("stop_settings", name, "ok", "it has the time that it needs to end its last requests")

    def _stop(self, outcome: Outcome, backend: Backend) -> None:
        began = self._monotonic()
        stopped = backend.stop()
        outcome.stop_seconds = round(self._monotonic() - began, 3)
        outcome.ended, outcome.running = stopped.ended, False
        outcome.message = stopped.told
        status, hint = _STOPPED.get(stopped.ended, ("ok", ""))
        if stopped.left:
            status, hint = "warning", "End what was left by hand, and let the service end its children"
        told = f"{stopped.told}; {stopped.left} is left of it" if stopped.left else stopped.told
        self._findings.add(
            "service_stop", outcome.name, status, told, value=outcome.stop_seconds, unit="s", hint=hint
        )  # fmt: skip

    def _start(self, outcome: Outcome, backend: Backend) -> None:
        began = self._monotonic()
        told = backend.start()
        outcome.start_seconds = round(self._monotonic() - began, 3)
        outcome.running = True
        outcome.message = f"{outcome.message}; {told}" if outcome.message else told
        self._findings.add("service_start", outcome.name, "ok", told, value=outcome.start_seconds, unit="s")


_CHECKS = {"started": "start", "stopped": "stop", "restarted": "start"}
_STOPPED = {
    "killed": ("warning", "Requests may have been cut: see what kept it, or give it a longer stop_timeout"),
    "failed": ("warning", "See its log: it did not end as it was asked to"),
}


def ended_told(ended: str, seconds: float, limit: float) -> str:
    """How a service ended after it was asked to, in words."""
    if ended == "killed":
        return f"it did not end within {limit:g} s and was killed"
    return f"it ended within {format_duration(seconds)}" + (", with an error" if ended == "failed" else "")
