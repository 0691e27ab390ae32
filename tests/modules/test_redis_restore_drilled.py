"""Restores for practice of real snapshots; redis-cli is the witness, and nothing may be left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.redis import RedisFactory
from tests.harness import run_module, start_module
from tests.platform.parts.redis import RedisServer, seed


@pytest.fixture(scope="module")
def taken(seeded_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the seeded server; read only."""
    path = tmp_path_factory.mktemp("taken") / "cache.rdb.zst"
    assert run_module("redis_snapshot", {**seeded_redis.connection(), "dest": str(path)})["changed"]
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def drill(path: Path, **options: Any) -> dict[str, Any]:
    return run_module("redis_restore", {"state": "drilled", "path": str(path), "fail_on": "never", **options})


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in answer["findings"]}


def told(answer: dict[str, Any], check: str) -> str:
    return next(str(finding["summary"]) for finding in answer["findings"] if finding["check"] == check)


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_drill_restores_everything_and_measures(seeded_redis: RedisServer, taken: Path, scratch: Path) -> None:
    answer = drill(taken, scratch_dir=str(scratch), name="redis:cache", **seeded_redis.connection())
    assert set(statuses(answer).values()) == {"ok"}
    assert {finding["subject"] for finding in answer["findings"]} == {"redis:cache"}
    found = answer["drill"]
    assert found["digest"] == seeded_redis.cli("debug", "digest")
    assert (found["keys"], found["databases"]["0"]) == (2021, {"keys": 2001, "expires": 280})
    steps = found["load_seconds"] + found["restore_seconds"] + found["compare_seconds"]
    assert 0 < steps <= found["rto_seconds"] < 30
    assert found["rpo_bytes"] == 0
    assert 0 <= found["rpo_seconds"] < 300
    assert answer["changed"] is False
    assert list(scratch.iterdir()) == []


def test_the_digest_of_earlier_loads_is_expected(seeded_redis: RedisServer, taken: Path) -> None:
    digest = seeded_redis.cli("debug", "digest")
    assert statuses(drill(taken, expected_digest=digest))["snapshot_restore"] == "ok"
    other = drill(taken, expected_digest="0" * 40)
    assert statuses(other)["snapshot_restore"] == "critical"
    assert f"the digest of the data is {digest} instead of {'0' * 40}" in told(other, "snapshot_restore")
    assert other["drill"]["digest"] is None


def test_the_recovery_point_counts_what_was_written_since(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis()
    seed(server.client(), keys=100)
    dest = tmp_path / "x.rdb"
    manifest = run_module("redis_snapshot", {**server.connection(), "dest": str(dest)})["snapshot"]
    server.client().set("later", "x" * 1000)
    answer = drill(dest, **server.connection())
    offset = int(server.client().info("replication")["master_repl_offset"])
    assert answer["drill"]["rpo_bytes"] == offset - manifest["replication_offset"] > 1000
    server.cli("debug", "change-repl-id")
    other = drill(dest, **server.connection())
    assert (other["drill"]["rpo_bytes"], other["status"]) == (None, "ok")
    assert "replication history began anew" in told(other, "recovery_point")
    assert drill(dest)["drill"]["rpo_bytes"] is None


def test_a_promoted_replica_still_knows_the_snapshot(start_redis: RedisFactory, tmp_path: Path) -> None:
    master = start_redis("master")
    seed(master.client(), keys=100)
    replica = start_redis("replica", config=[f"replicaof 127.0.0.1 {master.port}"])
    while replica.client().info("replication")["master_link_status"] != "up":
        time.sleep(0.02)
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**master.connection(), "dest": str(dest)})
    replica.cli("replicaof", "no", "one")
    replica.client().set("a", "b")
    assert 0 < drill(dest, **replica.connection())["drill"]["rpo_bytes"] < 1000


