"""Verification of real snapshots and of every kind of damage; redis-cli and redis-check-rdb are the witnesses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import Manifest, read_manifest

from tests.examples import run_examples
from tests.fixtures.redis import RedisFactory
from tests.harness import run_module, start_module
from tests.platform.parts.redis import RedisServer

Snapshots = dict[str, Path]
REDIS = shutil.which("redis-server")


@pytest.fixture(scope="module")
def taken(seeded_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    """A snapshot for each compression; read only."""
    folder = tmp_path_factory.mktemp("taken")
    paths = {compression: folder / f"cache.{compression}" for compression in ("none", "gzip", "zstd")}
    for compression, path in paths.items():
        options = {"dest": str(path), "compression": compression}
        assert run_module("redis_snapshot", {**seeded_redis.connection(), **options})["changed"]
    return paths


@pytest.fixture
def copy(taken: Snapshots, tmp_path: Path) -> Path:
    """An uncompressed snapshot with its manifest, to be damaged."""
    return copied(taken["none"], tmp_path)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def copied(snapshot: Path, folder: Path) -> Path:
    shutil.copy(f"{snapshot}.json", folder)
    return Path(shutil.copy(snapshot, folder))


def verify(path: Path, **options: Any) -> dict[str, Any]:
    env = options.pop("env", None)
    return run_module("redis_verify", {"path": str(path), "fail_on": "never", **options}, env=env)


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in answer["findings"]}


def worst(answer: dict[str, Any]) -> str:
    return str(answer["findings"][0]["summary"])


def remade(path: Path, **changes: Any) -> None:
    """Write the manifest again with other values, as somebody would who knows its digest."""
    manifest = read_manifest(f"{path}.json").as_dict()
    Path(f"{path}.json").write_text(Manifest(**{**manifest, **changes}).as_json())


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_sound_snapshot_passes_each_level(
    seeded_redis: RedisServer, taken: Snapshots, scratch: Path, compression: str
) -> None:
    answer = verify(taken[compression], scratch_dir=str(scratch), target_version="7.0.15")
    assert statuses(answer) == {"snapshot_bytes": "ok", "snapshot_format": "ok", "snapshot_load": "ok"}
    found = answer["verification"]
    assert (found["level"], found["keys_loaded"], found["functions"], found["rdb_version"]) == (3, 2021, 1, 10)
    assert found["digest"] == seeded_redis.cli("debug", "digest")
    assert found["databases"]["0"] == {"keys": 2001, "expires": 280}
    assert {finding["subject"] for finding in answer["findings"]} == {f"cache.{compression}"}
    assert list(scratch.iterdir()) == []


def test_the_digest_of_earlier_loads_is_expected(seeded_redis: RedisServer, copy: Path) -> None:
    digest = seeded_redis.cli("debug", "digest")
    same = verify(copy, expected_digest=digest, digest=False)
    assert same["status"] == "ok" and "with the digest of earlier loads" in json.dumps(same["findings"])
    other = verify(copy, expected_digest="0" * 40, digest=False)
    assert statuses(other)["snapshot_load"] == "critical"
    assert f"its digest is {digest}, and was {'0' * 40} when it was loaded before" in worst(other)
    assert other["verification"]["level"] == 2


def test_keys_that_expired_since_are_counted(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis()
    for number in range(50):
        server.client().set(f"soon:{number}", "x", px=1500)
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**server.connection(), "dest": str(dest)})
    while server.client().dbsize():
        time.sleep(0.1)
    answer = verify(dest)
    assert answer["status"] == "ok"
    assert answer["verification"]["databases"] == {"0": {"keys": 50, "expires": 50}}


def test_an_empty_server(start_redis: RedisFactory, tmp_path: Path) -> None:
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**start_redis().connection(), "dest": str(dest)})
    answer = verify(dest)
    assert (answer["status"], answer["verification"]["keys_loaded"]) == ("ok", 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1000),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "foreign": lambda path: path.write_text("<html>not found</html>"),
    "surplus": lambda path: path.write_bytes(path.read_bytes() + b"\n" * 40),
}
TOLD = {
    "flipped bit": ("at the same size", "CRC-64 is"),
    "truncated": ("bytes and should have", "end mark is missing"),
    "empty": ("the snapshot is empty",),
    "missing": ("there is no snapshot",),
    "foreign": ("bytes and should have", "it is no RDB: it begins with b'<html>not'"),
    "surplus": ("bytes and should have", "40 bytes follow the end"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_each_damage_is_named(copy: Path, damage: str) -> None:
    DAMAGE[damage](copy)
    answer = verify(copy, fail_on="critical")
    assert answer["failed"]
    told = [finding["summary"] for finding in answer["findings"]]
    assert len(told) == len(TOLD[damage])
    for words, summary in zip(TOLD[damage], told):
        assert words in summary
        assert words in answer["msg"]
    assert answer["verification"]["level"] == 0
    assert answer["verification"]["keys_loaded"] is None


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "foreign"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_damage_in_compressed_snapshots_without_a_manifest(
    taken: Snapshots, tmp_path: Path, compression: str, damage: str
) -> None:
    path = copied(taken[compression], tmp_path)
    Path(f"{path}.json").unlink()
    DAMAGE[damage](path)
    found = statuses(verify(path))
    assert found == {"snapshot_bytes": "unknown", "snapshot_format": "critical"}


def test_an_edited_manifest_is_named(copy: Path) -> None:
    content = json.loads(Path(f"{copy}.json").read_text())
    content["databases"]["0"]["keys"] += 1
    Path(f"{copy}.json").write_text(json.dumps(content))
    answer = verify(copy)
    assert statuses(answer) == {"snapshot_bytes": "critical", "snapshot_format": "ok"}
    assert "was changed after it was written" in worst(answer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"databases": {"0": {"keys": 2001, "expires": 281}}}, "database 0 has 280 keys with a TTL instead of 281"),
        ({"databases": {"0": {"keys": 2001, "expires": 280}}}, "database 3 has 20 keys instead of 0"),
        ({"functions": 2}, "1 function libraries instead of 2"),
    ],
)
def test_other_data_than_the_manifest_says(copy: Path, changes: dict[str, Any], words: str) -> None:
    remade(copy, **changes)
    answer = verify(copy)
    assert statuses(answer)["snapshot_load"] == "critical"
    assert words in worst(answer)
    assert answer["verification"]["level"] == 2


@pytest.mark.parametrize(
    ("counted", "keys", "tolerance", "status"),
    [
        ("near", 2101, 1, "ok"),
        ("near", 2102, 1, "critical"),
        ("near", 2202, 10, "ok"),
        ("exact", 2002, 10, "critical"),
        ("no", 5000, 0, "ok"),
    ],
)
def test_how_much_may_differ(copy: Path, counted: str, keys: int, tolerance: float, status: str) -> None:
    databases = {"0": {"keys": keys, "expires": 280}, "3": {"keys": 20, "expires": 0}}
    remade(copy, counted=counted, databases=databases)
    assert verify(copy, tolerance=tolerance, digest=False)["status"] == status


def test_the_manifest_of_another_rdb(copy: Path) -> None:
    remade(copy, crc64="0" * 16)
    answer = verify(copy, level=2)
    assert statuses(answer) == {"snapshot_bytes": "ok", "snapshot_format": "critical"}
    assert "speaks of another RDB" in worst(answer)


def test_an_rdb_newer_than_the_target_and_than_the_server(copy: Path, tmp_path: Path) -> None:
    content = copy.read_bytes().replace(b"REDIS0010", b"REDIS0079", 1)
    unchecked = content[:-8] + bytes(8)  # a checksum of zero says that there is none
    copy.write_bytes(unchecked)
    Path(f"{copy}.json").unlink()
    told = verify(copy, level=2, target_version="7.0.15")
    assert "Redis 7.0.15 cannot load RDB version 79 (Redis 7.0.15)" in worst(told)
    assert told["status"] == "critical"
    # Of the server that happens to be installed here nothing follows for the snapshot.
    loaded = verify(copy)
    assert statuses(loaded)["snapshot_load"] == "unknown"
    told = json.dumps(loaded["findings"])
    assert "cannot load RDB version 79" in told and "nobody tried" in told
    # A server of which nobody knows what it can load refuses by itself.
    newest = script(
        tmp_path / "newest", 'case "$1" in --version) echo "Redis server v=99.0.0";; *) exec redis-server "$@";; esac'
    )
    loaded = verify(copy, server_binary=newest)
    assert statuses(loaded)["snapshot_load"] == "critical"
    assert "Can't handle RDB format version 79" in worst(loaded)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_the_first_server_that_can_load_it_is_taken(copy: Path, tmp_path: Path) -> None:
    """Both names in PATH; what is called valkey-server says so."""
    (tmp_path / "bin").mkdir()
    for name, told in (("redis-server", "Redis server v=6.2.0"), ("valkey-server", "Valkey server v=8.1.1 sha=0")):
        script(tmp_path / "bin" / name, f'[ "$1" != --version ] || {{ echo "{told}"; exit; }}\nexec {REDIS} "$@"')
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    answer = verify(copy, env=env)
    assert answer["status"] == "ok"
    answer = verify(copy, env=env, server_binary="redis-server")
    assert "Redis 6.2.0 cannot load RDB version 10" in worst(answer)


def test_an_rdb_without_a_checksum_is_a_warning(start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis(config=["rdbchecksum no"])
    server.client().set("a", "b")
    dest = tmp_path / "x.rdb"
    taken = run_module("redis_snapshot", {**server.connection(), "dest": str(dest)})
    assert taken["snapshot"]["crc64"] is None
    answer = verify(dest)
    assert (answer["status"], answer["verification"]["level"]) == ("warning", 3)


def test_without_redis_server_nothing_is_called_good(copy: Path) -> None:
    answer = verify(copy, server_binary="/nonexistent/redis-server", fail_on="warning")
    assert answer["failed"]
    assert statuses(answer)["snapshot_load"] == "unknown"
    assert "is not installed here" in answer["msg"]


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false"])
def test_another_program_than_redis_server(copy: Path, program: str) -> None:
    assert statuses(verify(copy, server_binary=program))["snapshot_load"] == "unknown"


def test_a_scratch_folder_that_is_not_there(copy: Path) -> None:
    answer = verify(copy, scratch_dir="/nonexistent")
    assert statuses(answer)["snapshot_load"] == "unknown"
    assert answer["verification"]["level"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("manifest", [True, False])
def test_no_room_to_unpack(taken: Snapshots, tmp_path: Path, scratch: Path, manifest: bool) -> None:
    path = copied(taken["zstd"], tmp_path)
    if not manifest:
        Path(f"{path}.json").unlink()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k,mode=700", "upkeep-test", str(scratch)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        answer = verify(path, scratch_dir=str(scratch))
        assert list(scratch.iterdir()) == []
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
    assert answer["status"] == "unknown"
    assert ("unpacking needs 257791 bytes" if manifest else "No space left on device") in json.dumps(answer["findings"])


def test_not_enough_memory(copy: Path) -> None:
    content = copy.read_bytes()
    start = content.index(b"used-mem") + len("used-mem")
    assert content[start] == 0xC2  # an integer of four bytes follows; now it is a text, and far more
    copy.write_bytes(content[:start] + b"\x0f" + b"9" * 15 + content[start + 5 : -8] + bytes(8))
    Path(f"{copy}.json").unlink()
    answer = verify(copy)
    assert statuses(answer)["snapshot_load"] == "unknown"
    assert "loading needs about" in json.dumps(answer["findings"])


# --- the private server is gone, whatever happens ---


@pytest.fixture
def slow_verification(taken: Snapshots, scratch: Path, tmp_path: Path) -> Any:
    """A verification whose private server takes its time: it is stopped while it loads."""
    wrapper = tmp_path / "redis-server"
    wrapper.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, signal\n"
        "if '--version' not in sys.argv:\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} ')\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.execvp('redis-server', ['redis-server', *sys.argv[1:]])\n"
    )
    wrapper.chmod(0o700)
    options = {"path": str(taken["none"]), "scratch_dir": str(scratch), "server_binary": str(wrapper)}
    process = start_module("redis_verify", {**options, "timeout": 60})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith(" "):
        assert process.poll() is None
        time.sleep(0.02)
    yield process, int((tmp_path / "pid").read_text()), options
    if process.poll() is None:
        process.kill()
    process.communicate()


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_sigterm_takes_server_and_folder_along(slow_verification: Any, scratch: Path) -> None:
    process, pid, _ = slow_verification
    assert [path.stat().st_mode & 0o777 for path in scratch.iterdir()] == [0o700]
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert "stopped by SIGTERM" in json.loads(output)["msg"]
    assert gone(pid)
    assert list(scratch.iterdir()) == []


def test_sigkill_takes_the_server_along_and_the_next_run_the_folder(slow_verification: Any, scratch: Path) -> None:
    process, pid, options = slow_verification
    process.kill()
    process.wait()
    assert gone(pid)
    (left,) = scratch.iterdir()
    os.utime(left, (time.time() - 3600,) * 2)
    assert verify(Path(options["path"]), scratch_dir=str(scratch))["status"] == "ok"
    assert list(scratch.iterdir()) == []


def test_the_folder_of_a_living_run_is_left_alone(slow_verification: Any, scratch: Path) -> None:
    _, pid, options = slow_verification
    (living,) = scratch.iterdir()
    os.utime(living, (time.time() - 3600,) * 2)
    assert verify(Path(options["path"]), scratch_dir=str(scratch))["status"] == "ok"
    assert list(scratch.iterdir()) == [living]
    os.kill(pid, signal.SIGKILL)


def test_a_server_that_is_killed_while_it_loads_leaves_it_open(slow_verification: Any, scratch: Path) -> None:
    process, pid, _ = slow_verification
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=20)
    answer = json.loads(output)
    assert statuses(answer)["snapshot_load"] == "unknown"
    assert "was killed while it loaded the snapshot" in json.dumps(answer["findings"])
    assert list(scratch.iterdir()) == []


def test_a_server_that_never_loads(taken: Snapshots, scratch: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "redis-server"
    wrapper.write_text('#!/bin/sh\n[ "$1" = --version ] && exec redis-server --version\nexec sleep 60\n')
    wrapper.chmod(0o700)
    answer = verify(taken["none"], scratch_dir=str(scratch), server_binary=str(wrapper), timeout=0.5)
    assert statuses(answer)["snapshot_load"] == "unknown"
    assert "had not loaded the snapshot after 0.5 s" in json.dumps(answer["findings"])
    assert list(scratch.iterdir()) == []


def test_the_examples_run(seeded_redis: RedisServer, taken: Snapshots, tmp_path: Path) -> None:
    path = copied(taken["zstd"], tmp_path)
    where = f"login_host: {seeded_redis.host}\n    login_port: {seeded_redis.port}"
    replacements = {"/var/backups/redis/cache.rdb.zst": str(path), "login_host: redis1.example.org": where}
    run_examples("redis_verify", replacements, {"redis_password": seeded_redis.password})
