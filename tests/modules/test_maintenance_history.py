"""maintenance_history against real SQLite files; the oracle is the sqlite3 library of the test."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module, start_module


def finding(status: str = "ok", subject: str = "auth") -> dict[str, Any]:
    return {
        "check": "service_health",
        "subject": subject,
        "status": status,
        "summary": f"is {status}",
        "observed_at": "2026-01-31T06:00:00Z",
        "hint": "",
    }


def outcomes(*findings: dict[str, Any], **more: Any) -> dict[str, Any]:
    outcome = {"started_at": "2026-01-31T06:00:00Z", "seconds": 1.5, "findings": list(findings), "changes": []}
    return {"localhost": {"health_check": {**outcome, **more}}}


class Recorder:
    """Calls of the module with one database."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def call(self, state: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"database": str(self.database), "site": "test", "run": "daily", "state": state, **arguments}
        return run_module("maintenance_history", given, check=check)

    def close(self, came: dict[str, Any], *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        run_id = self.call("opened")["run_id"]
        expected = {"health_check": ["localhost"]}
        return self.call("closed", check=check, run_id=run_id, outcomes=came, expected=expected, **arguments)

    def rows(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "state" / "history.sqlite3")


def test_a_run_is_written_whole_and_read_again(recorder: Recorder) -> None:
    metrics = {"metrics": {"cpu_percent": 12.5}}
    closed = recorder.close(outcomes(finding("critical"), changes=["rotated a log"], artifacts=metrics))
    assert closed["changed"] and closed["run"]["status"] == "critical"
    assert closed["run"]["findings"][0]["subject"] == "auth"
    assert closed["run"]["outcomes"][0]["changes"] == ["rotated a log"]
    read = recorder.call("read")
    assert not read["changed"] and read["run"] == closed["run"]
    assert recorder.rows("SELECT value FROM metrics") == [(12.5,)]
    assert recorder.rows("PRAGMA integrity_check") == [("ok",)]


def test_the_database_is_private(recorder: Recorder) -> None:
    recorder.call("opened")
    assert stat.S_IMODE(recorder.database.stat().st_mode) == 0o600
    assert stat.S_IMODE(recorder.database.parent.stat().st_mode) == 0o700


def test_closing_twice_changes_nothing(recorder: Recorder) -> None:
    closed = recorder.close(outcomes(finding()))
    again = recorder.call("closed", run_id=closed["run_id"], outcomes=outcomes(finding("critical")))
    assert not again["changed"] and again["run"]["status"] == "ok"


def test_check_mode_tells_the_same_and_writes_nothing(recorder: Recorder) -> None:
    assert recorder.call("opened", check=True)["changed"]
    assert not recorder.database.exists()
    checked = recorder.close(outcomes(finding("warning")), check=True)
    assert checked["changed"] and checked["run"]["status"] == "warning"
    assert recorder.rows("SELECT count(*) FROM findings") == [(0,)]


def test_since_stays_while_a_check_stays_as_it_is(recorder: Recorder) -> None:
    recorder.close(outcomes(finding("critical")))
    later = {**finding("critical"), "observed_at": "2026-02-01T06:00:00Z"}
    again = recorder.close(outcomes(later))
    assert again["run"]["findings"][0]["since"] == "2026-01-31T06:00:00Z"


def test_a_subject_that_is_no_longer_found_leaves_the_states(recorder: Recorder) -> None:
    recorder.close(outcomes(finding("critical", "config.js")))
    recorder.close(outcomes())
    assert recorder.rows("SELECT count(*) FROM states WHERE subject = 'config.js'") == [(0,)]


def test_a_failed_procedure_makes_nothing_well(recorder: Recorder) -> None:
    recorder.close(outcomes(finding("critical", "config.js")))
    recorder.close(outcomes(failed=True, error="no route"))
    assert recorder.rows("SELECT status FROM states WHERE subject = 'config.js'") == [("critical",)]


def test_what_breaks_the_contract_fails_its_procedure_and_leaves_the_others(recorder: Recorder) -> None:
    came = outcomes(finding("ok"))
    came["app1"] = {"own_procedure": {"started_at": "2026-01-31T06:00:00Z", "findings": [{"status": "fine"}]}}
    run = recorder.close(came)["run"]
    assert run["status"] == "critical"
    assert "malformed" in run["findings"][0]["summary"]
    assert [item["status"] for item in run["findings"] if item["subject"] == "auth"] == ["ok"]


def test_trends_need_two_points(recorder: Recorder) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    came = outcomes(artifacts={"metrics": {"cpu_percent": 10}}, started_at=now)
    assert recorder.close(came)["trends"] == []
    assert [item["name"] for item in recorder.close(came)["trends"]] == ["cpu_percent"]


def proof(level: int, at: str, result: str = "passed", **more: Any) -> dict[str, Any]:
    return {"set": "20260131T030000Z", "level": level, "at": at, "result": result, "reason": "", **more}


def test_verifications_and_drills_are_kept_and_the_last_are_told(recorder: Recorder) -> None:
    drill = {
        "set": "20260131T030000Z", "at": "2026-01-31T05:00:00Z", "result": "passed", "rto_seconds": 340,
        "rpo_seconds": 7200.5, "rpo_bytes": None, "parts": ["redis:cache"],
    }  # fmt: skip
    recorder.close(outcomes(artifacts={"verifications": [proof(3, "2026-01-30T06:00:00Z")], "drills": [drill]}))
    failed = proof(1, "2026-02-01T06:00:00Z", "failed", reason="redis:cache is missing")
    closed = recorder.close(outcomes(artifacts={"verifications": [proof(2, "2026-01-31T06:00:00Z"), failed]}))
    assert [(item["level"], item["result"], item["at"][:10], item["reason"]) for item in closed["verifications"]] == [
        (1, "failed", "2026-02-01", "redis:cache is missing"),
        (2, "passed", "2026-01-31", ""),
        (3, "passed", "2026-01-30", ""),
    ]
    figures = {key: value for key, value in drill.items() if key != "parts"}
    assert closed["drills"] == [{**figures, "host": "localhost", "details": {"parts": ["redis:cache"]}}]
    assert recorder.rows("SELECT host, set_id, level, result FROM verifications") == [
        ("localhost", "20260131T030000Z", level, result)
        for level, result in ((3, "passed"), (2, "passed"), (1, "failed"))
    ]
    assert recorder.call("read")["drills"] == closed["drills"]


def test_a_pass_of_a_higher_level_counts_for_the_lower_ones(recorder: Recorder) -> None:
    recorder.close(outcomes(artifacts={"verifications": [proof(2, "2026-01-30T06:00:00Z")]}))
    told = recorder.close(outcomes(artifacts={"verifications": [proof(3, "2026-01-31T06:00:00Z")]}))["verifications"]
    assert [(item["level"], item["at"][:10]) for item in told] == [(2, "2026-01-31"), (3, "2026-01-31")]


@pytest.mark.parametrize(
    ("artifacts", "message"),
    [
        ({"verifications": [{"set": "x", "level": 2}]}, "each of the verifications needs set, at and result"),
        ({"verifications": ["passed"]}, "each of the verifications needs"),
        ({"verifications": [proof(2, "yesterday")]}, "'yesterday' is no point in time"),
        ({"verifications": [proof(2, "2026-01-31T06:00:00Z", "fine")]}, "'fine' among the verifications is none of"),
        ({"drills": [{"set": "x", "at": "2026-01-31T06:00:00Z", "result": "passed", "rto_seconds": "long"}]}, "long"),
    ],
)
def test_a_malformed_proof_fails_its_procedure(recorder: Recorder, artifacts: Any, message: str) -> None:
    closed = recorder.close(outcomes(artifacts=artifacts))
    assert closed["run"]["status"] == "critical" and message in closed["run"]["findings"][0]["summary"]
    assert recorder.rows("SELECT count(*) FROM verifications") == [(0,)]


def test_a_run_that_was_killed_is_told_by_a_later_one(recorder: Recorder) -> None:
    run_id = recorder.call("opened")["run_id"]
    assert recorder.call("opened")["aborted"] == [], "a run that has just begun is another run, not a dead one"
    connection = sqlite3.connect(recorder.database)
    with connection:
        connection.execute("UPDATE runs SET started_at = '2020-01-01T00:00:00Z' WHERE id = ?", (run_id,))
    connection.close()
    assert recorder.call("opened")["aborted"] == [run_id]


def test_runs_at_the_same_time_do_not_lose_each_other(recorder: Recorder) -> None:
    recorder.call("opened")
    with ThreadPoolExecutor(4) as pool:
        closed = list(pool.map(lambda _: recorder.close(outcomes(finding())), range(4)))
    assert len({item["run_id"] for item in closed}) == 4
    assert recorder.rows("SELECT count(*) FROM runs WHERE status = 'ok'") == [(4,)]


def test_killed_while_writing_leaves_the_database_as_it_was(recorder: Recorder) -> None:
    recorder.close(outcomes(finding()))
    run_id = recorder.call("opened")["run_id"]
    many = outcomes(*[finding("warning", f"s{number}") for number in range(20000)])
    arguments = {
        "database": str(recorder.database), "site": "test", "run": "daily", "state": "closed", "run_id": run_id,
        "outcomes": many,
    }  # fmt: skip
    process = start_module("maintenance_history", arguments)
    journal = Path(f"{recorder.database}-wal")
    deadline = time.monotonic() + 20
    while not journal.exists() or journal.stat().st_size < 100_000:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert recorder.rows("PRAGMA integrity_check") == [("ok",)]
    assert recorder.rows(f"SELECT status FROM runs WHERE id = '{run_id}'") == [("running",)]
    assert recorder.rows("SELECT count(*) FROM findings WHERE subject LIKE 's%'") == [(0,)]
    assert recorder.call("closed", run_id=run_id, outcomes=outcomes(finding()))["run"]["status"] == "ok"


def test_a_newer_schema_is_refused(recorder: Recorder) -> None:
    recorder.call("opened")
    connection = sqlite3.connect(recorder.database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    answer = recorder.call("opened")
    assert answer["failed"] and "newer release" in answer["msg"]


def test_what_is_no_database_is_refused_and_kept(recorder: Recorder) -> None:
    recorder.database.parent.mkdir()
    recorder.database.write_text("these are my notes\n" * 100)
    answer = recorder.call("opened")
    assert answer["failed"] and "not a database" in answer["msg"]
    assert recorder.database.read_text().startswith("these are my notes")


def test_a_full_disk_is_named() -> None:
    answer = run_module(
        "maintenance_history",
        {"database": "/dev/full/history.sqlite3", "site": "test", "run": "daily", "state": "opened"},
    )
    assert answer["failed"] and "/dev/full" in answer["msg"]


def test_reading_before_any_run_says_what_to_do(recorder: Recorder) -> None:
    answer = recorder.call("read")
    assert answer["failed"] and "run a playbook first" in answer["msg"]


def test_examples_run(tmp_path: Path) -> None:
    run_examples("maintenance_history", {"/var/lib/upkeep": str(tmp_path)})
