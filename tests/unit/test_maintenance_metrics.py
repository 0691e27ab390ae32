# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a period against a table computed by hand, their periods, and what is judged of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_metrics import (
    Objectives,
    Patch,
    Period,
    Record,
    Window,
    judge_metrics,
    metrics,
    months_of,
    objectives_from,
    period_from,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat
from ansible_collections.upkeep.ops.plugins.module_utils._uptime import DOWN, UP, Observation
from hypothesis import given
from hypothesis import strategies as st

UTC = timezone.utc
DAY = Period(datetime(2026, 3, 10, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))
START = DAY.begin.timestamp()
HOUR = 3600
OBJECTIVES = Objectives(99.9, 30 * 60, 720 * HOUR, 4 * HOUR, 24 * HOUR)


def seen(*changes: tuple[float, str], every: int = 300) -> list[Observation]:
    """Observations each five minutes of the day; ``changes`` are (hour, state from then on)."""
    observations = []
    for second in range(0, 24 * HOUR, every):
        state = [state for hour, state in changes if hour * HOUR <= second][-1]
        observations.append(Observation(START + second, state))
    return observations


#: auth fails for 30 and 60 minutes, of which the second half hour lies in a window; news fails for two hours.
RECORD = Record(
    observations={
        "auth": seen((0, UP), (6, DOWN), (6.5, UP), (12, DOWN), (13, UP)),
        "api": seen((0, UP)),
        "news": seen((0, UP), (20, DOWN), (22, UP)),
    },
    windows=[
        Window(START + 12.5 * HOUR, START + 14 * HOUR, ("auth",)),
        Window(START + 13.5 * HOUR, START + 14.5 * HOUR, ("api",)),
    ],
    patches=[
        Patch("app1", "openssl", "2026-03-10T01:00:00Z", "2026-03-10T09:00:00Z"),
        Patch("app1", "curl", "2026-03-08T00:00:00Z", "2026-03-10T12:00:00Z"),
        Patch("app2", "bash", "2026-03-10T18:00:00Z", None),
        Patch("app2", "zlib1g", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
        Patch("app2", "later", "2026-03-12T00:00:00Z", None),
    ],
)
SERVICES = {"auth": True, "api": True, "news": False}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return metrics(RECORD, DAY, SERVICES, OBJECTIVES, max_gap=900)


def figures(service: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(service[name]["value"] for name in ("uptime", "mttr", "mtbf"))


def test_each_service_as_computed_by_hand(told: dict[str, Any]) -> None:
    services = {service["name"]: service for service in told["services"]}
    # auth: 22.5 h up, 0.5 + 0.5 h down, 0.5 h planned, two failures.
    assert services["auth"]["seconds"] == {"up": 22.5 * HOUR, "down": HOUR, "planned": 0.5 * HOUR, "unknown": 0}
    assert figures(services["auth"]) == (pytest.approx(100 * 22.5 / 23.5), 0.5 * HOUR, 11.25 * HOUR)
    assert figures(services["api"]) == (100, None, None)
    assert figures(services["news"]) == (pytest.approx(100 * 22 / 24), 2 * HOUR, 22 * HOUR)
    assert [failure["began_at"] for failure in services["auth"]["failures"]] == [
        "2026-03-10T06:00:00Z",
        "2026-03-10T12:00:00Z",
    ]


def test_the_platform_is_its_critical_services(told: dict[str, Any]) -> None:
    assert figures(told["platform"]) == (pytest.approx(100 * 22.5 / 23.5), 0.5 * HOUR, 11.25 * HOUR)
    assert told["platform"]["mttr"]["n"] == 2
    assert (told["platform"]["mttr"]["met"], told["platform"]["mtbf"]["met"]) == (True, False)
    # 0.1 % of a day are 86.4 s; an hour was used.
    assert told["platform"]["error_budget"] == {
        "allowed": pytest.approx(86.4),
        "used": HOUR,
        "left": pytest.approx(86.4 - HOUR),
    }


def test_windows_at_the_same_time_count_once(told: dict[str, Any]) -> None:
    (month,) = told["planned_windows"]["months"]
    assert (month["month"], month["value"], month["n"], month["met"]) == ("2026-03", 2 * HOUR, 1, True)


def test_patch_time_is_the_longest_and_counts_what_waits(told: dict[str, Any]) -> None:
    patch = told["patch_time"]
    assert (patch["value"], patch["mean"]) == (60 * HOUR, (8 + 60) / 2 * HOUR)
    assert (patch["installed"], patch["waiting"], patch["n"], patch["met"]) == (2, 1, 3, False)


def test_every_figure_says_what_it_comes_from(told: dict[str, Any]) -> None:
    for name in ("uptime", "mttr", "mtbf"):
        figure = told["platform"][name]
        assert figure["how"] and isinstance(figure["n"], int) and figure["target"]


def test_objectives_are_judged(told: dict[str, Any]) -> None:
    found = FindingsBuilder(DAY.end)
    judge_metrics(found, told)
    statuses = {(finding.check, finding.subject): finding.status for finding in found.findings}
    assert statuses == {
        ("objective_uptime", "platform"): "warning",
        ("objective_mttr", "platform"): "ok",
        ("objective_mtbf", "platform"): "warning",
        ("objective_planned_windows", "2026-03"): "ok",
        ("objective_patch_time", "platform"): "warning",
    }


def test_what_was_not_measured_is_unknown_and_no_failure_is_good_news() -> None:
    found = FindingsBuilder(DAY.end)
    judge_metrics(found, metrics(Record({}, [], []), DAY, {"auth": True}, OBJECTIVES, max_gap=900))
    statuses = {finding.check: (finding.status, finding.summary) for finding in found.findings}
    assert statuses["objective_uptime"] == ("unknown", "no time of the period was measured")
    assert statuses["objective_mttr"] == ("ok", "no failures")
    assert statuses["objective_patch_time"] == ("ok", "no security update was seen")


@pytest.mark.parametrize(
    "name, begin, end",
    [
        ("day", "2026-08-19T00:00:00Z", "2026-08-19T15:30:00Z"),
        ("last_day", "2026-08-18T00:00:00Z", "2026-08-19T00:00:00Z"),
        ("week", "2026-08-17T00:00:00Z", "2026-08-19T15:30:00Z"),
        ("last_week", "2026-08-10T00:00:00Z", "2026-08-17T00:00:00Z"),
        ("last_month", "2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z"),
        ("quarter", "2026-07-01T00:00:00Z", "2026-08-19T15:30:00Z"),
        ("last_quarter", "2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        ("last_year", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_periods(name: str, begin: str, end: str) -> None:
    period = period_from(name, datetime(2026, 8, 19, 15, 30, tzinfo=UTC))
    assert (isoformat(period.begin), isoformat(period.end)) == (begin, end)


def test_a_period_between_two_times() -> None:
    now = datetime(2026, 8, 19, tzinfo=UTC)
    assert period_from("", now, "2026-08-01").end == now
    with pytest.raises(ValueError, match="ends at 2026-08-01T00:00:00Z, before it begins"):
        period_from("", now, "2026-08-02", "2026-08-01")
    with pytest.raises(ValueError, match="'fortnight' is no period; there are day, week"):
        period_from("fortnight", now)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.integers(1, 500))
def test_months_cut_a_period_without_a_gap(begin: datetime, days: int) -> None:
    period = Period(begin.replace(tzinfo=UTC), begin.replace(tzinfo=UTC) + timedelta(days=days))
    months = months_of(period)
    assert months[0].begin == period.begin and months[-1].end == period.end
    assert all(one.end == other.begin and other.begin.day == 1 for one, other in zip(months, months[1:]))
    assert all((month.begin.year, month.begin.month) == (last.year, last.month) for month, last in _lasts(months))


def _lasts(months: list[Period]) -> list[tuple[Period, datetime]]:
    return [(month, month.end - timedelta(microseconds=1)) for month in months]


@pytest.mark.parametrize(
    "raw, told",
    [
        ({"uptime": 99.9}, "there are no objectives uptime; there are uptime_percent, mttr"),
        ({"uptime_percent": "much"}, "the objective uptime_percent is 'much'"),
        ({"uptime_percent": 0}, r"it must be in \(0, 100\]"),
        ({"mttr": "soon"}, "the objective mttr is 'soon'.*no duration"),
    ],
)
def test_objectives_that_make_no_sense_are_named(raw: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        objectives_from(raw)


def test_objectives_as_the_catalogue_has_them() -> None:
    raw = {
        "uptime_percent": 99.9,
        "mttr": "30m",
        "mtbf": "720h",
        "planned_windows_per_month": "4h",
        "critical_patch_time": "24h",
    }
    assert objectives_from(raw) == OBJECTIVES
