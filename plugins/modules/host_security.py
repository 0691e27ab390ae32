#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_security
short_description: Judges listening ports, file modes and pending security updates of a host
version_added: 1.0.0
description:
  - "Listening TCP ports: a service that belongs on loopback and can be reached by others is critical
    (C(loopback_only)), a reachable port that is not allowed a warning (C(unexpected_port))."
  - "File modes: a file that others may read, write or run beyond its rule is critical, one that its group may, or that
    belongs to somebody else, a warning (C(file_mode))."
  - "Security updates: a warning when some wait (C(security_updates)). When the package lists are too old, not there or
    without a security repository, it is C(unknown). Nothing is refreshed or installed."
  - Without root, the processes of others cannot be seen, and nobody sees who has the ports of the kernel, such as those
    of NFS, or of another container. When such a port can be reached, C(listening_ports) is C(unknown), unless
    O(allowed_ports) names it.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
options:
  allowed_ports:
    description: TCP ports and ranges that others may reach, such as V(443) and V(8080-8090). Without it any may.
    type: list
    elements: str
  local_only:
    description: Ports and parts of process names that only this host itself may reach.
    type: list
    elements: str
    default: ["6379", "9229", redis-server, memcached, mongod, firestore-emulator]
  file_modes:
    description: Rules for files that must not be open to others. A pattern that nothing matches is no fault.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path or pattern; C(**) stands for any folders.
        type: path
        required: true
      mode:
        description: The most permissions they may have, octal and in quotes.
        type: str
        default: "0600"
      owner:
        description: User they must belong to.
        type: str
  updates:
    description: Whether to look for pending security updates, with C(apt-get) or C(dnf).
    type: bool
    default: true
  lists_max_age:
    description: Age from which on the lists of APT say nothing any more.
    type: str
    default: 3d
  timeout:
    description: Seconds that the package manager may take.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Judge this host
  upkeep.ops.host_security:
    allowed_ports: ["22", "80", "443"]
    file_modes:
      - path: /etc/letsencrypt/archive/**/privkey*.pem
        mode: "0600"
        owner: root
      - path: /srv/*/.env
        mode: "0640"

- name: Only see that neither Redis nor an emulator can be reached
  upkeep.ops.host_security:
    local_only: [redis-server, firestore-emulator]
    updates: false
"""

RETURN = r"""
listening:
  description: Listening TCP sockets.
  returned: always
  type: list
  elements: dict
  contains:
    address:
      description: Address it is bound to.
      type: str
    port:
      description: Its port.
      type: int
    process:
      description: Name of the process; empty when this user may not see it.
      type: str
    pid:
      description: Its process id; 0 when this user may not see it.
      type: int
    local:
      description: Whether only this host can reach it.
      type: bool
updates:
  description: Security updates that wait; null when that is not known, or not asked.
  returned: always
  type: list
  elements: dict
  contains:
    package:
      description: Name of the package.
      type: str
    installed:
      description: Version that is installed; empty when it is new or not known.
      type: str
    available:
      description: Version that would be installed.
      type: str
files:
  description: Number of files whose mode was looked at.
  returned: always
  type: int
findings:
  description: What was found, worst first.
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of the findings.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
"""

import os
import shutil
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._file_modes import ModeRule, judge_modes, parse_mode
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._listening_ports import (
    judge_listeners,
    listeners,
    parse_ports,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program
from ansible_collections.upkeep.ops.plugins.module_utils._security_updates import (
    Update,
    UpdatesError,
    judge_updates,
    pending_apt,
    pending_dnf,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

LOCAL_ONLY = ["6379", "9229", "redis-server", "memcached", "mongod", "firestore-emulator"]


def pending_updates(timeout: float, max_age: float) -> list[Update] | UpdatesError:
    """The security updates that this host's package manager knows, or why that is not known."""
    try:
        if shutil.which("apt-get"):
            return pending_apt(run_program, timeout, utc_now(), max_age)
        if shutil.which("dnf"):
            return pending_dnf(run_program, timeout)
    except UpdatesError as error:
        return error
    return UpdatesError("there is neither apt-get nor dnf", "Set updates to false, and look after updates otherwise")


def judged(params: dict[str, Any]) -> dict[str, Any]:
    """All findings about the host. Raises ValueError when an option cannot be understood."""
    allowed = None if params["allowed_ports"] is None else parse_ports(params["allowed_ports"])
    rules = [ModeRule(rule["path"], parse_mode(rule["mode"]), rule["owner"] or "") for rule in params["file_modes"]]
    max_age = parse_duration(params["lists_max_age"])
    builder = FindingsBuilder(utc_now())
    found = listeners()
    judge_listeners(builder, found, allowed, params["local_only"], as_root=os.geteuid() == 0)
    files = judge_modes(builder, rules)
    updates: list[Update] | None = None
    if params["updates"]:
        pending = pending_updates(params["timeout"], max_age)
        judge_updates(builder, pending)
        updates = None if isinstance(pending, UpdatesError) else pending
    return {
        "findings": builder.findings,
        "listening": [each.as_dict() for each in found],
        "updates": None if updates is None else [asdict(update) for update in updates],
        "files": files,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "allowed_ports": {"type": "list", "elements": "str"},
            "local_only": {"type": "list", "elements": "str", "default": LOCAL_ONLY},
            "file_modes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "default": "0600"},
                    "owner": {"type": "str"},
                },
            },
            "updates": {"type": "bool", "default": True},
            "lists_max_age": {"type": "str", "default": "3d"},
            "timeout": {"type": "float", "default": 60},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    try:
        answer = judged(module.params)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    exit_with_findings(module, **answer)


if __name__ == "__main__":
    main()
