# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: failure_reason
short_description: Say in one sentence why a task failed
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Makes one sentence of the result of a failed task, also of a task with a loop, for use in a C(rescue).
positional: task
options:
  _input:
    description: The result of the task, C(ansible_failed_result).
    type: dict
    required: true
  task:
    description: Name of the task, C(ansible_failed_task.name).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Keep the reason
  ansible.builtin.set_fact:
    reason: "{{ ansible_failed_result | upkeep.ops.failure_reason(ansible_failed_task.name) }}"
"""

RETURN = r"""
_value:
  description: The name of the task and what it said.
  type: str
"""

import re
from collections.abc import Mapping
from typing import Any

#: How ansible-core says that what a module wrote was no answer; then the host's own words tell why.
_NO_ANSWER = ("Module result deserialization failed", "MODULE FAILURE")
#: What ansible-core puts in front of the words of a module.
_ANSIBLES_OWN = re.compile(r"^(?:Task failed: )?(?:(?:Module|Action) failed: )?")


def failure_reason(result: Mapping[str, Any], task: str = "") -> str:
    """Name of the task and the message of the (first failed item of the) result, on one line."""
    items = [item for item in result.get("results") or [] if isinstance(item, Mapping)]
    failed = [item for item in items if item.get("failed") or item.get("unreachable")]
    source = failed[0] if failed else result
    message = source.get("msg") or source.get("stderr") or source.get("censored") or "it gave no reason"
    message = _ANSIBLES_OWN.sub("", str(message))
    said = str(source.get("module_stderr") or "").strip().splitlines()
    silent = message.startswith(_NO_ANSWER) and bool(said)
    parts = [task, _item(source) if silent or source.get("unreachable") else "", said[-1] if silent else message]
    return ": ".join(" ".join(part.split()) for part in parts if part)


def _item(source: Mapping[str, Any]) -> str:
    """What the loop was at, which is how a host is known that did not answer."""
    item = source.get(str(source.get("ansible_loop_var")), "")
    return str(item.get("host", "")) if isinstance(item, Mapping) else str(item)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"failure_reason": failure_reason}
