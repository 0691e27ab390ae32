# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of recoveries of a whole platform: what was planned, begun and ended, so that a killed run is not lost.

Each recovery is one file below a folder of the recorder. A step is on disk before it is begun. The file ``.lock`` says
whose recovery is under way; it outlives a run that was killed, and is taken over once its owner is gone. Its age counts
from the last step that its owner noted, so that a long recovery is not taken for a lost one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils import _lock
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_steps import back, figures, left
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, format_duration, isoformat, parse_time

_FORMAT = 1
_WORKERS_PATIENCE, _WORKERS_POLL = 900.0, 0.2  # seconds
_FILE = re.compile(r"(\d{8}T\d{6}Z)\.json")
_AWAY = (
    "move it away, to another folder, then run this again. If that recovery had not come to its end, see first what it "
    "has left stopped or closed"
)
#: What became of a recovery. An open one has not come to its end: its run goes on, was killed, or could not go back.
OPEN, RECOVERED, ROLLED_BACK = "open", "recovered", "rolled_back"
#: What is noted of a step.
BEGUN, ENDED, FAILED = "begun", "ended", "failed"


class RecoveryError(Exception):
    """A recovery cannot be begun or noted; the text says why and what to do."""


@dataclass(frozen=True)
class Standing:
    """What the journal knows: the recovery that is open, the last one that came to its end, and who is at work."""

    unfinished: dict[str, Any] | None
    last: dict[str, Any] | None
    busy: str
    killed: str


