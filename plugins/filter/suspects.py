# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: suspects
short_description: Rank what may have caused an outage
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Ranks what may have caused an outage by what is known of health, changes, troubles, resources and logs. Each suspect
    comes with its evidence.
  - A weight, from 0 to 99, says in which order to look. It is no probability.
options:
  _input:
    description: Findings of M(upkeep.ops.service_health) about all services and what they depend on.
    type: list
    elements: dict
    required: true
  began_at:
    description: Start of the failure, RFC 3339.
    type: str
    required: true
  hosts:
    description:
      - What hosts tell, by their names, as M(upkeep.ops.recent_changes) returns it, with the findings of
        M(upkeep.ops.host_resources) as C(findings).
    type: dict
    default: {}
  services:
    description: The services of the catalogue.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Rank
  ansible.builtin.debug:
    msg: "{{ health.findings | upkeep.ops.suspects('2026-01-31T05:50:00Z', {'app1': changes}, upkeep_services) }}"
"""

RETURN = r"""
_value:
  description:
    - The suspects, likeliest first, each with C(kind), C(subject), C(host), C(weight), C(evidence), which is a list of
      sentences, and C(told), all of it in a line for people.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.module_utils._suspects import Case, rank, told
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_time


def suspects(
    findings: Sequence[Mapping[str, Any]],
    began_at: str,
    hosts: Mapping[str, Mapping[str, Any]] | None = None,
    services: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The suspects, likeliest first. Raises AnsibleFilterError when what is given is malformed."""
    try:
        ranked = rank(Case(parse_time(began_at), findings, hosts or {}, services))
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"suspects: what is given cannot be understood: {error!r}") from error
    return [{**item, "told": line} for item, line in zip(ranked, told(ranked))]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"suspects": suspects}
