"""Snapshots of real servers, with redis-check-rdb, redis-cli, sha256sum and the compressors as witnesses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.redis import RedisFactory
from tests.harness import ROOT, run_module, start_module
from tests.platform.parts.certificates import CertificateAuthority
from tests.platform.parts.fault_proxy import FaultProxy
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import RedisServer, ServerTls, seed
from tests.platform.parts.sentinel import Sentinel

UNPACK = {"none": ["cat"], "gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"]}
LEAST_RIGHTS = "backup on >pw resetkeys resetchannels -@all +psync +replconf +ping"
OLDER = b"an older snapshot"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Where an older snapshot with its manifest lies."""
    folder = tmp_path / "backups"
    folder.mkdir()
    path = folder / "cache.rdb"
    path.write_bytes(OLDER)
    Path(f"{path}.json").write_text("an older manifest")
    return path


def snapshot(server: RedisServer, dest: Path, /, **options: Any) -> dict[str, Any]:
    modes = {name: options.pop(name) for name in ("check", "diff", "env") if name in options}
    return run_module("redis_snapshot", {**server.connection(), "dest": str(dest), **options}, **modes)


def assert_sound(dest: Path, folder: Path, keys: int) -> None:
    """redis-check-rdb accepts it, and it is the file of its manifest."""
    manifest = json.loads(Path(f"{dest}.json").read_text())
    stored = dest.read_bytes()
    assert manifest["sha256"] == hashlib.sha256(stored).hexdigest()
    assert manifest["bytes"] == len(stored)
    unpacked = folder / "unpacked.rdb"
    unpacked.write_bytes(
        subprocess.run([*UNPACK[manifest["compression"]], dest], check=True, capture_output=True).stdout
    )
    assert manifest["rdb_bytes"] == unpacked.stat().st_size
    told = subprocess.run(["redis-check-rdb", unpacked], capture_output=True, text=True, check=True).stdout
    assert f"[offset {manifest['rdb_bytes']}] \\o/ RDB looks OK! \\o/" in told  # so nothing follows the end
    assert f"{keys} keys read" in told
    assert dest.stat().st_mode & 0o777 == 0o600
    assert Path(f"{dest}.json").stat().st_mode & 0o777 == 0o600
    assert leftovers(dest) == []


def assert_untouched(dest: Path) -> None:
    assert dest.read_bytes() == OLDER
    assert Path(f"{dest}.json").read_text() == "an older manifest"


def leftovers(dest: Path) -> list[str]:
    return sorted(path.name for path in dest.parent.iterdir() if path.name.endswith(".partial"))


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# --- what comes out ---


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_it_holds_what_the_server_holds(
    seeded_redis: RedisServer, dest: Path, tmp_path: Path, compression: str
) -> None:
    answer = snapshot(seeded_redis, dest, compression=compression)
    assert answer["changed"] is True
    found = answer["snapshot"]
    info = seeded_redis.client().info()
    assert found["databases"] == {
        "0": {"keys": info["db0"]["keys"], "expires": info["db0"]["expires"]},
        "3": {"keys": info["db3"]["keys"], "expires": 0},
    }
    assert found["counted"] == "exact"
    assert found["functions"] == 1
    assert (found["replication_id"], found["replication_offset"]) == (
        info["master_replid"],
        info["master_repl_offset"],
    )
    assert (found["redis_version"], found["source"]) == (
        info["redis_version"],
        f"redis://127.0.0.1:{seeded_redis.port}",
    )
    assert_sound(dest, tmp_path, 2021)
    assert seeded_redis.password not in json.dumps(answer) + Path(f"{dest}.json").read_text()


@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_both_forms_of_transfer_and_newlines_before_them(
    start_redis: RedisFactory, dest: Path, tmp_path: Path, diskless: str
) -> None:
    server = start_redis(config=[f"repl-diskless-sync {diskless}", "repl-diskless-sync-delay 1"])
    seed(server.client())
    server.cli("config", "set", "rdb-key-save-delay", "600")  # 1.2 s in all: on disk, newlines come meanwhile
    answer = snapshot(server, dest, server_timeout=5, compression="none", progress_file=str(tmp_path / "progress"))
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [line["total"] is None for line in lines[:1]] == [diskless == "yes"]
    assert lines[-1]["bytes"] == lines[-1]["total"] == answer["snapshot"]["rdb_bytes"]
    assert_sound(dest, tmp_path, 2021)


