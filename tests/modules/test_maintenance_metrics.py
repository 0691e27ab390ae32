# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""maintenance_metrics on a history that maintenance_history wrote; Prometheus' own tool reads what it offers."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import ROOT, run_module

#: Observations each five minutes up to now; auth was down for the twenty minutes that ended two hours ago.
NOW = datetime.now(timezone.utc).replace(microsecond=0)
BEGIN = NOW - timedelta(hours=6)
DOWN = (NOW - timedelta(minutes=140), NOW - timedelta(minutes=120))


def at(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def observations() -> list[dict[str, str]]:
    seen = []
    for step in range(72):
        moment = BEGIN + timedelta(minutes=5 * step)
        state = "down" if DOWN[0] <= moment < DOWN[1] else "up"
        seen.append({"subject": "auth", "state": state, "at": at(moment)})
        seen.append({"subject": "news", "state": "up", "at": at(moment)})
    return seen


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with one run that observed six hours."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite3"
    common = {"database": str(path), "site": "test", "run": "health_check"}
    run_id = run_module("maintenance_history", {**common, "state": "opened"})["run_id"]
    outcome = {"started_at": at(BEGIN), "seconds": 1, "artifacts": {"observations": observations()}}
    outcomes = {"localhost": {"health_check": outcome}}
    run_module("maintenance_history", {**common, "state": "closed", "run_id": run_id, "outcomes": outcomes})
    return path


def call(database: Path, check: bool = False, **options: Any) -> dict[str, Any]:
    given = {"database": str(database), "site": "test", "begin": at(BEGIN), "end": at(NOW), "fail_on": "never"}
    return run_module("maintenance_metrics", {**given, **options}, check=check)


def test_what_was_observed_becomes_figures(database: Path) -> None:
    services = [{"name": "auth"}, {"name": "news", "critical": False}, {"name": "never-seen", "critical": False}]
    answer = call(database, services=services, objectives={"uptime_percent": 99.9, "mttr": "30m"})
    assert not answer["changed"]
    platform = answer["metrics"]["platform"]
    assert platform["seconds"] == {"up": 340 * 60, "down": 20 * 60, "planned": 0, "unknown": 0}
    assert platform["uptime"]["value"] == pytest.approx(100 * 340 / 360)
    assert platform["mttr"]["value"] == 1200
    assert [failure["began_at"] for failure in platform["failures"]] == [at(DOWN[0])]
    told = {service["name"]: service["uptime"]["value"] for service in answer["metrics"]["services"]}
    assert told == {"auth": pytest.approx(94.444, abs=0.001), "news": 100, "never-seen": None}
    assert {item["check"]: item["status"] for item in answer["findings"]} == {
        "objective_uptime": "warning",
        "objective_mttr": "ok",
    }


def test_without_a_list_everything_that_was_observed_is_told_of(database: Path) -> None:
    told = [service["name"] for service in call(database)["metrics"]["services"]]
    assert told == ["auth", "news"]


def test_a_missed_objective_fails_as_told(database: Path) -> None:
    answer = call(database, objectives={"uptime_percent": 99.9}, fail_on="warning")
    assert answer["failed"] and "94.444 %" in answer["msg"] and "99.900 %" in answer["msg"]


def test_prometheus_reads_the_textfile(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "upkeep.prom"
    assert call(database, check=True, textfile=str(path))["changed"] and not path.exists()
    assert call(database, textfile=str(path))["changed"]
    assert not call(database, textfile=str(path))["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    text = path.read_text()
    assert re.search(r'^upkeep_failures\{site="test",service="auth",period="chosen"\} 1$', text, re.MULTILINE)
    assert text.endswith("# EOF\n")
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_name_cannot_break_the_textfile(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "upkeep.prom"
    call(database, textfile=str(path), services=[{"name": 'a"b\\c\nd'}])
    assert 'service="a\\"b\\\\c\\nd"' in path.read_text()


@pytest.mark.parametrize(
    "options, told",
    [
        ({"begin": at(NOW), "end": at(BEGIN)}, "before it begins"),
        ({"max_gap": "often"}, "'often' is no duration"),
        ({"objectives": {"uptime": 1}}, "there are no objectives uptime"),
        ({"begin": None, "end": None, "period": "decade"}, "'decade' is no period"),
        ({"textfile": "/proc/upkeep.prom"}, "/proc"),
    ],
)
def test_what_makes_no_sense_is_named(database: Path, options: dict[str, Any], told: str) -> None:
    answer = call(database, **options)
    assert answer["failed"] and told in answer["msg"]


def test_examples(database: Path, tmp_path: Path) -> None:
    run_examples(
        "maintenance_metrics",
        {"/var/lib/upkeep": str(database.parent), "/var/lib/prometheus/node-exporter": str(tmp_path)},
    )
    assert (tmp_path / "upkeep.prom").exists()


def test_the_dashboard_asks_for_nothing_that_is_not_offered(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "upkeep.prom"
    call(database, textfile=str(path), objectives={"uptime_percent": 99.9})
    offered = set(re.findall(r"^# TYPE (\S+) gauge$", path.read_text(), re.MULTILINE))
    # Nothing was installed here, so this one has no sample.
    offered.add("upkeep_patch_time_longest_seconds")
    dashboard = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    asked = {name for query in queries for name in re.findall(r"\bupkeep_[a-z_]+", query)}
    assert asked == offered
