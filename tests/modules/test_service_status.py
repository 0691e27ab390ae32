# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_status on histories that real runs wrote."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

from tests.examples import run_examples
from tests.harness import run_module
from tests.modules.test_maintenance_history import Recorder, finding, outcomes

NOW = datetime.now(timezone.utc)
SERVICES = [{"name": "auth"}, {"name": "chat"}, {"name": "news", "critical": False}]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "history.sqlite3")


def page(recorder: Recorder, **more: Any) -> dict[str, Any]:
    answer = run_module(
        "service_status", {"database": str(recorder.database), "site": "test", "services": SERVICES, **more}
    )
    assert not answer["failed"], answer
    told: dict[str, Any] = answer["page"]
    return told


def close(recorder: Recorder, minutes_ago: float = 0, **statuses: str) -> None:
    at = isoformat(NOW - timedelta(minutes=minutes_ago))
    found = [{**finding(status, name), "observed_at": at} for name, status in statuses.items()]
    seen = [
        {"subject": name, "state": "up" if status == "ok" else "down", "at": at} for name, status in statuses.items()
    ]
    recorder.close(outcomes(*found, started_at=at, artifacts={"observations": seen}), open_incidents=True)


@pytest.mark.parametrize(
    ("statuses", "told", "overall"),
    [
        (("ok", "ok", "ok"), ["operational"] * 3, "operational"),
        (("critical", "ok", "ok"), ["outage", "operational", "operational"], "partial_outage"),
        (("critical", "critical", "ok"), ["outage", "outage", "operational"], "outage"),
        (("warning", "ok", "ok"), ["degraded", "operational", "operational"], "degraded"),
        (("ok", "ok", "warning"), ["operational", "operational", "outage"], "partial_outage"),
        (("unknown", "ok", "ok"), ["unknown", "operational", "operational"], "unknown"),
    ],
)
def test_states(recorder: Recorder, statuses: tuple[str, ...], told: list[str], overall: str) -> None:
    close(recorder, **dict(zip(("auth", "chat", "news"), statuses)))
    seen = page(recorder)
    assert [service["status"] for service in seen["services"]] == told
    assert seen["status"] == overall


def test_what_nobody_looked_at_is_unknown(recorder: Recorder) -> None:
    assert page(recorder)["status"] == "unknown"
    close(recorder, minutes_ago=61, auth="ok", chat="ok", news="ok")
    assert page(recorder)["status"] == "operational"
    assert page(recorder, max_age="1h")["status"] == "unknown"


def test_incidents_tell_users_only_what_is_meant_for_them(recorder: Recorder) -> None:
    close(recorder, auth="critical", chat="ok", news="ok")
    entries = [{"text": "root@app1 has a full disk"}, {"text": "We are mending it.", "stage": "public"}]
    given = {"database": str(recorder.database), "site": "test"}
    run_module("incident", {**given, "state": "noted", "events": entries})
    seen = page(recorder)
    (incident,) = seen["incidents"]
    assert (incident["title"], incident["status"], incident["services"]) == ("auth does not work", "open", ["auth"])
    assert [update["text"] for update in incident["updates"]] == ["We are mending it."]
    assert not [word for word in ("root@", "is critical", "localhost") if word in json.dumps(seen)]
    run_module("incident", {**given, "state": "recovered"})
    run_module("incident", {**given, "state": "closed"})
    seen = page(recorder)
    assert seen["incidents"] == [] and [item["id"] for item in seen["past"]] == [incident["id"]]


def test_windows(recorder: Recorder) -> None:
    close(recorder, auth="critical", chat="ok", news="ok")
    hour = timedelta(hours=1)
    rows = [
        ("begun", '["auth"]', isoformat(NOW - hour), isoformat(NOW + hour), isoformat(NOW - hour), None),
        ("missed", "[]", isoformat(NOW - 2 * hour), isoformat(NOW - hour), None, None),
        ("over", "[]", isoformat(NOW - 2 * hour), isoformat(NOW + hour), isoformat(NOW - 2 * hour), isoformat(NOW)),
        ("to come", "[]", isoformat(NOW + hour), isoformat(NOW + 2 * hour), None, None),
    ]
    connection = sqlite3.connect(recorder.database)
    for title, services, starts, ends, started, ended in rows:
        connection.execute(
            "INSERT INTO windows VALUES (?, 'test', ?, 1, ?, ?, ?, ?, ?, '', '{}')",
            (title, title, services, starts, ends, started, ended),
        )
    connection.commit()
    connection.close()
    seen = page(recorder)
    assert [(item["title"], item["status"]) for item in seen["windows"]] == [
        ("begun", "under_way"),
        ("to come", "planned"),
    ]
    assert [item["status"] for item in seen["services"]] == ["maintenance", "operational", "operational"]
    assert seen["status"] == "maintenance"


def test_a_database_that_is_none_is_named(recorder: Recorder) -> None:
    recorder.database.write_text("no database, but long enough to be looked at as one" * 20)
    given = {"database": str(recorder.database), "site": "test", "services": SERVICES}
    answer = run_module("service_status", given)
    assert answer["failed"] and "cannot be used" in answer["msg"]


def test_examples_run(tmp_path: Path) -> None:
    run_examples("service_status", {"/var/lib/upkeep": str(tmp_path)})
