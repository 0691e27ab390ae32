# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: finding
short_description: Make a finding in a role
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Makes a finding as the modules of this collection return it, for what only a role can know.
positional: subject, status, summary
options:
  _input:
    description: Name of the check, which stays the same from run to run.
    type: str
    required: true
  subject:
    description: What was checked.
    type: str
    required: true
  status:
    description: What came of it.
    type: str
    choices: [ok, warning, unknown, critical]
    required: true
  summary:
    description: One sentence for a person.
    type: str
    required: true
  hint:
    description: What to do next.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Tell that there was nothing to do
  ansible.builtin.set_fact:
    upkeep_outcome:
      findings: ["{{ 'backup_made' | upkeep.ops.finding('backup', 'ok', 'the newest set is young enough') }}"]
      changes: []
      artifacts: {}
"""

RETURN = r"""
_value:
  description: The finding. It was observed now.
  type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, utc_now


def finding(check: str, subject: str, status: str, summary: str, hint: str = "") -> dict[str, Any]:
    """A finding that is observed now. Raises AnsibleFilterError when the status is none."""
    try:
        return Finding(check, subject, status, summary, isoformat(utc_now()), hint=hint).as_dict()
    except ValueError as error:
        raise AnsibleFilterError(f"finding: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"finding": finding}
