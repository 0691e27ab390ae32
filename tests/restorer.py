# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs redis_restore against a server and lets things happen at its steps: a kill, a command, somebody's write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract import assert_contract
from tests.harness import ROOT
from tests.platform.parts.redis import RedisServer

#: The module as it is; only after a step was noted in its journal, and before it is done, what the test wants happens.
_RUNNER = """
import importlib, json, os, signal, subprocess, sys
from ansible.module_utils.testing import patch_module_args
request = json.load(sys.stdin)
collection = 'ansible_collections.upkeep.ops.plugins.'
Journal = importlib.import_module(collection + 'module_utils._redis_restore_journal').Journal
noted = Journal.step

def scratch_servers():
    for pid in open(f'/proc/self/task/{os.getpid()}/children').read().split():
        if open(f'/proc/{pid}/comm').read().strip() == 'redis-server':
            yield int(pid)

def step(journal, name, **notes):
    noted(journal, name, **notes)
    print('step', name, file=sys.stderr, flush=True)
    action = request['actions'].pop(name, None)
    if action == 'kill me':
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == 'stop me':
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == 'kill scratch':
        for pid in scratch_servers():
            os.kill(pid, signal.SIGKILL)
    elif action:
        command = [str(os.getpid()) if word == 'PARENT' else word for word in action]
        subprocess.run(command, check=True, stdout=sys.stderr)

Journal.step = step
with patch_module_args(request['arguments']):
    importlib.import_module(collection + 'modules.redis_restore').main()
"""
#: Starts a server with the pid file by which the tests know it.
_STARTER = """
import sys
import time
from pathlib import Path
from tests.platform.parts.process import ServerProcess, accepts
name, folder, port, *command = sys.argv[1:]
ServerProcess(name, Path(folder)).start(command, lambda: accepts(int(port)))
"""


class Restorer:
    """The module and one server; ``scratch`` must be empty and ``state_dir`` private after each run."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.scratch = folder / "scratch"
        self.state_dir = folder / "state"
        self.scratch.mkdir(exist_ok=True)
        self.steps: list[str] = []

    def arguments(self, state: str = "restored", **options: Any) -> dict[str, Any]:
        """The module's arguments for this server; ``options`` win."""
        folders = {"scratch_dir": str(self.scratch), "state_dir": str(self.state_dir)}
        return {**self.server.connection(), "state": state, **folders, "timeout": 15, **options}

    def run(
        self,
        state: str = "restored",
        *,
        check: bool = False,
        diff: bool = False,
        actions: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """What the module returned; empty when it was killed. No scratch server is left."""
        modes = {"_ansible_check_mode": check, "_ansible_diff": diff}
        request = {"arguments": {**self.arguments(state, **options), **modes}, "actions": actions or {}}
        done = subprocess.run(
            [sys.executable, "-c", _RUNNER],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        )
        self.steps = [line[5:] for line in done.stderr.splitlines() if line.startswith("step ")]
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            assert done.returncode == -9, f"rc {done.returncode}: {done.stdout}\n{done.stderr}"
            return {}
        answer: dict[str, Any] = {"failed": False, **json.loads(lines[-1])}
        assert_contract("redis_restore", answer)
        assert list(self.scratch.iterdir()) == []
        return answer

    def journal(self) -> dict[str, Any]:
        """The newest journal."""
        path = sorted(self.state_dir.glob("*/*/journal.json"))[-1]
        assert path.stat().st_mode & 0o777 == 0o600
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def commands(self, *more_start: str) -> dict[str, list[str]]:
        """stop_command and start_command that do as a service manager would, by the server's pid file."""
        server = self.server
        pid = f"$(cut -d' ' -f1 {server.process.pid_file})"
        argv = [server.process.name, str(server.folder), str(server.port), *server.argv, *more_start]
        return {
            "stop_command": ["sh", "-c", f"kill {pid} 2>/dev/null || true"],
            "start_command": ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", _STARTER, *argv],
        }
