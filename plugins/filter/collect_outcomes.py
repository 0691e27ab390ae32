# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: collect_outcomes
short_description: Gather what the procedures of a run left on their hosts
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Reads the fact C(upkeep_outcomes) of every host on which a procedure was expected.
positional: variables
options:
  _input:
    description: Which procedure was expected where, a list of hosts for each name of a procedure.
    type: dict
    required: true
  variables:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Gather
  ansible.builtin.set_fact:
    outcomes: "{{ upkeep_expected | upkeep.ops.collect_outcomes(hostvars) }}"
"""

RETURN = r"""
_value:
  description: For each host that left any outcome a dictionary of them by procedure.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any


def collect_outcomes(expected: Mapping[str, Sequence[str]], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Outcomes by host and procedure; hosts that left none are not in it."""
    hosts = dict.fromkeys(host for names in expected.values() for host in names)
    left = {host: variables[host].get("upkeep_outcomes") or {} for host in hosts}
    return {host: outcomes for host, outcomes in left.items() if outcomes}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"collect_outcomes": collect_outcomes}