def test_unix_socket_and_a_user_with_the_least_rights(start_redis: RedisFactory, dest: Path, tmp_path: Path) -> None:
    server = start_redis(unix_socket=True, password="pass", users=[LEAST_RIGHTS])
    seed(server.client())
    login = {"login_unix_socket": str(server.socket_path), "login_user": "backup", "login_password": "pw"}
    answer = run_module("redis_snapshot", {**login, "dest": str(dest), "compression": "none"})
    assert answer["changed"] is True
    assert (answer["snapshot"]["counted"], answer["snapshot"]["databases"]) == ("no", {})
    assert_sound(dest, tmp_path, 2021)


def test_a_user_made_for_redis_cli_may_do_it_too(start_redis: RedisFactory, dest: Path, tmp_path: Path) -> None:
    server = start_redis(users=["backup on >pw resetkeys resetchannels -@all +sync +replconf"])
    seed(server.client(), keys=100)
    answer = snapshot(server, dest, login_user="backup", login_password="pw")
    assert answer["snapshot"]["replication_id"] is None
    assert_sound(dest, tmp_path, 102)


def test_tls_with_client_certificates(
    start_redis: RedisFactory, certificate_authority: CertificateAuthority, dest: Path, tmp_path: Path
) -> None:
    files = certificate_authority.issue("localhost", "127.0.0.1").write(tmp_path / "tls", "server")
    server = start_redis(tls=ServerTls(files.fullchain, files.key, certificate_authority.root_file))
    seed(server.client())
    assert snapshot(server, dest)["changed"] is True
    assert_sound(dest, tmp_path, 2021)
    other = CertificateAuthority(tmp_path / "other", "Other").root_file
    refused = snapshot(server, dest, ca_certs=str(other))
    assert "certificate is not trusted" in refused["msg"]


def test_a_replica_is_taken_while_its_link_is_up(start_redis: RedisFactory, dest: Path, tmp_path: Path) -> None:
    master = start_redis("master", password="pass")
    seed(master.client())
    replica = start_redis("replica", config=[f"replicaof 127.0.0.1 {master.port}", "masterauth pass"])
    wait_for(lambda: replica.client().info("replication")["master_link_status"] == "up")
    answer = snapshot(replica, dest)
    assert answer["snapshot"]["replication_id"] == master.client().info("replication")["master_replid"]
    assert_sound(dest, tmp_path, 2021)
    master.kill()
    wait_for(lambda: replica.client().info("replication")["master_link_status"] == "down")
    whole = dest.read_bytes()
    refused = snapshot(replica, dest)
    assert "replica whose link to its master is down" in refused["msg"]
    assert "replica whose link to its master is down" in snapshot(replica, dest, check=True)["msg"]
    assert dest.read_bytes() == whole


