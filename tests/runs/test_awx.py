# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbooks as job templates: by ansible-runner, which runs the jobs of AWX, with an exported inventory.

AWX imports an inventory source by `ansible-inventory --list --export` and hands it to jobs as a script, with no
group_vars folders beside it; surveys are extra variables; every event of a job is kept and can be read by its users.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from tests.platform.miniature import Miniature
from tests.platform.parts.process import free_port

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent


class Job:
    """A job template's run, with its private data directory in ``folder``."""

    def __init__(self, folder: Path, demo: Path) -> None:
        self.folder, self.demo = folder, demo
        (folder / "project").symlink_to(ROOT)
        (folder / "inventory").mkdir()
        source = [
            PROGRAMS / "ansible-inventory",
            "-i",
            "inventories/demo",
            "-e",
            f"demo_root={demo}",
            "--list",
            "--export",
        ]
        imported = subprocess.run(source, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        script = folder / "inventory" / "hosts"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{imported}\nEND\n")
        script.chmod(0o700)

    def run(self, playbook: str, **survey: Any) -> int:
        command = [
            PROGRAMS / "ansible-runner", "run", self.folder, "--playbook", f"playbooks/{playbook}.yml",
            "--ident", playbook, "--cmdline", f"-e '{json.dumps({'demo_root': str(self.demo), **survey})}'",
        ]  # fmt: skip
        environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL
        )
        self.output = done.stdout + done.stderr
        return done.returncode

    def events(self, playbook: str) -> str:
        """Everything that is kept of the job."""
        kept = (self.folder / "artifacts" / playbook).rglob("*")
        return "\n".join(path.read_text(errors="replace") for path in kept if path.is_file())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Miniature]]:
    folder = tmp_path_factory.mktemp("demo")
    platform = Miniature(folder / "platform", free_port())
    try:
        platform.up()
        yield folder, platform
    finally:
        platform.remove()


def test_a_job_ends_with_the_summary_its_verdict_and_no_secret(demo: tuple[Path, Miniature], tmp_path: Path) -> None:
    folder, platform = demo
    job = Job(tmp_path, folder)
    assert job.run("daily") == 0, job.output
    assert "daily run of demo: " in job.output and "PROCEDURE" in job.output
    kept = job.events("daily")
    assert "database_backup" in kept and platform.redis_password_file.read_text().strip() not in kept

    platform.services["chat-service"].set_fault("down")
    try:
        assert job.run("health_check") == 2, job.output
    finally:
        platform.services["chat-service"].set_fault("")
    assert "chat-service: " in job.output and "WHAT TO DO" in job.output
