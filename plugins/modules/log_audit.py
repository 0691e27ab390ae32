#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_audit
short_description: Find logs that are too large, not rotated, or deleted while they still hold space
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Looks at the logs of a host and asks logrotate, in a dry run, which of them its configurations cover.
  - A log counts as not rotated when no configuration covers it, or when it is still written to although its last
    rotation is older than O(max_age). That rotation is known from the state file of logrotate or from the rotated
    copies beside the log.
  - Logs that were deleted while a process still has them open are found too, as far as the user of the task may look
    into other processes.
  - A log that everybody may write to is a warning.
notes:
  - Even in a dry run logrotate creates archive folders that its configurations ask for and that are not there yet.
requirements:
  - logrotate, to know which logs are covered
options:
  paths:
    description:
      - Files, glob patterns, and folders, which are searched below.
      - Rotated copies are recognized by their names.
    type: list
    elements: path
    default: [/var/log]
  max_size:
    description: Size from which on a log is a warning, such as V(100M), V(1G) or a number of bytes.
    type: str
    default: 500M
  critical_size:
    description: Size from which on a log is critical.
    type: str
    default: 5G
  max_age:
    description: How long the last rotation of a log may be past while it is still written to.
    type: str
    default: 8d
  deleted_size:
    description: Size from which on a deleted log that is held open is a warning.
    type: str
    default: 1M
  archive_folders:
    description: More folders in which rotated copies lie.
    type: list
    elements: path
    default: []
  configs:
    description: Configurations of logrotate. Those that are not there are passed over.
    type: list
    elements: path
    default: [/etc/logrotate.conf]
  state_file:
    description: State file of logrotate. Empty is the one that is built into it.
    type: str
    default: ''
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
"""

EXAMPLES = r"""
- name: Find oversized and unrotated logs
  upkeep.ops.log_audit:
    paths: [/var/log/nginx, /var/log/services/*.log]
    max_size: 500M
    max_age: 8d

- name: See what logs there are without failing
  upkeep.ops.log_audit:
    paths: [/var/log/nginx]
    fail_on: never
  register: audit

- name: Show the space that logs take
  ansible.builtin.debug:
    msg: "{{ audit.totals.log_bytes }} bytes in logs, {{ audit.totals.rotated_bytes }} in rotated copies"
"""

RETURN = r"""
findings:
  description: >-
    What was found, worst first. The checks are C(log_size), C(log_rotation) and C(log_permissions) of each log,
    C(log_deleted), C(log_missing) and C(logrotate_config).
  returned: always
  type: list
  elements: dict
status:
  description: The most severe status of the findings.
  returned: always
  type: str
  sample: warning
summary:
  description: How many findings of each status there are.
  returned: always
  type: str
  sample: 1 warning, 12 ok
logs:
  description: The logs, without their rotated copies.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The log.
      type: str
    size:
      description: Its size in bytes.
      type: int
    rotated_at:
      description: When it was last rotated. Empty when nothing tells.
      type: str
      sample: "2026-01-31T00:00:05Z"
    copies:
      description: How many rotated copies there are.
      type: int
    covered:
      description: Whether a configuration of logrotate covers it. It is null when logrotate could not be asked.
      type: bool
deleted:
  description: Logs that were deleted and are still held open.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Where it was.
      type: str
    size:
      description: Bytes of the disk it holds.
      type: int
    pid:
      description: The process that holds it, one of them when there are several.
      type: int
    process:
      description: The name of that process.
      type: str
hidden_processes:
  description: Processes whose files the user of the task may not see.
  returned: always
  type: int
totals:
  description: Bytes in logs, in rotated copies, and in deleted logs that are held open.
  returned: always
  type: dict
  sample: {log_bytes: 1048576, rotated_bytes: 4194304, deleted_bytes: 0}
"""

import os
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils import _log_audit as audit
from ansible_collections.upkeep.ops.plugins.module_utils._logrotate import Logrotate
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_duration, utc_now


def _specification() -> dict[str, Any]:
    return {
        "paths": {"type": "list", "elements": "path", "default": ["/var/log"]},
        "max_size": {"type": "str", "default": "500M"},
        "critical_size": {"type": "str", "default": "5G"},
        "max_age": {"type": "str", "default": "8d"},
        "deleted_size": {"type": "str", "default": "1M"},
        "archive_folders": {"type": "list", "elements": "path", "default": []},
        "configs": {"type": "list", "elements": "path", "default": ["/etc/logrotate.conf"]},
        "state_file": {"type": "str", "default": ""},
        "fail_on": FAIL_ON_OPTION,
    }


def _ask_logrotate(module: AnsibleModule) -> tuple[dict[str, bool] | None, list[str], dict[str, str]]:
    """Logs that are covered (None when there is no logrotate), errors of the configurations, last rotations."""
    program = module.get_bin_path("logrotate")
    configs = [path for path in module.params["configs"] if os.path.exists(path)]
    if not program:
        return None, [], {}

    def run(command: Any) -> Any:
        return module.run_command(list(command), environ_update={"LC_ALL": "C"})

    return Logrotate(program, module.params["state_file"], run).considered(configs) if configs else ({}, [], {})


def _told(log: audit.LogFile) -> dict[str, Any]:
    moment = "" if log.rotated_at is None else isoformat(datetime.fromtimestamp(log.rotated_at, timezone.utc))
    return {"path": log.path, "size": log.size, "rotated_at": moment, "copies": log.copies, "covered": log.covered}


def main() -> None:
    module = AnsibleModule(argument_spec=_specification(), supports_check_mode=True)
    params = module.params
    try:
        limits = audit.Limits(
            audit.parse_size(params["max_size"]),
            audit.parse_size(params["critical_size"]),
            parse_duration(params["max_age"]),
            audit.parse_size(params["deleted_size"]),
        )
    except ValueError as error:
        module.fail_json(msg=str(error))
    paths, missing = audit.find_logs(params["paths"])
    covered, errors, rotations = _ask_logrotate(module)
    logs = audit.describe(paths, rotations, covered, params["archive_folders"])
    held, hidden = audit.deleted_but_open("/proc", [path for path in params["paths"] if os.path.isdir(path)])
    findings = audit.Audit(limits, utc_now()).findings(logs, held, missing, errors)
    exit_with_findings(
        module,
        findings,
        logs=[_told(log) for log in logs],
        deleted=[asdict(item) for item in held],
        hidden_processes=hidden,
        totals=audit.totals(logs, paths, held),
    )


if __name__ == "__main__":
    main()
