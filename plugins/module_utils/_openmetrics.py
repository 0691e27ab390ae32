# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures as OpenMetrics text, in the subset that node_exporter's textfile collector reads as well.

Format: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md. Only gauges are written, and
no time stamps: the textfile collector refuses those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_time

_STATUS_VALUES = {"ok": 0, "warning": 1, "unknown": 2, "critical": 3}


@dataclass
class Gauge:
    """One family of samples: its name, a sentence of help, and (labels, value) pairs."""

    name: str
    help: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """Add a sample; what could not be measured is left out, never written as 0."""
        if value is not None:
            self.samples.append((labels, float(value)))


def render(families: Iterable[Gauge]) -> str:
    """The text of the families that have samples."""
    lines = []
    for family in families:
        if family.samples:
            lines += [f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} gauge"]
            lines += [_sample(family.name, labels, value) for labels, value in family.samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def families(site: str, runs: Sequence[Mapping[str, Any]], told: Mapping[str, Any], period: str) -> list[Gauge]:
    """What the last runs and the figures of a period offer to a monitoring system.

    ``runs`` are as history tells them, one of each name, ``told`` what ``_maintenance_metrics.metrics`` returns.
    """
    return [*_of_runs(site, runs), *_of_services(site, told, period), *_of_platform(site, told, period)]


def _of_runs(site: str, runs: Sequence[Mapping[str, Any]]) -> list[Gauge]:
    status = Gauge("upkeep_run_status", "Verdict of the last run: 0 ok, 1 warning, 2 unknown, 3 critical.")
    ended = Gauge("upkeep_run_end_timestamp_seconds", "When the last run ended.")
    took = Gauge("upkeep_run_duration_seconds", "How long the last run took.")
    findings = Gauge("upkeep_run_findings", "Findings of the last run by status.")
    for run in runs:
        labels = {"site": site, "run": run["name"]}
        status.add(_STATUS_VALUES.get(run["status"]), **labels)
        ended.add(parse_time(run["ended_at"]).timestamp(), **labels)
        took.add(run["seconds"], **labels)
        for name, count in run["counts"].items():
            findings.add(count, **labels, status=name)
    return [status, ended, took, findings]


def _of_services(site: str, told: Mapping[str, Any], period: str) -> list[Gauge]:
    """Figures of each service and of the platform, in base units and shares between 0 and 1."""
    uptime = Gauge("upkeep_uptime_ratio", "Share of the measured time that the service was up.")
    state = Gauge("upkeep_period_state_seconds", "Seconds of the period in each state.")
    failures = Gauge("upkeep_failures", "Failures in the period.")
    mttr = Gauge("upkeep_time_to_recovery_mean_seconds", "Mean time to recovery in the period.")
    mtbf = Gauge("upkeep_time_between_failures_mean_seconds", "Mean time between failures in the period.")
    budget = Gauge("upkeep_error_budget_left_seconds", "Downtime that the objective still allows in the period.")
    for figures in [{"name": "platform", **told["platform"]}, *told["services"]]:
        labels = {"site": site, "service": figures["name"], "period": period}
        percent = figures["uptime"]["value"]
        uptime.add(None if percent is None else percent / 100, **labels)
        for name, seconds in figures["seconds"].items():
            state.add(seconds, **labels, state=name)
        failures.add(len(figures["failures"]), **labels)
        mttr.add(figures["mttr"]["value"], **labels)
        mtbf.add(figures["mtbf"]["value"], **labels)
        budget.add(figures["error_budget"]["left"], **labels)
    return [uptime, state, failures, mttr, mtbf, budget]


def _of_platform(site: str, told: Mapping[str, Any], period: str) -> list[Gauge]:
    labels = {"site": site, "period": period}
    windows = Gauge("upkeep_planned_windows_seconds", "Time in maintenance windows in the period.")
    windows.add(told["planned_windows"]["seconds"], **labels)
    waiting = Gauge("upkeep_security_updates_waiting", "Security updates that waited at the end of the period.")
    waiting.add(told["patch_time"]["waiting"], **labels)
    longest = Gauge("upkeep_patch_time_longest_seconds", "Longest time that a security update waited.")
    longest.add(told["patch_time"]["value"], **labels)
    return [windows, waiting, longest]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{label}="{_escaped(text, quotes=True)}"' for label, text in labels.items())
    return f"{name}{{{told}}} {value:.17g}" if told else f"{name} {value:.17g}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped
