#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recent_changes
short_description: See what changed on a host before a failure, and what its system complains of
version_added: 1.0.0
description:
  - Collects what changed on a host around the start of a failure. That is releases that went live, commits in project
    folders, packages, containers and images.
  - Collects units of systemd that failed, what the kernel said of memory that ran out, failing disks and crashes, and
    errors in logs, counted before and since the start of the failure.
  - All of it is bounded in time and size. Lines of logs are returned with C(***) in place of what may be a secret.
  - What cannot be read is told and keeps nothing else from being read.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
options:
  began_at:
    description: Start of the failure, RFC 3339.
    type: str
    required: true
  before:
    description: How long before it changes count, such as V(24h).
    type: str
    default: 24h
  log_before:
    description: How long before it errors in logs are counted, to compare with.
    type: str
    default: 1h
  services:
    description: The services of the host.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      releases:
        description: Folder of its releases. The link C(current) beside it points to the one that is live.
        type: path
      project:
        description: Its project folder, whose commits are read when it is a clone of git.
        type: path
  logs:
    description: Logs to count errors in; patterns may be given. Compressed ones are left out.
    type: list
    elements: path
    default: []
  log_bytes:
    description: How much of the end of each log is read.
    type: int
    default: 8388608
  lines:
    description: How many of the commonest errors of a log are returned.
    type: int
    default: 5
  package_logs:
    description: Logs of dpkg.
    type: list
    elements: path
    default: [/var/log/dpkg.log, /var/log/dpkg.log.1]
  timeout:
    description: Seconds that each program that is asked may take.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: See what changed before auth-service failed
  upkeep.ops.recent_changes:
    began_at: "2026-01-31T05:50:00Z"
    services:
      - name: auth-service
        releases: /srv/auth-service/releases
    logs: [/var/log/services/*.log, /var/log/nginx/error.log]
"""

RETURN = r"""
changes:
  description:
    - What changed, newest first, each with C(kind), which is C(release), C(upload), C(commit), C(package), C(container)
      or C(image), C(subject), C(at), C(summary), and C(service) where that is known.
  returned: success
  type: list
  elements: dict
troubles:
  description:
    - What the system complains of in the same form. C(kind) is C(unit), C(oom), C(disk_error) or C(crash).
  returned: success
  type: list
  elements: dict
logs:
  description:
    - Logs that hold errors since the start of the failure, each with C(path), C(before) and C(after), the numbers of
      errors, C(first_at), C(last_at), and C(lines), each with C(count) and C(text). Most errors first.
  returned: success
  type: list
  elements: dict
unread:
  description: What could not be read, and why.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._access_log_files import expand, is_compressed
from ansible_collections.upkeep.ops.plugins.module_utils._log_errors import errors_in
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program
from ansible_collections.upkeep.ops.plugins.module_utils._recent_changes import (
    Entry,
    Means,
    SourceError,
    commits,
    containers,
    failed_units,
    kernel,
    packages,
    releases,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, parse_time

_MOST_LOGS = 50


def entries(sources: list[Callable[[], list[Entry]]], unread: list[str]) -> list[dict[str, Any]]:
    """What the sources tell, newest first; why one cannot be read is added to ``unread``."""
    found: list[Entry] = []
    for source in sources:
        try:
            found += source()
        except SourceError as error:
            unread.append(str(error))
    return [entry.as_dict() for entry in sorted(found, key=lambda entry: entry.at, reverse=True)]


def log_errors(params: dict[str, Any], began: datetime, unread: list[str]) -> list[dict[str, Any]]:
    """Logs with errors since the start of the failure, most errors first."""
    paths, missing = expand(params["logs"])
    unread += [f"{path}: there is no such log" for path in missing]
    since = (began - timedelta(seconds=parse_duration(params["log_before"]))).timestamp()
    found = []
    for path in [path for path in paths if not is_compressed(path)][-_MOST_LOGS:]:
        try:
            found.append(errors_in(path, since, began.timestamp(), params["log_bytes"]))
        except OSError as error:
            unread.append(f"{path}: {error.strerror or error}")
    found = sorted((log for log in found if log.after), key=lambda log: -log.after)
    return [log.as_dict(params["lines"]) for log in found]


def main() -> None:
    service = {"name": {"type": "str", "required": True}, "releases": {"type": "path"}, "project": {"type": "path"}}
    module = AnsibleModule(
        argument_spec={
            "began_at": {"type": "str", "required": True},
            "before": {"type": "str", "default": "24h"},
            "log_before": {"type": "str", "default": "1h"},
            "services": {"type": "list", "elements": "dict", "default": [], "options": service},
            "logs": {"type": "list", "elements": "path", "default": []},
            "log_bytes": {"type": "int", "default": 8 << 20},
            "lines": {"type": "int", "default": 5},
            "package_logs": {
                "type": "list",
                "elements": "path",
                "default": ["/var/log/dpkg.log", "/var/log/dpkg.log.1"],
            },
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    params, unread = module.params, []
    try:
        began = parse_time(params["began_at"])
        means = Means(run_program, params["timeout"], began - timedelta(seconds=parse_duration(params["before"])))
        logs = log_errors(params, began, unread)
    except ValueError as error:
        module.fail_json(msg=str(error))
    changed: list[Callable[[], list[Entry]]] = [
        lambda: packages(params["package_logs"], means),
        lambda: containers(means),
    ]
    for each in params["services"]:
        changed += [lambda each=each: releases(each, means), lambda each=each: commits(each, means)]
    changes = entries(changed, unread)
    troubles = entries([lambda: failed_units(means), lambda: kernel(means)], unread)
    module.exit_json(changed=False, changes=changes, troubles=troubles, logs=logs, unread=unread)


if __name__ == "__main__":
    main()
