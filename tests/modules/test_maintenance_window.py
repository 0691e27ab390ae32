# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""maintenance_window on histories that maintenance_history wrote, and what alert and maintenance_metrics make of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module, start_module

CHECKS = [
    {"name": "backup_fresh", "status": "ok", "summary": "set 1 is verified"},
    {"name": "rollback_prepared", "status": "ok", "summary": "release 41 is there"},
    {"name": "contacts_reachable", "status": "ok", "summary": "all answer"},
]
AFTER = [
    {"name": "services_verified", "status": "ok", "summary": "auth is up"},
    {"name": "health_check", "status": "ok", "summary": "all 2 are up"},
]
NO_STAGING = {"staging_run": "there is no staging of this site"}


def at(seconds: float = 0) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


def call(database: Path, state: str, *, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
    given = {"database": str(database), "site": "test", "state": state, **options}
    return run_module("maintenance_window", given, check=check, diff=diff)


def start(database: Path, title: str = "Release 42", **options: Any) -> dict[str, Any]:
    contact = {"name": "Support", "urls": [f"file://{database.parent}/support.log"]}
    given = {"checks": CHECKS, "overrides": NO_STAGING, "contacts": [contact], "services": ["auth"], **options}
    return call(database, "started", title=title, **given)


def close_run(
    database: Path, findings: list[dict[str, Any]] | None = None, *, name: str = "health_check", site: str = "test",
    **outcome: Any,
) -> dict[str, Any]:  # fmt: skip
    """One whole run of one procedure, as playbooks do it."""
    common = {"database": str(database), "site": site, "run": name}
    run_id = run_module("maintenance_history", {**common, "state": "opened"})["run_id"]
    raw = {"started_at": at(), "seconds": 1, "findings": findings or [], **outcome}
    outcomes = {"localhost": {"health_check": raw}}
    closed = run_module("maintenance_history", {**common, "state": "closed", "run_id": run_id, "outcomes": outcomes})
    return dict(closed["run"])


def down(subject: str, parent: str = "") -> dict[str, Any]:
    return {
        "check": "service_health", "subject": subject, "status": "critical", "summary": f"{subject} is down",
        "observed_at": at(), "parent": parent,
    }  # fmt: skip


def rows(database: Path) -> list[tuple[Any, ...]]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT title, status, services, ends_at FROM windows ORDER BY starts_at").fetchall()


def test_a_window_from_announcement_to_its_document(database: Path, tmp_path: Path) -> None:
    contact = {"name": "Support", "urls": [f"file://{tmp_path}/support.log"]}
    close_run(database, started_at=at(-60), artifacts={"metrics": {"p95_ms": 100, "error_percent": 0.5}})
    close_run(database, name="release", site="staging")
    asked = {"title": "Release 42", "services": ["auth"], "duration": "2h", "contacts": [contact]}
    assert call(database, "planned", check=True, **asked)["changed"] and rows(database) == []
    assert not (tmp_path / "support.log").exists()
    planned = call(database, "planned", **asked)
    assert planned["window"]["status"] == "planned" and planned["window"]["record"]["announced"].keys() == {"Support"}
    assert not call(database, "planned", **asked)["changed"]

    ready = {**asked, "checks": CHECKS, "staging_site": "staging", "staging_run": "release"}
    ready["rollback"] = ["auth: release 41"]
    assert call(database, "started", check=True, **ready)["window"]["status"] == "started"
    assert [row[1] for row in rows(database)] == ["planned"]
    started = call(database, "started", diff=True, **ready)
    assert started["changed"] and "status: started" in started["diff"]["after"]
    assert {item["check"]: item["status"] for item in started["findings"]}["staging_run"] == "ok"
    again = call(database, "started", **ready)
    assert not again["changed"] and "began already" in again["message"]
    assert (tmp_path / "support.log").read_text().count("[test] Release 42: planned") == 1

    seen = [{"subject": "auth", "state": state, "at": at()} for state in ("down", "up")]
    close_run(database, name="release", changes=["auth: release 42 | is live"], artifacts={"observations": seen})
    (open_one,) = call(database, "found", fail_on="warning")["at_work"]
    assert open_one["changes"][0]["text"] == "auth: release 42 | is live"
    assert open_one["health"] == {"auth": {"seen": 2, "down": 1}}

    figures = {"localhost": {"p95_ms": 180.0, "error_percent": 0.6}}
    ending = {"title": "Release 42", "checks": AFTER, "figures": figures, "directory": str(tmp_path / "reports")}
    ending["contacts"] = [contact]
    foretold = call(database, "ended", check=True, diff=True, **ending)
    assert "## Changes" in foretold["diff"]["after"] and not (tmp_path / "reports").exists()
    ended = call(database, "ended", **ending)
    worse = next(item for item in ended["findings"] if item["check"] == "performance")
    assert worse["status"] == "warning" and "p95_ms of localhost 100 ms before, 180 ms after" in worse["summary"]
    text = Path(ended["window"]["record"]["document"]).read_text()
    for told in (
        "# Maintenance: Release 42", "| staging_run | ok |", "- auth: release 41", "release 42 \\| is live |",
        "| auth | 2 | 1 |", "| localhost | p95_ms | 100 ms | 180 ms | warning |", "| services_verified | ok |",
        "- Support",
    ):  # fmt: skip
        assert told in text, f"{told} is not in\n{text}"
    assert "maintenance is over" in (tmp_path / "support.log").read_text()
    assert not call(database, "ended", **ending)["changed"]


def test_a_check_that_fails_holds_the_window_up_unless_overridden_with_a_reason(database: Path) -> None:
    bad = [{**CHECKS[0], "status": "critical", "summary": "no set is verified"}, *CHECKS[1:]]
    refused = start(database, checks=bad)
    assert refused["failed"] and "no set is verified" in refused["msg"] and "backup_fresh: <reason>" in refused["msg"]
    assert rows(database) == [] and not (database.parent / "support.log").exists(), "nobody is told of what is not"
    silent = start(database, checks=bad, overrides={**NO_STAGING, "backup_fresh": " "})
    assert "backup_fresh needs a reason" in silent["msg"]
    assert "there are no checks backup to override" in start(database, overrides={"backup": "why not"})["msg"]
    begun = start(database, checks=bad, overrides={**NO_STAGING, "backup_fresh": "data is not touched"})
    told = {item["check"]: item for item in begun["findings"]}
    assert told["backup_fresh"]["status"] == "warning" and "data is not touched" in told["backup_fresh"]["summary"]
    recorded = {item["name"]: item["override"] for item in begun["window"]["record"]["checks_before"]}
    assert recorded["backup_fresh"] == "data is not touched" and recorded["contacts_reachable"] == ""


def test_what_was_not_checked_holds_it_up_and_so_does_an_unreachable_contact(database: Path) -> None:
    missing = start(database, checks=CHECKS[:2])
    assert missing["failed"] and "contacts_reachable" in missing["msg"] and "was not checked" in missing["msg"]
    contact = {"name": "Support", "urls": ["file:///proc/upkeep/support.log"]}
    unheard = start(database, contacts=[contact])
    assert (
        unheard["failed"] and "Support was not told" in unheard["msg"] and [r[1] for r in rows(database)] == ["planned"]
    )
    assert start(database, contacts=[contact], overrides={**NO_STAGING, "users_told": "told by phone"})["changed"]


@pytest.mark.parametrize(
    "status, age, told",
    [("critical", 0, "ended critical"), ("ok", 8 * 86400, "the limit is 7 d"), ("ok", 0, "")],
)
def test_a_staging_run_is_found_in_a_history_of_its_own(
    database: Path, tmp_path: Path, status: str, age: int, told: str
) -> None:
    staging = tmp_path / "staging.sqlite3"
    run = close_run(staging, [{**down("auth"), "status": status}], name="release", site="staging")
    with closing(sqlite3.connect(staging)) as connection, connection:
        connection.execute("UPDATE runs SET ended_at = ? WHERE id = ?", (at(-age), run["id"]))
    answer = start(database, overrides={}, staging_site=str(staging), staging_run="release")
    assert (told in answer["msg"]) if told else answer["changed"]
    lost = start(database, overrides={}, staging_site=f"{staging}.gone", staging_run="release", title="Other")
    assert lost["failed"] and ("there is no history" in lost["msg"] or "overlaps" in lost["msg"])


def test_two_windows_at_once_are_refused_or_merged(database: Path) -> None:
    start(database)
    other = {"services": ["auth", "news"], "duration": "3h"}
    refused = start(database, "Other", **other)
    assert refused["failed"] and "overlaps with 'Release 42' (auth" in refused["msg"]
    assert "maintenance_window_overlap=merge" in refused["msg"] and len(rows(database)) == 1
    assert start(database, "Elsewhere", services=["chat"])["changed"], "other services are no overlap"
    merged = start(database, "Other", **other, overlap="merge")
    assert merged["window"]["title"] == "Release 42" and merged["window"]["services"] == ["auth", "news"]
    assert not start(database, "Other", **other, overlap="merge")["changed"]
    later = call(database, "planned", title="Tomorrow", services=["auth"], starts_at=at(86400))
    assert later["changed"], "what was started ends before"
    ended = call(database, "ended", title="Other", checks=AFTER)
    assert ended["window"]["title"] == "Release 42" and ended["window"]["record"]["merged"][0]["title"] == "Other"
    assert call(database, "cancelled", title="Tomorrow")["changed"]
    assert not call(database, "cancelled", title="Tomorrow")["changed"]
    assert "end it instead" in call(database, "cancelled", title="Elsewhere")["msg"]


def test_of_two_starts_at_the_same_moment_one_goes_through(database: Path) -> None:
    close_run(database)
    common = {"database": str(database), "site": "test", "state": "started", "checks": CHECKS, "overrides": NO_STAGING}
    common["overrides"] = {**NO_STAGING, "users_told": "by phone"}
    both = [start_module("maintenance_window", {**common, "title": title}) for title in ("One", "Two")]
    for process in both:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in both) == [0, 1]
    assert [row[1] for row in rows(database)] == ["started"]


