# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restart_order
short_description: Choose services of the catalogue, each after those that it depends on
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Chooses services by name and puts them into the order in which they are started.
  - Dependencies that were not chosen, Redis servers and Firestore databases do not matter here.
positional: names, host
options:
  _input:
    description: The services, as in C(upkeep_services).
    type: list
    elements: dict
    required: true
  names:
    description: Names of the wanted services, as a list or separated by commas; V(all) is all of them.
    type: raw
    required: true
  host:
    description: Only services that run on this host. Empty for all.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Restart what runs here
  upkeep.ops.service_control:
    state: restarted
    services: "{{ upkeep_services | upkeep.ops.restart_order('auth-service,chat-service', inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The chosen services.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Item = Mapping[str, Any]


def restart_order(services: Sequence[Item], names: str | Sequence[str], host: str = "") -> list[Item]:
    """The wanted services of a host; raises AnsibleFilterError for unknown names and for a circle."""
    known = {str(service["name"]): service for service in services}
    wanted = _names(names, known)
    ordered: list[str] = []
    for name in wanted:
        _place(name, known, ordered, [])
    chosen = [known[name] for name in ordered if name in wanted]
    return [service for service in chosen if not host or host in service.get("hosts", [host])]


def _names(names: str | Sequence[str], known: Mapping[str, Item]) -> list[str]:
    listed = names.split(",") if isinstance(names, str) else names
    wanted = [str(name).strip() for name in listed if str(name).strip()]
    if wanted == ["all"]:
        return list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        told = f"there is no service {', '.join(unknown)}" if unknown else "no service is named"
        raise AnsibleFilterError(f"{told}: name all, or some of {', '.join(known)}")
    return wanted


def _place(name: str, known: Mapping[str, Item], ordered: list[str], path: list[str]) -> None:
    """Put a service behind everything that it depends on, by whatever way."""
    if name in path:
        raise AnsibleFilterError(f"services depend on each other in a circle: {' -> '.join([*path, name])}")
    if name in ordered:
        return
    for dependency in known[name].get("depends_on") or []:
        if dependency in known:
            _place(str(dependency), known, ordered, [*path, name])
    ordered.append(name)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"restart_order": restart_order}