def test_a_live_server_that_is_down_is_no_reason_not_to_drill(taken: Path) -> None:
    answer = drill(taken, login_host="127.0.0.1", login_port=1)
    assert statuses(answer)["snapshot_restore"] == "ok"
    assert statuses(answer)["recovery_point"] == "unknown"
    assert "nothing listens there" in told(answer, "recovery_point")


def test_keys_that_expired_since_are_restored_and_counted(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis()
    for number in range(50):
        server.client().set(f"soon:{number}", "x", px=1500)
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**server.connection(), "dest": str(dest)})
    while server.client().dbsize():
        time.sleep(0.1)
    answer = drill(dest)
    assert answer["status"] == "ok"
    assert answer["drill"]["databases"] == {"0": {"keys": 50, "expires": 50}}


@pytest.mark.parametrize("damage", ["flipped", "missing", "no manifest"])
def test_a_snapshot_that_is_not_sound(taken: Path, tmp_path: Path, scratch: Path, damage: str) -> None:
    path = tmp_path / "cache.rdb.zst"
    content = bytearray(taken.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    if damage != "missing":
        path.write_bytes(content)
    if damage != "no manifest":
        Path(f"{path}.json").write_text(Path(f"{taken}.json").read_text())
    answer = drill(path, scratch_dir=str(scratch))
    if damage == "no manifest":
        assert (answer["status"], answer["drill"]["keys"]) == ("unknown", 2021)
        assert answer["drill"]["rpo_seconds"] is None
    else:
        assert (answer["status"], answer["drill"]["keys"], answer["drill"]["rto_seconds"]) == ("critical", None, None)
    assert list(scratch.iterdir()) == []


# --- the private servers are gone, whatever happens ---


@pytest.fixture
def stopping_server(tmp_path: Path) -> Path:
    """A redis-server that notes its pid; the second of the drill stops before it answers."""
    wrapper = tmp_path / "redis-server"
    wrapper.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, signal\n"
        "if '--version' not in sys.argv:\n"
        f"    with open({str(tmp_path / 'pids')!r}, 'a') as stream:\n"
        "        stream.write(f'{os.getpid()} ')\n"
        "    if sys.argv[1].endswith('copy/redis.conf'):\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.execvp('redis-server', ['redis-server', *sys.argv[1:]])\n"
    )
    wrapper.chmod(0o700)
    return wrapper


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_drill_takes_both_servers_along(
    taken: Path, scratch: Path, tmp_path: Path, stopping_server: Path, number: signal.Signals
) -> None:
    options = {"path": str(taken), "scratch_dir": str(scratch), "server_binary": str(stopping_server)}
    process = start_module("redis_restore", {"state": "drilled", **options})
    pids = tmp_path / "pids"
    while not pids.exists() or len(pids.read_text().split(" ")) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert all(gone(int(pid)) for pid in pids.read_text().split())
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM; the private servers were removed" in json.loads(output)["msg"]
    else:
        (left,) = scratch.iterdir()
        os.utime(left, (time.time() - 3600,) * 2)
        assert drill(taken, scratch_dir=str(scratch))["status"] == "ok"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("victim", [0, 1])
def test_a_private_server_that_is_killed_proves_nothing(
    taken: Path, scratch: Path, tmp_path: Path, stopping_server: Path, victim: int
) -> None:
    options = {"path": str(taken), "scratch_dir": str(scratch), "server_binary": str(stopping_server), "timeout": 2}
    process = start_module("redis_restore", {"state": "drilled", **options, "fail_on": "warning"})
    pids = tmp_path / "pids"
    while not pids.exists() or len(pids.read_text().split(" ")) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    first, second = (int(pid) for pid in pids.read_text().split())
    os.kill((first, second)[victim], signal.SIGKILL)
    os.kill(second, signal.SIGCONT)
    output, _ = process.communicate(timeout=30)
    answer = json.loads(output)
    assert answer["failed"]
    assert answer["drill"]["rto_seconds"] is None
    assert statuses(answer)["snapshot_restore"] == "unknown"
    assert list(scratch.iterdir()) == []
