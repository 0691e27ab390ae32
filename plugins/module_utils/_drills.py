# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of the drill of a whole backup set, from what its parts were found to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import by_severity
from ansible_collections.upkeep.ops.plugins.module_utils._runs import finding_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: The subject of the verdict on the whole; what is wrong with a part is told under it.
SUBJECT = "drill"
_FIGURES = ("rto_seconds", "rpo_seconds", "rpo_bytes")
_BAD = ("critical", "unknown")
#: How much would be lost says nothing about whether the set can be restored.
_RECOVERY_POINT = "recovery_point"


@dataclass(frozen=True)
class PartDrill:
    """What the module that drilled a part returned."""

    name: str
    findings: Sequence[Mapping[str, Any]]
    drill: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return self.drill.get("rto_seconds") is not None


@dataclass(frozen=True)
class SetDrill:
    """The drill of a set: ``chosen`` are the names of the parts that were to be drilled, ``held`` of all it holds."""

    identifier: str
    held: Sequence[str]
    chosen: Sequence[str]
    parts: Sequence[PartDrill]
    problem: str
    check_mode: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As the filter returns it."""
        status, summary, hint = self._verdict()
        return {
            "status": status,
            "summary": summary,
            "hint": hint,
            "findings": self._findings(status),
            "evidence": [finding for finding in self._told() if finding["check"] != _RECOVERY_POINT],
            "figures": {**self.figures(), "parts": [{"name": part.name, **part.drill} for part in self._drilled()]},
            "parts": {part.name: dict(part.drill) for part in self.parts},
            "metrics": self.metrics() if status == "ok" else {},
        }

    def figures(self) -> dict[str, float | None]:
        """Parts are restored one after the other, so times add up; what is lost is as old as the oldest part."""
        drilled = self._drilled()
        ages = [age for part in drilled if (age := part.drill.get("rpo_seconds")) is not None]
        servers = [part for part in drilled if part.name.startswith("redis:")]
        written = [part.drill.get("rpo_bytes") for part in servers]
        known = [size for size in written if size is not None]
        return {
            "rto_seconds": round(sum(part.drill["rto_seconds"] for part in drilled), 3) if drilled else None,
            "rpo_seconds": max(ages) if ages else None,
            "rpo_bytes": sum(known) if known and len(known) == len(written) else None,
        }

    def metrics(self) -> dict[str, float]:
        """For trends, of a whole set alone: the figures of some parts cannot be compared with those of all."""
        if self.check_mode or set(self.chosen) != set(self.held):
            return {}
        return {f"drill_{name}": value for name, value in self.figures().items() if value is not None}

    def _drilled(self) -> list[PartDrill]:
        return [part for part in self.parts if part.passed]

    def _told(self) -> list[Mapping[str, Any]]:
        return [finding for part in self.parts for finding in part.findings]

    def _findings(self, verdict: str) -> list[dict[str, Any]]:
        """The findings about the parts. Those that the verdict already tells alert nobody by themselves."""
        return [
            {**finding, "parent": SUBJECT if verdict in _BAD and finding["status"] in _BAD else finding["parent"]}
            for finding in self._told()
        ]

    def _verdict(self) -> tuple[str, str, str]:
        """Status, summary and hint."""
        which = f"set {self.identifier}" if self.identifier else "a backup set"
        reason = self._reason()
        if reason:
            told = f"the drill of {which} {'would fail' if self.check_mode else 'failed'}: {reason}"
            return "critical", told, "Nobody knows whether it could be restored: remove the cause and drill again"
        if self.check_mode:
            return "ok", f"{which} would be restored into scratch databases: {', '.join(self.chosen)}", ""
        unknown = _worst(self._told(), _BAD)
        if unknown:
            told = f"{self._restored(which)}; but {unknown['subject']}: {unknown['summary']}"
            return "unknown", told, unknown.get("hint", "")
        rest = "" if set(self.chosen) == set(self.held) else f"; of {', '.join(self.held)} only these were drilled"
        return "ok", self._restored(which) + rest, ""

    def _reason(self) -> str:
        """Why the drill failed, empty when every part that was to be drilled was restored."""
        if self.problem:
            return self.problem
        known = {part.name for part in self.parts}
        failed = [part for part in self.parts if not part.passed]
        told = [finding for part in failed for finding in part.findings]
        worst = _worst(told, _BAD)
        if worst:
            more = f" (and {len(failed) - 1} parts more)" if len(failed) > 1 else ""
            return f"{worst['subject']}: {worst['summary']}{more}"
        missing = sorted(set(self.chosen) - known)
        if missing:
            return f"nothing was found out about {', '.join(missing)}"
        return "" if self.check_mode or not failed else f"{failed[0].name} was not restored"

    def _restored(self, which: str) -> str:
        figures = self.figures()
        each = ", ".join(f"{part.name} {format_duration(part.drill['rto_seconds'])}" for part in self._drilled())
        told = f"{which} was restored and compared in {format_duration(figures['rto_seconds'] or 0)} ({each})"
        if figures["rpo_seconds"] is not None:
            told += f", with the data of {format_duration(figures['rpo_seconds'])} before"
        if figures["rpo_bytes"] is not None:
            told += f" and without {figures['rpo_bytes']} bytes that Redis was told since"
        return told


def _worst(findings: Iterable[Mapping[str, Any]], statuses: Sequence[str]) -> Mapping[str, Any] | None:
    bad = [finding for finding in findings if finding["status"] in statuses]
    ordered = by_severity(finding_from("", "", finding) for finding in bad)
    return ordered[0].as_dict() if ordered else None
