# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: by_cause
short_description: Put findings under the ones that explain them
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - A finding whose C(parent) is the subject of another one, of the same procedure on the same host, is told under that
    one, and so is what the loss of a host explains. This also holds over several steps.
options:
  _input:
    description: Findings that are not ok, with procedure and host.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what needs somebody
  ansible.builtin.debug:
    msg: "{{ item.finding.subject }} explains {{ item.under | map(attribute='subject') | join(', ') }}"
  loop: "{{ run.findings | rejectattr('status', 'equalto', 'ok') | upkeep.ops.by_cause }}"
"""

RETURN = r"""
_value:
  description: In the order given, C(finding) with everything that it explains in C(under).
  type: list
  elements: dict
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils import _runs


def by_cause(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings with what they explain."""
    grouped = _runs.by_cause(list(findings), itemgetter(*_runs.CAUSE_FIELDS))
    return [{"finding": finding, "under": under} for finding, under in grouped]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"by_cause": by_cause}
