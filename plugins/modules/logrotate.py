#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: logrotate
short_description: Publish a validated logrotate configuration and rotate by it
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Renders one configuration file, lets the logrotate of the host judge it, and puts it into place only when there is
    not a single error. logrotate itself ends with 0 for a directive it does not know, so its output is read.
  - A configuration that is refused leaves the file that was there as it was.
  - A log that another file in the same folder rotates already is an error too, because logrotate would drop one of
    the two.
  - With O(run=true) logrotate is run by the new configuration. What it rotated is told by its state file, not by its
    exit code.
attributes:
  check_mode:
    support: full
    details: Validates the configuration and returns the logs that would be rotated.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: With O(force=true) every run rotates.
requirements:
  - logrotate
options:
  path:
    description: The configuration file. Its folder is created.
    type: path
    default: /etc/logrotate.d/upkeep
  logs:
    description:
      - The logs, in groups that are rotated alike.
      - What an item does not set is taken from the option of the same name.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the logs are; becomes a comment.
        type: str
        required: true
      paths:
        description: Files and glob patterns.
        type: list
        elements: path
        required: true
      frequency:
        description: How often.
        type: str
        choices: [hourly, daily, weekly, monthly, yearly]
      keep:
        description: How many rotated files are kept.
        type: int
      compress:
        description: Whether rotated files are compressed.
        type: bool
      delay_compress:
        description: Whether the newest rotated file stays uncompressed, for writers that still hold it open.
        type: bool
      date_ext:
        description: Whether rotated files are named by date and time instead of a number.
        type: bool
      max_size:
        description: Size from which on a log is rotated before its time, such as V(100M).
        type: str
      archive_folder:
        description: Folder for rotated files, on the same file system. It is created.
        type: path
      owner:
        description: Owner of the new log and of the archive folder. Empty keeps that of the old log.
        type: str
      group:
        description: Group of the new log. Empty is the primary group of O(logs[].owner).
        type: str
      mode:
        description: Mode of the new log, in octal.
        type: str
      su_user:
        description: User that rotates. Needed when the folder of the log can be written by a group other than root.
        type: str
      su_group:
        description: Group that rotates. Empty is the primary group of O(logs[].su_user).
        type: str
      copy_truncate:
        description: Copy and empty the log, for writers that cannot open it again. Lines written meanwhile are lost.
        type: bool
      postrotate:
        description: Shell lines that are run once after rotation, such as telling the writer to open its log again.
        type: str
  frequency:
    description: How often logs are rotated.
    type: str
    choices: [hourly, daily, weekly, monthly, yearly]
    default: daily
  keep:
    description: How many rotated files of a log are kept.
    type: int
    default: 14
  compress:
    description: Whether rotated files are compressed.
    type: bool
    default: true
  delay_compress:
    description: Whether the newest rotated file stays uncompressed.
    type: bool
    default: true
  date_ext:
    description: Whether rotated files are named by date and time.
    type: bool
    default: true
  max_size:
    description: Size from which on a log is rotated before its time. Empty is none.
    type: str
    default: ''
  archive_folder:
    description: Folder for rotated files. Empty is the folder of the log.
    type: str
    default: ''
  mode:
    description: Mode of new logs, in octal.
    type: str
    default: '0640'
  state_file:
    description: State file of logrotate. Empty is the one that logrotate and the timer of the system use.
    type: str
    default: ''
  run:
    description: Whether to rotate now what is due.
    type: bool
    default: false
  force:
    description: Whether to rotate also what is not due.
    type: bool
    default: false
extends_documentation_fragment:
  - upkeep.ops._attributes
