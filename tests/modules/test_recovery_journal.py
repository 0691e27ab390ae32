# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module recovery_journal: what was begun is found again, and nobody begins a second recovery."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._lock import start_time

from tests.examples import run_examples
from tests.harness import run_module, start_module

PLAN = {"set": "20260131T235959Z", "set_at": "2026-01-31T23:59:59Z", "parts": ["redis:cache"], "services": True}


def call(folder: Path, state: str, **options: Any) -> dict[str, Any]:
    return run_module("recovery_journal", {"folder": str(folder), "owner": "one", "state": state, **options})


def note(folder: Path, identifier: str, step: str, phase: str, **options: Any) -> dict[str, Any]:
    return dict(call(folder, "noted", id=identifier, step=step, phase=phase, **options)["recovery"])


def test_a_recovery_from_plan_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    nothing = call(folder, "found")
    assert (nothing["recovery"], nothing["last"], nothing["busy"]) == (None, None, "")
    assert not folder.exists()
    opened = call(folder, "opened", plan=PLAN)["recovery"]
    names = [step["name"] for step in opened["left"]]
    assert names == ["safety set", "services stopped", "restore redis:cache", "services started", "services checked"]
    assert opened["back"] == []
    for name in names:
        note(folder, opened["id"], name, "begun")
        details = {"set": "20260201T000000Z"} if name == "safety set" else {}
        noted = note(folder, opened["id"], name, "ended", details=details)
    assert noted["left"] == [] and noted["safety_set"] == "20260201T000000Z"
    closed = call(folder, "closed", id=opened["id"])["recovery"]
    assert closed["state"] == "recovered" and closed["figures"]["rpo_seconds"] > 0
    found = call(folder, "found")
    assert found["recovery"] is None and found["last"]["id"] == opened["id"] and not found["last_expired"]
    long_ago = {**json.loads((folder / f"{opened['id']}.json").read_text()), "ended_at": "2026-02-01T00:00:00Z"}
    (folder / f"{opened['id']}.json").write_text(json.dumps(long_ago))
    assert call(folder, "found")["last_expired"]
    file = folder / f"{opened['id']}.json"
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_what_is_long_over_is_forgotten_and_nothing_that_is_open(tmp_path: Path) -> None:
    assert (call(tmp_path, "pruned")["removed"], call(tmp_path, "pruned")["over"]) == ([], [])
    known = call(tmp_path, "opened", plan=PLAN)["recovery"]["id"]
    assert call(tmp_path, "pruned", hold="0s", keep="0s")["over"] == [], "it is not at its end"
    call(tmp_path, "closed", id=known, result="rolled_back")
    for name, ended in (("20260101T000000Z", "2026-01-01T01:00:00Z"), ("20200101T000000Z", "2020-01-01T01:00:00Z")):
        old = {**json.loads((tmp_path / f"{known}.json").read_text()), "id": name, "ended_at": ended}
        (tmp_path / f"{name}.json").write_text(json.dumps(old))
    would = run_module(
        "recovery_journal", {"folder": str(tmp_path), "owner": "one", "state": "pruned", "keep": "1000d"}, check=True
    )
    did = call(tmp_path, "pruned", keep="1000d")
    assert would["removed"] == did["removed"] == ["20200101T000000Z"] and did["changed"]
    assert did["over"] == ["20260101T000000Z", "20200101T000000Z"]
    assert sorted(path.stem for path in tmp_path.glob("2*.json")) == ["20260101T000000Z", known]
    assert call(tmp_path, "pruned", keep="1d", hold="1000d")["removed"] == [], "what can be taken back is known"


def test_the_history_tells_how_long_it_may_take(tmp_path: Path) -> None:
    history = tmp_path / "history.sqlite3"
    asked = {"history": str(history), "site": "demo"}
    assert call(tmp_path, "found", **asked)["expected"] == {"drill": None, "recovery": None, "problem": ""}
    drills = [
        {"set": f"2026010{day}T000000Z", "at": f"2026-01-0{day}T01:00:00Z", "result": result, "rto_seconds": day}
        for day, result in ((1, "passed"), (2, "passed"), (3, "failed"))
    ]
    metrics = {"recovery_rto_seconds": 90, "recovery_downtime_seconds": 60}
    outcome = {"started_at": "2026-01-04T00:00:00Z", "seconds": 1, "findings": [], "changes": []}
    outcome["artifacts"] = {"drills": drills, "metrics": metrics}
    common = {"database": str(history), "site": "demo", "run": "x"}
    run = run_module("maintenance_history", {**common, "state": "opened"})["run_id"]
    outcomes = {"demo": {"disaster_recovery_test": outcome}}
    run_module("maintenance_history", {**common, "state": "closed", "run_id": run, "outcomes": outcomes})
    expected = call(tmp_path, "found", **asked)["expected"]
    assert expected["drill"] == {
        "host": "demo", "set": "20260102T000000Z", "at": "2026-01-02T01:00:00Z", "rto_seconds": 2,
    }  # fmt: skip
    assert (expected["recovery"]["rto_seconds"], expected["recovery"]["downtime_seconds"]) == (90, 60)
    history.write_text("no history")
    assert "cannot be used" in call(tmp_path, "found", **asked)["expected"]["problem"]


