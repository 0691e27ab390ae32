# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles log_rotation and performance_monitoring, used alone, with the real logrotate in a private folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks


def _run_role(role: str, variables: dict[str, Any], folder: Path, *, check: bool = False) -> dict[str, Any]:
    """Run a role on localhost and return the outcome it leaves; the run must succeed."""
    outcome = folder / "outcome.json"
    tasks: list[dict[str, Any]] = [
        {"name": "Run the role", "ansible.builtin.include_role": {"name": f"upkeep.ops.{role}"}},
        {
            "name": "Keep the outcome",
            "ansible.builtin.copy": {"content": "{{ upkeep_outcome | to_json }}", "dest": str(outcome), "mode": "0600"},
            "check_mode": False,
        },
    ]
    run_tasks(tasks, variables, check=check)
    left: dict[str, Any] = json.loads(outcome.read_text())
    return left


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """A site with one log that is due for its size."""
    (tmp_path / "logs").mkdir(mode=0o755)
    (tmp_path / "logs" / "app.log").write_text("line\n" * 1000)
    return {
        "upkeep_logs": [{"name": "app", "paths": [f"{tmp_path}/logs/*.log"], "archive_folder": f"{tmp_path}/archive"}],
        "log_rotation_config_path": f"{tmp_path}/logrotate/upkeep",
        "log_rotation_state_file": f"{tmp_path}/logrotate.state",
        "log_rotation_max_size": "1k",
        "log_rotation_audit_paths": [f"{tmp_path}/logs"],
    }


def test_rotation(tmp_path: Path, site: dict[str, Any]) -> None:
    log = tmp_path / "logs" / "app.log"
    checked = _run_role("log_rotation", site, tmp_path, check=True)
    assert checked["changes"] == [
        f"The configuration {tmp_path}/logrotate/upkeep would be written",
        f"{log} would be rotated",
    ]
    assert log.stat().st_size == 5000
    assert not (tmp_path / "logrotate").exists()

    done = _run_role("log_rotation", site, tmp_path)
    assert done["changes"] == [
        f"The configuration {tmp_path}/logrotate/upkeep was written",
        f"{log} was rotated",
    ]
    assert {finding["status"] for finding in done["findings"]} == {"ok"}
    assert done["artifacts"]["log_bytes"] == 0
    assert len(list((tmp_path / "archive").iterdir())) == 1

    again = _run_role("log_rotation", site, tmp_path)
    assert again["changes"] == []


def test_a_refused_configuration_fails_the_role_and_the_audit_is_made_all_the_same(
    tmp_path: Path, site: dict[str, Any]
) -> None:
    site["upkeep_logs"][0]["owner"] = "nobody-here"
    with pytest.raises(AssertionError, match="there is no user 'nobody-here'") as failure:
        _run_role("log_rotation", site, tmp_path)
    assert "Find oversized and unrotated logs" in str(failure.value)


def test_what_the_audit_finds_fails_the_role(tmp_path: Path, site: dict[str, Any]) -> None:
    site |= {"log_rotation_run": False, "log_rotation_audit_critical_size": "1k"}
    with pytest.raises(AssertionError, match=r"app\.log:? is 4\.9"):
        _run_role("log_rotation", site, tmp_path)
    outcome = _run_role("log_rotation", {**site, "upkeep_fail_on": "never"}, tmp_path)
    assert outcome["findings"][0]["check"] == "log_size"


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_performance_monitoring(tmp_path: Path, check: bool) -> None:
    at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    line = f'10.0.0.1 - - [{at}] "GET /api/orders/7 HTTP/1.1" 200 5 "-" "curl" rt=0.250\n'
    (tmp_path / "access.log").write_text(line * 30)
    (tmp_path / "access.log.1").write_text(line * 10)
    variables = {
        "upkeep_state": str(tmp_path / "state"),
        "upkeep_gateway": {"access_logs": [f"{tmp_path}/access.log", f"{tmp_path}/elsewhere.log"]},
        "upkeep_fail_on": "never",
        "performance_monitoring_p95_warning_ms": 200,
    }
    outcome = _run_role("performance_monitoring", variables, tmp_path, check=check)
    found = {(finding["check"], finding["subject"]): finding["status"] for finding in outcome["findings"]}
    assert found["response_time", "GET /api/orders/:id"] == "warning"
    assert ("disk_space", "/") in found
    metrics = outcome["artifacts"]["metrics"]
    assert (metrics["p95_ms"], metrics["error_percent"]) == (250, 0)
    assert {"cpu_percent", "memory_percent", "disk_percent:/"} <= metrics.keys()
    assert len(outcome["artifacts"]["processes"]) == 10
    assert outcome["artifacts"]["routes"][0]["requests"] == 40
    assert (tmp_path / "state").exists() is not check
