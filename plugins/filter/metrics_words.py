# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: metrics_words
short_description: Tell figures of maintenance in words
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Turns what M(upkeep.ops.maintenance_metrics) returns as RV(upkeep.ops.maintenance_metrics#module:metrics) into rows
    of words, for reports.
options:
  _input:
    description: The figures.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell
  ansible.builtin.debug:
    msg: "{{ figures.metrics | upkeep.ops.metrics_words }}"
"""

RETURN = r"""
_value:
  description:
    - C(objectives), each with C(name), C(value), C(target), C(status) and C(how). C(services) with C(name), C(uptime),
      C(failures), C(down), C(mttr), C(planned) and C(unknown). C(failures) with C(service), C(began_at), C(ended_at)
      and C(down), newest first.
  type: dict
"""

from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._metrics_words import (
    failure_rows,
    objective_rows,
    service_rows,
)


def told(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures in words."""
    return {
        "objectives": objective_rows(metrics),
        "services": service_rows(metrics),
        "failures": failure_rows(metrics["services"]),
    }


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"metrics_words": told}
