# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the collection's modules as Ansible would on a host: in a process of their own, with JSON in and out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract import assert_contract

ROOT = Path(__file__).resolve().parent.parent
_RUNNER = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
request = json.load(sys.stdin)
module = importlib.import_module('ansible_collections.upkeep.ops.plugins.modules.' + request['name'])
with patch_module_args(request['arguments']):
    module.main()
"""


def start_module(
    name: str,
    arguments: dict[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a module and hand it its arguments; the caller waits for it, kills it, or does what the test is about."""
    process = subprocess.Popen(
        [python, "-c", _RUNNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections"), **(env or {})},
    )
    assert process.stdin is not None
    modes = {"_ansible_check_mode": check, "_ansible_diff": diff}
    json.dump({"name": name, "arguments": {**arguments, **modes}}, process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def run_module(
    name: str,
    arguments: dict[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
    timeout: float = 120,
) -> dict[str, Any]:
    """What the module returned, with ``failed`` set to a bool; a traceback is an assertion error.

    Every answer is held against the module's RETURN on the way.
    """
    process = start_module(name, arguments, check=check, diff=diff, python=python, env=env)
    output, errors = process.communicate(timeout=timeout)
    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert lines, f"{name} returned no JSON (rc {process.returncode}):\n{output}\n{errors}"
    answer: dict[str, Any] = json.loads(lines[-1])
    answer.setdefault("failed", False)
    assert (process.returncode != 0) == answer["failed"], f"rc {process.returncode} against {answer}"
    assert_contract(name, answer)
    return answer
