# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""incident against real SQLite files, and incidents that health checks open; the oracle is the sqlite3 library."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module
from tests.modules.test_maintenance_history import Recorder, finding, outcomes

BEGAN = "2026-01-31T05:50:00Z"


class Desk:
    """Calls of the module with one database."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def call(self, state: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"database": str(self.database), "site": "test", "state": state, **arguments}
        return run_module("incident", given, check=check, diff=True)

    def rows(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state" / "history.sqlite3")


def test_from_opening_to_closing(desk: Desk) -> None:
    opened = desk.call("opened", services=["auth"], began_at=BEGAN, title="Nobody can sign in", actor="Ana")
    incident = opened["incident"]
    assert opened["changed"] and re.fullmatch(r"INC-\d{8}-1", incident["id"])
    assert (incident["began_at"], incident["status"], incident["opened_by"]) == (BEGAN, "open", "Ana")
    assert incident["seconds_to_notice"] > 0 and incident["seconds_to_recovery"] is None
    refused = desk.call("closed", id=incident["id"])
    assert refused["failed"] and "has not recovered" in refused["msg"] and "state: recovered" in refused["msg"]
    desk.call("noted", services=["auth"], events=[{"stage": "public", "text": "We are on it."}])
    recovered = desk.call("recovered")["incident"]
    assert recovered["status"] == "recovered" and recovered["seconds_to_recovery"] > 600
    closed = desk.call("closed", cause="a wrong password", summary="mended")["incident"]
    assert [event["stage"] for event in closed["events"]] == ["opened", "public", "recovered", "closed"]
    assert desk.rows("SELECT services, cause, closed_at IS NULL FROM incidents") == [
        ('["auth"]', "a wrong password", 0)
    ]
    assert desk.call("found")["incidents"] == []
    assert desk.call("found", id=incident["id"])["incident"] == closed


def test_repeated_it_changes_nothing(desk: Desk) -> None:
    events = [{"stage": "assess", "text": "looked"}, {"stage": "recover", "text": "restarted"}]
    for call in (
        {"state": "opened", "services": ["auth"]},
        {"state": "noted", "events": events, "run_id": "r1"},
        {"state": "noted", "events": events[:1]},
        {"state": "recovered"},
    ):
        arguments = dict(call)
        state = str(arguments.pop("state"))
        assert desk.call(state, **arguments)["changed"], call
        assert not desk.call(state, **arguments)["changed"], call
    desk.call("closed")
    known = desk.rows("SELECT id FROM incidents")[0][0]
    assert not desk.call("closed", id=known)["changed"]
    assert len(desk.rows("SELECT * FROM incident_events")) == 6


def test_check_mode_tells_the_same_and_writes_nothing(desk: Desk) -> None:
    desk.call("opened", services=["auth"])
    before = desk.rows("SELECT * FROM incident_events")
    for state, arguments in (
        ("opened", {"services": ["chat"]}),
        ("recovered", {}),
        ("noted", {"events": [{"text": "x"}]}),
    ):
        checked = desk.call(state, check=True, **arguments)
        assert checked["changed"] and checked["diff"]["after"], state
    assert desk.rows("SELECT * FROM incident_events") == before


def test_an_open_incident_is_widened_and_gets_worse(desk: Desk) -> None:
    first = desk.call("opened", services=["auth"], severity="warning")["incident"]["id"]
    desk.call("recovered")
    second = desk.call("opened", services=["auth", "chat"], severity="critical")["incident"]
    assert second["id"] == first and second["services"] == ["auth", "chat"]
    assert (second["severity"], second["status"]) == ("critical", "open")
    assert {"also affected: chat", "it is critical now", "failed again"} <= {e["text"] for e in second["events"]}
    other = desk.call("opened", services=["news"])["incident"]["id"]
    assert other == first[:-1] + "2"
    unclear = desk.call("recovered")
    assert unclear["failed"] and first in unclear["msg"] and other in unclear["msg"]
    assert desk.call("found")["incident"] is None


@pytest.mark.parametrize(
    ("state", "arguments", "told"),
    [
        ("recovered", {}, "no incident is open"),
        ("noted", {"id": "INC-20200101-1"}, "there is no incident INC-20200101-1"),
        ("opened", {"began_at": "yesterday"}, "'yesterday' is no point in time"),
    ],
)
def test_what_cannot_be_done_is_told(desk: Desk, state: str, arguments: dict[str, Any], told: str) -> None:
    answer = desk.call(state, **arguments)
    assert answer["failed"] and told in answer["msg"]


def test_health_checks_open_and_recover(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history.sqlite3")
    cause, child = finding("critical", "redis:cache"), {**finding("critical"), "parent": "redis:cache"}
    failing = outcomes(cause, child, finding("ok", "news"))
    assert recorder.close(failing)["incident_changes"] == [], "only where the switch is on"
    checked = recorder.close(failing, check=True, open_incidents=True)
    assert len(checked["incident_changes"]) == 1 and recorder.rows("SELECT * FROM incidents") == []
    opened = recorder.close(failing, open_incidents=True)["incident_changes"]
    assert len(opened) == 1 and opened[0].endswith("redis:cache does not work")
    assert recorder.rows("SELECT services, opened_by, began_at, recovered_at FROM incidents") == [
        (json.dumps(["auth", "redis:cache"]), "daily", "2026-01-31T06:00:00Z", None)
    ]
    assert recorder.close(failing, open_incidents=True)["incident_changes"] == []
    half = outcomes(finding("ok", "redis:cache"), finding("critical"))
    assert recorder.close(half, open_incidents=True)["incident_changes"] == [], "one of its services still fails"
    silent = outcomes(finding("ok", "redis:cache"))
    assert recorder.close(silent, open_incidents=True)["incident_changes"] == [], "nobody looked at the other one"
    well = outcomes(finding("ok", "redis:cache"), finding("ok"))
    assert "recovered after" in recorder.close(well, open_incidents=True)["incident_changes"][0]
    assert recorder.rows("SELECT recovered_at IS NULL, closed_at IS NULL FROM incidents") == [(0, 1)]
    again = recorder.close(failing, open_incidents=True)["incident_changes"]
    assert again == [again[0]] and again[0].endswith("failed again")


def test_planned_maintenance_opens_none(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history.sqlite3")
    recorder.call("opened")
    connection = sqlite3.connect(recorder.database)
    connection.execute(
        "INSERT INTO windows VALUES ('w', 'test', 'Move', 1, '[\"auth\"]', ?, ?, ?, NULL, 'started', '{}')", [BEGAN] * 3
    )
    connection.commit()
    connection.close()
    failing = outcomes(finding("critical"), finding("critical", "chat"))
    (change,) = recorder.close(failing, open_incidents=True)["incident_changes"]
    assert change.endswith("chat does not work")


def test_examples_run(tmp_path: Path) -> None:
    run_examples("incident", {"/var/lib/upkeep": str(tmp_path)})
