# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""checklist on real histories, with the lists of its role."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import run_examples
from tests.harness import ROOT, run_module

NOW = datetime.now(timezone.utc)
LISTS = yaml.safe_load((ROOT / "roles" / "checklist" / "defaults" / "main.yml").read_text())["checklist_lists"]
OWN = [
    {
        "name": "monthly",
        "period": "monthly",
        "due_after": "1s",
        "items": [
            {"id": "policies", "text": "Review and update security policies"},
            {"id": "drill", "text": "Drill", "automatic": {"procedure": "disaster_recovery_test", "max_age": "35d"}},
            {"id": "keys", "text": "Review and rotate API keys", "automatic": {"credentials": True}},
        ],
    }
]
#: "Maintenance Checklists" of the procedures that this collection came from, word for word.
ORIGINAL = {
    "pre": [
        "Backup all critical data", "Notify users of planned maintenance", "Prepare rollback procedures",
        "Test maintenance procedures in staging", "Ensure emergency contacts are available",
    ],
    "during": [
        "Monitor system health continuously", "Document all changes made", "Test functionality after each change",
        "Keep stakeholders informed of progress", "Be prepared to rollback if issues arise",
    ],
    "post": [
        "Verify all services are operational", "Run comprehensive health checks",
        "Monitor for any performance degradation", "Update documentation with changes",
        "Conduct post-maintenance review",
    ],
    "monthly": [
        "Review and update security policies", "Analyze performance trends", "Update disaster recovery procedures",
        "Review and rotate API keys", "Update system documentation", "Plan capacity upgrades if needed",
        "Review and update monitoring alerts", "Conduct security training for team",
    ],
}  # fmt: skip


