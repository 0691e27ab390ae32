# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: sparkline
short_description: Draw a series of figures as a small SVG
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Draws a line through a series, spaced by time, for a page that carries its plots in itself.
options:
  _input:
    description: Pairs of a point in time (RFC 3339) and a number.
    type: list
    elements: list
    required: true
"""

EXAMPLES = r"""
- name: Draw
  ansible.builtin.debug:
    msg: "{{ [['2026-01-30T06:00:00Z', 41.5], ['2026-01-31T06:00:00Z', 42]] | upkeep.ops.sparkline }}"
"""

RETURN = r"""
_value:
  description: An SVG element.
  type: str
"""

from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._plots import sparkline
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_time


def draw(points: list[list[Any]]) -> str:
    """The series as an SVG element."""
    return sparkline([(parse_time(moment), float(value)) for moment, value in points])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"sparkline": draw}
