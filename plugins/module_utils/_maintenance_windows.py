# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A maintenance window: what it is, which checks keep it from starting or ending, and what overlaps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import STATUSES, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat, parse_time

#: What must be well before a window starts, and before it ends.
CHECKS_BEFORE = ("backup_fresh", "rollback_prepared", "staging_run", "contacts_reachable", "users_told")
CHECKS_AFTER = ("services_verified", "health_check")
#: What is noted at a window's end and holds nothing up.
NOTED_AFTER = ("health_watched", "performance", "changes_documented", "review_opened")

#: How much higher a figure may be after a window than before: by share of it, and at least by this much.
_FIGURES: Mapping[str, tuple[str, float]] = {"p95_ms": ("ms", 50.0), "error_percent": ("%", 1.0)}


class WindowError(Exception):
    """A window cannot be what was asked for; the text says why and what to do."""


@dataclass(frozen=True)
class Window:
    """A window as the history keeps it; empty ``services`` are all of them. Times are text, empty when not yet."""

    id: str
    site: str
    title: str
    planned: bool
    services: tuple[str, ...]
    starts_at: str
    ends_at: str
    started_at: str = ""
    ended_at: str = ""
    status: str = "planned"
    record: Mapping[str, Any] = field(default_factory=dict)

    def noted(self, **more: Any) -> Window:
        """The window with more in its record."""
        return replace(self, record={**self.record, **more})

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        return {**vars(self), "services": list(self.services), "record": dict(self.record)}

    def is_overdue(self, now: datetime) -> bool:
        """Whether it began and should have ended by now."""
        return self.status == "started" and self.ends_at < isoformat(now)

    def covers(self, service: str) -> bool:
        """Whether a service is under maintenance in it."""
        return not self.services or service in self.services


@dataclass(frozen=True)
class Verdict:
    """What came of one check of a window; with an ``override``, its reason, it holds nothing up."""

    name: str
    status: str
    summary: str
    hint: str = ""
    override: str = ""

    @property
    def blocks(self) -> bool:
        return self.status != "ok" and not self.override


def overlapping(window: Window, others: Iterable[Window], now: datetime) -> list[Window]:
    """The planned and started windows that share time and a service with this one."""
    return [
        other
        for other in others
        if other.id != window.id
        and other.status in ("planned", "started")
        and _share_time(window, other, isoformat(now))
        and _share_service(window.services, other.services)
    ]


def _share_time(one: Window, other: Window, now: str) -> bool:
    # What was started and is overdue lasts still.
    other_ends = max(other.ends_at, now) if other.status == "started" else other.ends_at
    return other.starts_at <= one.ends_at and one.starts_at <= other_ends


def _share_service(one: Sequence[str], other: Sequence[str]) -> bool:
    return not one or not other or not set(one).isdisjoint(other)


def merged(window: Window, other: Window) -> Window:
    """``other`` made to last and to cover what ``window`` wanted besides."""
    services = () if not window.services or not other.services else tuple(sorted({*other.services, *window.services}))
    more = {"title": window.title, "services": list(window.services), "ends_at": window.ends_at}
    known = list(other.record.get("merged") or [])
    return replace(
        other,
        services=services,
        starts_at=min(window.starts_at, other.starts_at),
        ends_at=max(window.ends_at, other.ends_at),
        record={**other.record, "merged": known if more in known else [*known, more]},
    )


def told(window: Window) -> str:
    """A window for a message: title, services and time."""
    services = ", ".join(window.services) or "all services"
    return f"{window.title!r} ({services}, {window.starts_at} to {window.ends_at}, {window.status})"


# --- checks ----------------------------------------------------------------------------------------------------------


def verdicts(
    required: Sequence[str], given: Sequence[Mapping[str, Any]], overrides: Mapping[str, str]
) -> list[Verdict]:
    """What came of the checks. One that is required and was not made is unknown. Raises WindowError."""
    made = {str(item["name"]): item for item in given}
    names = [*required, *(name for name in made if name not in required)]
    known = {*CHECKS_BEFORE, *CHECKS_AFTER, *NOTED_AFTER, *names}
    strangers = sorted(set(overrides) - known)
    if strangers:
        raise WindowError(
            f"there are no checks {', '.join(strangers)} to override; there are {', '.join(sorted(known))}"
        )
    silent = sorted(name for name, reason in overrides.items() if not str(reason or "").strip())
    if silent:
        raise WindowError(f"the override of {', '.join(silent)} needs a reason, which is recorded")
    return [_verdict(name, made.get(name), str(overrides.get(name, "")).strip()) for name in names]


def _verdict(name: str, item: Mapping[str, Any] | None, reason: str) -> Verdict:
    if item is None:
        return Verdict(name, "unknown", "was not checked", "Run the whole playbook maintenance_window.yml", reason)
    status = str(item["status"])
    if status not in STATUSES:
        raise WindowError(f"the status {status!r} of check {name} is none of {', '.join(STATUSES)}")
    # An override of what is well says nothing.
    return Verdict(name, status, str(item["summary"]), str(item.get("hint") or ""), reason if status != "ok" else "")


