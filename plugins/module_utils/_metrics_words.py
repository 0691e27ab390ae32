# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a period in words, for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

_STATUS = {True: "ok", False: "warning", None: "unknown"}


def objective_rows(told: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the platform is held to: ``{name, value, target, status, how}`` each, in words.

    ``told`` is what ``_maintenance_metrics.metrics`` returns. ``status`` is empty without an objective.
    """
    platform, patch = told["platform"], told["patch_time"]
    months = told["planned_windows"]["months"]
    return [
        _uptime(platform),
        _budget(platform["error_budget"]),
        _row("Mean time to recovery", platform["mttr"], "no failures", "at most", fine=True),
        _row("Mean time between failures", platform["mtbf"], "no failures", "at least", fine=True),
        *(_row(f"Planned windows in {month['month']}", month, "", "at most") for month in months),
        _row("Longest wait of a security update", patch, "none was seen", "at most", fine=True),
    ]


def service_rows(told: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures of each service in words: name, uptime, failures, down, mttr, planned, unknown."""
    return [
        {
            "name": service["name"],
            "uptime": _words(service["uptime"]) or "not measured",
            "failures": str(len(service["failures"])),
            "down": format_duration(service["seconds"]["down"]),
            "mttr": _words(service["mttr"]) or "no failures",
            "planned": format_duration(service["seconds"]["planned"]),
            "unknown": f"{100 * service['seconds']['unknown'] / told['period']['seconds']:.1f} %",
        }
        for service in told["services"]
    ]


def failure_rows(services: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """All failures, newest first: service, began_at, ended_at (empty while it goes on), down."""
    rows = [
        {
            "service": service["name"],
            "began_at": failure["began_at"],
            "ended_at": failure["ended_at"],
            "down": format_duration(failure["seconds"]),
        }
        for service in services
        for failure in service["failures"]
    ]
    return sorted(rows, key=lambda row: row["began_at"], reverse=True)


def _uptime(platform: Mapping[str, Any]) -> dict[str, str]:
    """With the time that it rests on: a share of little time says little."""
    row = _row("Uptime", platform["uptime"], "nothing was measured", "at least")
    if platform["uptime"]["value"] is None:
        return row
    return {**row, "value": f"{row['value']} of {format_duration(platform['uptime']['n'])} measured"}


def _row(name: str, figure: Mapping[str, Any], nothing: str, word: str, *, fine: bool = False) -> dict[str, str]:
    words = _words(figure)
    count = f" (n={figure['n']})" if words and figure["unit"] == "s" else ""
    status = "" if figure["target"] is None else "ok" if words is None and fine else _STATUS[figure["met"]]
    target = "" if figure["target"] is None else f"{word} {_words({**figure, 'value': figure['target']})}"
    value = f"{words}{count}" if words else nothing
    return {"name": name, "value": value, "target": target, "status": status, "how": figure["how"]}


def _budget(budget: Mapping[str, Any]) -> dict[str, str]:
    if budget["allowed"] is None:
        return {"name": "Time down", "value": format_duration(budget["used"]), "target": "", "status": "", "how": ""}
    left = budget["left"]
    value = f"{format_duration(left)} left" if left >= 0 else f"overdrawn by {format_duration(-left)}"
    target = f"of {format_duration(budget['allowed'])}"
    how = "downtime that the objective allows in the whole period, less the time down"
    return {"name": "Error budget", "value": value, "target": target, "status": _STATUS[left >= 0], "how": how}


def _words(figure: Mapping[str, Any]) -> str | None:
    value = figure["value"]
    if value is None:
        return None
    return f"{value:.3f} %" if figure["unit"] == "%" else format_duration(value)
