# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbooks look after the platform in miniature and practise its recovery; its data stays what it is."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from tests.platform.miniature import PROJECT, Miniature
from tests.platform.parts import firestore
from tests.platform.parts.process import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Miniature]]:
    folder = tmp_path_factory.mktemp("demo")
    platform = Miniature(folder / "platform", free_port())
    try:
        platform.up()
        if platform.settings.firestore_missing:
            pytest.skip(platform.settings.firestore_missing)
        assert run(folder, "backup").returncode == 0
        yield folder, platform
    finally:
        platform.remove()


def run(demo: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{playbook}.yml", *arguments]
    return subprocess.run(
        [*command, "-i", "inventories/demo", "-e", f"demo_root={demo}"],
        cwd=ROOT, text=True, capture_output=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160", "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip


def live(platform: Miniature) -> tuple[Any, Any]:
    """Digests of the live data: Redis' own, and one by Google's client."""
    keys = {key: platform.redis.client().dump(key) for key in platform.redis.client().scan_iter(count=1000)}
    return firestore.digest(platform.emulator.host, PROJECT), keys


def drills(demo: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(demo / "state" / "history.sqlite3")
    try:
        return connection.execute(
            "SELECT set_id, result, rto_seconds, rpo_seconds, rpo_bytes, details FROM drills"
        ).fetchall()
    finally:
        connection.close()


def test_the_recovery_is_practised_on_the_demo(demo: tuple[Path, Miniature]) -> None:
    folder, platform = demo
    before = live(platform)
    done = run(folder, "disaster_recovery_test")
    assert done.returncode == 0, done.stdout
    assert "disaster_recovery_test run of demo: OK" in done.stdout and "drill passed was recorded" in done.stdout
    assert live(platform) == before, "live data is what it was"

    ((identifier, result, rto, rpo, written, details),) = drills(folder)
    parts = json.loads(details)["parts"]
    assert result == "passed" and (folder / "backups" / identifier).is_dir()
    assert rto == pytest.approx(parts["redis:cache"]["rto_seconds"] + parts["firestore:main"]["rto_seconds"])
    assert rpo > 0 and written >= 0
    assert parts["firestore:main"]["documents"] == before[0].documents
    assert parts["redis:cache"]["databases"]["0"]["keys"] >= len(before[1])
    connection = sqlite3.connect(folder / "state" / "history.sqlite3")
    names = {name for (name,) in connection.execute("SELECT name FROM metrics WHERE name LIKE 'drill%'")}
    connection.close()
    assert names == {"drill_rto_seconds", "drill_rpo_seconds", "drill_rpo_bytes"}
    report = max((folder / "state" / "reports").glob("2*.html"), key=lambda path: path.stat().st_mtime_ns).read_text()
    assert "was restored and compared in" in report

    chosen = run(folder, "disaster_recovery_test", "-e", '{"disaster_recovery_test_parts": ["redis:cache"]}')
    assert chosen.returncode == 0 and len(drills(folder)) == 2, chosen.stdout


def test_the_weekly_run_loses_neither_a_key_nor_a_document(demo: tuple[Path, Miniature]) -> None:
    folder, platform = demo
    before = live(platform)
    # What else runs on this machine is nobody's failure here.
    done = run(folder, "weekly", "-e", "run_fail_on=never")
    assert done.returncode == 0, done.stdout
    assert live(platform) == before, "live data is what it was"
    report = json.loads(
        (folder / "state" / "reports" / "weekly-latest.html").resolve().with_suffix(".json").read_text()
    )
    outcomes = {outcome["procedure"]: outcome["failed"] for outcome in report["run"]["outcomes"]}
    assert outcomes == dict.fromkeys(
        (
            "security_scan",
            "performance_monitoring",
            "backup_verification",
            "database_optimization",
            "cache_maintenance",
            "maintenance_metrics",
        ),
        False,
    )
    assert list((folder / "state" / "reports").glob("week-*.html"))


def of_run(demo: Path, name: str) -> dict[str, Any]:
    """What the newest report of a run says of its procedures."""
    path = (demo / "state" / "reports" / f"{name}-latest.html").resolve().with_suffix(".json")
    outcomes = json.loads(path.read_text())["run"]["outcomes"]
    assert not [outcome["error"] for outcome in outcomes if outcome["failed"]]
    return {outcome["procedure"]: outcome for outcome in outcomes}


def test_contacts_checklists_and_the_monthly_run(demo: tuple[Path, Miniature]) -> None:
    folder, platform = demo
    before = live(platform)
    reports = set((folder / "state" / "reports").iterdir())
    never = ("-e", "run_fail_on=never", "-e", '{"disaster_recovery_test_parts": ["redis:cache"]}')
    for playbook in ("checklists", "monthly"):
        looked = run(folder, playbook, "--check", *never)
        assert looked.returncode == 0, looked.stdout
    assert set((folder / "state" / "reports").iterdir()) == reports, "check mode writes nothing"

    signed = run(folder, "checklist_signoff", "-e", "checklist_signoff_list=monthly_tasks",
                 "-e", "checklist_signoff_item=user_feedback", "-e", "checklist_signoff_who=Support")  # fmt: skip
    assert signed.returncode == 0, signed.stdout
    assert run(folder, "monthly", *never).returncode == 0
    done = of_run(folder, "monthly")
    assert set(done) == {"disaster_recovery_test", "contact_check", "checklist", "maintenance_metrics"}
    assert live(platform) == before, "live data is what it was"
    assert list((folder / "state" / "reports").glob("last_month-*.html"))
    assert run(folder, "checklists", *never).returncode == 0
    told = {item["item"]: item for item in of_run(folder, "checklists")["checklist"]["artifacts"]["checklists"]}
    assert told["user_feedback"]["state"] == "done" and "by Support" in told["user_feedback"]["summary"]
    assert told["disaster_recovery_test"]["state"] == "done", "the monthly run did it"
    assert "contact_check ended" in told["contacts"]["summary"], "whether names of others can be resolved or not"


def test_the_gateway_is_prepared_once(demo: tuple[Path, Miniature]) -> None:
    folder, platform = demo
    link = platform.nginx.traffic / "upstreams" / "auth-service.conf"
    kept = link.read_text()
    assert " ok=" in run(folder, "gateway").stdout
    assert link.read_text() == kept
    link.unlink()
    assert "changed=1" in run(folder, "gateway", "--check").stdout and not link.exists()
    assert "changed=1" in run(folder, "gateway").stdout and link.read_text() == kept
    assert "changed=0" in run(folder, "gateway").stdout
