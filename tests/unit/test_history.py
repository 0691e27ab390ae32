"""What stands in the history after runs that overlap, follow each other, or were written by an older release."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_schema import MIGRATIONS
from ansible_collections.upkeep.ops.plugins.module_utils._runs import Outcome, outcome_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

NOW = datetime(2026, 1, 31, 6, 0, tzinfo=timezone.utc)
AUTH = ("health_check", "service_health", "auth", "localhost")


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def outcome(*statuses: str, minutes: float, subject: str = "auth", metrics: Any = None) -> Outcome:
    found = [
        {"check": "service_health", "subject": subject, "status": status, "summary": f"is {status}",
         "observed_at": isoformat(at(minutes))}
        for status in statuses
    ]  # fmt: skip
    raw = {"started_at": isoformat(at(minutes)), "findings": found, "artifacts": {"metrics": metrics or {}}}
    return outcome_from("health_check", "localhost", raw)


class Site:
    """A history of one site whose runs are written whole."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def close(self, run_id: str, *outcomes: Outcome, minutes: float) -> None:
        findings = [item for each in outcomes for item in each.findings]
        with opened(self.path, write=True) as history:
            history.close_run(run_id, "daily", "test", at(minutes), "ok", outcomes, findings)

    def state(self) -> tuple[str, str] | None:
        with opened(self.path, write=False) as history:
            state = history.states("test").get(AUTH)
        return (state.status, state.since) if state else None

    def since(self, run_id: str) -> list[str]:
        with opened(self.path, write=False) as history:
            return [item["since"] for item in history.run(run_id)["findings"] if item["subject"] == "auth"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "history.sqlite3")


def test_a_long_run_takes_back_nothing_that_a_shorter_one_saw_later(site: Site) -> None:
    """The daily run looked at 6:00 and ends at 6:40; in between the outage was seen by the health check."""
    site.close("short", outcome("critical", minutes=30), minutes=31)
    site.close("long", outcome("ok", minutes=0), minutes=40)
    assert site.state() == ("critical", isoformat(at(30)))


def test_a_long_run_removes_nothing_that_a_shorter_one_found_later(site: Site) -> None:
    site.close("short", outcome("critical", minutes=30), minutes=31)
    site.close("long", outcome(minutes=0), minutes=40)
    assert site.state() == ("critical", isoformat(at(30)))
    site.close("next", outcome(minutes=50), minutes=51)
    assert site.state() is None


def test_a_clock_that_was_ahead_holds_nothing_up(site: Site) -> None:
    site.close("ahead", outcome("critical", minutes=1e6), minutes=1)
    site.close("right", outcome("ok", minutes=5), minutes=6)
    assert site.state() == ("ok", isoformat(at(5)))


def test_of_a_check_that_is_named_twice_the_worst_stands(site: Site) -> None:
    site.close("twice", outcome("critical", "ok", minutes=0), minutes=1)
    assert site.state() == ("critical", isoformat(at(0)))


def test_since_is_that_of_the_run_also_when_it_is_read_later(site: Site) -> None:
    for number, status in enumerate(("ok", "critical", "critical", "ok", "critical")):
        site.close(f"run{number}", outcome(status, minutes=number * 10), minutes=number * 10 + 1)
    assert [site.since(f"run{number}") for number in range(5)] == [
        [isoformat(at(minutes))] for minutes in (0, 10, 10, 30, 40)
    ]


def test_the_alerting_itself_can_make_a_verdict_worse_and_never_better(site: Site) -> None:
    site.close("run", outcome("warning", minutes=0), minutes=1)
    lost = Finding("alert_delivery", "Ops", "critical", "not delivered", isoformat(NOW))
    with opened(site.path, write=True) as history:
        history.add_alert_findings("run", [lost])
        history.add_alert_findings("run", [])
    with opened(site.path, write=False) as history:
        run = history.run("run")
    assert run["status"] == "critical"
    assert run["findings"][0]["procedure"] == "alert"


def test_a_trend_of_many_points_reaches_from_the_first_to_the_newest(site: Site) -> None:
    for number in range(30):
        site.close(f"run{number}", outcome(minutes=number, metrics={"load": number}), minutes=number)
    with opened(site.path, write=False) as history:
        points = [value for _moment, value in history.trends("test", isoformat(NOW), 10)[0]["points"]]
    assert (len(points), points[0], points[-1]) == (10, 0, 29)
    assert points == sorted(points)


def test_a_database_of_the_first_schema_is_brought_forward(site: Site) -> None:
    connection = sqlite3.connect(site.path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO states VALUES ('test', ?, ?, ?, ?, 'critical', ?, 'down')", (*AUTH, isoformat(NOW)))
    connection.commit()
    connection.close()
    assert site.state() == ("critical", isoformat(NOW))
    site.close("run", outcome("critical", minutes=5), minutes=6)
    assert site.state() == ("critical", isoformat(NOW))


def test_what_is_wrong_with_the_database_comes_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite3").write_text("this is no database, but long enough to be read as one" * 20)
    with pytest.raises(HistoryError, match="move it away"), opened(str(tmp_path / "history.sqlite3"), write=True):
        pass
