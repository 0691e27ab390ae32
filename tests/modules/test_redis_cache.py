"""The cache maintenance of real servers, with redis-cli and the writers' own books as witnesses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.examples import run_examples
from tests.fixtures.http import HttpServer
from tests.fixtures.redis import RedisFactory
from tests.harness import run_module, start_module
from tests.platform.parts.process import ServerProcess, free_port
from tests.platform.parts.redis import SECOND_DATABASE, RedisServer, seed
from tests.platform.parts.sentinel import Sentinel

LOOKER = "+info +select +multi +exec +scan +pttl +type +memory|usage +memory|stats +memory|doctor +slowlog|get"
QUICK = {"interval": 0.1, "name": "cache"}


def cache(server: RedisServer, /, **options: Any) -> dict[str, Any]:
    modes = {name: options.pop(name) for name in ("check", "diff") if name in options}
    return run_module("redis_cache", {**server.connection(), **options}, **modes)


def finding(answer: dict[str, Any], check: str) -> dict[str, Any]:
    (found,) = [each for each in answer["findings"] if each["check"] == check]
    assert found["subject"] == "redis:cache"
    return dict(found)


def fill_expired(server: RedisServer, count: int, db: int = 0) -> None:
    """Keys that are expired and stay until somebody looks: the server's own clean-up is off."""
    server.cli("debug", "set-active-expire", "0")
    with server.client(db).pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"gone:{number}", "x" * 50, px=1)
        pipeline.execute()
    time.sleep(0.01)


def keys_of(server: RedisServer, db: int = 0) -> int:
    return int(server.cli("-n", str(db), "dbsize"))


def stat(server: RedisServer, name: str) -> int:
    lines = server.cli("info", "stats").splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith(f"{name}:"))


# --- the sweep ---

WRITER = """
import json, random, redis, sys, time
port, number, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
client = redis.Redis(port=port, db=number % 2)
source = random.Random(number)
book = {}
end = time.monotonic() + seconds
count = 0
print("writing", flush=True)
while time.monotonic() < end:
    pipeline = client.pipeline(transaction=False)
    for _ in range(20):
        count += 1
        what = source.randrange(6)
        key = f"w{number}:{count if what < 4 or not book else source.choice(list(book)[-200:]).split(':')[1]}"
        if what < 3:
            pipeline.set(key, count)
            book[key] = count
        elif what == 3:
            pipeline.set(key, count, ex=3600)
            book[key] = count
        elif what == 4:
            pipeline.set(f"brief{number}:{count}", count, px=source.randrange(1, 40))
        elif key in book:
            pipeline.pexpire(key, 3_600_000)
            pipeline.get(key)
    pipeline.execute()
    time.sleep(0.002)
print(json.dumps(book))
"""


@contextmanager
def writers(server: RedisServer, count: int, seconds: float) -> Iterator[Callable[[], dict[int, dict[str, int]]]]:
    """Processes that write, read and set TTLs for a while; what is called waits for the books they kept."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(server.port), str(number), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "writing\n"
        yield lambda: {number: json.loads(process.communicate()[0]) for number, process in enumerate(running)}
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_sweep_removes_what_is_expired_and_touches_nothing_that_lives(redis_server: RedisServer) -> None:
    seed(redis_server.client(), 5000)
    fill_expired(redis_server, 8000)
    fill_expired(redis_server, 3000, db=1)
    assert keys_of(redis_server) == 13001, "they are expired and still there"
    witness = {key: redis_server.client().dump(key) for key in redis_server.client().scan_iter("string:*", count=1000)}
    fill_expired(redis_server, 8000)  # the walk of the witness removed them
    before = stat(redis_server, "expired_keys")
    with writers(redis_server, 3, 2.5) as books:
        answers = [cache(redis_server, state="swept", pause=0.005) for _ in range(2)]
        kept = books()
    assert answers[0]["changed"] is True and not answers[0]["failed"]
    done = answers[0]["sweep"]["databases"]
    assert done["0"]["expired"] >= 8000 and done["1"]["expired"] >= 3000
    assert answers[0]["sweep"]["expired"] <= stat(redis_server, "expired_keys") - before
    assert not redis_server.client().exists("gone:1") and redis_server.cli("-n", "1", "exists", "gone:1") == "0"
    for number, book in kept.items():
        assert len(book) > 1000, "the writers were at work"
        held = redis_server.client(number % 2).mget(list(book))
        lost = [key for key, value in zip(book, held) if value is None or int(value) != book[key]]
        assert lost == []
    assert {key: redis_server.client().dump(key) for key in witness} == witness
    assert keys_of(redis_server, SECOND_DATABASE) == 50


def test_the_count_of_a_sweep_is_its_own_and_exact(redis_server: RedisServer) -> None:
    seed(redis_server.client(), 1000)
    fill_expired(redis_server, 4321)
    answer = cache(redis_server, state="swept")
    assert answer["changed"] is True and answer["sweep"]["expired"] == 4321
    figures = {"keys_before": 5322, "keys_after": 1001, "expired": 4321, "seen": 1001}
    assert answer["sweep"]["databases"]["0"] == figures
    assert stat(redis_server, "expired_keys") == 4321 and keys_of(redis_server) == 1001
    again = cache(redis_server, state="swept")
    assert again["changed"] is False and again["sweep"]["expired"] == 0


def test_check_mode_estimates_and_says_so(redis_server: RedisServer) -> None:
    seed(redis_server.client(), 3000)
    fill_expired(redis_server, 1000)
    answer = cache(redis_server, state="swept", check=True, sample_keys=1000)
    assert answer["changed"] is True and answer["sweep"]["estimated"] is True and "estimate" in answer["message"]
    assert 700 < answer["sweep"]["expired"] < 1300
    assert keys_of(redis_server) > 3500, "only the sampled ones are gone"
    cache(redis_server, state="swept")
    assert cache(redis_server, state="swept", check=True)["changed"] is False


def test_a_user_without_any_right_to_write_can_sweep(start_redis: RedisFactory) -> None:
    server = start_redis(users=["sweeper on >pw resetkeys resetchannels -@all +info +select +multi +exec +scan"])
    seed(server.client(), 200)
    fill_expired(server, 500)
    login = {"login_user": "sweeper", "login_password": "pw"}
    assert cache(server, state="swept", **login)["sweep"]["expired"] == 500
    server.cli("acl", "setuser", "sweeper", "-scan")
    refused = cache(server, state="swept", **login)
    assert refused["failed"] and "ACL" in refused["msg"] and "'scan'" in refused["msg"]


def test_a_replica_is_refused_with_the_reason(start_redis: RedisFactory) -> None:
    master = start_redis("master")
    replica = start_redis("replica", config=[f"replicaof 127.0.0.1 {master.port}"])
    for check in (True, False):
        refused = cache(replica, state="swept", check=check)
        assert refused["failed"] and "SCAN removes nothing" in refused["msg"] and str(master.port) in refused["msg"]
    looked = cache(replica, **QUICK)
    assert looked["server"]["role"] == "replica" and not looked["failed"]


def test_the_master_that_sentinel_knows_is_swept(redis_server: RedisServer, tmp_path: Path) -> None:
    seed(redis_server.client(), 200)
    fill_expired(redis_server, 600)
    with Sentinel(tmp_path / "sentinel", redis_server) as sentinel:
        where = {"sentinel_hosts": [sentinel.address], "login_host": "ignored.example.org"}
        assert run_module("redis_cache", {**where, "state": "swept"})["sweep"]["expired"] == 600
        other = run_module("redis_cache", {**where, "sentinel_master": "other"})
    assert other["failed"] and "knows no master 'other'" in other["msg"]
    assert keys_of(redis_server) == 201


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_killed_has_lost_nothing_and_can_be_run_again(
    redis_server: RedisServer, tmp_path: Path, signal_number: signal.Signals
) -> None:
    seed(redis_server.client(), 3000)
    fill_expired(redis_server, 9000)
    lines = tmp_path / "progress"
    options = {**redis_server.connection(), "state": "swept", "pause": 0.3, "progress_file": str(lines)}
    process = start_module("redis_cache", options)
    while not lines.exists() or not lines.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal_number)
    output = process.communicate(timeout=20)[0]
    if signal_number == signal.SIGTERM:
        assert "no living key was touched" in json.loads(output)["msg"]
    first = json.loads(lines.read_text().splitlines()[0])
    assert first["keys"] >= 1000 and first["total"] == 12001 + 30
    assert keys_of(redis_server) > 3001, "it was broken off"
    assert cache(redis_server, state="swept")["changed"] is True
    assert keys_of(redis_server) == 3001 and keys_of(redis_server, SECOND_DATABASE) == 30


@pytest.mark.skipif(not shutil.which("valkey-server"), reason="valkey-server is not installed")
def test_valkey_is_looked_at_swept_and_configured_as_well(start_redis: RedisFactory) -> None:
    server = start_redis(server_binary="valkey-server", config=["maxmemory 64mb"])
    seed(server.client(), 500)
    fill_expired(server, 900)
    answer = cache(server, **QUICK, sample_keys=250)
    assert answer["server"]["name"] == "valkey" and answer["missing"] == {}
    left = keys_of(server) - 501
    assert cache(server, state="swept")["sweep"]["expired"] == left > 0
    assert keys_of(server) == 501
    assert cache(server, state="purged")["purge"]["before_bytes"] > 0
    wish = {"use": "cache", "state": "configured", "maxmemory_policy": "allkeys-lfu"}
    assert cache(server, **wish)["policy"]["persisted"] is True and policy_of(server) == "allkeys-lfu"


# --- the look ---


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with data of all kinds, for looking only."""
    with RedisServer(tmp_path_factory.mktemp("looked"), password="looked pass", config=["maxmemory 1gb"]) as server:
        seed(server.client(), 2000)
        server.client().set(b"bin\xff:\xfe", "x")
        server.client().rpush("hugequeue", *(f"a job with a long name {number}" for number in range(5000)))
        yield server


