# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runs left on the recorder: history, reports and an alert."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

testinfra_hosts = ["local://"]

_ROOT = Path(__file__).resolve().parents[2] / ".cache" / "molecule-daily"
_STATE = _ROOT / "state"


@pytest.fixture(scope="module")
def history() -> sqlite3.Connection:
    return sqlite3.connect(f"file:{_STATE / 'history.sqlite3'}?mode=ro", uri=True)


def test_history_tells_both_runs(history: sqlite3.Connection) -> None:
    runs = dict(history.execute("SELECT name, status FROM runs"))
    assert runs.keys() == {"daily", "health_check"}
    assert runs["daily"] != "critical"
    assert runs["health_check"] == "critical"


def test_every_expected_host_has_an_outcome(history: sqlite3.Connection) -> None:
    query = (
        "SELECT procedure, host FROM outcomes JOIN runs ON runs.id = run_id WHERE runs.name = 'daily' AND NOT failed"
    )
    found = set(history.execute(query))
    everywhere = ("log_rotation", "security_scan", "performance_monitoring")
    assert found >= {(name, host) for name in everywhere for host in ("gateway1", "app1", "app2", "data1")}
    assert found >= {("database_backup", "data1"), ("backup_verification", "data1"), ("health_check", "control")}


def test_reports_are_there_for_people_and_programs() -> None:
    names = sorted(path.name for path in (_STATE / "reports").iterdir())
    assert len([name for name in names if name.endswith(".html") and "latest" not in name]) == 2, names
    (daily,) = (_STATE / "reports").glob("*-daily-*.json")
    assert json.loads(daily.read_text())


def test_the_right_people_were_told_of_the_outage() -> None:
    told = (_ROOT / "alerts.log").read_text()
    assert "chat-service" in told
    assert "CRITICAL" in told
