# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: run_summary
short_description: Sum up a run as lines of text
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - The same table that the callback P(upkeep.ops.summary#callback) prints, for places where it is not enabled.
positional: width
options:
  _input:
    description: The fact C(upkeep_run_summary) that the role C(run) leaves on the recorder.
    type: dict
    required: true
  width:
    description: Columns to fill.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Show the summary
  ansible.builtin.debug:
    msg: "{{ upkeep_run_summary | upkeep.ops.run_summary }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._summary import summary_lines


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"run_summary": summary_lines}
