# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which services are restarted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.filter.restart_order import restart_order

SERVICES: list[dict[str, Any]] = [
    {"name": "chat", "depends_on": ["auth", "redis:cache"], "hosts": ["app2"]},
    {"name": "auth", "depends_on": ["users"], "hosts": ["app1", "app2"]},
    {"name": "users"},
    {"name": "auth-admin", "depends_on": []},
]


def _names(*arguments: Any) -> list[str]:
    return [service["name"] for service in restart_order(SERVICES, *arguments)]


@pytest.mark.parametrize(
    "names, host, expected",
    [
        ("all", "", ["users", "auth", "chat", "auth-admin"]),
        (["all"], "app1", ["users", "auth", "auth-admin"]),
        ("auth", "app2", ["auth"]),
        ("chat, users", "", ["users", "chat"]),
        (["chat", "auth"], "app1", ["auth"]),
    ],
)
def test_each_comes_after_what_it_depends_on(names: Any, host: str, expected: list[str]) -> None:
    assert _names(names, host) == expected


@pytest.mark.parametrize("names, told", [("aut", "no service aut: name all, or some of"), ("", "no service is named")])
def test_names_that_are_none_are_told(names: str, told: str) -> None:
    with pytest.raises(AnsibleFilterError, match=told):
        _names(names)


def test_a_circle_is_told() -> None:
    circle = [{"name": "a", "depends_on": ["b"]}, {"name": "b", "depends_on": ["a"]}]
    with pytest.raises(AnsibleFilterError, match="a -> b -> a"):
        restart_order(circle, "all")
