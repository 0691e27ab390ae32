# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that say how servers and databases of the catalogue are reached."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.upkeep.ops.plugins.doc_fragments import _firestore_connection, _redis_connection
from ansible_collections.upkeep.ops.plugins.filter.firestore_login import firestore_login
from ansible_collections.upkeep.ops.plugins.filter.redis_login import redis_login

_SENTINEL = {"hosts": ["s1:26379"], "master": "mymaster", "password": "secret", "max_lag": 1}


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        ({}, {}),
        ({"name": "cache"}, {"login_host": "localhost"}),
        (
            {"name": "cache", "use": "cache", "host": "h", "port": 1, "username": "", "password": None, "tls": False},
            {"login_host": "h", "login_port": 1, "tls": False},
        ),
        (
            {"name": "cache", "sentinel": _SENTINEL, "username": "u"},
            {
                "login_host": "localhost",
                "login_user": "u",
                "sentinel_hosts": ["s1:26379"],
                "sentinel_master": "mymaster",
                "sentinel_password": "secret",
            },
        ),
    ],
)
def test_redis_options_are_those_that_the_catalogue_gives(entry: dict[str, Any], options: dict[str, Any]) -> None:
    assert redis_login(entry) == options


def test_a_server_that_only_sentinel_knows_cannot_be_reached_without_it() -> None:
    assert redis_login({"name": "cache", "sentinel": _SENTINEL}, sentinel=False) == {}
    assert redis_login({"name": "cache", "host": "h", "sentinel": {}}, sentinel=False) == {"login_host": "h"}


def test_firestore_options_are_those_that_the_catalogue_gives() -> None:
    entry = {"name": "main", "project": "p", "bucket": "gs://b", "emulator_host": "", "impersonate": "a@b"}
    assert firestore_login(entry) == {"project": "p", "impersonate_service_account": "a@b"}


def test_every_option_of_a_connection_can_be_given() -> None:
    server = dict.fromkeys(
        ("port", "unix_socket", "username", "password", "tls", "validate_certs", "ca_certs", "client_cert_file"), "x"
    )
    given = redis_login({**server, "client_key_file": "x", "sentinel": {**_SENTINEL, "username": "u"}})
    known = yaml.safe_load(_redis_connection.ModuleDocFragment.DOCUMENTATION)["options"]
    assert {name for name in given if not name.startswith("sentinel_")} <= set(known)
    assert {name for name in known if name.startswith(("login_", "tls", "validate_", "ca_", "client_"))} <= set(given)
    names = ("project", "database", "emulator_host", "admin_endpoint", "storage_endpoint", "service_account_file")
    database = firestore_login({**dict.fromkeys(names, "x"), "impersonate": "x"})
    known = yaml.safe_load(_firestore_connection.ModuleDocFragment.DOCUMENTATION)["options"]
    assert set(database) == set(known) - {"timeout"}
