# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that must not outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

#: Starts `sleep`, which writes down its pid first; with "late" it asks for its signal only when its parent is dead.
STARTER = """
import os, subprocess, sys, time
from ansible_collections.upkeep.ops.plugins.module_utils._programs import dies_with_us

asks, parent = dies_with_us(), os.getpid()

def prepare():
    with open(sys.argv[1], "w") as stream:
        stream.write(str(os.getpid()))
    while sys.argv[2] == "late" and os.getppid() == parent:
        time.sleep(0.01)
    asks()

subprocess.Popen(["sleep", "60"], preexec_fn=prepare)
time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["early", "late"])
def test_a_program_dies_with_its_parent_however_early_that_dies(tmp_path: Path, moment: str) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", STARTER, str(noted), moment]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "collections")})
    wait_until(lambda: noted.exists() and noted.read_text() != "")
    program = Path("/proc", noted.read_text())
    if moment == "early":
        wait_until(lambda: b"sleep" in (program / "cmdline").read_bytes().split(b"\0"))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not alive(program))


def alive(program: Path) -> bool:
    try:
        return (program / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
