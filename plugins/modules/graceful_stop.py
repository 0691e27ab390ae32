#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: graceful_stop
short_description: End exactly the process that is meant
version_added: 1.0.0
description:
  - Ends the process of a pid file, and its process group when it leads one. It gets O(signal), then O(timeout) to end
    by itself, and SIGKILL only after that. The result says which it took and how long.
  - No pattern is matched against all processes, so that nobody else can be hit. A pid file is believed only when its
    process started before the file was written and, with O(command), has just that command line. Signals are sent
    through a pidfd, which never points to another process, even when the pid is given to somebody else meanwhile.
  - A stale pid file, whose process has ended or whose pid belongs to somebody else now, stops nobody and is removed.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - Linux 5.3 or newer
options:
  pid_file:
    description: File whose first word is the pid of the process.
    type: path
    required: true
  command:
    description:
      - Its command line, word for word. An interpreter may stand before it, and the program may be written without its
        folder. Leave it out for programs that change their command line, as nginx does.
    type: list
    elements: str
    default: []
  signal:
    description: The signal that asks it to end.
    type: str
    choices: [TERM, INT, QUIT, HUP]
    default: TERM
  timeout:
    description: Seconds that it has to end by itself, somewhat more than its longest request.
    type: float
    default: 30
  kill_timeout:
    description: Seconds that it has to end after SIGKILL.
    type: float
    default: 10
  group:
    description: Whether all processes of its group are ended too, when it leads one.
    type: bool
    default: true
seealso:
  - module: upkeep.ops.service_health
"""

EXAMPLES = r"""
- name: End the authentication service, which has a minute for its last requests
  upkeep.ops.graceful_stop:
    pid_file: /run/auth-service.pid
    command: [node, /srv/auth-service/current/server.js]
    timeout: 60
"""

RETURN = r"""
ended:
  description:
    - How it ended. V(terminated) after the signal, V(killed) when it or one of its group took SIGKILL, V(stale) when
      the pid file did not name it any more, V(absent) when there is no pid file.
  returned: success
  type: str
  sample: terminated
pid:
  description: Its pid; 0 when there is no such process.
  returned: success
  type: int
processes:
  description: How many processes ended.
  returned: success
  type: int
seconds:
  description: How long it took from the signal to the end of all of them.
  returned: success
  type: float
msg:
  description: What was done, or what is wrong.
  returned: always
  type: str
"""

import os
import signal
import time
from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._processes import (
    Patience,
    Process,
    ProcessError,
    StalePidFileError,
    end,
    find_by_pid_file,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration


def stop(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """End what the pid file means; the module's answer. Raises ProcessError."""
    path = params["pid_file"]
    try:
        process = find_by_pid_file(path, params["command"])
    except StalePidFileError as error:
        _remove(path, check)
        return _answer("stale", 0, 0, 0.0, f"{error}; nobody was stopped, and the file was removed", changed=True)
    if process is None:
        return _answer("absent", 0, 0, 0.0, f"nothing to stop: there is no pid file {path}", changed=False)
    if check:
        return _answer("terminated", process.pid, 0, 0.0, f"{process.told} would be stopped", changed=True)
    return _ended(params, process)


def _ended(params: dict[str, Any], process: Process) -> dict[str, Any]:
    number = signal.Signals[f"SIG{params['signal']}"]
    patience = Patience(params["timeout"], params["kill_timeout"], time.monotonic)
    ending = end(process, params["group"], number, patience)
    _remove(params["pid_file"], False)
    how = f"{process.told} ended {format_duration(ending.seconds)} after {number.name}"
    if ending.killed:
        told = ", ".join(survivor.told for survivor in ending.survivors)
        how = f"{told} did not end within {params['timeout']:g} s after {number.name} and took SIGKILL"
    state = "killed" if ending.killed else "terminated"
    return _answer(state, process.pid, ending.processes, ending.seconds, how, changed=True)


def _answer(ended: str, pid: int, processes: int, seconds: float, message: str, *, changed: bool) -> dict[str, Any]:
    before = {"pid": pid} if pid else {}
    return {
        "changed": changed,
        "ended": ended,
        "pid": pid,
        "processes": processes,
        "seconds": seconds,
        "msg": message,
        "diff": {"before": before, "after": {}},
    }


def _remove(path: str, check: bool) -> None:
    """Remove the pid file, which the process may have done itself."""
    with suppress(FileNotFoundError):
        if not check:
            os.unlink(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "pid_file": {"type": "path", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "signal": {"type": "str", "choices": ["TERM", "INT", "QUIT", "HUP"], "default": "TERM"},
            "timeout": {"type": "float", "default": 30},
            "kill_timeout": {"type": "float", "default": 10},
            "group": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        answer = stop(module.params, module.check_mode)
    except (ProcessError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