@dataclass(frozen=True)
class RecoveryJournal:
    """The folder of all recoveries of a site. ``owner`` names this run, ``stale_after`` is as in :mod:`_lock`."""

    folder: str
    owner: str
    clock: Clock
    sleep: Callable[[float], None]
    stale_after: float
    writes: bool = True

    def look(self) -> Standing:
        """How things stand; writes nothing. Raises RecoveryError and LockError."""
        recoveries = [self._read(name) for name in self._names()]
        unfinished = next((entry for entry in recoveries if entry["state"] == OPEN), None)
        last = next((entry for entry in recoveries if entry["state"] == RECOVERED), None)
        busy, gone = self._holder()
        return Standing(shown(unfinished), shown(last), busy, gone)

    def ended_before(self, recovery: Mapping[str, Any] | None, seconds: float) -> bool:
        """Whether a recovery came to its end longer ago than that."""
        return recovery is not None and (self.clock() - parse_time(recovery["ended_at"])).total_seconds() > seconds

    def open(self, plan: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Begin a recovery, or take over the one that was killed; whether it was that.

        Raises RecoveryError while somebody else is at work.
        """
        if self.writes:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._await_workers()
            with _lock.mutex(self._path(".mutex"), self.sleep):
                return self._open(plan)
        return self._open(plan)

    def note(
        self, identifier: str, step: str, phase: str, direction: str, details: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Add to the journal that a step was begun, has ended or failed. Raises RecoveryError."""
        at = isoformat(self.clock())
        entry = {"at": at, "step": step, "phase": phase, "direction": direction, "details": dict(details)}
        return self._change(identifier, lambda recovery: recovery["entries"].append(entry))

    def close(self, identifier: str, state: str, summary: str) -> dict[str, Any]:
        """End a recovery, or (``open``) let go of one that could not go back. Raises RecoveryError."""

        def end(recovery: dict[str, Any]) -> None:
            ended = "" if state == OPEN else isoformat(self.clock())
            recovery.update(state=state, summary=summary, ended_at=ended)

        recovery = self._change(identifier, end)
        if self.writes:
            _lock.free_lock(self._path(".lock"))
        return recovery

    def prune(self, keep: float, hold: float) -> tuple[list[str], list[str]]:
        """Remove recoveries that came to their end more than ``keep`` seconds ago; their ids.

        Also the ids of those that cannot be taken back any more, because they ended more than ``hold`` seconds ago:
        what was kept for that may go.
        """
        known = [entry for name in self._names() if (entry := self._read(name))["state"] != OPEN]
        over = [entry for entry in known if self.ended_before(entry, hold)]
        removed = [entry["id"] for entry in over if self.ended_before(entry, keep)]
        if self.writes and removed:
            with _lock.mutex(self._path(".mutex"), self.sleep):
                for identifier in removed:
                    os.unlink(self._path(f"{identifier}.json"))
        return removed, [entry["id"] for entry in over]

    def _open(self, plan: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        standing = self.look()
        if standing.busy:
            raise RecoveryError(standing.busy)
        now = self.clock()
        taken_over = standing.unfinished is not None
        recovery = self._read(standing.unfinished["id"]) if standing.unfinished else self._new(plan, now)
        if self.writes:
            _lock.write_lock(self._path(".lock"), _lock.new_lock(self.owner, recovery["id"], now))
            self._write(recovery)
        return shown(recovery) or {}, taken_over

    def _await_workers(self) -> None:
        """Wait until no worker of the killed run stops or starts anything beside this one.

        Of the other steps the modules themselves see to it, and some of them are waited for in vain for hours.
        """
        standing, lock = self.look(), _lock.read_lock(self._path(".lock"))
        if lock is None or not standing.killed or not _in_short_step(standing.unfinished):
            return
        waited = 0.0
        while left := _lock.left_at_work(lock, _lock.here()):
            if waited >= _WORKERS_PATIENCE:
                raise RecoveryError(
                    f"process {left[0]} of the run that was killed has been at work for {format_duration(waited)} "
                    "since: end it, then run this again"
                )
            self.sleep(_WORKERS_POLL)
            waited += _WORKERS_POLL

    def _new(self, plan: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        identifier = now.strftime("%Y%m%dT%H%M%SZ")
        if identifier in self._names():
            raise RecoveryError(f"a recovery {identifier} was begun in this very second: try again")
        return {
            "format": _FORMAT,
            "id": identifier,
            "state": OPEN,
            "begun_at": isoformat(now),
            "ended_at": "",
            "summary": "",
            "plan": dict(plan),
            "entries": [],
        }

    def _change(self, identifier: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        if not self.writes:
            recovery = self._read(identifier)
            change(recovery)
            return shown(recovery) or {}
        with _lock.mutex(self._path(".mutex"), self.sleep):
            lock = _lock.read_lock(self._path(".lock"))
            if lock is None or lock.owner != self.owner:
                holder = lock.describe(self.clock()) if lock else "nobody"
                raise RecoveryError(f"recovery {identifier} is not this run's any more: it is held by {holder}")
            recovery = self._read(identifier)
            change(recovery)
            self._write(recovery)
            _lock.write_lock(self._path(".lock"), replace(lock, taken_at=isoformat(self.clock())))
        return shown(recovery) or {}

    def _holder(self) -> tuple[str, str]:
        """Who is at work, in words; and why whoever was is gone. At most one of them is not empty."""
        lock = _lock.read_lock(self._path(".lock"))
        if lock is None or lock.owner == self.owner:
            return "", ""
        now = self.clock()
        gone = _lock.owner_gone(lock, now, self.stale_after, _lock.here())
        if gone:
            return "", gone
        told = (
            f"recovery {lock.subject} is under way already, by {lock.describe(now)}: wait for its end. If its run is "
            "gone and cannot be seen from here, say so with emergency_recovery_stale_after=0s"
        )
        return told, ""

    def _names(self) -> list[str]:
        """Ids of all recoveries, newest first."""
        try:
            found = [match.group(1) for name in os.listdir(self.folder) if (match := _FILE.fullmatch(name))]
        except FileNotFoundError:
            return []
        return sorted(found, reverse=True)

    def _read(self, identifier: str) -> dict[str, Any]:
        path = self._path(f"{identifier}.json")
        try:
            with open(path, encoding="utf-8") as stream:
                content: dict[str, Any] = json.load(stream)
        except FileNotFoundError as error:
            raise RecoveryError(f"no recovery {identifier} is known below {self.folder}") from error
        except ValueError as error:
            raise RecoveryError(f"the journal {path} cannot be read ({error}): {_AWAY}") from error
        if content.get("format") != _FORMAT:
            told = f"the journal {path} has format {content.get('format')!r}, and known here is {_FORMAT}"
            raise RecoveryError(f"{told}: {_AWAY}")
        return content

    def _write(self, recovery: Mapping[str, Any]) -> None:
        publish_text(self._path(f"{recovery['id']}.json"), json.dumps(recovery, indent=2) + "\n")

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _in_short_step(recovery: Mapping[str, Any] | None) -> bool:
    """Whether the last step that was noted has not ended and concerns services or gateways."""
    if recovery is None or not recovery["entries"]:
        return False
    last = recovery["entries"][-1]
    steps = recovery["back" if last["direction"] == "back" else "left"]
    return any(step["name"] == last["step"] and step["act"] in ("services", "maintenance") for step in steps)


def shown(recovery: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A recovery as results carry it: with the steps that are left, those that lead back, and its figures."""
    if recovery is None:
        return None
    entries: Sequence[Mapping[str, Any]] = recovery["entries"]
    steps: Sequence[Mapping[str, Any]] = recovery["plan"]["steps"]
    safety = next((entry["details"]["set"] for entry in entries if entry["details"].get("set")), "")
    last = entries[-1] if entries else None
    return {
        **{key: value for key, value in recovery.items() if key != "format"},
        "left": left(steps, entries),
        "back": back(steps, entries),
        "going_back": any(entry["direction"] == "back" for entry in entries),
        "safety_set": safety,
        "last_step": f"{last['step']} ({last['phase']})" if last else "",
        "figures": figures(recovery),
    }
