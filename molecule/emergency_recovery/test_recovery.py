# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user outside saw of the recovery, what every host holds after it, and what the recorder tells of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

testinfra_hosts = ["local://"]

_ROOT = Path(__file__).resolve().parents[2] / ".cache" / "molecule-emergency-recovery"
_SENTINELS = ("gateway1", "app1", "data2")
_LONGEST = 150  # seconds of downtime on a machine that is busy with other tests


def _host(name: str) -> Host:
    return testinfra.get_host(f"docker://upkeep-{name}")


def _redis(name: str, words: str) -> str:
    return str(_host(name).check_output(f"redis-cli --no-auth-warning -a not-a-secret {words}"))


@pytest.fixture(scope="module")
def recovery() -> dict[str, Any]:
    """The journal of the last recovery."""
    return dict(json.loads(sorted((_ROOT / "state" / "recovery").glob("2*.json"))[-1].read_text()))


@pytest.fixture(scope="module")
def history() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{_ROOT / 'state' / 'history.sqlite3'}?mode=ro", uri=True)) as connection:
        yield connection


@pytest.fixture(scope="module")
def answers() -> list[Any]:
    """Moment, service, status and Retry-After (or the error) of each answer that the user got."""
    return [json.loads(line) for line in (_ROOT / "answers.jsonl").read_text().splitlines()]


def _noted(recovery: dict[str, Any], step: str) -> dict[str, float]:
    """When the journal noted that a step was begun and has ended, in whole seconds."""
    entries = [entry for entry in recovery["entries"] if entry["step"] == step]
    return {entry["phase"]: datetime.fromisoformat(entry["at"].replace("Z", "+00:00")).timestamp() for entry in entries}


def test_users_were_told_to_wait_and_saw_nothing_else(answers: list[Any]) -> None:
    for service in ("auth-service", "chat-service", "news-service"):
        seen = [(status, told) for _at, name, status, told in answers if name == service]
        served, closed = (200, ""), (503, "300")  # the recovery that went back, then the one that succeeded
        assert [answer for answer, _same in groupby(seen)] == [served, closed, served, closed, served], service
        assert len(seen) > 100


def test_downtime_is_what_users_saw(recovery: dict[str, Any], history: sqlite3.Connection, answers: list[Any]) -> None:
    on, off = _noted(recovery, "maintenance on"), _noted(recovery, "maintenance off")
    refused = [at for at, _service, status, _told in answers if status == 503 and at >= on["begun"]]
    last = max(at for at, _service, status, _told in answers if status == 200 and at < refused[0])
    first = min(at for at, _service, status, _told in answers if status == 200 and at > refused[-1])
    assert last < on["ended"] + 1, "closed within this step"
    assert off["begun"] <= first and refused[-1] < off["ended"] + 1, "opened within this step"
    told = dict(history.execute("SELECT name, value FROM metrics WHERE name LIKE 'recovery%'"))
    assert told["recovery_downtime_seconds"] == off["ended"] - on["ended"] < told["recovery_rto_seconds"]
    assert first - last < _LONGEST
    print(f"users saw {first - last:.1f} s of downtime, {told['recovery_downtime_seconds']:.0f} s are told")


def test_primary_and_replica_hold_the_set(recovery: dict[str, Any]) -> None:
    folder = f"/var/backups/upkeep-recovery/{recovery['plan']['set']}"
    (snapshot,) = json.loads(_host("data2").file(f"{folder}/manifest.json").content_string)["parts"]
    assert snapshot["details"]["role"] == "replica"
    assert _redis("data1", "wait 1 30000") == "1"
    digests = {_redis(name, "debug digest") for name in ("data1", "data2")}
    digests |= {_host(name).file("/root/digest-before").content_string.strip() for name in ("data1", "data2")}
    verified = json.loads(_host("data2").file(f"{folder}/verification.json").content_string)
    assert len(digests) == 1 and digests.pop() in json.dumps(verified)


def test_replication_and_settings_are_as_they_were() -> None:
    assert "role:master" in _redis("data1", "info replication")
    replica = _redis("data2", "info replication")
    assert "role:slave" in replica and "master_link_status:up" in replica
    assert _redis("data1", "config get masterauth").split() == ["masterauth", "not-a-secret"]
    assert _redis("data1", "config get replica-read-only").split() == ["replica-read-only", "yes"]


@pytest.mark.parametrize("name", _SENTINELS)
def test_failover_was_held_off_and_is_as_it_was(name: str) -> None:
    host = _host(name)
    ask = "redis-cli -p 26379 --no-auth-warning -a not-a-secret-either --json sentinel master cache"
    watched = json.loads(host.check_output(ask))
    address = host.check_output("getent ahostsv4 data1").split()[0]
    wanted = {"ip": address, "flags": "master", "down-after-milliseconds": "2000", "quorum": "2", "config-epoch": "0"}
    wanted |= {"num-slaves": "1", "num-other-sentinels": "2", "failover-timeout": "10000"}
    assert {key: watched[key] for key in wanted} == wanted
    started = host.check_output("systemctl show --property InvocationID --value redis-sentinel")
    log = host.check_output(f"journalctl _SYSTEMD_INVOCATION_ID={started} --output cat")
    told = [line.rpartition(" ")[2] for line in log.splitlines() if "down-after-milliseconds" in line]
    assert told and told == ["86400000", "2000"] * (len(told) // 2)
    for event in ("+odown", "+try-failover", "+switch-master", "+sdown master"):
        assert event not in log


@pytest.mark.parametrize("name", ["gateway1", "app1", "app2", "data1", "data2"])
def test_nothing_of_it_is_left_on_a_host(name: str) -> None:
    host = _host(name)
    servers = {"gateway1": 1, "app1": 1, "data1": 1, "data2": 2}.get(name, 0)  # Redis and Sentinels
    assert len(host.process.filter(comm="redis-server")) == servers
    assert host.check_output("find /tmp -maxdepth 1 -name 'upkeep-scratch-*'") == ""


def test_services_and_gateway_are_open() -> None:
    assert _host("app1").service("auth-service").is_running and _host("app2").service("auth-service").is_running
    assert _host("app2").service("chat-service").is_running and _host("app1").service("news-service").is_running
    assert _host("gateway1").check_output("ls /etc/nginx/upkeep/flags") == ""


def test_the_recorder_tells_it_from_beginning_to_end(recovery: dict[str, Any], history: sqlite3.Connection) -> None:
    assert recovery["state"] == "recovered" and not (_ROOT / "state" / "recovery" / ".lock").exists()
    # The recovery that could not go back left its incident open, and was told there, as was its way back.
    ((identifier, services, recovered),) = history.execute("SELECT id, services, recovered_at FROM incidents")
    assert json.loads(services) == ["auth-service", "chat-service"] and recovered
    events = history.execute(
        "SELECT stage, text FROM incident_events WHERE incident_id = ? ORDER BY rowid", [identifier]
    )
    timeline = " | ".join(f"{stage}: {text}" for stage, text in events)
    half_way, back = "half way and could not go back", "begins: What an earlier run had begun is taken back"
    ends = (half_way, back, "everything is as it was before")
    stages = (
        "opened",
        *ends,
        f"{recovery['id']} begins",
        "maintenance on",
        "services stopped",
        "restore redis:cache",
        "services started",
    )
    place = 0
    for stage in (*stages, "has ended: the platform runs on set", "recovered after"):
        assert stage in timeline[place:], stage
        place = timeline.index(stage, place)
    told = (_ROOT / "told.log").read_text()
    assert all(f"recovery {recovery['id']}{words}" in told for words in (" begins", ", maintenance on", " has ended"))
