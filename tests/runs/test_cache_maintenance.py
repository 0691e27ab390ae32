# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role cache_maintenance, used alone, on real servers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import run_tasks
from tests.fixtures.http import HttpServer
from tests.fixtures.redis import RedisFactory
from tests.harness import ROOT
from tests.platform.parts.redis import RedisServer, seed

pytestmark = pytest.mark.slow

PASSWORD = "hunter2-hunter2"


def _run_role(catalogue: list[dict[str, Any]], folder: Path, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """Run the role on localhost and return the outcome it leaves; the run must succeed and print no password."""
    outcome = folder / "outcome.json"
    tasks: list[dict[str, Any]] = [
        {"name": "Look after", "ansible.builtin.include_role": {"name": "upkeep.ops.cache_maintenance"}},
        {
            "name": "Keep the outcome",
            "ansible.builtin.copy": {"content": "{{ upkeep_outcome | to_json }}", "dest": str(outcome), "mode": "0600"},
            "check_mode": False,
        },
    ]
    variables = {"upkeep_redis": catalogue, "cache_maintenance_interval": 0.1, "upkeep_fail_on": "never", **more}
    told = run_tasks(tasks, variables, check=check)
    assert PASSWORD not in told
    left: dict[str, Any] = json.loads(outcome.read_text())
    return left


def _entry(server: RedisServer, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "host": server.host, "port": server.port, "password": server.password, **more}


def _expire(server: RedisServer, count: int) -> None:
    server.cli("debug", "set-active-expire", "0")
    with server.client().pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"gone:{number}", number, px=1)
        pipeline.execute()
    time.sleep(0.01)


def _finding(outcome: dict[str, Any], check: str, subject: str) -> dict[str, Any]:
    (found,) = [each for each in outcome["findings"] if (each["check"], each["subject"]) == (check, subject)]
    return dict(found)


def test_servers_are_judged_swept_configured_and_warmed_up(
    start_redis: RedisFactory, http_server: HttpServer, tmp_path: Path
) -> None:
    cache = start_redis("cache", password=PASSWORD, config=["maxmemory 64mb"])
    store = start_redis("store", password=PASSWORD)
    replica = start_redis(
        "replica", password=PASSWORD, config=[f"replicaof 127.0.0.1 {store.port}", f"masterauth {PASSWORD}"]
    )
    for server in (cache, store):
        seed(server.client(), 1000)
        _expire(server, 700)
    asked = {"urls": [f"{http_server.url}/up"], "keys": ["hash:70", "absent"], "rate": 100}
    catalogue = [
        _entry(cache, "cache", use="cache", maxmemory_policy="allkeys-lru", warm_up=asked),
        _entry(store, "store", use="store", maxmemory_policy="allkeys-lru"),
        _entry(replica, "replica", use="store"),
        {"name": "gone", "host": "127.0.0.1", "port": 1, "password": PASSWORD, "maxmemory_policy": "allkeys-lru"},
    ]
    foretold = _run_role(catalogue, tmp_path, check=True, cache_maintenance_sample_keys=300)
    assert [change.split(":")[1] for change in foretold["changes"]] == ["cache", "store", "cache", "cache"]
    assert "an estimate" in foretold["changes"][0] and "would be changed from noeviction" in foretold["changes"][2]
    assert cache.cli("config", "get", "maxmemory-policy").endswith("noeviction")
    assert "redis_expired_swept:cache" not in foretold["artifacts"]["metrics"]
    assert not [path for _method, path, _headers in http_server.seen if path == "/up"]

    left = int(cache.cli("dbsize")) - 1001
    done = _run_role(catalogue, tmp_path, cache_maintenance_sample_keys=300)
    assert int(cache.cli("dbsize")) == 1001 and int(store.cli("dbsize")) == 1001
    metrics = done["artifacts"]["metrics"]
    # The look at a sample met some of them before the sweep did.
    assert 0 < metrics["redis_expired_swept:cache"] <= left and "redis_expired_swept:replica" not in metrics
    assert metrics["redis_used_bytes:store"] > 1_000_000 and metrics["redis_keys:cache"] > 1000
    swept = _finding(done, "expired_present", "redis:cache")
    assert swept["status"] == "ok" and "swept since" in swept["summary"]
    assert cache.cli("config", "get", "maxmemory-policy").endswith("allkeys-lru")
    assert store.cli("config", "get", "maxmemory-policy").endswith("noeviction")
    refused = _finding(done, "policy_change", "redis:store")
    assert refused["status"] == "unknown" and "is a store" in refused["summary"]
    assert "nothing listens there" in _finding(done, "redis_look", "redis:gone")["summary"]
    assert not [each for each in done["findings"] if each["subject"] == "redis:gone" and each["check"] != "redis_look"]
    assert _finding(done, "warm_up", "redis:cache")["status"] == "ok"
    assert [path for _method, path, _headers in http_server.seen if path == "/up"] == ["/up"]
    (told,) = [each for each in done["artifacts"]["redis"] if each["name"] == "replica"]
    assert told["role"] == "replica" and told["prefixes"]

    again = _run_role(catalogue[:2], tmp_path)
    assert [change.split(":")[1] for change in again["changes"]] == ["cache"], "only the URLs were asked for again"


def test_an_empty_catalogue_has_nothing_to_tell(tmp_path: Path) -> None:
    outcome = _run_role([], tmp_path)
    assert outcome == {"findings": [], "changes": [], "artifacts": {"metrics": {}, "redis": []}}


def test_the_playbook_keeps_the_figures_in_history(redis_server: RedisServer, tmp_path: Path) -> None:
    seed(redis_server.client(), 300)
    _expire(redis_server, 400)
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    catalogue = {
        "upkeep_site": "test",
        "upkeep_state": str(tmp_path / "state"),
        "upkeep_redis": [_entry(redis_server, "cache", use="cache")],
        "cache_maintenance_interval": 0.1,
        "cache_maintenance_sample_keys": 0,
    }
    groups = {"recorder": {"hosts": {"localhost": local}}, "backup": {"hosts": {"data1": local}}}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"vars": catalogue, "children": groups}}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "playbooks/cache_maintenance.yml"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout
    assert redis_server.cli("dbsize") == "301"
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "history.sqlite3")) as history:
        found = dict(history.execute("SELECT name, value FROM metrics").fetchall())
    assert found["redis_expired_swept:cache"] == 400 and found["redis_keys:cache"] == 704
