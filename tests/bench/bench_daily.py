# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole daily run on the platform in miniature, and what each further host adds to it."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.common import Row, quantity, timed
from tests.harness import ROOT
from tests.platform.parts.process import free_port

#: Seconds that the run may take once it has run before.
LIMIT = 15.0
FURTHER_HOSTS = 4
RUNS = 3


def rows() -> list[Row]:
    """Both figures; takes about two minutes."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        return list(_Bench(Path(name)).rows())


class _Run(NamedTuple):
    """Seconds that passed, and those that processors worked for it: they hold on a machine that is busy, too."""

    seconds: float
    processor: float


def _median(runs: list[_Run]) -> _Run:
    return _Run(*(statistics.median(figures) for figures in zip(*runs)))


class _Bench:
    def __init__(self, demo: Path) -> None:
        self._demo = demo
        self._platform = demo / "platform"

    def rows(self) -> Iterator[Row]:
        self._control("up", "--port", str(free_port()))
        try:
            first = self._daily()
            one = _median([self._daily() for _ in range(RUNS)])
            more = self._further_hosts()
            self._daily(more)
            many = _median([self._daily(more) for _ in range(RUNS)])
        finally:
            self._control("down")
        yield Row(
            "daily run of the demo platform, after the first",
            quantity(one.seconds, "s"),
            "-",
            "-",
            f"below {LIMIT:g} s",
            one.seconds < LIMIT,
            f"whole ansible-playbook, {quantity(one.processor, 's')} of processor time; the first run, with a backup, "
            f"took {quantity(first.seconds, 's')}.",
        )
        each = _Run(*((after - before) / FURTHER_HOSTS for after, before in zip(many, one)))
        yield Row(
            "each further host of the daily run",
            quantity(each.seconds, "s"),
            quantity(one.seconds, "s"),
            f"{each.seconds / one.seconds:.2f}x",
            "less than the first",
            each.seconds < one.seconds,
            f"{FURTHER_HOSTS} hosts more, all of them on this machine and its cores, each with "
            f"{quantity(each.processor, 's')} of processor time; theirs is the run with one host.",
        )

    def _control(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.platform", *arguments, "--root", str(self._platform)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    def _daily(self, *inventories: Path) -> _Run:
        """One run; it must have come to its end with nothing critical."""
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/daily.yml", "-i", "inventories/demo",
            *(word for path in inventories for word in ("-i", str(path))), "-e", f"demo_root={self._demo}",
        ]  # fmt: skip
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        done: list[subprocess.CompletedProcess[str]] = []

        def run() -> None:
            done.append(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False))

        before = _processor_seconds()
        seconds = timed(run)
        processor = _processor_seconds() - before
        assert "daily run of demo" in done[0].stdout and done[0].returncode == 0, done[0].stdout[-3000:]
        return _Run(seconds, processor)

    def _further_hosts(self) -> Path:
        hosts = {f"host{number}": self._host(f"host{number}") for number in range(FURTHER_HOSTS)}
        inventory = {"all": {"children": {"platform": {"hosts": hosts}}}}
        path = self._demo / "further.json"
        path.write_text(json.dumps(inventory), encoding="utf-8")
        return path

    def _host(self, name: str) -> dict[str, Any]:
        """A host with logs of its own, for log rotation is the one procedure that writes."""
        logs = self._demo / name
        logs.mkdir()
        (logs / "service.log").write_text("one line\n" * 1000, encoding="utf-8")
        return {
            "upkeep_logs": [{"name": "services", "paths": [f"{logs}/*.log"]}],
            "log_rotation_config_path": f"{logs}/logrotate.conf",
            "log_rotation_state_file": f"{logs}/logrotate.state",
            "log_rotation_audit_paths": [str(logs)],
        }


def _processor_seconds() -> float:
    """What all ended descendants have used: Ansible waits for its workers, and they for their modules."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
