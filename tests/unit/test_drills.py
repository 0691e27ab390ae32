# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on the drill of a set, and its figures."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.filter.judge_drill import judge_drill

NAMES = ["redis:cache", "firestore:main"]


def part(name: str, *findings: dict[str, Any], **drill: float | None) -> dict[str, Any]:
    figures = {"rto_seconds": None, "rpo_seconds": None, "rpo_bytes": None, **drill}
    return {"name": name, "findings": list(findings), "drill": figures}


def found(subject: str, status: str, summary: str, check: str = "restore") -> dict[str, Any]:
    return {
        "check": check, "subject": subject, "status": status, "summary": summary, "hint": "", "parent": "",
        "observed_at": "2026-01-31T23:59:59Z",
    }  # fmt: skip


def judge(parts: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return judge_drill(parts, **{"set": "20260131T235959Z", "held": NAMES, "chosen": NAMES, **options})


CACHE = part("redis:cache", found("redis:cache", "ok", "fine"), rto_seconds=3.5, rpo_seconds=60.0, rpo_bytes=1200)
MAIN = part("firestore:main", found("firestore:main", "ok", "fine"), rto_seconds=8.0, rpo_seconds=75.0)


def test_figures_of_the_whole() -> None:
    told = judge([CACHE, MAIN])
    assert (told["status"], told["hint"]) == ("ok", "")
    assert told["summary"] == (
        "set 20260131T235959Z was restored and compared in 12 s (redis:cache 3.5 s, firestore:main 8.0 s), with the "
        "data of 1 min 15 s before and without 1200 bytes that Redis was told since"
    )
    assert told["metrics"] == {"drill_rto_seconds": 11.5, "drill_rpo_seconds": 75.0, "drill_rpo_bytes": 1200}
    assert [each["name"] for each in told["figures"]["parts"]] == NAMES and told["figures"]["rto_seconds"] == 11.5
    assert set(told["parts"]) == set(NAMES)


def test_bytes_of_only_some_servers_are_no_figure() -> None:
    sessions = part("redis:sessions", found("redis:sessions", "ok", "fine"), rto_seconds=1.0, rpo_seconds=60.0)
    names = [*NAMES, "redis:sessions"]
    told = judge([CACHE, MAIN, sessions], held=names, chosen=names)
    assert told["figures"]["rpo_bytes"] is None and "drill_rpo_bytes" not in told["metrics"]


def test_some_parts_give_no_trend() -> None:
    told = judge([CACHE], chosen=NAMES[:1])
    assert told["status"] == "ok" and "only these were drilled" in told["summary"] and told["metrics"] == {}


@pytest.mark.parametrize("status", ["critical", "unknown"])
def test_a_part_that_failed_fails_the_drill(status: str) -> None:
    failed = part("firestore:main", found("firestore:main", status, "the bucket is away"), rpo_seconds=75.0)
    told = judge([CACHE, failed])
    assert told["status"] == "critical" and told["hint"]
    assert told["summary"] == "the drill of set 20260131T235959Z failed: firestore:main: the bucket is away"
    assert [(each["subject"], each["parent"]) for each in told["findings"]] == [
        ("redis:cache", ""),
        ("firestore:main", "drill"),
    ]
    assert told["metrics"] == {} and told["figures"]["rto_seconds"] == 3.5


def test_the_loss_alone_is_unknown_and_says_nothing_about_the_set() -> None:
    unasked = found("redis:cache", "unknown", "the live server lets nobody in", "recovery_point")
    cache = part("redis:cache", found("redis:cache", "ok", "fine"), unasked, rto_seconds=3.5, rpo_seconds=60.0)
    told = judge([cache, MAIN])
    assert told["status"] == "unknown" and "was restored" in told["summary"] and "lets nobody in" in told["summary"]
    assert unasked not in told["evidence"] and len(told["evidence"]) == 2
    assert told["metrics"] == {}


def test_what_was_not_looked_at_is_no_success() -> None:
    assert "nothing was found out about firestore:main" in judge([CACHE])["summary"]
    assert "firestore:main was not restored" in judge([CACHE, part("firestore:main")])["summary"]
    nothing = judge([], set="", held=[], chosen=[], problem="Find the set: there is none")
    assert nothing["summary"] == "the drill of a backup set failed: Find the set: there is none"
    assert nothing["figures"] == {"rto_seconds": None, "rpo_seconds": None, "rpo_bytes": None, "parts": []}


def test_check_mode_foretells() -> None:
    assert judge([CACHE, part("firestore:main")], check_mode=True)["status"] == "ok"
    failed = part("firestore:main", found("firestore:main", "critical", "spoiled"))
    assert "would fail: firestore:main: spoiled" in judge([CACHE, failed], check_mode=True)["summary"]