"""

EXAMPLES = r"""
- name: Rotate the logs of nginx and of the services
  upkeep.ops.logrotate:
    path: /etc/logrotate.d/upkeep
    keep: 14
    max_size: 100M
    logs:
      - name: nginx
        paths: [/var/log/nginx/*.log]
        owner: www-data
        postrotate: test ! -f /run/nginx.pid || kill -USR1 "$(cat /run/nginx.pid)"
      - name: services
        paths: [/var/log/services/*.log]
        archive_folder: /var/log/services/archive
        copy_truncate: true

- name: Rotate now what is due
  upkeep.ops.logrotate:
    logs:
      - {name: workers, paths: [/var/log/workers/*.log], copy_truncate: true}
    path: /etc/logrotate.d/upkeep-workers
    run: true
  register: rotation

- name: Show what was rotated
  ansible.builtin.debug:
    var: rotation.rotated
"""

RETURN = r"""
config:
  description: The configuration file.
  returned: always
  type: str
  sample: /etc/logrotate.d/upkeep
config_changed:
  description: Whether the configuration was changed, or would be in check mode.
  returned: always
  type: bool
rotated:
  description: The logs that were rotated, or would be in check mode. Empty without O(run=true).
  returned: always
  type: list
  elements: str
  sample: [/var/log/nginx/access.log]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text
from ansible_collections.upkeep.ops.plugins.module_utils._logrotate import (
    FREQUENCIES,
    Logrotate,
    LogrotateError,
    RotationError,
    logs_of,
    render,
    told,
)

_COMMON = ("frequency", "keep", "compress", "delay_compress", "date_ext", "max_size", "archive_folder", "mode")
_MODE = 0o644


def _specification() -> dict[str, Any]:
    flag, text = {"type": "bool"}, {"type": "str"}
    item = {
        "name": {"type": "str", "required": True},
        "paths": {"type": "list", "elements": "path", "required": True},
        "frequency": {"type": "str", "choices": list(FREQUENCIES)},
        "keep": {"type": "int"},
        "archive_folder": {"type": "path"},
        **dict.fromkeys(("compress", "delay_compress", "date_ext", "copy_truncate"), flag),
        **dict.fromkeys(("max_size", "owner", "group", "mode", "su_user", "su_group", "postrotate"), text),
    }
    return {
        "path": {"type": "path", "default": "/etc/logrotate.d/upkeep"},
        "logs": {"type": "list", "elements": "dict", "required": True, "options": item},
        "frequency": {"type": "str", "choices": list(FREQUENCIES), "default": "daily"},
        "keep": {"type": "int", "default": 14},
        "compress": {"type": "bool", "default": True},
        "delay_compress": {"type": "bool", "default": True},
        "date_ext": {"type": "bool", "default": True},
        "max_size": {"type": "str", "default": ""},
        "archive_folder": {"type": "str", "default": ""},
        "mode": {"type": "str", "default": "0640"},
        "state_file": {"type": "str", "default": ""},
        "run": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
    }


def _installed(path: str) -> str:
    """The configuration that is there, empty when there is none or when logrotate would ignore its owner or mode."""
    if not os.path.exists(path):
        return ""
    status = os.stat(path)
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    return text if (status.st_mode & 0o777, status.st_uid) == (_MODE, os.geteuid()) else ""


def _apply(module: AnsibleModule, program: Logrotate, text: str, answer: dict[str, Any]) -> None:
    """Validate, publish, rotate; ``answer`` always tells how far it came. Raises LogrotateError and OSError."""
    params = module.params
    path = params["path"]
    due = program.plan(text, os.path.basename(path), params["force"])
    conflicts = program.conflicts(text, path)
    if conflicts:
        raise LogrotateError(told(conflicts))
    before = _installed(path)
    if before != text:
        if not module.check_mode:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            publish_text(path, text, _MODE)
        answer.update(config_changed=True, changed=True)
        answer["diff"] = {"before": before, "after": text, "before_header": path, "after_header": path}
    if params["run"]:
        answer["rotated"] = due if module.check_mode else program.rotate(path, params["force"])
        answer["changed"] |= bool(answer["rotated"])


def main() -> None:
    module = AnsibleModule(argument_spec=_specification(), supports_check_mode=True)
    params = module.params

    def run(command: Any) -> Any:
        return module.run_command(list(command), environ_update={"LC_ALL": "C"})

    program = Logrotate(module.get_bin_path("logrotate", required=True), params["state_file"], run)
    answer: dict[str, Any] = {"config": params["path"], "config_changed": False, "rotated": [], "changed": False}
    try:
        text = render(logs_of(params["logs"], {name: params[name] for name in _COMMON}))
        _apply(module, program, text, answer)
    except RotationError as error:
        answer.update(rotated=error.rotated, changed=answer["changed"] or bool(error.rotated))
        module.fail_json(msg=f"logrotate failed: {error}", **answer)
    except LogrotateError as error:
        message = f"logrotate refuses the configuration, {params['path']} was left as it is: {error}"
        module.fail_json(msg=message, **answer)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{params['path']} was not written: {error}", **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
