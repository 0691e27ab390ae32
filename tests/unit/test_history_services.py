# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the history keeps of services and hosts over time, read back as the figures of a period need it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._history import History, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_figures import record_of, subjects
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_metrics import Patch, Period, Window
from ansible_collections.upkeep.ops.plugins.module_utils._runs import Outcome, outcome_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat
from ansible_collections.upkeep.ops.plugins.module_utils._uptime import Observation

NOW = datetime(2026, 1, 31, 6, 0, tzinfo=timezone.utc)
HOUR = Period(NOW, NOW + timedelta(hours=1))


def at(minutes: float) -> str:
    return isoformat(NOW + timedelta(minutes=minutes))


def outcome(minutes: float, **artifacts: Any) -> Outcome:
    return outcome_from("security_scan", "app1", {"started_at": at(minutes), "artifacts": artifacts})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with opened(str(tmp_path / "history.sqlite3"), write=True) as found:
        yield found


def close(history: History, minutes: float, site: str = "test", **artifacts: Any) -> None:
    outcomes = [outcome(minutes, **artifacts)]
    moment = NOW + timedelta(minutes=minutes)
    history.close_run(f"run-{site}-{minutes}", "daily", site, moment, "ok", outcomes, [])


def test_observations_of_the_site_and_of_the_period(history: History) -> None:
    for minutes, state in ((-20, "up"), (-5, "up"), (10, "down"), (20, "up"), (60, "down")):
        close(history, minutes, observations=[{"subject": "auth", "state": state, "at": at(minutes)}])
    close(history, 15, "other", observations=[{"subject": "auth", "state": "down", "at": at(15)}])
    seen = record_of(history.connection, "test", HOUR, max_gap=600).observations
    start = NOW.timestamp()
    assert seen == {
        "auth": [Observation(start - 300, "up"), Observation(start + 600, "down"), Observation(start + 1200, "up")]
    }
    assert subjects(history.connection, "test") == ["auth"]


def test_a_security_update_waits_from_its_first_sight_until_no_scan_sees_it(history: History) -> None:
    openssl, newer = {"package": "openssl", "available": "3.0.1"}, {"package": "openssl", "available": "3.0.2"}
    close(history, 0, security_updates=[openssl])
    close(history, 5, security_updates=None)
    close(history, 10, security_updates=[newer, {"package": "curl", "available": "8"}])
    close(history, 20, security_updates=[{"package": "curl", "available": "8"}])
    patches = record_of(history.connection, "test", HOUR, max_gap=600).patches
    assert sorted(patches, key=lambda patch: patch.package) == [
        Patch("app1", "curl", at(10), None),
        Patch("app1", "openssl", at(0), at(20)),
    ]


def test_an_unknown_list_of_updates_installs_nothing(history: History) -> None:
    close(history, 0, security_updates=[{"package": "openssl", "available": "3"}])
    close(history, 10, security_updates=None)
    close(history, 20)
    assert [patch.installed_at for patch in record_of(history.connection, "test", HOUR, 600).patches] == [None]


def test_only_planned_windows_that_began_are_read(history: History) -> None:
    rows = [
        ("ended", 1, '["auth"]', at(10), at(20)),
        ("going on", 1, "[]", at(50), None),
        ("unplanned", 0, "[]", at(10), at(20)),
        ("never begun", 1, "[]", None, None),
        ("before", 1, "[]", at(-30), at(-10)),
        ("never ended", 1, '["news"]', at(5), None),
    ]
    for name, planned, services, started, ended in rows:
        history.connection.execute(
            "INSERT INTO windows VALUES (?, 'test', ?, ?, ?, ?, ?, ?, ?, 'ended', '{}')",
            (name, name, planned, services, at(0), at(15 if name == "never ended" else 60), started, ended),
        )
    start = NOW.timestamp()
    assert record_of(history.connection, "test", HOUR, 600).windows == [
        Window(start + 600, start + 1200, ("auth",)),
        Window(start + 3000, start + 3600, ()),
        Window(start + 300, start + 900, ("news",)),
    ]


@pytest.mark.parametrize(
    "artifacts, told",
    [
        ({"observations": [{"subject": "auth", "state": "well", "at": at(0)}]}, "'well' is none of up, down, unknown"),
        ({"observations": [{"subject": "auth", "state": "up"}]}, "needs subject, state and at"),
        ({"observations": [{"subject": "auth", "state": "up", "at": "noon"}]}, "'noon' is no point in time"),
        ({"security_updates": [{"package": "curl"}]}, "needs package and available"),
    ],
)
def test_what_is_malformed_is_named(artifacts: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        outcome(0, **artifacts)
