# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback that switches the garbage collector off in workers, asked from inside of both kinds of process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT

# A task's arguments are templated in its worker, the name of a play in the process that forks the workers.
_LOOKUP = """
import gc
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return ["on" if gc.isenabled() else "off"]
"""
_PLAYBOOK = """
- name: "The main process has it {{ lookup('collector') }}"
  hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "The worker has it {{ lookup('collector') }}"
"""


@pytest.mark.parametrize(("enabled", "worker"), [("upkeep.ops.lean_workers", "off"), ("upkeep.ops.summary", "on")])
def test_only_workers_do_without_the_collector(tmp_path: Path, enabled: str, worker: str) -> None:
    (tmp_path / "collector.py").write_text(_LOOKUP)
    (tmp_path / "play.yml").write_text(_PLAYBOOK)
    (tmp_path / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = {ROOT / 'collections'}\nlookup_plugins = {tmp_path}\n"
        f"callbacks_enabled = {enabled}\nnocolor = true\n"
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "play.yml"],
        cwd=tmp_path, text=True, capture_output=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")},
    )  # fmt: skip
    assert "The main process has it on" in done.stdout
    assert json.dumps(f"The worker has it {worker}") in done.stdout
