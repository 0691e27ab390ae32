# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures that maintenance is held to, over any period, from what history knows. Pure.

Uptime, mean time to recovery, mean time between failures, planned windows and patch time, for each service and in all.
A figure says from how many things it was computed and how, and is None where there is nothing to compute it from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._time import (
    format_duration,
    isoformat,
    parse_duration,
    parse_time,
)
from ansible_collections.upkeep.ops.plugins.module_utils._uptime import (
    Observation,
    Span,
    Uptime,
    combined,
    merged,
    timeline,
    uptime,
    with_planned,
)

#: Name of the figures of all critical services together.
PLATFORM = "platform"


@dataclass(frozen=True)
class Objectives:
    """What the platform is held to: a share of time in percent, the rest in seconds; None is not held to anything."""

    uptime_percent: float | None = None
    mttr: float | None = None
    mtbf: float | None = None
    planned_windows_per_month: float | None = None
    critical_patch_time: float | None = None


@dataclass(frozen=True)
class Period:
    """From ``begin`` to before ``end``."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True)
class Window:
    """A maintenance window as it was: ``services`` is empty when it was for all of them."""

    begin: float
    end: float
    services: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """A security update: when a scan saw it wait for the first time, and when one saw it installed, if any did."""

    host: str
    package: str
    first_seen_at: str
    installed_at: str | None


@dataclass(frozen=True)
class Record:
    """What history knows of a period: observations by subject, windows and patches, in no order."""

    observations: Mapping[str, Sequence[Observation]]
    windows: Sequence[Window]
    patches: Sequence[Patch]


def objectives_from(raw: Mapping[str, Any]) -> Objectives:
    """The objectives of a catalogue. Raises ValueError with the name of one that makes no sense."""
    unknown = sorted(set(raw) - set(Objectives.__dataclass_fields__))
    if unknown:
        known = ", ".join(Objectives.__dataclass_fields__)
        raise ValueError(f"there are no objectives {', '.join(unknown)}; there are {known}")
    values: dict[str, float] = {}
    for name, value in raw.items():
        try:
            values[name] = float(value) if name == "uptime_percent" else parse_duration(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the objective {name} is {value!r}: {error}") from error
    if not 0 < values.get("uptime_percent", 100) <= 100:
        raise ValueError(f"the objective uptime_percent is {raw['uptime_percent']!r}: it must be in (0, 100]")
    return Objectives(**values)


def period_from(name: str, now: datetime, begin: str = "", end: str = "") -> Period:
    """The period of a name, or the one between two times, the second of which is now when not given.

    ``month`` is the present one up to now, ``last_month`` the whole one before; so with day, week, quarter and year.
    Weeks begin on Monday; all in UTC. Raises ValueError.
    """
    if begin:
        period = Period(parse_time(begin), parse_time(end) if end else now)
    else:
        unit = name[len(_LAST) :] if name.startswith(_LAST) else name
        if unit not in _UNITS:
            raise ValueError(f"{name!r} is no period; there are {', '.join(_UNITS)}, each also as last_<period>")
        started = _begin_of(unit, now)
        before = Period(_begin_of(unit, started - timedelta(seconds=1)), started)
        period = before if name != unit else Period(started, now)
    if period.end <= period.begin:
        raise ValueError(f"the period ends at {isoformat(period.end)}, before it begins at {isoformat(period.begin)}")
    return period


_LAST = "last_"
_UNITS = ("day", "week", "month", "quarter", "year")


def _begin_of(unit: str, moment: datetime) -> datetime:
    day = moment.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    if unit == "month":
        return day.replace(day=1)
    if unit == "quarter":
        return day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1)
    return day.replace(month=1, day=1) if unit == "year" else day


def months_of(period: Period) -> list[Period]:
    """The calendar months (UTC) that a period touches, each cut to it."""
    months, begin = [], period.begin
    while begin < period.end:
        end = min(_begin_of("month", _begin_of("month", begin) + timedelta(days=32)), period.end)
        months.append(Period(begin, end))
        begin = end
    return months


def metrics(
    record: Record, period: Period, services: Mapping[str, bool], objectives: Objectives, max_gap: float
) -> dict[str, Any]:
    """All figures of a period. ``services`` are the names to tell of, each with whether it is critical.

    ``max_gap`` is for how many seconds one observation vouches at most.
    """
    timelines = {name: _timeline(record, name, period, max_gap) for name in services}
    critical = [timelines[name] for name, is_critical in services.items() if is_critical] or list(timelines.values())
    return {
        "period": {"begin": isoformat(period.begin), "end": isoformat(period.end), "seconds": period.seconds},
        "platform": _told(uptime(combined(critical)) if critical else None, period, objectives),
        "services": [
            {"name": name, "critical": services[name], **_told(uptime(timelines[name]), period, objectives)}
            for name in sorted(services)
        ],
        "planned_windows": _planned(record.windows, period, objectives.planned_windows_per_month),
        "patch_time": _patch_time(record.patches, period, objectives.critical_patch_time),
    }


def _timeline(record: Record, name: str, period: Period, max_gap: float) -> list[Span]:
    begin, end = period.begin.timestamp(), period.end.timestamp()
    windows = [(item.begin, item.end) for item in record.windows if not item.services or name in item.services]
    spans = timeline(record.observations.get(name, ()), begin, end, max_gap)
    return with_planned(spans, merged(windows, begin, end))


def _told(figures: Uptime | None, period: Period, objectives: Objectives) -> dict[str, Any]:
    """The figures of one timeline; all are None when there is nothing to tell of."""
    seen = figures or Uptime(0, 0, 0, period.seconds, ())
    failures = len(seen.failures)
    return {
        "seconds": {"up": seen.up, "down": seen.down, "planned": seen.planned, "unknown": seen.unknown},
        "failures": [
            {
                "began_at": _at(failure.begin),
                "ended_at": _at(failure.end) if failure.recovered else "",
                "seconds": failure.seconds,
            }
            for failure in seen.failures
        ],
        "uptime": _figure(
            seen.percent, "%", round(seen.measured), "time up by time measured (up and down), in seconds",
            objectives.uptime_percent, at_least=True,
        ),
        "mttr": _figure(seen.mttr, "s", failures, "time down by number of failures", objectives.mttr, at_least=False),
        "mtbf": _figure(seen.mtbf, "s", failures, "time up by number of failures", objectives.mtbf, at_least=True),
        "error_budget": _error_budget(seen, period, objectives.uptime_percent),
    }  # fmt: skip


def _figure(
    value: float | None, unit: str, count: int, how: str, target: float | None, *, at_least: bool
) -> dict[str, Any]:
    """One figure with the number of things it comes from, how, and whether it meets its objective (None: not known)."""
    met = None
    if value is not None and target is not None:
        met = value >= target if at_least else value <= target
    return {"value": value, "unit": unit, "n": count, "how": how, "target": target, "met": met}


def _error_budget(seen: Uptime, period: Period, target: float | None) -> dict[str, Any]:
    """Downtime that the objective leaves in the whole period, and how much of it is left."""
    if target is None:
        return {"allowed": None, "used": seen.down, "left": None}
    allowed = period.seconds * (1 - target / 100)
    return {"allowed": allowed, "used": seen.down, "left": allowed - seen.down}


def _planned(windows: Sequence[Window], period: Period, target: float | None) -> dict[str, Any]:
    """Hours of planned windows in each calendar month; windows at the same time count once."""
    months = []
    for month in months_of(period):
        stretches = merged([(item.begin, item.end) for item in windows], month.begin.timestamp(), month.end.timestamp())
        seconds = sum(end - begin for begin, end in stretches)
        figure = _figure(seconds, "s", len(stretches), "union of the windows", target, at_least=False)
        months.append({"month": isoformat(month.begin)[:7], **figure})
    return {"seconds": sum(month["value"] for month in months), "months": months}


def _patch_time(patches: Sequence[Patch], period: Period, target: float | None) -> dict[str, Any]:
    """From a security update's first sight to its installation, of those installed in the period; and what waits.

    APT knows no severity, so each security update counts as critical.
    """
    begin, end = isoformat(period.begin), isoformat(period.end)
    took = [
        (parse_time(patch.installed_at) - parse_time(patch.first_seen_at)).total_seconds()
        for patch in patches
        if patch.installed_at is not None and begin <= patch.installed_at < end
    ]
    waiting = [
        (period.end - parse_time(patch.first_seen_at)).total_seconds()
        for patch in patches
        if patch.first_seen_at < end and (patch.installed_at is None or patch.installed_at >= end)
    ]
    longest = max(took + waiting, default=None)
    how = "longest time from first sight to installation, or to the end of the period for what waits still"
    return {
        **_figure(longest, "s", len(took) + len(waiting), how, target, at_least=False),
        "mean": sum(took) / len(took) if took else None,
        "installed": len(took),
        "waiting": len(waiting),
    }


def _at(seconds: float) -> str:
    return isoformat(datetime.fromtimestamp(seconds, timezone.utc))


# --- judgement -------------------------------------------------------------------------------------------------------


def judge_metrics(found: FindingsBuilder, told: Mapping[str, Any]) -> None:
    """A finding for each objective: ok when it is met, a warning when not, unknown when nothing was measured."""
    platform = told["platform"]
    _judge(found, "objective_uptime", platform["uptime"], "no time of the period was measured", _percent)
    _judge(found, "objective_mttr", platform["mttr"], "no failures", format_duration, fine=True)
    _judge(found, "objective_mtbf", platform["mtbf"], "no failures", format_duration, fine=True)
    for month in told["planned_windows"]["months"]:
        _judge(found, "objective_planned_windows", month, "", format_duration, subject=month["month"])
    _judge(found, "objective_patch_time", told["patch_time"], "no security update was seen", format_duration, fine=True)


_HINTS = {
    "objective_uptime": "See the failures of each service, and spend the rest of the error budget with care",
    "objective_mttr": "See where the time of the last incidents went: noticed late, or mended late?",
    "objective_mtbf": "Look for the common cause of the failures before the next change",
    "objective_planned_windows": "Move what is left to the next month, or do it without a window",
    "objective_patch_time": "Install the security updates that wait",
}


def _judge(
    found: FindingsBuilder, check: str, figure: Mapping[str, Any], nothing: str, words: Any, *,
    subject: str = PLATFORM, fine: bool = False,
) -> None:  # fmt: skip
    """The finding about one figure. ``fine`` says that having nothing to compute it from is good news."""
    if figure["target"] is None:
        return
    value = figure["value"]
    if value is None:
        found.add(check, subject, "ok" if fine else "unknown", nothing, threshold=figure["target"], unit=figure["unit"])
        return
    summary = f"{words(value)} (n={figure['n']}), the objective is {words(figure['target'])}"
    status, hint = ("ok", "") if figure["met"] else ("warning", _HINTS[check])
    details = {"value": round(value, 4), "unit": figure["unit"], "threshold": figure["target"], "hint": hint}
    found.add(check, subject, status, summary, **details)


def _percent(value: float) -> str:
    return f"{value:.3f} %"