def test_a_window_whose_end_was_killed_is_found_overdue_and_can_be_ended(database: Path, tmp_path: Path) -> None:
    start(database)
    fifo = tmp_path / "target"
    os.mkfifo(fifo)  # telling the contact hangs here: the end is killed after the window was ended
    contact = {"name": "Support", "urls": [f"file://{fifo}"]}
    asked = {"database": str(database), "site": "test", "state": "ended", "checks": AFTER, "contacts": [contact]}
    process = start_module("maintenance_window", asked)
    deadline = time.monotonic() + 30
    while rows(database)[0][1] != "ended" and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert rows(database)[0][1] == "ended"

    start(database, "Killed")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE windows SET starts_at = ?, ends_at = ? WHERE title = 'Killed'", (at(-7200), at(-60)))
    found = call(database, "found", fail_on="warning")
    assert found["failed"] and "should have ended" in found["msg"]
    told = run_module("alert", {**alerting(database), "run": close_run(database, [down("auth")])})
    assert told["messages"] and told["held"] == [], "an overdue window holds nothing"
    assert start(database, "Killed", ends_at=at(600))["message"].startswith("window 'Killed' lasts until")
    assert call(database, "found", fail_on="warning")["status"] == "ok"


def alerting(database: Path) -> dict[str, Any]:
    contact = {"name": "Ops", "urls": [f"file://{database.parent}/ops.log"]}
    return {"database": str(database), "contacts": [contact]}


