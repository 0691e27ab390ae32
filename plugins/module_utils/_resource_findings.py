# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts on the resources of a host."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._capacity import KEPT
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder, judge
from ansible_collections.upkeep.ops.plugins.module_utils._sizes import human

#: Name -> (warning, critical) where the caller says nothing. None is never.
THRESHOLDS: Mapping[str, tuple[float | None, float | None]] = {
    "cpu_percent": (90, None),
    "load_per_core": (2, 8),
    "iowait_percent": (30, None),
    "steal_percent": (20, None),
    "memory_percent": (85, 95),
    "swap_percent": (50, 90),
    "oom_kills": (1, None),
    "disk_percent": (80, 90),
    "inode_percent": (80, 90),
    "days_to_full": (14, 3),
}

_HINTS = {
    "cpu_percent": "See which processes use the processor: top, pidstat 1",
    "load_per_core": "See what waits: top for the processor, iostat -x 1 for disks",
    "iowait_percent": "See which disk is busy: iostat -x 1",
    "steal_percent": "The virtual machine's host is overbooked: move it or give it more",
    "memory_percent": "See the largest processes in result or report; restart what leaks or give the host more memory",
    "swap_percent": "See the largest processes in result or report; the host is short of memory",
    "oom_kills": "See journalctl -k --grep 'Out of memory'; the count starts anew at the next boot",
}


class Judge:
    """Turns the figures of a host into findings. ``thresholds`` take the place of the built-in pair of their name."""

    def __init__(self, thresholds: Mapping[str, Mapping[str, float | None] | None], now: datetime) -> None:
        given = {name: pair for name, pair in thresholds.items() if pair is not None}
        self._limits = {**THRESHOLDS, **{name: (pair["warning"], pair["critical"]) for name, pair in given.items()}}
        self._builder = FindingsBuilder(now)

    def findings(self, host: Mapping[str, Any]) -> list[Finding]:
        """All findings on the figures that the module host_resources returns."""
        cpu, memory = host["cpu"], host["memory"]
        self._high("cpu", "cpu_percent", cpu["used_percent"], f"{cpu['used_percent']} % of the processor time used")
        load = f"load {cpu['load'][0]:g}, {cpu['load'][1]:g}, {cpu['load'][2]:g} on {cpu['cores']} cores"
        self._high("load", "load_per_core", cpu["load_per_core"], load, unit="")
        waiting = f"{cpu['iowait_percent']} % of the processor time waited for disks"
        self._high("cpu_iowait", "iowait_percent", cpu["iowait_percent"], waiting)
        stolen = f"{cpu['steal_percent']} % of the processor time was taken by other machines"
        self._high("cpu_steal", "steal_percent", cpu["steal_percent"], stolen)
        self._high("memory", "memory_percent", memory["used_percent"], _memory_summary(host))
        swap = f"{memory['swap_percent']} % of {human(memory['swap_total_bytes'])} swap used"
        self._high("swap", "swap_percent", memory["swap_percent"], swap if memory["swap_total_bytes"] else "no swap")
        if host["oom_kills"] is not None:
            killed = f"{host['oom_kills']} processes killed for lack of memory since boot"
            self._high("oom_kills", "oom_kills", host["oom_kills"], killed, unit="processes")
        for disk in host["disks"]:
            self._disk(disk)
        return self._builder.findings

    def _high(self, check: str, limit: str, value: float, summary: str, unit: str = "%") -> None:
        """A finding on the host itself that is bad when high."""
        status, threshold = judge(value, *self._limits[limit])
        hint = "" if status == "ok" else _HINTS[limit]
        self._builder.add(check, "host", status, summary, value=value, unit=unit, threshold=threshold, hint=hint)

    def _disk(self, disk: Mapping[str, Any]) -> None:
        mount = disk["mount"]
        if disk["problem"]:
            summary = f"{disk['source']} could not be measured: {disk['problem']}"
            hint = "Is the server of a network file system there?"
            self._builder.add("disk_space", mount, "unknown", summary, hint=hint)
            return
        summary = (
            f"{disk['used_percent']} % of {human(disk['total_bytes'])} used, "
            f"{human(disk['available_bytes'])} free, {disk['forecast']['explanation']}"
        )
        hint = "See what grew: du -xh -d 2, journalctl --disk-usage; rotate logs, remove old releases and backups"
        self._full("disk_space", "disk_percent", disk, disk["used_percent"], summary, hint)
        if disk["inode_percent"] is not None:
            told = f"{disk['inode_percent']} % of {disk['total_inodes']} inodes used"
            hint = "See which folder holds many small files: du --inodes -x -d 2"
            self._full("disk_inodes", "inode_percent", disk, disk["inode_percent"], told, hint)
        if disk["forecast"]["bytes_per_day"] is not None:
            self._forecast(disk)

    def _full(self, check: str, limit: str, disk: Mapping[str, Any], percent: float, summary: str, hint: str) -> None:
        status, threshold = judge(percent, *self._limits[limit])
        hint = "" if status == "ok" else hint
        self._builder.add(
            check, disk["mount"], status, summary, value=percent, unit="%", threshold=threshold, hint=hint
        )

    def _forecast(self, disk: Mapping[str, Any]) -> None:
        """Bad when low, so that the signs are turned for judging."""
        found = disk["forecast"]
        days = found["days_to_full"]
        warning, critical = (None if limit is None else -limit for limit in self._limits["days_to_full"])
        status, threshold = judge(float("-inf") if days is None else -days, warning, critical)
        grown = f"{human(found['bytes_per_day'])} a day"
        self._builder.add(
            "disk_forecast",
            disk["mount"],
            status,
            f"{found['explanation']}, {grown} ({found['method']}, at most {KEPT.days} days)",
            value=days,
            unit="days",
            threshold=None if threshold is None else -threshold,
            hint="" if status == "ok" else "Free space or extend the file system before that day",
        )


def _memory_summary(host: Mapping[str, Any]) -> str:
    memory = host["memory"]
    summary = f"{memory['used_percent']} % of {human(memory['total_bytes'])} memory used"
    if host["processes"]:
        first = host["processes"][0]
        summary += f", most by {first['name']} (pid {first['pid']}, {human(first['rss_bytes'])})"
    return summary


def metrics(host: Mapping[str, Any]) -> dict[str, float]:
    """The figures for trends, by name."""
    figures = {
        "cpu_percent": host["cpu"]["used_percent"],
        "load_per_core": host["cpu"]["load_per_core"],
        "memory_percent": host["memory"]["used_percent"],
        "swap_percent": host["memory"]["swap_percent"],
    }
    for disk in host["disks"]:
        if not disk["problem"]:
            figures[f"disk_percent:{disk['mount']}"] = disk["used_percent"]
            if disk["inode_percent"] is not None:
                figures[f"inode_percent:{disk['mount']}"] = disk["inode_percent"]
    return figures
