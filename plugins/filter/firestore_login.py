# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: firestore_login
short_description: Say how a Firestore database of the catalogue is reached
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Makes the options that name a database and how it is reached, which the Firestore modules share, from an entry of
    C(upkeep_firestore), for use in C(module_defaults). What is empty in the catalogue is as if it were not there.
options:
  _input:
    description: The entry.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Count the documents of each database
  module_defaults:
    group/upkeep.ops.firestore: "{{ item | upkeep.ops.firestore_login }}"
  upkeep.ops.firestore_usage:
    name: "{{ item.name }}"
  loop: "{{ upkeep_firestore }}"
"""

RETURN = r"""
_value:
  description: The options.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

#: Options of the modules, and what the catalogue calls them.
_NAMES = {
    "project": "project",
    "database": "database",
    "emulator_host": "emulator_host",
    "admin_endpoint": "admin_endpoint",
    "storage_endpoint": "storage_endpoint",
    "service_account_file": "service_account_file",
    "impersonate_service_account": "impersonate",
}


def firestore_login(database: Mapping[str, Any]) -> dict[str, Any]:
    """The options by which a module reaches the database."""
    return {option: database[name] for option, name in _NAMES.items() if database.get(name) not in (None, "")}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"firestore_login": firestore_login}