def test_alerts_are_held_while_it_lasts_and_what_still_stands_is_told_after(database: Path) -> None:
    start(database)
    run = close_run(database, [down("auth"), down("shop", parent="auth"), down("news")])
    answer = run_module("alert", {**alerting(database), "run": run})
    (message,) = answer["messages"]
    assert "news is down" in message["body"] and "auth" not in message["body"]
    assert [(item["subject"], item["window"]) for item in answer["held"]] == [
        ("auth", "Release 42"), ("shop", "Release 42"),
    ]  # fmt: skip
    with closing(sqlite3.connect(database)) as connection:
        recorded = connection.execute("SELECT COUNT(*) FROM findings WHERE subject = 'auth'").fetchone()
    assert recorded == (1,), "recording never stops"
    call(database, "ended", checks=AFTER)
    after = run_module("alert", {**alerting(database), "run": close_run(database, [down("auth"), down("news")])})
    (message,) = after["messages"]
    assert "auth is down" in message["body"] and "news" not in message["body"]


def test_a_window_of_all_services_holds_what_health_checks_find(database: Path) -> None:
    start(database, services=[])
    answer = run_module(
        "alert", {**alerting(database), "run": close_run(database, [down("redis:cache"), down("auth")])}
    )
    assert not answer["messages"] and len(answer["held"]) == 2


