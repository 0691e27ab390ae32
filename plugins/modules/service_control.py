#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_control
short_description: Start, stop and restart services, and say how each ended
version_added: 1.0.0
description:
  - Starts, stops or restarts services of one host in the order they are given, whether systemd, Docker or nobody runs
    them. The result says how each ended and how long it took. Whether they serve is asked with
    M(upkeep.ops.service_health).
  - A unit of systemd is stopped as it says itself, by C(TimeoutStopSec) and C(KillMode). These are judged, and so is
    what they leave running. Units that systemd stops along with it are started again with it.
  - A container gets O(services[].stop_timeout) before Docker kills it.
  - A process is stopped as M(upkeep.ops.graceful_stop) does, by its pid file and command line, so that nobody else is
    hit. It is started in a session of its own.
  - A service counts as started once it has lived for O(services[].settle) seconds. One that starts and dies is told
    with the end of its log. Those after it are left as they are.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: V(restarted) of O(state) restarts each time.
requirements:
  - Linux 5.3 or newer for processes, systemctl for units, the command line of Docker for containers
options:
  state:
    description: What to bring all services into.
    type: str
    choices: [started, stopped, restarted]
    default: started
  services:
    description: The services, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      runner:
        description: What runs it.
        type: dict
        required: true
        suboptions:
          type:
            description: Which of the three.
            type: str
            choices: [systemd, docker, process]
            required: true
          unit:
            description: Unit of systemd.
            type: str
          container:
            description: Name of the container.
            type: str
          command:
            description: Program and arguments of the process. Its command line is just that.
            type: list
            elements: str
            default: []
          pid_file:
            description: File with the pid of the process. It is written here, too, unless O(services[].runner.forks).
            type: path
          working_dir:
            description: Folder in which the process is started. The default is C(/).
            type: path
          log:
            description: File to which what the process writes is appended. Without it that is lost.
            type: path
          environment:
            description: Variables of the process. No place for secrets, which belong to a file that it reads.
            type: dict
            default: {}
          user:
            description: User that the process runs as. The default is who runs this module.
            type: str
          forks:
            description: Whether the command ends and leaves a daemon, which writes the pid file itself.
            type: bool
            default: false
      stop_timeout:
        description: Seconds that it has to end by itself, somewhat more than its longest request.
        type: float
        default: 30
      start_timeout:
        description: Seconds that it has to start.
        type: float
        default: 60
      settle:
        description: Seconds that it has to live before it counts as started.
        type: float
        default: 1
  kill_timeout:
    description: Seconds that one has to end after SIGKILL.
    type: float
    default: 10
seealso:
  - module: upkeep.ops.graceful_stop
  - module: upkeep.ops.gateway_traffic
  - module: upkeep.ops.service_health
"""

EXAMPLES = r"""
- name: Restart a process, which has a minute for its last requests
  upkeep.ops.service_control:
    state: restarted
    services:
      - name: auth-service
        stop_timeout: 60
        runner:
          type: process
          pid_file: /run/auth-service.pid
          command: [node, /srv/auth-service/current/server.js]
          log: /var/log/services/auth-service.log

- name: Stop it
  upkeep.ops.service_control:
    state: stopped
    services:
      - name: auth-service
        runner:
          type: process
          pid_file: /run/auth-service.pid
          command: [node, /srv/auth-service/current/server.js]
"""

RETURN = r"""
findings:
  description:
    - Of each service C(stop_settings), C(service_stop) and C(service_start), as far as it came to these, worst first.
      One that was killed is a warning, one that did not end or start critical, one that was left because of that
      unknown.
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of all findings.
  returned: always
  type: str
summary:
  description: How many findings have which status.
  returned: always
  type: str
services:
  description: What became of each service that it came to.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    backend:
      description: What runs it.
      type: str
    before:
      description:
        - C(running), C(stopped), or C(stale) when its pid file named it no more, or when it has died and systemd or
          Docker is about to start it again.
      type: str
    ended:
      description:
        - C(terminated) when it ended as it was asked to, C(killed), C(failed) when it ended with an error, C(stale) or
          C(absent) when there was nobody to stop. Empty when it was not to be stopped.
      type: str
    stop_seconds:
      description: How long its end took.
      type: float
    start_seconds:
      description: How long its start took, with the time it had to live.
      type: float
    running:
      description: Whether it runs now.
      type: bool
    changed:
      description: Whether it was, or would be, stopped or started.
      type: bool
    message:
      description: What was done, or what is wrong.
      type: str
    log:
      description: The end of its log when it did not start.
      type: list
      elements: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program
from ansible_collections.upkeep.ops.plugins.module_utils._service_control import Backend, Control, Limits, Means
from ansible_collections.upkeep.ops.plugins.module_utils._service_docker import DockerService
from ansible_collections.upkeep.ops.plugins.module_utils._service_process import Launch, ProcessService
from ansible_collections.upkeep.ops.plugins.module_utils._service_systemd import SystemdService
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_RUNNER = {
    "type": {"type": "str", "choices": ["systemd", "docker", "process"], "required": True},
    "unit": {"type": "str"},
    "container": {"type": "str"},
    "command": {"type": "list", "elements": "str", "default": []},
    "pid_file": {"type": "path"},
    "working_dir": {"type": "path"},
    "log": {"type": "path"},
    "environment": {"type": "dict", "default": {}},
    "user": {"type": "str"},
    "forks": {"type": "bool", "default": False},
}
_RUNNER_DEMANDS = [
    ("type", "systemd", ["unit"]),
    ("type", "docker", ["container"]),
    ("type", "process", ["pid_file", "command"]),
]
_SERVICE = {
    "name": {"type": "str", "required": True},
    "runner": {"type": "dict", "required": True, "options": _RUNNER, "required_if": _RUNNER_DEMANDS},
    "stop_timeout": {"type": "float", "default": 30},
    "start_timeout": {"type": "float", "default": 60},
    "settle": {"type": "float", "default": 1},
}
_ARGUMENTS = {
    "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "default": "started"},
    "services": {"type": "list", "elements": "dict", "required": True, "options": _SERVICE},
    "kill_timeout": {"type": "float", "default": 10},
    "fail_on": FAIL_ON_OPTION,
}


def backend_of(service: dict[str, Any], kill_timeout: float) -> Backend:
    """What runs a service."""
    runner = service["runner"]
    limits = Limits(service["stop_timeout"], kill_timeout, service["start_timeout"], service["settle"])
    means = Means(run_program, time.monotonic, time.sleep)
    if runner["type"] == "systemd":
        return SystemdService(runner["unit"], limits, means)
    if runner["type"] == "docker":
        return DockerService(runner["container"], limits, means)
    environment = {name: str(value) for name, value in runner["environment"].items()}
    names = ("command", "pid_file", "working_dir", "log", "user", "forks")
    launch = Launch(environment=environment, **{name: runner[name] for name in names})
    return ProcessService(launch, limits, means)


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)
    params = module.params
    services = [(service["name"], backend_of(service, params["kill_timeout"])) for service in params["services"]]
    builder = FindingsBuilder(utc_now())
    try:
        outcomes = Control(builder, time.monotonic, module.check_mode).bring(services, params["state"])
    except OSError as error:
        module.fail_json(msg=str(error))
    exit_with_findings(
        module,
        builder.findings,
        changed=any(outcome.changed for outcome in outcomes),
        services=[outcome.as_dict() for outcome in outcomes],
        diff={
            "before": {outcome.name: outcome.before for outcome in outcomes},
            "after": {outcome.name: "running" if outcome.running else "stopped" for outcome in outcomes},
        },
    )


if __name__ == "__main__":
    main()
