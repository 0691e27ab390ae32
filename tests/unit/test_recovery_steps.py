# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a recovery, forward and back, and the order in which services stop and start."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.filter.recovery_services import recovery_services
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_steps import back, batches, figures, forward, left

BOTH = ["redis:cache", "firestore:main"]
RUNNER = {"type": "systemd", "unit": "x"}


def names(steps: list[Any]) -> list[str]:
    return [step["name"] for step in steps]


def entries(*steps: str, phase: str = "begun", direction: str = "forward") -> list[dict[str, str]]:
    return [{"step": step, "phase": phase, "direction": direction} for step in steps]


def test_the_safety_set_is_taken_when_nobody_writes_to_firestore_any_more() -> None:
    assert names(forward(BOTH, True, True)) == [
        *("maintenance on", "services stopped", "safety set", "restore redis:cache", "restore firestore:main"),
        *("services started", "services checked", "maintenance off"),
    ]
    assert names(forward(BOTH[:1], False, False)) == ["safety set", "restore redis:cache"]


def test_only_what_was_begun_is_taken_back() -> None:
    steps = forward(BOTH, True, True)
    assert back(steps, []) == []
    assert names(back(steps, entries("maintenance on"))) == ["end maintenance again"]
    begun = entries("maintenance on", "services stopped", "safety set", "restore redis:cache")
    way = ["stop services again", "take back redis:cache", "start services again", "check services again"]
    assert names(back(steps, begun)) == [*way, "end maintenance again"]
    done = entries("stop services again", "take back redis:cache", phase="ended", direction="back")
    assert names(back(steps, begun + done)) == [*way[2:], "end maintenance again"]


def test_a_step_that_was_begun_is_done_again() -> None:
    steps = forward(BOTH[:1], False, False)
    known = entries("safety set", phase="ended") + entries("restore redis:cache")
    assert [(step["name"], step["again"]) for step in left(steps, known)] == [("restore redis:cache", True)]


def test_downtime_counts_from_the_moment_at_which_the_platform_was_closed() -> None:
    noted = [("00", "safety set", "begun"), ("10", "safety set", "ended"), ("10", "maintenance on", "begun")]
    noted += [("13", "maintenance on", "ended"), ("14", "restore redis:cache", "begun"), ("43", "x", "ended")]
    told = [{"at": f"2026-01-31T14:05:{second}Z", "step": step, "phase": phase} for second, step, phase in noted]
    recovery = {
        "begun_at": "2026-01-31T14:04:59Z",
        "ended_at": "2026-01-31T14:05:43Z",
        "plan": {"set_at": "2026-01-31T14:04:13Z"},
    }
    seconds = {"rto_seconds": 44.0, "downtime_seconds": 30.0, "rpo_seconds": 60.0}
    assert figures({**recovery, "entries": told}) == seconds
    assert figures({**recovery, "entries": told[4:]})["downtime_seconds"] == 29.0
    assert figures({**recovery, "ended_at": "", "entries": told}) == {}


def test_services_start_after_those_that_they_need() -> None:
    catalogue = [
        {"name": "web", "depends_on": ["auth"], "runner": RUNNER, "hosts": ["app2"], "critical": True},
        {"name": "auth", "depends_on": ["redis:cache"], "runner": RUNNER, "stop_timeout": 5},
        {"name": "mail", "depends_on": [], "runner": RUNNER, "hosts": ["app1"]},
        {"name": "shown", "depends_on": ["redis:cache"]},
    ]
    found = batches(catalogue, ["redis:cache"], ["app1", "app2"])
    assert [(group["host"], names(group["services"])) for group in found] == [
        ("app1", ["auth"]), ("app2", ["auth"]), ("app2", ["web"]),
    ]  # fmt: skip
    assert found[0]["services"] == [{"name": "auth", "runner": RUNNER, "stop_timeout": 5}]
    told = recovery_services(catalogue, ["redis:cache"], ["app1", "app2"])
    assert told == {"batches": found, "not_stopped": ["shown"], "not_asked": ["web", "auth"]}
    healthy = [{**service, "health": {"url": "http://x"}} for service in catalogue]
    told = recovery_services(healthy, ["redis:cache"], [])
    assert (told["not_stopped"], told["not_asked"]) == (["auth", "shown"], []), "nobody says where auth runs"
    assert recovery_services([{**healthy[1], "ready": {}}], ["redis:cache"], ["app1"])["not_asked"] == ["auth"]
    assert names(batches(catalogue, ["redis:cache"], [], ["mail"])[0]["services"]) == ["mail"]
    with pytest.raises(ValueError, match="no service nobody"):
        batches(catalogue, [], [], ["nobody"])
    circle = [{"name": "a", "depends_on": ["b"], "runner": RUNNER}, {"name": "b", "depends_on": ["a"]}]
    with pytest.raises(ValueError, match="in a circle: a -> b -> a"):
        batches(circle, [], ["app1"], ["a"])