def test_a_server_that_is_written_to_gets_near_counts(start_redis: RedisFactory, dest: Path) -> None:
    server = start_redis()
    seed(server.client())
    code = (
        "import redis\n"
        f"r = redis.Redis(port={server.port})\n"
        "i = 0\n"
        "while True:\n"
        # So few keys that near counts allow them however busy this machine is.
        "    r.execute_command('SET', f'n{i % 50}', i); i += 1\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: server.client().exists("n1"))
        answer = snapshot(server, dest)
    finally:
        writer.kill()
        writer.wait()
    assert answer["snapshot"]["counted"] == "near"
    verified = run_module("redis_verify", {"path": str(dest)})
    assert verified["status"] == "ok"


# --- when nothing is to be done ---


def test_a_young_sound_snapshot_of_the_same_server_is_enough(seeded_redis: RedisServer, dest: Path) -> None:
    first = snapshot(seeded_redis, dest, max_age="1h")
    assert first["changed"] is True
    kept = dest.read_bytes()
    again = snapshot(seeded_redis, dest, max_age="1h")
    assert again["changed"] is False
    assert again["snapshot"] == first["snapshot"]
    assert dest.read_bytes() == kept
    assert snapshot(seeded_redis, dest, max_age="0s")["changed"] is True
    dest.write_bytes(dest.read_bytes()[:-1])
    assert snapshot(seeded_redis, dest, max_age="1h")["changed"] is True
    assert snapshot(seeded_redis, dest, max_age="1h", compression="none")["changed"] is True


def test_check_mode_tells_and_transfers_nothing(seeded_redis: RedisServer, dest: Path) -> None:
    before = seeded_redis.client().info("stats")["sync_full"]
    answer = snapshot(seeded_redis, dest, check=True, diff=True)
    assert answer["changed"] is True
    assert "would take a snapshot of 2021 keys" in answer["message"]
    assert answer["diff"]["before"] == {}
    assert answer["diff"]["after"]["databases"]["0"]["keys"] == 2001
    assert seeded_redis.client().info("stats")["sync_full"] == before
    assert_untouched(dest)
    assert leftovers(dest) == []
    assert "refuses the password" in snapshot(seeded_redis, dest, check=True, login_password="wrong")["msg"]


def test_the_diff_shows_both_manifests(seeded_redis: RedisServer, dest: Path) -> None:
    first = snapshot(seeded_redis, dest)
    second = snapshot(seeded_redis, dest, diff=True)
    assert second["diff"]["before"]["sha256"] == first["snapshot"]["sha256"]
    assert second["diff"]["after"]["sha256"] == second["snapshot"]["sha256"]


# --- faults: an older snapshot stays, and the message names the cause ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"login_password": "wrong"}, "refuses the password of the default user"),
        ({"login_password": None}, "it wants a password"),
        ({"login_user": "nobody", "login_password": "x"}, "refuses the password of user nobody"),
        ({"login_port": 1}, "nothing listens there"),
        ({"mode": "384"}, "four octal digits"),
        ({"compression": "gzip", "compression_level": 12}, "no level 12"),
        ({"dest": "/nonexistent/x.rdb"}, "folder /nonexistent does not exist"),
        ({"dest": "/"}, "is a folder"),
        ({"max_age": "soon"}, "no duration"),
    ],
)
def test_what_cannot_begin(seeded_redis: RedisServer, dest: Path, options: dict[str, Any], words: str) -> None:
    answer = snapshot(seeded_redis, dest, **options)
    assert answer["failed"]
    assert words in answer["msg"]
    assert_untouched(dest)
    assert leftovers(dest) == []


def test_a_user_without_the_rights(start_redis: RedisFactory, dest: Path) -> None:
    server = start_redis(users=["backup on >pw resetkeys -@all +replconf +info"])
    answer = snapshot(server, dest, login_user="backup", login_password="pw")
    assert "+psync +replconf +ping" in answer["msg"]
    assert_untouched(dest)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut", "closed the connection after"),
        ("hang", "sent nothing for 0.5 s, after"),
        ("flip", "bytes were changed or lost"),
    ],
)
def test_a_bad_link(seeded_redis: RedisServer, dest: Path, fault: str, words: str) -> None:
    with FaultProxy(seeded_redis.port, fault, 150_000) as proxy:
        answer = snapshot(seeded_redis, dest, login_port=proxy.port, server_timeout=0.5)
    assert answer["failed"]
    assert words in answer["msg"]
    assert_untouched(dest)
    assert leftovers(dest) == []


@pytest.fixture
def slow_redis(start_redis: RedisFactory) -> RedisServer:
    """A server that takes four seconds for a snapshot."""
    server = start_redis()
    seed(server.client())
    server.cli("config", "set", "rdb-key-save-delay", "2000")
    return server


@contextlib.contextmanager
def transferring(server: RedisServer, dest: Path) -> Iterator[subprocess.Popen[str]]:
    """A module that is in the middle of a transfer; killed at the end if it still runs."""
    progress = dest.with_name("progress")
    options = {"dest": str(dest), "progress_file": str(progress), "compression": "none"}
    process = start_module("redis_snapshot", {**server.connection(), **options})
    try:
        wait_for(lambda: progress.exists() and progress.read_text())
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=30)
    assert output.lstrip().startswith("{"), errors
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.mark.parametrize("fault", ["client_kill", "server", "child"])
def test_the_server_stops_midway(slow_redis: RedisServer, dest: Path, fault: str) -> None:
    with transferring(slow_redis, dest) as process:
        if fault == "client_kill":
            assert slow_redis.cli("client", "kill", "type", "replica") == "1"
        else:
            slow_redis.kill(children_only=fault == "child")
        answer = answer_of(process)
    assert answer["failed"] is True
    assert "closed the connection after" in answer["msg"] or "Connection reset" in answer["msg"]
    assert_untouched(dest)
    assert leftovers(dest) == []


