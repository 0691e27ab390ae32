# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform in miniature with as much data as a real one, on which benchmarks run the shipped playbooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import ROOT
from tests.platform.miniature import PROJECT, Miniature
from tests.platform.parts import firestore
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import seed

KEYS = 1_000_000
DOCUMENTS = 50_000


@contextmanager
def filled_platform() -> Iterator[FilledPlatform]:
    """A filled platform in a folder of its own, with a backup set; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        bench = FilledPlatform(Path(name))
        try:
            bench.fill()
            bench.run("backup")
            yield bench
        finally:
            bench.platform.down()


class FilledPlatform:
    """``demo`` is the folder of the demo: platform, backups, state and reports lie below it."""

    def __init__(self, demo: Path) -> None:
        self.demo = demo
        self.platform = Miniature(demo / "platform", free_port())

    def fill(self) -> None:
        """Start it, with a million keys (and a hundredth of them in another database) and 50,000 documents."""
        self.platform.up()
        with self.platform.redis.client() as client:
            client.config_set("maxmemory", 0)
            client.flushall()
            seed(client, KEYS)
        self.platform.emulator.wipe(PROJECT)
        firestore.seed(self.platform.emulator.host, PROJECT, DOCUMENTS)

    def run(self, playbook: str, **variables: Any) -> None:
        """One run of a shipped playbook; it must have come to its end with nothing critical."""
        given = {"demo_root": str(self.demo), "database_backup_max_age": "0s", **variables}
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{playbook}.yml",
            "-i", "inventories/demo", "-e", json.dumps(given),
        ]  # fmt: skip
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]

    def outcome(self, procedure: str) -> dict[str, Any]:
        """What the procedure left, from its newest report."""
        reports = (self.demo / "state" / "reports").glob(f"2*-{procedure}-*.json")
        report = json.loads(max(reports, key=lambda path: path.stat().st_mtime_ns).read_text(encoding="utf-8"))
        (outcome,) = (each for each in report["run"]["outcomes"] if each["procedure"] == procedure)
        return dict(outcome)