def test_a_look_tells_figures_and_changes_nothing(looked_at: RedisServer) -> None:
    before = looked_at.client().execute_command("DEBUG", "DIGEST")
    answer = cache(looked_at, **QUICK)
    assert answer["changed"] is False and answer["missing"] == {}
    assert answer["status"] == "ok", answer["findings"]
    assert looked_at.client().execute_command("DEBUG", "DIGEST") == before
    info = looked_at.client().info()
    assert answer["current"]["keys"] == info["db0"]["keys"] + info["db3"]["keys"]
    assert answer["current"]["databases"]["0"] == {"keys": 2003, "expires": 280}
    assert answer["memory"]["limit_bytes"] == 1 << 30 and answer["memory"]["policy"] == "noeviction"
    name = info.get("server_name", "redis")
    assert answer["server"] == {"name": name, "version": info[f"{name}_version"], "role": "master"}
    assert answer["memory_parts"]["bytes_per_key"] > 0
    keys = answer["keys"]
    assert keys["sampled"] >= 2003 and keys["expired"] == 0
    assert keys["largest"][0]["key"] == "hugequeue" and keys["largest"][0]["type"] == "list"
    assert keys["largest"][0]["bytes"] == int(looked_at.cli("memory", "usage", "hugequeue"))
    groups = {group["prefix"]: group for group in keys["prefixes"]}
    assert groups["session"]["without_expiry"] == 0 < groups["string"]["without_expiry"] == groups["string"]["keys"]
    assert groups["(no prefix)"]["keys"] == 2 and groups["bin\\xff"]["keys"] == 1
    assert finding(answer, "largest_key")["summary"].startswith("hugequeue (list, database 0)")


def test_samples_are_bounded_in_number_time_and_groups(looked_at: RedisServer) -> None:
    few = cache(looked_at, **QUICK, sample_keys=300, prefixes=2)
    assert 300 <= few["keys"]["sampled"] < 700
    assert len(few["keys"]["prefixes"]) == 3 and "(others)" in {group["prefix"] for group in few["keys"]["prefixes"]}
    late = cache(looked_at, **QUICK, sample_seconds=0)
    assert late["keys"]["out_of_time"] is True and late["keys"]["sampled"] == 0 and not late["failed"]
    assert cache(looked_at, **QUICK, sample_keys=0)["keys"] is None
    assert "must not be less than 0" in cache(looked_at, interval=-1)["msg"]


