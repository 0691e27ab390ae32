# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is a container of Docker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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

_ASK_TIMEOUT = 30.0
_LOG_LINES = 20
_KILLED = 137
#: Exit codes of programs that end as they are asked to: 143 is 128 + SIGTERM.
_ENDED = (0, 143)


class DockerService:
    """A Backend."""

    kind = "docker"

    def __init__(self, container: str, limits: Limits, means: Means) -> None:
        self._container = container
        self._limits = limits
        self._means = means

    def state(self) -> str:
        state = self._inspect()["State"]
        if state.get("Restarting"):
            # It has died, and Docker will start it again in a moment, maybe for ever.
            return STALE
        return RUNNING if state["Running"] else STOPPED

    def judge(self) -> list[tuple[str, str]]:
        return judge_container(self._inspect(), self._limits.stop)

    def stop(self) -> Stopped:
        if not self._inspect()["State"]["Running"]:
            return Stopped("absent", "it did not run")
        began = self._means.monotonic()
        seconds = max(1, round(self._limits.stop))
        self._demand(seconds + self._limits.kill, "stop", "-t", str(seconds), self._container)
        state = self._inspect()["State"]
        if state["Running"]:
            raise ServiceError("Docker says that it was stopped, but it runs: see its restart policy")
        ended = how_ended(state)
        told = ended_told(ended, self._means.monotonic() - began, seconds)
        return Stopped(ended, told + (f" (exit status {state['ExitCode']})" if ended == "failed" else ""))

    def start(self) -> str:
        before = self._inspect()["RestartCount"]
        ended = self._ask(self._limits.start, "start", self._container)
        since = self._means.monotonic()
        if ended.rc != 0:
            raise self._died(f"Docker cannot start it: {ended.complaint}")
        while self._means.monotonic() - since < self._limits.settle:
            self._means.sleep(0.1)
        now = self._inspect()
        if not now["State"]["Running"] or now["State"].get("Restarting") or now["RestartCount"] > before:
            raise self._died(f"it ended right after its start (exit status {now['State']['ExitCode']})")
        return f"Docker started it as pid {now['State']['Pid']}"

    def _died(self, told: str) -> ServiceError:
        ended = self._ask(_ASK_TIMEOUT, "logs", "--tail", str(_LOG_LINES), self._container)
        log = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        return ServiceError(f"{told}; its log ends: {log[-1][:300]}" if log else f"{told}; it wrote no log", log)

    def _inspect(self) -> dict[str, Any]:
        ended = self._demand(_ASK_TIMEOUT, "container", "inspect", self._container)
        found: dict[str, Any] = json.loads(ended.stdout)[0]
        return found

    def _demand(self, timeout: float, *arguments: str) -> Ended:
        ended = self._ask(timeout, *arguments)
        if ended.rc != 0:
            raise ServiceError(f"docker {arguments[0]} failed: {ended.complaint}")
        return ended

    def _ask(self, timeout: float, *arguments: str) -> Ended:
        try:
            return self._means.run(["docker", *arguments], timeout)
        except ProgramError as error:
            raise ServiceError(str(error)) from error


def how_ended(state: Mapping[str, Any]) -> str:
    """How a container ended that was stopped."""
    if state["OOMKilled"] or state["ExitCode"] == _KILLED:
        return "killed"
    return "terminated" if state["ExitCode"] in _ENDED else "failed"


def judge_container(container: Mapping[str, Any], needed: float) -> list[tuple[str, str]]:
    """What is wrong with how Docker would stop a container, by itself, whose last requests need so many seconds.

    Here it is given that time whatever the container says; the daemon, when it ends, goes by the container.
    """
    limit = container["Config"].get("StopTimeout")
    if limit is None or 0 <= needed <= limit:
        return []
    if limit < 0:
        return [("its stop timeout is -1: one that hangs is never ended", f"Create it with --stop-timeout {needed:g}")]
    return [(
        f"its own stop timeout is {limit} s, though its last requests may take {needed:g} s: Docker kills it earlier "
        "when its daemon ends",
        f"Create it with --stop-timeout {needed:g}",
    )]  # fmt: skip
