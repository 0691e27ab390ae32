# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter health_probes: from the catalogue to probes."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.filter.health_probes import health_probes

URL = {"type": "http", "url": "http://127.0.0.1/health"}


def test_the_catalogue_of_the_architecture() -> None:
    services: list[dict[str, object]] = [
        {"name": "auth", "critical": False, "depends_on": ["redis:cache", "chat"], "hosts": ["app1"], "health": URL},
        {"name": "chat", "hosts": ["app2"], "health": URL},
        {"name": "batch", "runner": {"type": "systemd", "unit": "batch"}},
    ]
    redis = [{"name": "cache", "use": "cache", "host": "127.0.0.1", "port": 6379, "username": "", "password": "p"}]
    firestore = [{"name": "main", "project": "p", "bucket": "gs://b", "collections": [], "emulator_host": ""}]
    extra = [{"name": "disk", "type": "command", "argv": ["true"], "attempts": 1}]
    probes = health_probes(services, "app1", redis, firestore, extra, {"attempts": 3, "latency_warning_ms": None})
    assert probes == [
        {"name": "auth", "critical": False, "depends_on": ["redis:cache"], "attempts": 3, **URL},
        {
            "name": "redis:cache",
            "critical": True,
            "depends_on": [],
            "attempts": 3,
            "type": "redis",
            "host": "127.0.0.1",
            "port": 6379,
            "password": "p",
        },
        {
            "name": "firestore:main",
            "critical": True,
            "depends_on": [],
            "attempts": 3,
            "type": "firestore",
            "project": "p",
        },
        {"name": "disk", "type": "command", "argv": ["true"], "attempts": 1, "depends_on": []},
    ]


def test_from_outside_everything_is_probed() -> None:
    services = [{"name": "auth", "hosts": ["app1"], "depends_on": ["chat"], "health": URL}]
    services.append({"name": "chat", "hosts": ["app2"], "health": URL})
    assert [(probe["name"], probe["depends_on"]) for probe in health_probes(services)] == [
        ("auth", ["chat"]),
        ("chat", []),
    ]


def test_a_unix_socket_goes_before_a_host() -> None:
    redis = [{"name": "cache", "host": "127.0.0.1", "port": 6379, "unix_socket": "/run/redis.sock"}]
    assert "host" not in health_probes([], "app1", redis)[0]


def test_sentinels_take_the_place_of_host_and_port() -> None:
    sentinel = {"hosts": ["sentinel1:26379"], "master": "cache", "username": "", "password": "s", "max_lag": 1}
    watched = {"name": "cache", "host": "h", "port": 1, "password": "p", "sentinel": sentinel}
    services = [{"name": "auth", "depends_on": ["redis:cache"], "health": URL}]
    auth, cache = health_probes(services, redis=[watched])
    assert auth["depends_on"] == ["redis:cache"]
    assert cache == {
        "name": "redis:cache",
        "critical": True,
        "depends_on": [],
        "type": "redis",
        "password": "p",
        "sentinel_hosts": ["sentinel1:26379"],
        "sentinel_master": "cache",
        "sentinel_password": "s",
    }


def test_a_dependency_that_nobody_knows_is_an_error() -> None:
    services = [{"name": "auth", "depends_on": ["redis:cahce"], "health": URL}]
    with pytest.raises(AnsibleFilterError, match="auth depends on redis:cahce, which the catalogue does not know"):
        health_probes(services, "app1", [{"name": "cache"}])


def test_the_catalogue_is_not_changed() -> None:
    services = [{"name": "auth", "depends_on": ["chat"], "health": URL}, {"name": "chat", "hosts": [], "health": URL}]
    health_probes(services, "app1")
    assert services[0]["depends_on"] == ["chat"]
