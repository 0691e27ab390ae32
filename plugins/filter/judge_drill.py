# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: judge_drill
short_description: Judge the drill of a backup set by its parts
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Says in one sentence what came of the drill of a set, and adds up the figures of its parts.
  - A drill passed when every part that was to be drilled was restored and compared.
options:
  _input:
    description:
      - What was found out about the parts, a list of dictionaries with C(name), and C(findings) and C(drill) as
        M(upkeep.ops.redis_restore) and M(upkeep.ops.firestore_drill) return them.
    type: list
    elements: dict
    required: true
  set:
    description: Id of the set. Empty when none was found.
    type: str
    required: true
  held:
    description: Names of all parts of the set.
    type: list
    elements: str
    required: true
  chosen:
    description: Names of the parts that were to be drilled.
    type: list
    elements: str
    required: true
  problem:
    description: What kept the drill from being made. Empty when nothing did.
    type: str
    default: ""
  check_mode:
    description: Whether nothing was restored, because of check mode.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Judge
  ansible.builtin.set_fact:
    verdict: "{{ results | upkeep.ops.judge_drill(set='20260131T235959Z', held=names, chosen=names) }}"
  vars:
    names: [redis:cache, firestore:main]
"""

RETURN = r"""
_value:
  description:
    - C(status), C(summary) and C(hint) of the verdict; C(findings) about the parts, those that the verdict tells with
      it as parent; C(evidence), those of them that say whether the set can be restored; C(figures) for
      M(upkeep.ops.backup_set); C(parts), the measurements by name of the part; and C(metrics) for trends.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._drills import PartDrill, SetDrill


def judge_drill(
    parts: Sequence[Mapping[str, Any]],
    set: str,
    held: Sequence[str],
    chosen: Sequence[str],
    problem: str = "",
    check_mode: bool = False,
) -> dict[str, Any]:
    """The verdict on a drill with its figures."""
    drilled = [PartDrill(part["name"], part.get("findings") or [], part.get("drill") or {}) for part in parts]
    return SetDrill(set, list(held), list(chosen), drilled, problem, check_mode).as_dict()


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"judge_drill": judge_drill}