def at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A history that began two hundred days ago, with a drill of ten days ago."""
    path = tmp_path / "history.sqlite3"
    common = {"database": str(path), "site": "test", "run": "disaster_recovery_test"}
    run_id = run_module("maintenance_history", {**common, "state": "opened"})["run_id"]
    outcome = {"started_at": at(NOW - timedelta(days=10)), "seconds": 1}
    outcomes = {"localhost": {"disaster_recovery_test": outcome}}
    run_module("maintenance_history", {**common, "state": "closed", "run_id": run_id, "outcomes": outcomes})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET started_at = ?", (at(NOW - timedelta(days=200)),))
    return path


def call(database: Path, *, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
    given = {"database": str(database), "site": "test", "lists": OWN, "fail_on": "never", **options}
    return run_module("checklist", given, check=check, diff=diff)


def sign(database: Path, **options: Any) -> dict[str, Any]:
    given = {"state": "signed", "checklist": "monthly", "item": "policies", "signed_by": "Security Team"}
    return call(database, **{**given, **options})


def state(answer: dict[str, Any], item: str) -> tuple[str, str]:
    (found,) = [each for each in answer["items"] if each["item"] == item]
    return found["state"], found["summary"]


def test_the_lists_of_the_role_are_those_of_the_original() -> None:
    told = {each["name"]: [item["text"] for item in each["items"]] for each in LISTS}
    assert {name: told[name] for name in ORIGINAL} == ORIGINAL


def test_a_manual_item_is_overdue_until_it_is_signed_and_again_when_that_is_withdrawn(database: Path) -> None:
    assert state(call(database), "policies")[0] == "overdue"
    found = {item["subject"]: item for item in call(database)["findings"]}
    assert (
        found["checklist monthly"]["status"] == "warning"
        and "security policies" in found["checklist monthly"]["summary"]
    )
    assert found["monthly/policies"]["parent"] == "checklist monthly"
    assert sign(database, check=True)["changed"] and state(call(database), "policies")[0] == "overdue"
    signed = sign(database, evidence="wiki/policies", diff=True)
    assert signed["changed"] and "wiki/policies" in signed["diff"]["after"]
    assert not sign(database, evidence="wiki/policies")["changed"]
    done = call(database)
    assert state(done, "policies")[0] == "done" and "signed by Security Team" in state(done, "policies")[1]
    (item,) = [each for each in done["items"] if each["item"] == "policies"]
    assert (item["signed_by"], item["outcome"], item["evidence"]) == ("Security Team", "done", "wiki/policies")
    assert item["signed_at"] <= at(datetime.now(timezone.utc))
    assert {item["status"] for item in done["findings"]} == {"ok"}
    sign(database, outcome="failed")
    assert state(call(database), "policies")[0] == "failed"
    assert sign(database, state="withdrawn", evidence="wrong list")["changed"]
    assert state(call(database), "policies")[0] == "overdue"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT outcome, evidence FROM signoffs").fetchall() == [("withdrawn", "wrong list")]
    assert "nothing can be withdrawn" in sign(database, state="withdrawn")["msg"]


def test_what_was_done_last_month_is_open_until_it_is_due_this_month(database: Path) -> None:
    last_month = (NOW.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    patient = [{**OWN[0], "due_after": "31d"}]
    assert state(call(database, lists=patient), "policies") == (
        "overdue", f"not signed for {last_month} nor for {NOW:%Y-%m}",
    )  # fmt: skip
    sign(database, period=last_month)
    assert state(call(database, lists=patient), "policies")[0] == "open"
    assert "is no period that can be signed for" in sign(database, period="last month")["msg"]


def test_a_new_site_is_given_its_time(tmp_path: Path) -> None:
    answer = call(tmp_path / "none.sqlite3", lists=[{**OWN[0], "due_after": "21d"}])
    assert state(answer, "policies")[0] == "open" and state(answer, "drill") == (
        "open",
        "disaster_recovery_test never ran",
    )
    assert answer["status"] == "ok" and not (tmp_path / "none.sqlite3").exists()


def test_automatic_items_follow_procedures_and_credentials(database: Path) -> None:
    key = {"name": "npm token", "owner": "DevOps Lead", "rotated_at": at(NOW - timedelta(days=80)), "max_age": "90d"}
    assert state(call(database, credentials=[key]), "drill")[0] == "done"
    assert state(call(database, credentials=[key]), "keys")[0] == "done"
    old = call(database, credentials=[{**key, "max_age": "60d"}, {"name": "other", "max_age": "1d"}])
    found = {item["subject"]: item for item in old["findings"] if item["check"] == "credential_age"}
    assert found["npm token"]["status"] == "warning" and "DevOps Lead" in found["npm token"]["hint"]
    assert found["other"]["status"] == "unknown"
    assert state(old, "keys")[0] == "failed" and "npm token" in state(old, "keys")[1]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE outcomes SET started_at = ?", (at(NOW - timedelta(days=50)),))
    assert "the limit is 35 d" in state(call(database), "drill")[1]


def test_the_items_of_a_window_come_from_its_record_and_its_review_is_due(database: Path) -> None:
    def check(name: str, override: str = "") -> dict[str, str]:
        return {"name": name, "status": "critical" if override else "ok", "summary": name, "override": override}

    before = [check(name) for name in ("backup_fresh", "rollback_prepared", "contacts_reachable", "users_told")]
    record = {
        "checks_before": [*before, check("staging_run", "no staging")],
        "checks_after": [check(name) for name in ("services_verified", "health_check", "performance")],
    }
    ended = at(NOW - timedelta(days=8))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO windows VALUES ('w1', 'test', 'Release 42', 1, '[]', ?, ?, ?, ?, 'ended', ?)",
            (ended, ended, ended, ended, json.dumps(record)),
        )
        connection.execute(
            "INSERT INTO windows VALUES ('w2', 'test', 'Forgotten', 1, '[]', ?, ?, ?, NULL, 'started', '{}')",
            (ended, ended, ended),
        )
    answer = call(database, lists=LISTS)
    of_first = {item["item"]: item["state"] for item in answer["items"] if item["about"] == "Release 42"}
    assert of_first["backup"] == of_first["staging"] == of_first["services_operational"] == "done"
    assert of_first["post_maintenance_review"] == "overdue"
    overdue = next(item for item in answer["findings"] if item["check"] == "window_overdue")
    assert overdue["subject"] == "Forgotten" and overdue["status"] == "warning"
    asked = {"lists": LISTS, "checklist": "post", "item": "post_maintenance_review", "period": "Release 42"}
    assert "for w1" in sign(database, **asked)["message"]
    assert "no window 'None such'" in sign(database, **{**asked, "period": "None such"})["msg"]


def test_more_items_can_be_added_to_a_list(database: Path) -> None:
    more = [*OWN, {"name": "monthly", "items": [{"id": "licences", "text": "Look through licences"}]}]
    assert len(call(database, lists=more)["items"]) == 4


@pytest.mark.parametrize(
    "options, told",
    [
        ({"checklist": "weekly"}, "there is no checklist 'weekly'; there are monthly"),
        ({"item": "nothing"}, "has no item 'nothing'; it has policies"),
        ({"signed_by": " "}, "needs signed_by"),
        ({"lists": [{"name": "x", "items": []}]}, "the period '' of checklist x"),
        ({"lists": [{**OWN[0], "items": [{"id": "x"}]}]}, "no id or no text"),
        ({"lists": [{**OWN[0], "items": [{"id": "x", "text": "x", "automatic": {"x": 1}}]}]}, "automatic needs one of"),
    ],
)
def test_what_makes_no_sense_is_named(database: Path, options: dict[str, Any], told: str) -> None:
    answer = sign(database, **options)
    assert answer["failed"] and told in answer["msg"]


def test_examples(tmp_path: Path) -> None:
    run_examples("checklist", {"/var/lib/upkeep": str(tmp_path)})
