# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The resources of this host against df, free, ps and nproc, and samples that survive."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module


def words(*command: str) -> list[list[str]]:
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def measure(**arguments: Any) -> dict[str, Any]:
    return run_module("host_resources", {"sample_seconds": 0.1, "fail_on": "never", **arguments})


def test_figures_are_those_of_df_free_and_nproc() -> None:
    answer = measure()
    (root,) = (disk for disk in answer["disks"] if disk["mount"] == "/")
    _header, (size, used, percent, source) = words("df", "-B1", "--output=size,used,pcent,source", "/")
    assert root["total_bytes"] == int(size)
    assert root["used_bytes"] == pytest.approx(int(used), rel=0.02)
    assert root["used_percent"] == pytest.approx(float(percent.rstrip("%")), abs=1.1)
    assert root["source"] == source
    _header, (inodes, used_inodes) = words("df", "--output=itotal,iused", "/")
    assert root["total_inodes"] == int(inodes)
    assert root["used_inodes"] == pytest.approx(int(used_inodes), rel=0.02)

    _header, memory, _swap = words("free", "-b")
    assert answer["memory"]["total_bytes"] == int(memory[1])
    assert answer["memory"]["available_bytes"] == pytest.approx(int(memory[6]), rel=0.1)
    assert answer["cpu"]["cores"] == int(words("nproc", "--all")[0][0])
    assert answer["metrics"]["disk_percent:/"] == root["used_percent"]
    assert 0 <= answer["cpu"]["used_percent"] <= 100


def test_the_largest_processes_are_those_of_ps_without_their_arguments() -> None:
    hog = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; x = bytearray(400_000_000); print(1, flush=True); time.sleep(60)",
            "s3cret",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert hog.stdout is not None
        hog.stdout.readline()
        answer = measure(processes=10)
        listed = words("ps", "-eo", "pid=,rss=,nlwp=,user=", "--sort=-rss")[:10]
    finally:
        hog.kill()
        hog.wait()
    (found,) = (process for process in answer["processes"] if process["pid"] == hog.pid)
    (told,) = (line for line in listed if int(line[0]) == hog.pid)
    assert found["rss_bytes"] == int(told[1]) * 1024
    assert (found["threads"], found["user"]) == (int(told[2]), told[3])
    assert len(answer["processes"]) == 10
    assert "s3cret" not in json.dumps(answer)


def test_a_busy_processor_is_seen() -> None:
    cores = int(words("nproc", "--all")[0][0])
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        time.sleep(0.2)
        answer = measure(sample_seconds=0.5)
    finally:
        for process in spin:
            process.kill()
            process.wait()
    assert answer["cpu"]["used_percent"] > 60


def history(days: int, per_day: float, now_used: int) -> list[dict[str, Any]]:
    """Samples each six hours that grow to the present use of the root file system."""
    now = datetime.now(timezone.utc)
    return [
        {
            "at": (now - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "mount": "/",
            "used_bytes": int(now_used - hours / 24 * per_day),
        }
        for hours in range(days * 24, 0, -6)
    ]


def test_time_to_full_from_history() -> None:
    (root,) = measure(mounts=["/"])["disks"]
    per_day = root["available_bytes"] / 5
    answer = measure(mounts=["/"], history=history(20, per_day, root["used_bytes"]))
    found = answer["disks"][0]["forecast"]
    assert found["method"] == "weekly differences"
    assert found["days_to_full"] == pytest.approx(5, abs=0.5)
    (finding,) = (finding for finding in answer["findings"] if finding["check"] == "disk_forecast")
    assert (finding["status"], finding["subject"], finding["threshold"]) == ("warning", "/", 14)
    assert "full in about" in finding["summary"]


def test_too_little_history_is_told_and_not_judged() -> None:
    (root,) = measure(mounts=["/"])["disks"]
    answer = measure(mounts=["/"], history=history(1, 1e9, root["used_bytes"]))
    assert answer["disks"][0]["forecast"]["days_to_full"] is None
    (finding,) = (finding for finding in answer["findings"] if finding["check"] == "disk_space")
    assert "not enough history" in finding["summary"]
    assert all(finding["check"] != "disk_forecast" for finding in answer["findings"])


def test_samples_are_kept_once_an_hour_and_not_in_check_mode(tmp_path: Path) -> None:
    path = tmp_path / "state" / "samples.jsonl"
    arguments = {"samples_file": str(path), "sample_seconds": 0, "fail_on": "never", "mounts": ["/"]}
    checked = run_module("host_resources", arguments, check=True)
    assert (checked["changed"], path.parent.exists()) == (True, False)
    first = run_module("host_resources", arguments)
    assert (first["changed"], first["samples"]) == (True, {"kept": 1, "damaged": 0})
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert run_module("host_resources", arguments)["changed"] is False

    (sample,) = (json.loads(line) for line in path.read_text().splitlines())
    assert sample["mount"] == "/"
    old = {**sample, "at": "2020-01-01T00:00:00Z"}
    earlier = {**sample, "at": (datetime.now(timezone.utc) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    path.write_text(f'{json.dumps(old)}\n{json.dumps(earlier)}\n{{"at": "2026-\n')
    again = run_module("host_resources", arguments)
    assert (again["changed"], again["samples"]) == (True, {"kept": 2, "damaged": 1})
    assert "2020" not in path.read_text()


def test_thresholds_are_obeyed_and_fail_the_task() -> None:
    limits = {"memory_percent": {"critical": 0.1}, "disk_percent": {"warning": 0.1}, "load_per_core": {}}
    answer = run_module("host_resources", {"sample_seconds": 0, "thresholds": limits, "mounts": ["/"]})
    assert answer["failed"]
    assert "memory used, most by" in answer["msg"]
    found = {(finding["check"], finding["subject"]): finding["status"] for finding in answer["findings"]}
    assert (found["memory", "host"], found["disk_space", "/"], found["load", "host"]) == ("critical", "warning", "ok")


def test_a_samples_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run_module("host_resources", {"sample_seconds": 0, "samples_file": f"{tmp_path}/file/samples"})
    assert answer["failed"]
    assert str(tmp_path) in answer["msg"]


def test_examples(tmp_path: Path) -> None:
    replacements = {
        "/var/lib/upkeep": str(tmp_path),
        "jsonl\n": "jsonl\n    fail_on: never\n",
    }
    assert "rss_bytes" in run_examples("host_resources", replacements)
    assert (tmp_path / "disk-samples.jsonl").exists()
