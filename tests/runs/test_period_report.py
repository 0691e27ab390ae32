# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbook report.yml on a history of last month, and its page as people see it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.upkeep.ops.plugins.module_utils._history import opened
from ansible_collections.upkeep.ops.plugins.module_utils._runs import outcome_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

from tests.harness import ROOT
from tests.runs.test_report_page import CHROMIUM, seen

#: auth was down for the hour from 10:00 to 11:00 of the 3rd of last month, and was observed on that day alone. The last
#: observation of the day vouches for ten minutes of the next, so 23 h 10 min of 24 h 10 min were up.
_THIS_MONTH = datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
_FIRST = (_THIS_MONTH - timedelta(days=1)).replace(day=1)
THIRD = _FIRST + timedelta(days=2)


def at(hours: float) -> str:
    return isoformat(THIRD + timedelta(hours=hours))


def item(hour: int) -> dict[str, str]:
    """An item of a checklist that is overdue until the last hour, in which somebody signed it."""
    signed = hour == 23
    return {
        "checklist": "monthly", "title": "Monthly", "item": "policies", "text": "Review <i>policies</i>",
        "kind": "manual", "period": "2026-01", "about": "", "state": "done" if signed else "overdue", "summary": "due",
        "signed_by": "Lead" if signed else "", "signed_at": at(22) if signed else "", "outcome": "done", "evidence": "",
    }  # fmt: skip


def write_history(path: Path) -> None:
    """One run an hour of a day, each with an observation every five minutes."""
    with opened(str(path), write=True) as history:
        for hour in range(24):
            down = hour == 10
            observations = [
                {"subject": "auth", "state": "down" if down else "up", "at": at(hour + minute / 60)}
                for minute in range(0, 60, 5)
            ]
            status = "critical" if down else "ok"
            finding = {"check": "service_health", "subject": "auth", "status": status, "summary": "answered 502"}
            raw = {
                "started_at": at(hour),
                "findings": [{**finding, "observed_at": at(hour)}],
                "artifacts": {"observations": observations, "metrics": {"p95_ms": 10.0 + hour}},
            }
            outcome = outcome_from("health_check", "localhost", raw)
            listed = {"started_at": at(hour), "findings": [], "artifacts": {"checklists": [item(hour)]}}
            outcomes = [outcome, outcome_from("checklist", "localhost", listed)]
            moment = THIRD + timedelta(hours=hour + 0.99)
            history.close_run(f"run{hour:02d}", "health_check", "test", moment, status, outcomes, outcome.findings)
        history.connection.execute(
            "INSERT INTO incidents VALUES ('I1', 'test', 'auth is down', 'critical', '[\"auth\"]', ?, ?, ?, ?, "
            "'health_check', 'disk full', 'mended')",
            (at(10), at(10), at(11), at(12)),
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "state").mkdir()
    write_history(folder / "state" / "history.sqlite3")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    catalogue = {
        "upkeep_site": "test",
        "upkeep_state": str(folder / "state"),
        "upkeep_services": [{"name": "auth", "critical": True}],
        "upkeep_objectives": {"uptime_percent": 99.9, "mttr": "30m", "planned_windows_per_month": "4h"},
        "upkeep_contacts": [],
    }
    inventory = {"all": {"vars": catalogue, "children": {"recorder": {"hosts": {"localhost": local}}}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    return folder


def report(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(site / "inventory.yml"),
         str(ROOT / "playbooks" / "report.yml"), *arguments],
        cwd=ROOT, text=True, capture_output=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def last_month(site: Path) -> Path:
    done = report(site, "-e", "maintenance_metrics_period=last_month")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "95.862 %" in done.stdout, "a missed objective is told at the end of the run"
    return site / "state" / "reports" / f"last_month-{_FIRST:%Y-%m-%d}.html"


def test_the_report_tells_figures_and_what_happened(last_month: Path) -> None:
    told: dict[str, Any] = json.loads(last_month.with_suffix(".json").read_text())
    assert told["metrics"]["platform"]["uptime"]["value"] == pytest.approx(100 * 23 / 24, abs=0.5)
    assert told["status"] == "warning"
    (trouble,) = told["events"]["troubles"]
    assert (trouble["subject"], trouble["times"], trouble["still"]) == ("auth", 1, False)
    assert [run["count"] for run in told["events"]["runs"]] == [24]
    assert [incident["id"] for incident in told["events"]["incidents"]] == ["I1"]
    assert {trend["name"] for trend in told["events"]["trends"]} == {"p95_ms"}
    text = last_month.with_suffix(".md").read_text()
    assert f"- auth: {at(10)} to {at(11)}, down 1 h" in text
    assert f"- I1 (critical): auth is down, began {at(10)}, recovered {at(11)}, closed {at(12)}" in text
    assert f"| done | Monthly, 2026-01 | Review &lt;i>policies&lt;/i> | Lead | {at(22)} |" in text
    assert (last_month.parent / "last_month-latest.html").resolve() == last_month


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1100, 360], ids=["screen", "phone"])
def test_the_page_fits_and_gives_the_verdict_first(last_month: Path, width: int) -> None:
    shown = seen(last_month, width)
    assert shown["overflow"] <= 0, "the page must not scroll sideways"
    assert shown["verdict"] == "Not all objectives were met"
    objectives = {row[0]: row[1:] for row in shown["objectives"]}
    assert objectives["Uptime"] == ["95.862 % of 1 d measured", "at least 99.900 %", "no"]
    assert objectives["Mean time to recovery"] == ["1 h (n=1)", "at most 30 min", "no"]
    assert shown["plots"] == 1 and shown["loads"] == 0
    when = at(22)[:16].replace("T", " ") + " UTC"
    assert shown["checklists"] == [
        [False, "Monthly, 2026-01 1 done", "done", "Review <i>policies</i>", f"Lead{when}", ""]
    ]


def test_check_mode_writes_no_report_and_the_run_has_the_figures_too(site: Path, last_month: Path) -> None:
    done = report(
        site, "--check", "-e", "maintenance_metrics_begin=2026-01-01", "-e", "maintenance_metrics_end=2026-02-01"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(last_month.parent.glob("period-*"))
    newest = (last_month.parent / "report-latest.html").resolve()
    assert json.loads(newest.with_suffix(".json").read_text())["metrics"]["platform"]["uptime"]["unit"] == "%"


def test_a_period_that_makes_no_sense_fails_with_the_reason(site: Path) -> None:
    done = report(site, "-e", "maintenance_metrics_period=fortnight")
    assert done.returncode == 2
    assert "'fortnight' is no period; there are day, week, month, quarter, year" in done.stdout
    connection = sqlite3.connect(site / "state" / "history.sqlite3")
    verdict = connection.execute("SELECT status FROM runs WHERE name = 'report' ORDER BY started_at DESC").fetchone()
    connection.close()
    assert verdict == ("critical",)
