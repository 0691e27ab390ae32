# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that check and return findings."""

    DOCUMENTATION = r"""
options:
  fail_on:
    description:
      - From which severity of a finding on the task fails. The findings are returned either way.
      - V(warning) fails on warning, unknown and critical; V(critical) on critical alone; V(never) never.
    type: str
    choices: [never, critical, warning]
    default: critical
"""
