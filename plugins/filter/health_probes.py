# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: health_probes
short_description: Make the probes of a host from the catalogue of a site
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Makes the option C(probes) of M(upkeep.ops.service_health) from services, Redis servers and Firestore databases.
  - Services, servers and databases with C(hosts) are probed on these hosts, others on every host. A host that looks
    from outside probes them all.
  - Servers and databases are named C(redis:NAME) and C(firestore:NAME), as C(depends_on) of a service calls them. A
    dependency that another host probes is left out; one that the catalogue does not know is an error.
  - Of a server with C(sentinel) the master is probed that the Sentinels name.
positional: host
options:
  _input:
    description: The services, as in C(upkeep_services). One without C(health) is not probed.
    type: list
    elements: dict
    required: true
  host:
    description: Inventory name of the host that probes, or empty for one that looks from outside.
    type: str
    default: ""
  redis:
    description: Redis servers, as in C(upkeep_redis).
    type: list
    elements: dict
    default: []
  firestore:
    description: Firestore databases, as in C(upkeep_firestore).
    type: list
    elements: dict
    default: []
  extra:
    description: Further probes, with their names.
    type: list
    elements: dict
    default: []
  defaults:
    description: What every probe has that does not say otherwise, such as C(attempts). None means nothing.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Probe what runs on this host
  upkeep.ops.service_health:
    probes: "{{ upkeep_services | upkeep.ops.health_probes(inventory_hostname, redis=upkeep_redis) }}"
"""

RETURN = r"""
_value:
  description: The probes.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Item = Mapping[str, Any]

_REDIS = (
    *("host", "port", "unix_socket", "username", "password"),
    *("tls", "validate_certs", "ca_certs", "client_cert_file", "client_key_file"),
)
_PLACE = ("host", "port", "unix_socket")
#: Options of a probe, and what the catalogue calls them in sentinel.
_SENTINEL = {
    "sentinel_hosts": "hosts",
    "sentinel_master": "master",
    "sentinel_user": "username",
    "sentinel_password": "password",
}
_FIRESTORE = ("project", "database", "emulator_host", "service_account_file")


def health_probes(
    services: Sequence[Item],
    host: str = "",
    redis: Sequence[Item] = (),
    firestore: Sequence[Item] = (),
    extra: Sequence[Item] = (),
    defaults: Item | None = None,
) -> list[dict[str, Any]]:
    """The probes of one host; raises AnsibleFilterError for a dependency that nobody knows."""
    common = {name: value for name, value in (defaults or {}).items() if value is not None}
    catalogue = [(service, _service_probe(service)) for service in services if service.get("health")]
    catalogue += [(server, _redis_probe(server)) for server in redis]
    catalogue += [(database, _data_probe("firestore", database, _FIRESTORE)) for database in firestore]
    known = {str(item["name"]) for item in (*services, *extra)} | {probe["name"] for _item, probe in catalogue}
    probes = [{**common, **probe} for item, probe in catalogue if not host or host in item.get("hosts", [host])]
    probes += [{**common, **probe} for probe in extra]
    here = {probe["name"] for probe in probes}
    for probe in probes:
        wanted = probe.get("depends_on", [])
        unknown = sorted(set(wanted) - known)
        if unknown:
            raise AnsibleFilterError(
                f"{probe['name']} depends on {', '.join(unknown)}, which the catalogue does not know: "
                "names are those of services, redis:NAME and firestore:NAME"
            )
        probe["depends_on"] = [name for name in wanted if name in here]
    return probes


def _service_probe(service: Item) -> dict[str, Any]:
    return {**_bare(str(service["name"]), service), **service["health"]}


def _redis_probe(server: Item) -> dict[str, Any]:
    watched = server.get("sentinel") or {}
    if not watched:
        return _data_probe("redis", server, _REDIS)
    told = {option: watched[name] for option, name in _SENTINEL.items() if watched.get(name) not in (None, "")}
    return {**_data_probe("redis", server, [name for name in _REDIS if name not in _PLACE]), **told}


def _data_probe(kind: str, item: Item, options: Sequence[str]) -> dict[str, Any]:
    """The probe of a server or database. What is empty in the catalogue is as if it were not there."""
    given = {name: item[name] for name in options if item.get(name) not in (None, "")}
    if "unix_socket" in given:
        given.pop("host", None)
    return {**_bare(f"{kind}:{item['name']}", item), "type": kind, **given}


def _bare(name: str, item: Item) -> dict[str, Any]:
    return {"name": name, "critical": item.get("critical", True), "depends_on": item.get("depends_on", [])}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"health_probes": health_probes}