def test_what_was_killed_is_found_and_taken_over_and_goes_back(tmp_path: Path) -> None:
    identifier = call(tmp_path, "opened", plan=PLAN)["recovery"]["id"]
    for name in ("safety set", "services stopped"):
        note(tmp_path, identifier, name, "begun")
        note(tmp_path, identifier, name, "ended")
    killed = note(tmp_path, identifier, "restore redis:cache", "begun")
    assert next((step["name"], step["again"]) for step in killed["left"]) == ("restore redis:cache", True)
    assert [step["name"] for step in killed["back"]] == [
        *("stop services again", "take back redis:cache", "start services again", "check services again"),
    ]  # fmt: skip

    busy = call(tmp_path, "found", owner="two")
    assert identifier in busy["busy"] and "owner one" in busy["busy"]
    refused = call(tmp_path, "opened", owner="two", plan=PLAN)
    assert refused["failed"] and "under way already" in refused["msg"]
    refused = call(tmp_path, "noted", owner="two", id=identifier, step="x")
    assert refused["failed"] and "not this run's any more" in refused["msg"]

    lock = json.loads((tmp_path / ".lock").read_text())
    process = {"pid": os.getpid(), "started": 1}  # this process did not start then: the one that held the lock is gone
    (tmp_path / ".lock").write_text(json.dumps({**lock, **process}))
    assert "has ended" in call(tmp_path, "found", owner="two")["killed"]
    taken = call(tmp_path, "opened", owner="two", plan={**PLAN, "set": "another"})
    assert taken["taken_over"] and taken["recovery"]["plan"]["set"] == PLAN["set"], "the plan is the old one"

    done = note(tmp_path, identifier, "take back redis:cache", "ended", owner="two", direction="back")
    assert done["going_back"] and "take back redis:cache" not in [step["name"] for step in done["back"]]
    left = call(tmp_path, "closed", owner="two", id=identifier, result="open", summary="the server is down")
    assert left["recovery"]["state"] == "open"
    assert call(tmp_path, "found")["recovery"]["summary"] == "the server is down", "the next run finds it"


#: A run with one worker, which ends when its file is removed, as ansible-playbook has them: forks of its own.
RUN = """
import os, sys, time
worker = os.fork()
if worker == 0:
    os.setsid()
    while os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    os._exit(0)
print(worker, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("step", "waits"), [("services stopped", True), ("restore redis:cache", False)])
def test_workers_of_a_killed_run_come_to_their_end_first(tmp_path: Path, step: str, waits: bool) -> None:
    """They would stop services after this run has started them."""
    program, at_work = tmp_path / "ansible-playbook", tmp_path / "at-work"
    program.write_text(RUN)
    at_work.touch()
    run = subprocess.Popen([sys.executable, str(program), str(at_work)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    folder = tmp_path / "recovery"
    try:
        note(folder, call(folder, "opened", plan=PLAN)["recovery"]["id"], step, "begun")
        command = hashlib.sha256(Path(f"/proc/{run.pid}/cmdline").read_bytes()).hexdigest()
        lock = {**json.loads((folder / ".lock").read_text()), "pid": run.pid, "started": start_time(run.pid)}
        (folder / ".lock").write_text(json.dumps({**lock, "command": command}))
        run.kill()
        run.wait()
        options = {"folder": str(folder), "owner": "two", "state": "opened", "plan": PLAN}
        second = start_module("recovery_journal", options)
        if waits:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=3)
            at_work.unlink()
        assert json.loads(second.communicate(timeout=60)[0])["taken_over"]
    finally:
        run.kill()
        at_work.unlink(missing_ok=True)
    while start_time(worker):
        time.sleep(0.02)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    identifier = call(tmp_path, "opened", plan=PLAN)["recovery"]["id"]
    (tmp_path / f"{identifier}.json").write_text("{")
    answer = call(tmp_path, "found")
    assert answer["failed"] and f"{tmp_path / identifier}.json cannot be read" in answer["msg"]
    assert "move it away" in answer["msg"]
    (tmp_path / f"{identifier}.json").write_text('{"format": 2}')
    answer = call(tmp_path, "found")
    assert "has format 2" in answer["msg"] and "move it away" in answer["msg"]
    (tmp_path / f"{identifier}.json").rename(tmp_path / "damaged")
    assert not call(tmp_path, "found")["failed"]


@pytest.mark.parametrize("noted", [True, False])
def test_a_recovery_that_goes_on_for_long_is_not_taken_for_a_lost_one(tmp_path: Path, noted: bool) -> None:
    """From another machine its process cannot be seen: what it has noted last tells that it is there."""
    identifier = call(tmp_path, "opened", plan=PLAN)["recovery"]["id"]
    lock = json.loads((tmp_path / ".lock").read_text())
    elsewhere = {**lock["place"], "host": "another", "machine": "another"}
    old = {**lock, "place": elsewhere, "taken_at": "2026-01-01T00:00:00Z"}
    (tmp_path / ".lock").write_text(json.dumps(old))
    if noted:
        note(tmp_path, identifier, "safety set", "begun")
    answer = call(tmp_path, "opened", owner="two", plan=PLAN)
    if not noted:
        assert answer["taken_over"]
        return
    assert answer["failed"] and "under way already" in answer["msg"]
    renewed = json.loads((tmp_path / ".lock").read_text())
    assert {**renewed, "taken_at": old["taken_at"]} == old and renewed["taken_at"] > old["taken_at"]


def test_the_examples_run(tmp_path: Path) -> None:
    run_examples("recovery_journal", {"/var/lib/upkeep": str(tmp_path)})