def judge_checks(found: FindingsBuilder, title: str, checks: Sequence[Verdict], blocking: Sequence[str]) -> None:
    """A finding for each check: critical when it holds the window up, a warning when overridden or only noted.

    What is only noted and could not be measured is a warning too: it wakes nobody up.
    """
    for item in checks:
        if item.override:
            status, summary = "warning", f"{item.summary}; overridden: {item.override}"
        elif item.status == "ok" or item.name not in blocking:
            status, summary = "warning" if item.status == "unknown" else item.status, item.summary
        else:
            status, summary = "critical", item.summary
        way = f"maintenance_window_overrides={{{item.name}: <reason>}}"
        hint = f"{item.hint or 'Mend it'}, or override it with {way}" if status == "critical" else item.hint
        told_as = f"{item.name}: {summary}"
        found.add(item.name, title, status, told_as, hint="" if status == "ok" else hint)


def judge_open(found: FindingsBuilder, windows: Iterable[Window], now: datetime) -> None:
    """Findings about windows that never ended, or never began."""
    for window in windows:
        late = format_duration(max(0.0, (now - parse_time(window.ends_at)).total_seconds()))
        if window.is_overdue(now):
            summary = f"should have ended {late} ago, at {window.ends_at}; alerts of its services are told again"
            hint = "End it: playbooks/maintenance_window.yml -e maintenance_window_stage=end"
            found.add("window_overdue", window.title, "warning", summary, hint=hint)
        elif window.status == "planned" and window.ends_at < isoformat(now):
            hint = "Cancel it or plan it anew: -e maintenance_window_stage=cancel or plan"
            found.add(
                "window_missed",
                window.title,
                "warning",
                f"was planned until {window.ends_at} and never began",
                hint=hint,
            )
        else:
            found.add("window_overdue", window.title, "ok", f"{window.status}, until {window.ends_at}")


def staging_verdict(
    site: str, run: str, last: Mapping[str, Any] | None, now: datetime, max_age: float
) -> dict[str, Any]:
    """Whether what is to be done was tried in staging: ``last`` is the newest run of that name there."""

    def verdict(status: str, summary: str, hint: str = "") -> dict[str, Any]:
        return {"name": "staging_run", "status": status, "summary": summary, "hint": hint}

    if not site:
        return verdict("unknown", "no staging site is known", "Set upkeep_staging_site")
    if not run:
        return verdict("unknown", "which run is to be made is not said", "Set maintenance_window_run to its name")
    hint = f"Run playbooks/{run}.yml in staging first"
    if last is None:
        return verdict("critical", f"no run {run} of {site} was found", hint)
    age = (now - parse_time(last["ended_at"])).total_seconds()
    summary = f"run {last['id']} of {site} ended {last['status']} {format_duration(age)} ago"
    if age > max_age:
        return verdict("critical", f"{summary}, the limit is {format_duration(max_age)}", hint)
    return verdict("ok" if last["status"] == "ok" else "critical", summary, "" if last["status"] == "ok" else hint)


# --- what a window did ------------------------------------------------------------------------------------------------


def compared(
    before: Mapping[str, Mapping[str, Sequence[float]]], after: Mapping[str, Mapping[str, float]], tolerance: float
) -> list[dict[str, Any]]:
    """Each figure of each host before (its median) and after: ``{host, name, unit, before, after, status}``.

    ``tolerance`` is by how many percent a figure may be higher. One that cannot be compared is unknown.
    """
    rows = []
    for host in sorted({*before, *after}):
        for name, (unit, least) in _FIGURES.items():
            old, new = before.get(host, {}).get(name), after.get(host, {}).get(name)
            if not old and new is None:
                continue
            usual = median(old) if old else None
            rows.append(
                {
                    "host": host, "name": name, "unit": unit, "before": usual, "after": new,
                    "status": _compared(usual, new, least, tolerance),
                }
            )  # fmt: skip
    return rows


def _compared(before: float | None, after: float | None, least: float, tolerance: float) -> str:
    if before is None or after is None:
        return "unknown"
    return "warning" if after > before + max(least, before * tolerance / 100) else "ok"


def performance_verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The check ``performance`` from what :func:`compared` returned."""
    worse = [row for row in rows if row["status"] == "warning"]
    known = [row for row in rows if row["status"] != "unknown"]
    if worse:
        names = ", ".join(f"{row['name']} of {row['host']} {_change(row)}" for row in worse)
        hint = "Look at the slowest routes in the report, and think of the way back"
        return {"name": "performance", "status": "warning", "summary": f"worse than before: {names}", "hint": hint}
    if not known:
        hint = "Run the daily run, or performance_monitoring, before and after a window"
        return {"name": "performance", "status": "unknown", "summary": "no figures to compare", "hint": hint}
    names = ", ".join(f"{row['name']} of {row['host']} {_change(row)}" for row in known)
    return {"name": "performance", "status": "ok", "summary": f"as before: {names}", "hint": ""}


def _change(row: Mapping[str, Any]) -> str:
    return f"{row['before']:.4g} {row['unit']} before, {row['after']:.4g} {row['unit']} after"


def watched_verdict(seen: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The check ``health_watched`` from how often each service was observed, and how often down."""
    looks = sum(item["seen"] for item in seen.values())
    if not looks:
        hint = "Let playbooks/health_check.yml run every few minutes"
        summary = "no service was observed between start and end"
        return {"name": "health_watched", "status": "warning", "summary": summary, "hint": hint}
    down = ", ".join(f"{name} ({item['down']} of {item['seen']})" for name, item in seen.items() if item["down"])
    summary = f"{looks} observations of {len(seen)} services, {'seen down: ' + down if down else 'none seen down'}"
    return {"name": "health_watched", "status": "ok", "summary": summary, "hint": ""}


def planned_end(starts_at: datetime, duration: float) -> str:
    """When a window that begins then and lasts so many seconds ends."""
    return isoformat(starts_at + timedelta(seconds=duration))
