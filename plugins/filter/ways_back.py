# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: ways_back
short_description: Say by what a service can go back to what it was
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Reads of a service in the catalogue what M(upkeep.ops.release_rollback) needs to go back with it. That is its folder
    of releases, or else the container that runs it, and its packages.
options:
  _input:
    description: The service.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Note what is in use
  upkeep.ops.release_rollback:
    releases: "{{ ways.releases | default(omit, true) }}"
    container: "{{ ways.container | default(omit, true) }}"
    packages: "{{ ways.packages }}"
  vars:
    ways: "{{ service | upkeep.ops.ways_back }}"
"""

RETURN = r"""
_value:
  description: >-
    C(releases) and C(container), empty when there is none, C(packages), and whether there is C(any) way.
  type: dict
"""

from collections.abc import Mapping
from typing import Any


def ways_back(service: Mapping[str, Any]) -> dict[str, Any]:
    """By what it can go back; a container that has releases goes back by these, for they are what it runs."""
    runner = service.get("runner") or {}
    releases = str(service.get("releases") or "")
    container = str(runner.get("container") or "") if runner.get("type") == "docker" and not releases else ""
    packages = [str(name) for name in service.get("packages") or []]
    return {
        "releases": releases,
        "container": container,
        "packages": packages,
        "any": bool(releases or container or packages),
    }


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"ways_back": ways_back}