def test_its_time_is_planned_time_of_the_metrics(database: Path) -> None:
    start(database)
    seen = [{"subject": "auth", "state": "down", "at": at()}, {"subject": "auth", "state": "up", "at": at(1)}]
    close_run(database, artifacts={"observations": seen})
    time.sleep(2.1)
    call(database, "ended", checks=AFTER)
    options = {"database": str(database), "site": "test", "begin": at(-60), "objectives": {}, "events": True}
    told = run_module("maintenance_metrics", {**options, "fail_on": "never"})
    assert told["metrics"]["planned_windows"]["seconds"] >= 2
    assert told["metrics"]["platform"]["seconds"]["planned"] >= 1 and not told["metrics"]["platform"]["failures"]
    assert [item["title"] for item in told["events"]["windows"]] == ["Release 42"]
    start(database, "Emergency", planned=False)
    unplanned = run_module("maintenance_metrics", {**options, "fail_on": "never"})
    assert unplanned["metrics"]["planned_windows"]["months"][0]["n"] == 1


@pytest.mark.parametrize(
    "state, options, told",
    [
        ("started", {"title": ""}, "needs a title"),
        ("planned", {"title": "x", "starts_at": at(60), "ends_at": at(-60)}, "ends before it begins"),
        ("planned", {"title": "x", "starts_at": at(-7200), "ends_at": at(-60)}, "is over"),
        ("planned", {"title": "x", "duration": "long"}, "'long' is no duration"),
        ("ended", {}, "none is"),
        ("ended", {"title": "x"}, "there is no window 'x'"),
        ("cancelled", {"title": "x"}, "there is no window 'x'"),
    ],
)
def test_what_makes_no_sense_is_named(database: Path, state: str, options: dict[str, Any], told: str) -> None:
    answer = call(database, state, **options)
    assert answer["failed"] and told in answer["msg"]


def test_a_document_that_cannot_be_written_keeps_the_window_open(database: Path) -> None:
    start(database)
    answer = call(database, "ended", checks=AFTER, directory="/proc/reports")
    assert answer["failed"] and "cannot be written" in answer["msg"] and rows(database)[0][1] == "started"
    unwell = call(database, "ended", checks=[{**AFTER[0], "status": "critical", "summary": "auth is down"}, AFTER[1]])
    assert unwell["failed"] and "auth is down" in unwell["msg"] and rows(database)[0][1] == "started"


def test_examples(tmp_path: Path) -> None:
    run_examples("maintenance_window", {"/var/lib/upkeep": str(tmp_path)})
