# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: failure_message
short_description: Say why findings fail a role
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Decides as the option C(fail_on) of the modules of this collection does.
positional: fail_on
options:
  _input:
    description: The findings.
    type: list
    elements: dict
    required: true
  fail_on:
    description: From which severity on they fail.
    type: str
    choices: [never, critical, warning]
    default: critical
"""

EXAMPLES = r"""
- name: Fail as told
  ansible.builtin.assert:
    that: upkeep_outcome.findings | upkeep.ops.failure_message('critical') | length == 0
    fail_msg: "{{ upkeep_outcome.findings | upkeep.ops.failure_message('critical') }}"
"""

RETURN = r"""
_value:
  description: The worst findings in one sentence each; empty when they do not fail.
  type: str
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.module_utils import _findings


def failure_message(findings: Sequence[Mapping[str, Any]], fail_on: str = "critical") -> str:
    """Empty when nothing fails. Raises AnsibleFilterError when a finding is none or ``fail_on`` no severity."""
    try:
        return _findings.failure_message([_findings.Finding(**finding) for finding in findings], fail_on) or ""
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"failure_message: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"failure_message": failure_message}
