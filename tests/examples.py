# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the EXAMPLES of a module as an operator would: by ansible-playbook, after replacing hosts and paths."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.contract import module_text
from tests.harness import ROOT

_ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")

#: The collection of this repository and nothing of the developer's own configuration.
_CONFIGURATION = f"""[defaults]
collections_path = {ROOT / "collections"}
callback_result_format = yaml
nocolor = true
"""


def run_examples(
    module: str,
    replacements: Mapping[str, str],
    variables: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Run the module's EXAMPLES on localhost and return the output.

    ``replacements`` are textual and every one of them must occur, so that an example cannot change unnoticed;
    ``variables`` are those of the play. The exit code must be 0: the whole output is shown when it is not.
    """
    text = module_text(module, "EXAMPLES")
    for old, new in replacements.items():
        assert old in text, f"EXAMPLES of {module} no longer contain {old!r}"
        text = text.replace(old, new)
    return run_tasks(yaml.safe_load(text), variables, check=check, env=env, timeout=timeout)


def run_tasks(
    tasks: list[dict[str, Any]],
    variables: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Run tasks on localhost with the collection of this repository; the exit code must be 0."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **(variables or {})},
        "tasks": tasks,
    }
    with tempfile.TemporaryDirectory(prefix="upkeep-examples-") as folder:
        configuration = Path(folder) / "ansible.cfg"
        configuration.write_text(_CONFIGURATION, encoding="utf-8")
        playbook = Path(folder) / "examples.yml"
        playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
        done = subprocess.run(
            [str(_ANSIBLE_PLAYBOOK), "-i", "localhost,", *(["--check", "--diff"] if check else []), str(playbook)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "ANSIBLE_CONFIG": str(configuration), **(env or {})},
            timeout=timeout,
            check=False,
        )
    assert done.returncode == 0, f"rc {done.returncode} of\n{yaml.safe_dump(tasks)}\n{done.stdout}"
    return done.stdout