def test_the_hit_ratio_is_that_of_the_interval(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.set("there", 1)
    for _ in range(300):
        client.get("there")  # a good past, which says nothing of today
    process = start_module(
        "redis_cache",
        {**redis_server.connection(), **QUICK, "use": "cache", "interval": 2, "thresholds": {"hit_ratio_lookups": 50}},
    )
    while redis_server.cli("client", "list").count("cmd=info") < 1:
        time.sleep(0.01)
    for number in range(100):
        client.get("there" if number % 4 == 0 else f"absent{number}")
    answer = json.loads(process.communicate(timeout=30)[0])
    assert answer["interval"]["lookups"] == 100 and answer["interval"]["hit_ratio"] == 0.25
    assert answer["interval"]["hit_ratio_since_start"] > 0.7
    assert finding(answer, "hit_ratio")["status"] == "warning"
    few = cache(redis_server, **QUICK, use="cache")
    assert finding(few, "hit_ratio")["status"] == "ok" and "not judged" in finding(few, "hit_ratio")["summary"]


def test_expired_keys_that_are_present_are_a_warning(redis_server: RedisServer) -> None:
    seed(redis_server.client(), 1000)
    fill_expired(redis_server, 1000)
    answer = cache(redis_server, **QUICK, sample_keys=500)
    found = finding(answer, "expired_present")
    assert found["status"] == "warning" and 35 < found["value"] < 65 and "state=swept" in found["hint"]
    assert 700 < answer["keys"]["expired_present"] < 1300


def test_the_slow_log_is_told_without_values(redis_server: RedisServer) -> None:
    redis_server.cli("config", "set", "slowlog-log-slower-than", "0")
    client = redis_server.client()
    client.set("user:1", "hunter2-value")
    client.eval("return 'hunter2-script'", 0)
    redis_server.cli("config", "set", "masterauth", "hunter2-masterauth")
    client.publish("hunter2-channel", "x")
    redis_server.cli("debug", "sleep", "0.12")
    answer = cache(redis_server, **QUICK)
    assert answer["slow_log"][0]["command"] == "DEBUG SLEEP" and answer["slow_log"][0]["milliseconds"] > 120
    told = {(entry["command"], entry["key"]) for entry in answer["slow_log"]}
    assert {("SET", "user:1"), ("EVAL", ""), ("CONFIG SET", ""), ("PUBLISH", "")} <= told
    assert "hunter2" not in json.dumps(answer)
    found = finding(answer, "slow_log")
    assert found["status"] == "warning" and "DEBUG SLEEP" in found["summary"] and found["value"] == 1
    time.sleep(1.1)
    assert cache(redis_server, **QUICK, slow_log_age="1s", slow_log_entries=1)["slow_log"] is not None


def test_evictions_full_memory_and_rejected_connections_are_warnings(start_redis: RedisFactory) -> None:
    server = start_redis(config=["maxmemory 4mb", "maxmemory-policy allkeys-lru", "maxclients 2"])
    process = start_module("redis_cache", {**server.connection(), **QUICK, "interval": 1.5})
    rejected = 0
    with redis.Redis(port=server.port, max_connections=1, retry=None) as filler:
        while process.poll() is None:
            with filler.pipeline(transaction=False) as pipeline:
                for number in range(500):
                    pipeline.set(f"{rejected}:{number}", "x" * 2000)
                pipeline.execute()
            if b"cmd=info" in filler.execute_command("CLIENT", "LIST"):  # the module has the last place
                with pytest.raises(redis.RedisError, match="max number of clients"):
                    redis.Redis(port=server.port, retry=None).ping()
                rejected += 1
            time.sleep(0.1)
    answer = json.loads(process.communicate(timeout=30)[0])
    assert rejected and finding(answer, "rejected_connections")["status"] == "warning", answer
    assert finding(answer, "evicted_keys")["status"] == "warning" and answer["interval"]["evicted_keys"] > 0
    assert finding(answer, "memory_used")["status"] == "warning" and finding(answer, "memory_used")["value"] > 90
    policy = finding(answer, "eviction_policy")
    assert policy["status"] == "warning" and "store loses keys" in policy["hint"]


def test_a_user_with_the_least_rights_and_what_is_missing_is_named(start_redis: RedisFactory) -> None:
    server = start_redis(users=[f"looker on >pw allkeys resetchannels -@all {LOOKER}"])
    seed(server.client(), 200)
    login = {"login_user": "looker", "login_password": "pw"}
    assert cache(server, **QUICK, **login)["missing"] == {}
    server.cli("acl", "setuser", "looker", "-memory|usage", "-slowlog|get")
    answer = cache(server, **QUICK, **login)
    assert answer["keys"] is None and answer["slow_log"] is None and answer["status"] == "unknown"
    told = finding(answer, "redis_rights")["summary"]
    assert "memory|usage" in told and "slowlog|get" in told
    server.cli("acl", "setuser", "looker", "-info")
    refused = cache(server, **QUICK, **login)
    assert refused["failed"] and "'info'" in refused["msg"]


# --- memory ---


def test_a_purge_gives_back_and_is_changed_only_when_it_did(redis_server: RedisServer) -> None:
    client = redis_server.client()
    for number in range(60):
        client.set(f"large:{number}", b"x" * 1_000_000)
    client.delete(*(f"large:{number}" for number in range(60)))
    before = resident(redis_server)
    estimate = cache(redis_server, state="purged", check=True)
    assert estimate["changed"] is True and estimate["purge"]["estimated"] is True and "estimate" in estimate["message"]
    assert resident(redis_server) > before * 0.9
    answer = cache(redis_server, state="purged")
    assert answer["changed"] is True and answer["purge"]["given_back_bytes"] > 5_000_000
    time.sleep(0.15)
    assert resident(redis_server) < before - 5_000_000
    again = cache(redis_server, state="purged")
    assert again["changed"] is False
    assert cache(redis_server, state="purged", check=True)["changed"] is False


def resident(server: RedisServer) -> int:
    """The server's memory as the kernel tells it."""
    pid = server.process.pid()
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


# --- the policy ---


def policy_of(server: RedisServer) -> str:
    return server.cli("config", "get", "maxmemory-policy").splitlines()[1]


def restart(server: RedisServer) -> None:
    """Start it anew from its configuration file as it is now."""
    server.stop()
    server.process.start(["redis-server", str(server.folder / "redis.conf")], lambda: _pings(server.port))


def test_a_policy_is_kept_over_a_restart(start_redis: RedisFactory) -> None:
    server = start_redis(config=["maxmemory 64mb"])
    wish = {"use": "cache", "state": "configured", "maxmemory_policy": "allkeys-lfu"}
    foretold = cache(server, **wish, check=True, diff=True)
    assert foretold["changed"] is True and policy_of(server) == "noeviction"
    assert foretold["diff"] == {
        "before": {"maxmemory-policy": "noeviction"},
        "after": {"maxmemory-policy": "allkeys-lfu"},
    }
    answer = cache(server, **wish)
    assert answer["changed"] is True and answer["policy"]["persisted"] is True and policy_of(server) == "allkeys-lfu"
    restart(server)
    assert policy_of(server) == "allkeys-lfu"
    again = cache(server, **wish)
    assert again["changed"] is False and "already" in again["message"]
    assert again["policy"]["persisted"] is True
    assert "maxmemory_policy" in cache(server, state="configured")["msg"]


def test_a_policy_that_was_only_set_by_hand_or_by_a_run_that_was_killed_is_written(start_redis: RedisFactory) -> None:
    server = start_redis(config=["maxmemory 64mb"])
    server.cli("config", "set", "maxmemory-policy", "allkeys-lru")
    wish = {"use": "cache", "state": "configured", "maxmemory_policy": "allkeys-lru"}
    foretold = cache(server, **wish, check=True)
    assert foretold["changed"] is True and foretold["policy"]["persisted"] is False
    answer = cache(server, **wish, diff=True)
    assert answer["changed"] is True and "written into the configuration file" in answer["message"]
    assert answer["diff"]["before"]["persisted"] is False and answer["diff"]["after"]["persisted"] is True
    restart(server)
    assert policy_of(server) == "allkeys-lru" and cache(server, **wish)["changed"] is False
    (server.folder / "redis.conf").unlink()
    gone = cache(server, **wish)
    assert gone["changed"] is False and gone["policy"]["persisted"] is None


@pytest.mark.parametrize(
    ("options", "settings", "reason"),
    [
        ({"use": "store"}, ["maxmemory 64mb"], "is a store"),
        ({}, ["maxmemory 64mb"], "is a store"),  # what is not said to be a cache
        ({"use": "cache"}, [], "maxmemory is 0"),
        ({"use": "cache", "maxmemory_policy": "volatile-ttl"}, ["maxmemory 64mb"], "0 of its 300 keys have an expiry"),
    ],
)
def test_a_policy_that_would_do_harm_or_nothing_is_refused_unless_forced(
    start_redis: RedisFactory, options: dict[str, Any], settings: list[str], reason: str
) -> None:
    server = start_redis(config=settings)
    server.client().mset({f"key:{number}": number for number in range(300)})
    wish = {"state": "configured", "maxmemory_policy": "allkeys-lru", **options}
    for check in (True, False):
        refused = cache(server, **wish, check=check)
        assert refused["failed"] and reason in refused["msg"] and "force=true" in refused["msg"]
    assert policy_of(server) == "noeviction"
    forced = cache(server, **wish, force=True)
    assert forced["changed"] is True and reason in forced["message"]
    assert policy_of(server) == wish["maxmemory_policy"]


def test_a_policy_that_cannot_be_kept_is_not_changed(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis(config=["maxmemory 64mb"])
    file = server.folder / "redis.conf"
    file.rename(tmp_path / "aside")
    file.mkdir()
    wish = {"use": "cache", "state": "configured", "maxmemory_policy": "allkeys-lru"}
    refused = cache(server, **wish)
    assert refused["failed"] and "could not write the change into its configuration file" in refused["msg"]
    assert policy_of(server) == "noeviction"
    forced = cache(server, **wish, force=True)
    assert forced["policy"]["persisted"] is False and "only until the next restart" in forced["message"]


def test_a_server_without_a_configuration_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    server = ServerProcess("bare", tmp_path)
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--maxmemory", "64mb", "--save", ""]
    server.start(["redis-server", *arguments], lambda: _pings(port))
    try:
        wish = {"login_host": "127.0.0.1", "login_port": port, "use": "cache", "state": "configured"}
        refused = run_module("redis_cache", {**wish, "maxmemory_policy": "allkeys-lru"})
    finally:
        server.stop()
    assert refused["failed"] and "--maxmemory-policy allkeys-lru among its arguments" in refused["msg"]


def _pings(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port, retry=None).ping())
    except redis.RedisError:
        return False


def test_a_user_who_may_not_write_the_file_leaves_the_policy_as_it_was(start_redis: RedisFactory) -> None:
    server = start_redis(users=["setter on >pw -@all +info +config|set"], config=["maxmemory 64mb"])
    login = {"login_user": "setter", "login_password": "pw"}
    wish = {"use": "cache", "state": "configured", "maxmemory_policy": "allkeys-lru"}
    refused = cache(server, **wish, **login)
    assert refused["failed"] and "config|rewrite" in refused["msg"] and policy_of(server) == "noeviction"
    server.cli("acl", "setuser", "setter", "-config|set")
    assert "config|set" in cache(server, **wish, **login)["msg"]


# --- the warm-up ---


def test_urls_are_asked_for_and_keys_touched_at_the_rate(
    redis_server: RedisServer, http_server: HttpServer, tmp_path: Path
) -> None:
    client = redis_server.client(1)
    client.mset({f"page:{number}": number for number in range(30)})
    urls = [f"{http_server.url}/says/page={number}" for number in range(20)]
    keys = [f"page:{number}" for number in range(40)]
    options = {"state": "warmed", "urls": urls, "keys": keys, "database": 1, "rate": 30, "name": "cache"}
    foretold = cache(redis_server, **options, check=True)
    assert foretold["changed"] is True and "20 URLs and touch 40 keys" in foretold["message"]
    assert not [path for _method, path, _headers in http_server.seen if "page=" in path]
    before = stat(redis_server, "keyspace_hits")
    answer = cache(redis_server, **options, progress_file=str(tmp_path / "progress"))
    assert answer["changed"] is True and answer["status"] == "ok", answer
    assert sorted(path for _method, path, _headers in http_server.seen if "page=" in path) == sorted(
        url.removeprefix(http_server.url) for url in urls
    )
    came = answer["warm_up"]
    assert (came["answered"], came["missing"], came["failed"], came["not_reached"]) == (50, 10, 0, 0)
    assert came["seconds"] >= 60 / 30 - 0.1 and came["stopped"] is None
    assert stat(redis_server, "keyspace_hits") - before == 30
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert lines[-1]["requests"] == 60 and len(lines) >= 3
    only_keys = cache(redis_server, state="warmed", keys=keys[:5], database=1)
    assert only_keys["changed"] is False and only_keys["warm_up"]["answered"] == 5


def test_errors_are_told_without_secrets(redis_server: RedisServer, http_server: HttpServer) -> None:
    urls = [
        f"{http_server.url}/status/404",
        f"{http_server.url}/drip-body",
        f"{http_server.url}/drip-head",
        "http://user:hunter2@127.0.0.1:1/?token=hunter2",
        f"{http_server.url}/up",
    ]
    answer = cache(redis_server, state="warmed", urls=urls, timeout=1, name="cache")
    assert answer["warm_up"]["failed"] == 4 and answer["warm_up"]["answered"] == 1 and answer["changed"] is True
    found = finding(answer, "warm_up")
    assert found["status"] == "warning" and answer["warm_up"]["seconds"] < 5
    errors = {each["what"]: each["error"] for each in answer["warm_up"]["errors"]}
    assert errors[f"{http_server.url}/status/404"] == "HTTP status 404"
    assert (
        "within 1 s" in errors[f"{http_server.url}/drip-body"]
        and "within 1 s" in errors[f"{http_server.url}/drip-head"]
    )
    assert "refused" in errors["http://127.0.0.1:1/?..."]
    assert "hunter2" not in json.dumps([answer["findings"], answer["warm_up"], answer["message"]])


def test_it_stops_when_answers_become_slow(redis_server: RedisServer, http_server: HttpServer) -> None:
    urls = [f"{http_server.url}/up"] * 5 + [f"{http_server.url}/slow/120"] * 40
    answer = cache(redis_server, state="warmed", urls=urls, latency_limit_ms=80, rate=200, concurrency=2, name="cache")
    came = answer["warm_up"]
    assert "longer than 80 ms" in came["stopped"] and 8 <= came["answered"] <= 12
    assert came["not_reached"] == 45 - came["answered"] and came["median_ms"] is not None
    assert finding(answer, "warm_up")["status"] == "warning"


def test_it_stops_when_the_site_is_down_or_its_answers_are_huge(
    redis_server: RedisServer, http_server: HttpServer
) -> None:
    down = cache(redis_server, state="warmed", urls=["http://127.0.0.1:1/"] * 30, rate=500, name="cache")
    assert "in succession failed" in down["warm_up"]["stopped"] and down["warm_up"]["failed"] < 12
    assert down["changed"] is False
    huge = cache(redis_server, state="warmed", urls=[f"{http_server.url}/huge/200"], timeout=0.5, name="cache")
    assert "no whole answer within 0.5 s" in huge["warm_up"]["errors"][0]["error"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"urls": ["ftp://x/"]}, "is no URL"),
        ({"urls": ["http://x/"], "rate": 0}, "must be more than 0"),
        ({"keys": ["x"], "concurrency": 0}, "must be more than 0"),
        ({}, "name urls or keys"),
    ],
)
def test_a_warm_up_that_makes_no_sense(looked_at: RedisServer, options: dict[str, Any], words: str) -> None:
    assert words in cache(looked_at, state="warmed", **options)["msg"]


