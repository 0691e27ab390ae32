# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs judged by what the real logrotate covers and did, and deleted ones by what a real process holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module

DAY = 86400


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """Three logs; logrotate covers two of them and has rotated them today."""
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    for name in ("a.log", "b.log", "stray.log"):
        (logs / name).write_text("x\n" * 100)
    config = tmp_path / "conf"
    config.write_text(f"{logs}/a.log {logs}/b.log {{\n  daily\n  rotate 3\n  create 0640\n}}\n")
    config.chmod(0o644)
    state = tmp_path / "state"
    subprocess.run(["logrotate", "-f", "-s", state, config], check=True)
    for name in ("a.log", "b.log"):
        (logs / name).write_text("y\n")
    return {"paths": [str(logs)], "configs": [str(config)], "state_file": str(state), "fail_on": "never"}


def verdicts(answer: dict[str, Any], check: str) -> dict[str, str]:
    found = [finding for finding in answer["findings"] if finding["check"] == check]
    return {Path(finding["subject"]).name: finding["status"] for finding in found}


def test_what_no_configuration_covers_is_found(site: dict[str, Any]) -> None:
    answer = run_module("log_audit", site)
    assert verdicts(answer, "log_rotation") == {"a.log": "ok", "b.log": "ok", "stray.log": "warning"}
    (a, _b, stray) = answer["logs"]
    assert (a["covered"], a["copies"], bool(a["rotated_at"])) == (True, 1, True)
    assert (stray["covered"], stray["copies"], stray["rotated_at"]) == (False, 0, "")
    assert answer["totals"] == {"log_bytes": 204, "rotated_bytes": 400, "deleted_bytes": 0}


def test_a_covered_log_that_is_not_rotated_any_more_is_found(tmp_path: Path, site: dict[str, Any]) -> None:
    state = Path(site["state_file"])
    lines = [line for line in state.read_text().splitlines() if "a.log" not in line]
    old = time.strftime("%Y-%m-%d-%H:%M:%S", time.localtime(time.time() - 20 * DAY))
    state.write_text("\n".join([*lines, f'"{tmp_path}/logs/a.log" {old}']) + "\n")
    copy = tmp_path / "logs" / "a.log.1"
    os.utime(copy, (0, time.time() - 20 * DAY))
    answer = run_module("log_audit", {**site, "fail_on": "warning"})
    assert answer["failed"]
    assert verdicts(answer, "log_rotation")["a.log"] == "warning"
    (finding,) = (f for f in answer["findings"] if f["check"] == "log_rotation" and f["subject"].endswith("a.log"))
    assert "last rotated 20 d" in finding["summary"]
    assert "still written to" in finding["summary"]

    # The same log, silent since: nothing to rotate.
    os.utime(tmp_path / "logs" / "a.log", (0, time.time() - 20 * DAY))
    assert verdicts(run_module("log_audit", site), "log_rotation")["a.log"] == "ok"


def test_size_and_permissions(tmp_path: Path, site: dict[str, Any]) -> None:
    (tmp_path / "logs" / "a.log").chmod(0o666)
    answer = run_module("log_audit", {**site, "max_size": "100", "critical_size": "200", "fail_on": "critical"})
    assert answer["failed"]
    assert verdicts(answer, "log_size") == {"a.log": "ok", "b.log": "ok", "stray.log": "critical"}
    assert verdicts(answer, "log_permissions") == {"a.log": "warning", "b.log": "ok", "stray.log": "ok"}


def test_a_deleted_log_that_is_held_open_is_found_with_who_holds_it(tmp_path: Path, site: dict[str, Any]) -> None:
    program = "import sys, time; f = open(sys.argv[1], 'wb'); f.write(bytes(3 << 20)); f.flush(); print(1, flush=True)"
    path = tmp_path / "logs" / "gone.log"
    holder = subprocess.Popen([sys.executable, "-c", program + "; time.sleep(60)", str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        path.unlink()
        answer = run_module("log_audit", site)
    finally:
        holder.kill()
        holder.wait()
    (held,) = (item for item in answer["deleted"] if item["path"] == str(path))
    assert (held["pid"], held["size"]) == (holder.pid, 3 << 20)
    assert verdicts(answer, "log_deleted")["gone.log"] == "warning"
    assert run_module("log_audit", site)["deleted"] == [item for item in answer["deleted"] if item != held]


def test_errors_of_a_configuration_and_missing_logs_are_told(tmp_path: Path, site: dict[str, Any]) -> None:
    config = Path(site["configs"][0])
    config.write_text(config.read_text() + "bogus 3\n")
    answer = run_module("log_audit", {**site, "paths": [*site["paths"], f"{tmp_path}/nowhere/*.log"]})
    (finding,) = (finding for finding in answer["findings"] if finding["check"] == "logrotate_config")
    assert "unknown option 'bogus'" in finding["summary"]
    assert verdicts(answer, "log_missing") == {"*.log": "warning"}


def test_a_size_that_is_none_is_told(site: dict[str, Any]) -> None:
    answer = run_module("log_audit", {**site, "max_size": "large"})
    assert answer["failed"]
    assert answer["msg"] == "'large' is no size such as 500M or 5G"


def test_examples(tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx" / "access.log").write_text("x\n" * 50)
    assert "100 bytes in logs, 0 in rotated copies" in run_examples("log_audit", {"/var/log/": f"{tmp_path}/"})
