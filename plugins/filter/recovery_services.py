# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: recovery_services
short_description: Say which services stop while data is replaced, and in which order they start
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Chooses the services that depend on the parts of a backup set, themselves or through others, and groups them by
    host, in the order in which they start. They stop in the opposite order.
  - A service without C(runner), or without a host, cannot be stopped. One without C(ready) and C(health) cannot be
    asked whether it is well. Both are told.
positional: parts
options:
  _input:
    description: The services, as in C(upkeep_services).
    type: list
    elements: dict
    required: true
  parts:
    description: Parts that are restored, such as V(redis:cache).
    type: list
    elements: str
    required: true
  everywhere:
    description: Hosts of the services that name none.
    type: list
    elements: str
    default: []
  names:
    description: These services, in place of those that depend on the parts.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Tell what stops
  ansible.builtin.debug:
    msg: "{{ (upkeep_services | upkeep.ops.recovery_services(['redis:cache'], ['app1'])).batches }}"
"""

RETURN = r"""
_value:
  description: The services in three lists.
  type: dict
  contains:
    batches:
      description: Groups with C(host) and C(services), each of these as M(upkeep.ops.service_control) takes it.
      type: list
      elements: dict
    not_stopped:
      description: Names of the services that go on, because they have no C(runner) or no host.
      type: list
      elements: str
    not_asked:
      description: Names of the services that stop, and of which nobody learns whether they are well afterwards.
      type: list
      elements: str
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_steps import batches, left_out


def recovery_services(
    services: Sequence[Mapping[str, Any]],
    parts: Sequence[str],
    everywhere: Sequence[str] = (),
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Services by host, in the order in which they start, and those that are left out."""
    try:
        not_stopped, not_asked = left_out(services, parts, everywhere, names)
        found = batches(services, parts, everywhere, names)
    except ValueError as error:
        raise AnsibleFilterError(f"recovery_services: {error}") from error
    return {"batches": found, "not_stopped": not_stopped, "not_asked": not_asked}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"recovery_services": recovery_services}
