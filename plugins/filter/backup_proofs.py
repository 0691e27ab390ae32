# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_proofs
short_description: Say whether backups can be restored
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Says for each host that keeps backup sets when it was last proved that they can be restored, and by what.
options:
  _input:
    description: What M(upkeep.ops.maintenance_history) returned, of which C(verifications) and C(drills) are used.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell
  ansible.builtin.debug:
    msg: "{{ closed | upkeep.ops.backup_proofs | map(attribute='summary') | list }}"
"""

RETURN = r"""
_value:
  description: For each host C(host), C(status), C(summary) and C(lines), what the summary rests on.
  type: list
  elements: dict
"""

from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_proofs import backup_proofs


def told(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdict on the backups of each host."""
    return backup_proofs(data.get("verifications") or [], data.get("drills") or [])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"backup_proofs": told}