def test_a_stopped_module_leaves_nothing(slow_redis: RedisServer, dest: Path) -> None:
    with transferring(slow_redis, dest) as process:
        process.terminate()
        answer = answer_of(process)
    assert "stopped by SIGTERM" in answer["msg"]
    assert_untouched(dest)
    assert leftovers(dest) == []


def test_a_killed_module_is_cleaned_up_after_by_the_next(slow_redis: RedisServer, dest: Path, tmp_path: Path) -> None:
    with transferring(slow_redis, dest) as killed:
        assert leftovers(dest) == [name for name in leftovers(dest) if name.startswith(".cache.rdb.")]
        killed.kill()
        killed.wait()
    assert len(leftovers(dest)) == 2
    assert_untouched(dest)
    foreign = dest.with_name(".cache.rdb.notours.partial")
    foreign.write_text("somebody else's")
    slow_redis.cli("config", "set", "rdb-key-save-delay", "0")
    assert snapshot(slow_redis, dest)["changed"] is True
    assert leftovers(dest) == [foreign.name]
    foreign.unlink()
    assert_sound(dest, tmp_path, 2021)


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_between_the_renames_it_leaves_no_lying_pair(
    seeded_redis: RedisServer, dest: Path, tmp_path: Path, renames: int
) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import itertools, os, signal\n"
        "rename, calls = os.replace, itertools.count()\n"
        "def replace(*paths):\n"
        f"    if next(calls) == {renames}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    rename(*paths)\n"
        "os.replace = replace\n"
    )
    options = {**seeded_redis.connection(), "dest": str(dest), "compression": "none"}
    process = start_module("redis_snapshot", options, env={"PYTHONPATH": f"{hook}:{ROOT / 'collections'}"})
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert (dest.read_bytes() == OLDER) == (renames == 0)
    assert not Path(f"{dest}.json").exists()
    assert snapshot(seeded_redis, dest, max_age="1h")["changed"] is True
    assert_sound(dest, tmp_path, 2021)


def test_two_runs_at_once_disturb_each_other_in_nothing(slow_redis: RedisServer, dest: Path, tmp_path: Path) -> None:
    with transferring(slow_redis, dest) as first:
        # The second one begins now, and gets its data when the first has all of its own.
        slow_redis.cli("config", "set", "rdb-key-save-delay", "0")
        assert snapshot(slow_redis, dest, compression="gzip")["changed"] is True
        assert answer_of(first)["changed"] is True
    assert_sound(dest, tmp_path, 2021)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_full_disk(seeded_redis: RedisServer, tmp_path: Path, compression: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k,mode=700", "upkeep-test", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        dest = small / "cache.rdb"
        dest.write_bytes(OLDER)
        answer = snapshot(seeded_redis, dest, compression=compression)
        assert "No space left on device" in answer["msg"]
        assert str(dest) in answer["msg"]
        assert [path.name for path in small.iterdir()] == ["cache.rdb"]
        assert dest.read_bytes() == OLDER
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_hanging_server_before_the_transfer(seeded_redis: RedisServer, dest: Path) -> None:
    pid = seeded_redis.process.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = snapshot(seeded_redis, dest, timeout=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "did not answer within 0.5 s" in answer["msg"]
    assert_untouched(dest)


def test_the_examples_run(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis(port=None, password="from a vault")
    seed(server.client(), keys=100)
    replacements = {
        "login_host: redis.example.org": f"login_host: 127.0.0.1\n    login_port: {server.port}",
        "/var/backups/redis": str(tmp_path),
    }
    with Sentinel(tmp_path / "sentinel", server) as sentinel:
        replacements["sentinel2.example.org:26379"] = sentinel.address
        replacements["sentinel1.example.org:26379"] = f"127.0.0.1:{free_port()}"
        run_examples("redis_snapshot", replacements, {"redis_password": server.password})
    assert_sound(tmp_path / "cache.rdb.zst", tmp_path, 102)
    assert_sound(tmp_path / "store.rdb.zst", tmp_path, 102)
    assert_sound(tmp_path / "dump.rdb", tmp_path, 102)
