# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role health_check, used alone, on real servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks
from tests.fixtures.http import HttpServer
from tests.fixtures.redis import RedisFactory


def _run_role(catalogue: dict[str, Any], folder: Path, *, check: bool = False) -> dict[str, Any]:
    """Run the role on localhost and return the outcome it leaves; the run must succeed."""
    outcome = folder / "outcome.json"
    tasks: list[dict[str, Any]] = [
        {"name": "Check", "ansible.builtin.include_role": {"name": "upkeep.ops.health_check"}},
        {
            "name": "Keep the outcome",
            "ansible.builtin.copy": {"content": "{{ upkeep_outcome | to_json }}", "dest": str(outcome), "mode": "0600"},
            "check_mode": False,
        },
    ]
    run_tasks(tasks, catalogue, check=check)
    left: dict[str, Any] = json.loads(outcome.read_text())
    return left


def _catalogue(http: HttpServer, redis_port: int, password: str) -> dict[str, Any]:
    up, down = http.url + "/up", http.url + "/status/503"
    return {
        "upkeep_services": [
            {"name": "api-gateway", "health": {"type": "http", "url": up, "json": {"status": "UP"}}},
            {"name": "auth-service", "depends_on": ["redis:cache"], "health": {"type": "http", "url": down}},
            {"name": "elsewhere", "hosts": ["app7"], "health": {"type": "http", "url": down}},
        ],
        "upkeep_redis": [{"name": "cache", "host": "127.0.0.1", "port": redis_port, "password": password}],
        "health_check_retry_interval": 0.1,
    }


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_outcome(http_server: HttpServer, start_redis: RedisFactory, tmp_path: Path, check: bool) -> None:
    server = start_redis(password="the right one")
    catalogue = _catalogue(http_server, server.port, "a wrong one")
    outcome = _run_role({**catalogue, "upkeep_fail_on": "never"}, tmp_path, check=check)
    found = {finding["subject"]: finding for finding in outcome["findings"]}
    assert {name: finding["status"] for name, finding in found.items()} == {
        "api-gateway": "ok",
        "auth-service": "critical",
        "redis:cache": "critical",
    }
    assert found["auth-service"]["parent"] == "redis:cache"
    assert found["auth-service"]["summary"].endswith("(3 attempts)")
    assert outcome["changes"] == []
    observed = {seen["subject"]: seen["state"] for seen in outcome["artifacts"]["observations"]}
    assert observed == {"api-gateway": "up", "auth-service": "down", "redis:cache": "down"}


def test_alone_it_fails_by_itself(http_server: HttpServer, start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis()
    with pytest.raises(AssertionError, match="auth-service: answered 503"):
        _run_role(_catalogue(http_server, server.port, ""), tmp_path)
