# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: redis_login
short_description: Say how a Redis server of the catalogue is reached
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Makes the options C(login_*), C(tls) and the like of the Redis modules from an entry of C(upkeep_redis), for use in
    C(module_defaults). What is empty in the catalogue is as if it were not there.
options:
  _input:
    description: The entry; an empty one gives no options.
    type: dict
    required: true
  sentinel:
    description:
      - Whether the module knows the options C(sentinel_*).
      - Without them nobody can say how a server is reached that only Sentinel knows, and there are no options for it.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Take a snapshot of each server
  module_defaults:
    upkeep.ops.redis_snapshot: "{{ item | upkeep.ops.redis_login }}"
  upkeep.ops.redis_snapshot:
    dest: /var/backups/{{ item.name }}.rdb.zst
  loop: "{{ upkeep_redis }}"
  no_log: true
"""

RETURN = r"""
_value:
  description: The options.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

#: Options of the modules, and what the catalogue calls them.
_SERVER = {
    "login_port": "port",
    "login_unix_socket": "unix_socket",
    "login_user": "username",
    "login_password": "password",
    "tls": "tls",
    "validate_certs": "validate_certs",
    "ca_certs": "ca_certs",
    "client_cert_file": "client_cert_file",
    "client_key_file": "client_key_file",
}
_SENTINEL = {
    "sentinel_hosts": "hosts",
    "sentinel_master": "master",
    "sentinel_user": "username",
    "sentinel_password": "password",
}


def redis_login(server: Mapping[str, Any], sentinel: bool = True) -> dict[str, Any]:
    """The options by which a module reaches the server."""
    watched = server.get("sentinel") or {}
    if not server or (watched and not sentinel):
        return {}
    return {
        "login_host": server.get("host") or "localhost",
        **_given(_SERVER, server),
        **_given(_SENTINEL, watched),
    }


def _given(names: Mapping[str, str], entry: Mapping[str, Any]) -> dict[str, Any]:
    return {option: entry[name] for option, name in names.items() if entry.get(name) not in (None, "", [])}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"redis_login": redis_login}