# --- servers that cannot be asked ---


@pytest.mark.parametrize("state", ["checked", "swept", "purged", "configured", "warmed"])
def test_a_wrong_password_is_named_and_shown_nowhere(looked_at: RedisServer, state: str) -> None:
    answer = cache(looked_at, state=state, login_password="wrong-secret", keys=["x"], maxmemory_policy="noeviction")
    assert answer["failed"] and "refuses the password of the default user" in answer["msg"]
    assert "wrong-secret" not in json.dumps(answer)


def test_a_hanging_server_is_named_in_time(redis_server: RedisServer) -> None:
    pid = redis_server.process.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answer = cache(redis_server, **QUICK, timeout=1)
        assert time.monotonic() - started < 8
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answer["failed"] and "did not answer within 1 s" in answer["msg"]


def test_a_progress_file_that_cannot_be_written_is_named(looked_at: RedisServer) -> None:
    answer = cache(looked_at, state="swept", progress_file="/nonexistent/progress")
    assert "progress_file /nonexistent/progress cannot be written: No such file" in answer["msg"]


def test_nothing_listens(redis_server: RedisServer) -> None:
    assert "nothing listens there" in cache(redis_server, login_port=1)["msg"]


def test_the_examples_run(looked_at: RedisServer, http_server: HttpServer) -> None:
    where = f"127.0.0.1\n    login_port: {looked_at.port}"
    variables = {"redis_password": looked_at.password}
    replacements = {
        "redis.example.org": where,
        "interval: 10": "interval: 0.1",
        "http://www.example.org/api/news": f"{http_server.url}/up",
    }
    assert "ok=5" in run_examples("redis_cache", replacements, variables)
