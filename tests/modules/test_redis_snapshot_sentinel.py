"""Snapshots where Sentinel knows the servers: a real master with two replicas and a Sentinel."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks
from tests.harness import run_module
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import RedisServer, seed
from tests.platform.parts.sentinel import Sentinel

PASSWORD, SENTINEL_PASSWORD = "the servers' password", "the sentinels' password"


@dataclass(frozen=True)
class Deployment:
    master: RedisServer
    replicas: list[RedisServer]
    sentinel: Sentinel

    def snapshot(self, dest: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
        login = {"login_password": PASSWORD, "sentinel_password": SENTINEL_PASSWORD, "timeout": 3}
        where = {"sentinel_hosts": [self.sentinel.address], "sentinel_master": self.sentinel.name}
        return run_module("redis_snapshot", {**login, **where, "dest": str(dest), **options}, check=check)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("sentinel")
    with ExitStack() as started:
        master = started.enter_context(RedisServer(folder / "master", name="master", password=PASSWORD))
        seed(master.client(), 300)
        following = [f"replicaof 127.0.0.1 {master.port}", f'masterauth "{PASSWORD}"']
        replicas = [
            started.enter_context(RedisServer(folder / name, name=name, password=PASSWORD, config=following))
            for name in ("one", "two")
        ]
        for replica in replicas:
            _wait_until(lambda replica=replica: _replication(replica)["master_link_status"] == "up")
        sentinel = started.enter_context(Sentinel(folder / "sentinel", master, password=SENTINEL_PASSWORD))
        _wait_until(lambda: sentinel.replicas() == 2, 15)
        yield Deployment(master, replicas, sentinel)


def test_the_snapshot_is_taken_from_a_replica_and_the_manifest_says_so(deployment: Deployment, tmp_path: Path) -> None:
    dest = tmp_path / "cache.rdb"
    syncs = _full_syncs(deployment.master)
    foretold = deployment.snapshot(dest, check=True)
    assert "replica redis://" in foretold["message"] and not dest.exists()
    taken = deployment.snapshot(dest)
    manifest = json.loads(Path(f"{dest}.json").read_text())
    replicas = [f"redis://127.0.0.1:{replica.port}" for replica in deployment.replicas]
    assert manifest["source"] in replicas and taken["snapshot"]["source"] == manifest["source"]
    assert manifest["role"] == "replica" and manifest["sentinel_master"] == "mymaster"
    assert manifest["master"] == f"redis://127.0.0.1:{deployment.master.port}"
    assert 0 <= manifest["lag_bytes"] <= 1 << 20
    assert f"is {manifest['lag_bytes']} bytes behind its master" in manifest["chosen"]
    assert manifest["databases"]["0"]["keys"] == 301 and taken["message"].endswith(manifest["chosen"])
    assert _full_syncs(deployment.master) == syncs, "the master was spared"
    verified = run_module("redis_verify", {"path": str(dest), "level": 2})
    assert verified["status"] == "ok"
    again = deployment.snapshot(dest, max_age="1h")
    assert not again["changed"] and again["snapshot"] == taken["snapshot"]


def test_a_replica_that_lost_its_master_is_passed_over(deployment: Deployment, tmp_path: Path) -> None:
    lost, other = deployment.replicas
    with _following(lost, deployment.master, free_port()):
        taken = deployment.snapshot(tmp_path / "x.rdb")["snapshot"]
        assert taken["source"].endswith(f":{other.port}") and taken["role"] == "replica"
        assert f"redis://127.0.0.1:{lost.port}: its link to the master is down" in taken["chosen"]
        with _following(other, deployment.master, free_port()):
            taken = deployment.snapshot(tmp_path / "x.rdb")["snapshot"]
    assert (taken["role"], taken["source"]) == ("master", f"redis://127.0.0.1:{deployment.master.port}")
    assert taken["chosen"].startswith("no replica will do, so the master is taken")
    assert taken["chosen"].count("its link to the master is down") == 2


def test_a_replica_that_lags_or_hears_nothing_is_passed_over(deployment: Deployment, tmp_path: Path) -> None:
    lagging, other = deployment.replicas
    pid = lagging.process.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with deployment.master.client() as client:
            client.set("filler", b"x" * 3_000_000)
        taken = deployment.snapshot(tmp_path / "x.rdb", timeout=1)["snapshot"]
        assert taken["source"].endswith(f":{other.port}")
        assert f"redis://127.0.0.1:{lagging.port}: it did not answer within 1 s" in taken["chosen"]
    finally:
        os.kill(pid, signal.SIGCONT)
        with deployment.master.client() as client:
            client.delete("filler")
    with _late(deployment):
        taken = deployment.snapshot(tmp_path / "y.rdb", max_lag=1000)["snapshot"]
        assert taken["role"] == "master"
        assert taken["chosen"].count("bytes behind its master, 1000 are allowed") == 2
        assert taken["databases"]["0"]["keys"] == 302
    # A second of silence is more than half a second, so none is quiet enough: but now and then Sentinel greets.
    deadline = time.monotonic() + 30
    while (taken := deployment.snapshot(tmp_path / "z.rdb", max_silence=0.5)["snapshot"])["role"] != "master":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "it has heard nothing from its master for" in taken["chosen"]


def test_sentinels_are_asked_in_turn_and_each_reason_is_told(deployment: Deployment, tmp_path: Path) -> None:
    silent, live = f"127.0.0.1:{free_port()}", deployment.sentinel.address
    taken = deployment.snapshot(tmp_path / "x.rdb", sentinel_hosts=[silent, live])
    assert taken["snapshot"]["role"] == "replica"
    none = deployment.snapshot(tmp_path / "y.rdb", sentinel_hosts=[silent])
    assert none["failed"] and f"Sentinel {silent}: nothing listens there" in none["msg"], none["msg"]
    other = deployment.snapshot(tmp_path / "y.rdb", sentinel_master="other")
    assert "knows no master 'other'; it knows: mymaster" in other["msg"]
    wrong = deployment.snapshot(tmp_path / "y.rdb", sentinel_password="wrong")
    assert f"Sentinel {live}: it refuses the password" in wrong["msg"]
    server = deployment.snapshot(
        tmp_path / "y.rdb", sentinel_hosts=[f"127.0.0.1:{deployment.master.port}"], sentinel_password=PASSWORD
    )
    assert "is no Sentinel but another server" in server["msg"]
    senseless = deployment.snapshot(tmp_path / "y.rdb", sentinel_hosts=["here:and:there"])
    assert senseless["msg"].startswith("sentinel_hosts holds 'here:and:there'")
    refused = deployment.snapshot(tmp_path / "y.rdb", login_password="wrong")
    assert f"redis://127.0.0.1:{deployment.master.port}: it refuses the password" in refused["msg"]
    assert not (tmp_path / "y.rdb").exists()


def test_the_role_takes_sentinel_from_the_catalogue(deployment: Deployment, tmp_path: Path) -> None:
    sentinel = {"hosts": [deployment.sentinel.address], "master": "mymaster", "password": SENTINEL_PASSWORD}
    catalogue = {
        "upkeep_redis": [{"name": "store", "password": PASSWORD, "sentinel": sentinel}],
        "upkeep_backup": {"root": str(tmp_path / "sets")},
    }
    output = run_tasks([{"ansible.builtin.include_role": {"name": "upkeep.ops.database_backup"}}], catalogue)
    assert PASSWORD not in output and SENTINEL_PASSWORD not in output
    (manifest,) = (tmp_path / "sets").glob("2*/manifest.json")
    (part,) = json.loads(manifest.read_text())["parts"]
    assert part["details"]["role"] == "replica" and part["details"]["chosen"]


def _replication(server: RedisServer) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.info("replication"))


def _full_syncs(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("stats")["sync_full"])


@contextmanager
def _following(replica: RedisServer, master: RedisServer, port: int) -> Iterator[None]:
    """For the length of the block the replica follows a port where nobody is."""
    with replica.client() as client:
        client.replicaof("127.0.0.1", port)
        _wait_until(lambda: _replication(replica)["master_link_status"] == "down")
        try:
            yield
        finally:
            client.replicaof("127.0.0.1", master.port)
            _wait_until(lambda: _replication(replica)["master_link_status"] == "up")


@contextmanager
def _late(deployment: Deployment) -> Iterator[None]:
    """Replicas that answer but have not applied what the master wrote: it is written while they are paused."""
    with ExitStack() as ended:
        for replica in deployment.replicas:
            client = ended.enter_context(replica.client())
            client.config_set("repl-timeout", 60)
            client.client_pause(60000, all=False)
            ended.callback(client.client_unpause)
        with deployment.master.client() as client:
            client.set("filler", b"x" * 100_000)
            ended.callback(lambda: deployment.master.cli("DEL", "filler"))
        yield


def _wait_until(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
