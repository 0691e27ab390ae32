"""Whether backups can be restored, as the report says it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._backup_proofs import backup_proofs


def verified(level: int, day: int, result: str = "passed", **more: Any) -> dict[str, Any]:
    at = f"2026-01-{day:02}T06:00:00Z"
    return {"host": "backup1", "set": "s", "level": level, "at": at, "result": result, "reason": "", **more}


def drilled(day: int, result: str = "passed", **figures: float | None) -> dict[str, Any]:
    return {"host": "backup1", "set": "s", "at": f"2026-01-{day:02}T06:00:00Z", "result": result, **figures}


@pytest.mark.parametrize(
    ("verifications", "drills", "status", "summary"),
    [
        ([verified(2, 30), verified(3, 25)], [drilled(9, rto_seconds=340, rpo_seconds=None)], "ok",
         "can be restored: proved 2026-01-30 06:00 UTC by level 2; last drill 2026-01-09 06:00 UTC, RTO 5 min 40 s"),
        ([verified(2, 30), verified(3, 30)], [], "ok",
         "can be restored: proved 2026-01-30 06:00 UTC by level 3; no drill yet"),
        ([verified(1, 30)], [], "unknown",
         "not proved to be restorable: nothing has passed level 2 yet; no drill yet"),
        ([verified(2, 29), verified(3, 30, "failed", reason="no end")], [drilled(9, rto_seconds=None)], "critical",
         "can be restored: proved 2026-01-29 06:00 UTC by level 2, but level 3 failed 2026-01-30 06:00 UTC; "
         "last drill 2026-01-09 06:00 UTC"),
        ([verified(3, 28)], [drilled(29, "failed")], "critical",
         "can be restored: proved 2026-01-28 06:00 UTC by level 3, but a drill failed 2026-01-29 06:00 UTC; "
         "last drill 2026-01-29 06:00 UTC (failed)"),
        ([verified(3, 30)], [drilled(29, "failed"), drilled(9)], "ok",
         "can be restored: proved 2026-01-30 06:00 UTC by level 3; last drill 2026-01-29 06:00 UTC (failed)"),
        ([], [drilled(29, "failed")], "critical",
         "not proved to be restorable: nothing has passed level 2 yet; last drill 2026-01-29 06:00 UTC (failed)"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(verifications: Any, drills: Any, status: str, summary: str) -> None:
    (told,) = backup_proofs(verifications, drills)
    assert (told["status"], told["summary"]) == (status, summary)
    assert len(told["lines"]) == len(verifications) + len(drills)


def test_each_host_speaks_for_itself_and_every_reason_is_told() -> None:
    other = verified(2, 3, "failed", host="backup0", reason="redis:cache: no end")
    told = backup_proofs([verified(2, 30), other], [])
    assert [(item["host"], item["status"]) for item in told] == [("backup0", "critical"), ("backup1", "ok")]
    assert told[0]["lines"] == ["level 2 (format) failed 2026-01-03 06:00 UTC, set s: redis:cache: no end"]


def test_without_backups_there_is_nothing_to_say() -> None:
    assert backup_proofs([], []) == []
