"""Level 4: snapshots beside the live server, which goes on working, refuses, hangs or is away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.redis import RedisFactory
from tests.harness import run_module, start_module
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import SECOND_DATABASE, RedisServer, seed

READER = "reader on >pw resetkeys ~* resetchannels -@all +@read -@dangerous +info +select"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """A server with data of every kind, and a snapshot of it; tests put back what they change."""
    folder = tmp_path_factory.mktemp("live")
    with RedisServer(folder / "server", password="pass of the live", users=[READER]) as server:
        seed(server.client(), 1000)
        server.client().set(b"binary \xff\x00 key", b"\x80")
        dest = folder / "cache.rdb"
        run_module("redis_snapshot", {**server.connection(), "dest": str(dest), "compression": "none"})
        yield server, dest


def compare(server: RedisServer, path: Path, **options: Any) -> dict[str, Any]:
    arguments = {**server.connection(), "path": str(path), "level": 4, "fail_on": "never", "digest": False}
    return run_module("redis_verify", {**arguments, **options})


def verdict(answer: dict[str, Any]) -> tuple[str, str]:
    found = next(finding for finding in answer["findings"] if finding["check"] == "snapshot_live")
    return found["status"], found["summary"]


def counters(answer: dict[str, Any], *names: str) -> tuple[int, ...]:
    return tuple(answer["verification"]["spot_check"][name] for name in names)


@pytest.mark.parametrize("way", ["digests", "values"])
def test_equal_data_is_found_equal(original: tuple[RedisServer, Path], way: str) -> None:
    server, path = original
    server.client().config_resetstat()
    before = server.client().info()
    reader = {"login_user": "reader", "login_password": "pw"} if way == "values" else {}
    answer = compare(server, path, sample=2000, **reader)
    assert verdict(answer)[0] == "ok", answer
    keys = 1000 + 1 + 1 + 10
    assert counters(answer, "compared", "equal", "changed", "gone", "new") == (keys, keys, 0, 0, 0)
    assert (answer["verification"]["level"], answer["status"]) == (4, "ok")
    after = server.client().info()
    assert after["master_repl_offset"] == before["master_repl_offset"]
    assert after["rdb_changes_since_last_save"] == before["rdb_changes_since_last_save"]
    asked = {name for name in server.client().info("commandstats") if "digest" not in name}
    assert not [name for name in asked if name in ("cmdstat_keys", "cmdstat_set", "cmdstat_debug|digest")]


@pytest.mark.parametrize("way", ["digests", "values"])
def test_each_kind_of_difference_is_counted(start_redis: RedisFactory, tmp_path: Path, way: str) -> None:
    server = start_redis(users=[READER])
    client = server.client()
    seed(client, 200)
    client.set("soon", "x", px=1500)
    client.set("huge", b"x" * 200_000)
    path = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**server.connection(), "dest": str(path)})
    by_type = {kind: next(client.scan_iter(match=f"{kind}:*")) for kind in ("hash", "list", "set", "zset", "stream")}
    client.hset(by_type["hash"], "name", "another")
    client.lset(by_type["list"], 0, "another")
    client.srem(by_type["set"], client.srandmember(by_type["set"]))
    client.zincrby(by_type["zset"], 1, client.zrange(by_type["zset"], 0, 0)[0])
    client.xadd(by_type["stream"], {"field": "more"})
    client.persist(next(client.scan_iter(match="session:*")))
    strings = list(client.scan_iter(match="string:*"))
    client.set(strings[0], "another")
    client.delete(strings[1], strings[2])
    client.rename(strings[3], "string:new")
    client.delete(strings[4])
    client.rpush(strings[4], "another type")
    client.setrange("huge", 0, "y")  # beyond what is read
    while client.exists("soon"):
        time.sleep(0.05)
    reader = {"login_user": "reader", "login_password": "pw"} if way == "values" else {}
    answer = compare(server, path, sample=1000, **reader)
    assert counters(answer, "changed", "gone", "new") == (8, 3, 1)
    assert verdict(answer)[0] == "ok"
    told = compare(server, path, sample=1000, live_tolerance=2, **reader)
    assert verdict(told)[0] == "warning"
    assert "8 changed, 3 gone, 1 new" in verdict(told)[1]
    assert told["verification"]["level"] == 3
    assert "data may have been lost there" in told["findings"][0]["hint"]


def test_a_live_server_that_lost_its_data_is_a_warning_about_it(original: tuple[RedisServer, Path]) -> None:
    server, path = original
    with RedisServer(path.parent / "empty") as empty:
        seed(empty.client(), 100)
        answer = compare(empty, path)
        assert verdict(answer)[0] == "warning"
        assert "database 0 has 101 keys and had 1002 in the snapshot" in verdict(answer)[1]
        assert answer["status"] == "warning"
    assert compare(server, path, sample=5)["status"] == "ok"


def test_a_database_that_only_the_live_server_has(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis()
    server.client().set("a", "b")
    path = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**server.connection(), "dest": str(path)})
    for number in range(101):
        server.client(SECOND_DATABASE).set(str(number), "x")
    answer = compare(server, path)
    assert verdict(answer)[0] == "warning"
    assert f"database {SECOND_DATABASE} has 101 keys and had 0 in the snapshot" in verdict(answer)[1]


# --- a live server that cannot be asked is unknown: the snapshot may be sound ---


def test_wrong_credentials(original: tuple[RedisServer, Path]) -> None:
    server, path = original
    answer = compare(server, path, login_password="wrong")
    assert verdict(answer)[0] == "unknown"
    assert "it refuses the password of the default user" in verdict(answer)[1]
    assert answer["verification"]["level"] == 3
    assert answer["verification"]["spot_check"] is None
    assert "wrong" not in str(answer["findings"])


def test_a_user_who_may_not_read(original: tuple[RedisServer, Path]) -> None:
    server, path = original
    server.client().acl_setuser("blind", enabled=True, passwords=["+pw"], commands=["+info", "+dbsize", "+scan"])
    answer = compare(server, path, login_user="blind", login_password="pw")
    assert verdict(answer)[0] == "unknown"
    assert "its ACL does not let user blind do this" in verdict(answer)[1]


def test_a_server_that_is_away(original: tuple[RedisServer, Path]) -> None:
    answer = compare(original[0], original[1], login_port=free_port())
    assert verdict(answer)[0] == "unknown"
    assert "nothing listens there" in verdict(answer)[1]
    assert answer["verification"]["level"] == 3


def test_a_server_that_hangs(original: tuple[RedisServer, Path]) -> None:
    server, path = original
    pid = server.process.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answer = compare(server, path, answer_timeout=0.5)
        assert time.monotonic() - started < 10
    finally:
        os.kill(pid, signal.SIGCONT)
    assert verdict(answer)[0] == "unknown"
    assert "did not answer within 0.5 s" in verdict(answer)[1]


# --- what is ours is gone, whatever happens ---


def scratch_pid(folder: Path) -> int:
    """The private server that works in a folder below this one."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                where = str((entry / "cwd").readlink())
            except OSError:
                continue
            if where.startswith(str(folder)) and b"redis-server" in words[0]:
                return int(entry.name)
    return 0


@pytest.mark.parametrize("victim", ["the private server", "the module"])
def test_killed_midway(original: tuple[RedisServer, Path], tmp_path: Path, victim: str) -> None:
    """In the middle of the comparison: the live server has stopped and keeps it waiting."""
    server, path = original
    live = server.process.pid()
    assert live
    os.kill(live, signal.SIGSTOP)
    try:
        arguments = {**server.connection(), "path": str(path), "level": 4, "fail_on": "never", "answer_timeout": 30}
        process = start_module("redis_verify", {**arguments, "scratch_dir": str(tmp_path)})
        while not (scratch := scratch_pid(tmp_path)):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)  # it has loaded the snapshot and waits for the live server
        if victim == "the module":
            process.terminate()
        else:
            os.kill(scratch, signal.SIGKILL)
    finally:
        os.kill(live, signal.SIGCONT)
    output, errors = process.communicate(timeout=30)
    if victim == "the module":
        assert "the private server was removed" in output, errors
    else:
        assert "snapshot_live" in output and '"status": "unknown"' in output, errors
    assert not scratch_pid(tmp_path)
    assert list(tmp_path.iterdir()) == []
