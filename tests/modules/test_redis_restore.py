"""Restores into live servers; redis-cli and DEBUG DIGEST are the witnesses of what they hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Clients
from tests.examples import run_examples
from tests.fixtures.redis import RedisFactory
from tests.harness import run_module
from tests.platform.parts.certificates import CertificateAuthority
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import RedisServer, ServerTls, seed
from tests.restorer import Restorer

SETTINGS = (
    "masterauth",
    "masteruser",
    "replica-read-only",
    "replica-serve-stale-data",
    "replica-lazy-flush",
    "repl-diskless-load",
    "repl-diskless-sync-delay",
    "tls-replication",
)
AOF = ["appendonly yes"]


@pytest.fixture(scope="module")
def taken(seeded_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the seeded server, with a consumer group; read only."""
    client = seeded_redis.client()
    client.xgroup_create("stream:99", "workers", id="0")
    client.xreadgroup("workers", "one", {"stream:99": ">"})
    path = tmp_path_factory.mktemp("taken") / "cache.rdb.zst"
    assert run_module("redis_snapshot", {**seeded_redis.connection(), "dest": str(path)})["changed"]
    return path


@pytest.fixture
def restorer(start_redis: RedisFactory, tmp_path: Path) -> Callable[..., Restorer]:
    """A function that starts a server with other data, to be restored into."""

    def make(**settings: Any) -> Restorer:
        server = start_redis(**settings)
        seed(server.client(), keys=300)
        server.client().set("live", "only here")
        return Restorer(server, tmp_path)

    return make


def digest(server: RedisServer) -> str:
    return server.cli("debug", "digest")


def settings(server: RedisServer) -> dict[str, Any]:
    found = server.client(decode_responses=True).config_get(*SETTINGS)
    return {name: value for name, value in found.items() if name != "repl-diskless-sync-delay"} | {
        "delay": found["repl-diskless-sync-delay"]
    }


def told(answer: dict[str, Any]) -> str:
    return json.dumps(answer["findings"])


# --- online ---


@pytest.mark.parametrize("persistence", [[*AOF], ["save 3600 1"], []], ids=["aof", "rdb", "memory only"])
def test_online_gives_the_server_exactly_the_snapshot(
    restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path, persistence: list[str]
) -> None:
    restore = restorer(config=["masterauth before", "masteruser somebody", *persistence])
    server, wanted = restore.server, digest(seeded_redis)
    before = settings(server)
    answer = restore.run(path=str(taken), diff=True)
    assert (answer["status"], answer["changed"]) == ("ok", True)
    assert digest(server) == wanted
    assert settings(server) == before
    assert server.cli("fcall", "ping2", "0") == "pong2"
    assert server.cli("xinfo", "groups", "stream:99") == seeded_redis.cli("xinfo", "groups", "stream:99")
    assert server.cli("pexpiretime", "session:0") == seeded_redis.cli("pexpiretime", "session:0")
    assert server.client().info("replication")["role"] == "master"
    found = answer["restore"]
    assert (found["mode"], found["held_seconds"] > 0, found["rolled_back"]) == ("online", True, False)
    assert found["before"]["0"]["keys"] == answer["diff"]["before"]["0"]["keys"] == 302
    assert found["after"]["0"]["keys"] == answer["diff"]["after"]["0"]["keys"] == 2001
    assert Path(found["safety"]).stat().st_mode & 0o777 == 0o600
    server.client().set("written", "afterwards")  # nobody is held any more
    if persistence:
        server.client().delete("written")
        server.stop()
        server.start()
        assert digest(server) == wanted


def test_keys_that_expired_since_go_away_afterwards(start_redis: RedisFactory, tmp_path: Path) -> None:
    source = start_redis("source")
    for number in range(50):
        source.client().set(f"soon:{number}", "x", px=1000)
    source.client().set("stays", "x")
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**source.connection(), "dest": str(dest)})
    while source.client().dbsize() > 1:
        time.sleep(0.1)
    restore = Restorer(start_redis(config=["bind 127.0.0.1 127.0.0.3"]), tmp_path)
    answer = restore.run(path=str(dest), login_host="127.0.0.3")  # as from another host
    assert answer["status"] == "ok", told(answer)
    while restore.server.client().dbsize() > 1:
        time.sleep(0.05)
    assert restore.server.cli("keys", "*") == "stays"


def test_values_are_compared_whatever_their_order(start_redis: RedisFactory, tmp_path: Path) -> None:
    source = start_redis("source")
    for number in range(30):
        source.client().sadd(f"set:{number}", *(f"member {member} of {number}" for member in range(600)))
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**source.connection(), "dest": str(dest)})
    restore = Restorer(start_redis(unix_socket=True, password="target pass"), tmp_path)
    by_socket = {"login_host": None, "login_unix_socket": str(restore.server.socket_path)}
    reached = {"scratch_address": "127.0.0.2", "scratch_port": free_port()}
    answer = restore.run(path=str(dest), digest=True, **by_socket, **reached)
    assert answer["status"] == "ok", told(answer)
    assert restore.journal()["master"] == list(reached.values())
    assert "target pass" not in json.dumps(answer)
    assert restore.journal()["settings"]["masterauth"][1] not in json.dumps(answer)
    assert digest(restore.server) == digest(source)


def test_the_same_restore_again_changes_nothing_until_somebody_writes(
    restorer: Callable[..., Restorer], taken: Path
) -> None:
    restore = restorer()
    assert restore.run(path=str(taken))["changed"]
    again = restore.run(path=str(taken))
    assert (again["changed"], again["restore"]["safety"]) == (False, None)
    assert "holds the data of the snapshot already" in again["restore"]["message"]
    restore.server.client().set("string:20", "other")
    assert restore.run(path=str(taken))["changed"]


def test_a_server_that_was_not_written_to_since_its_snapshot(start_redis: RedisFactory, tmp_path: Path) -> None:
    restore = Restorer(start_redis(), tmp_path)
    seed(restore.server.client(), keys=100)
    dest = tmp_path / "x.rdb"
    run_module("redis_snapshot", {**restore.server.connection(), "dest": str(dest)})
    assert restore.run(path=str(dest))["changed"] is False


def test_check_mode_tells_the_plan_and_touches_nothing(restorer: Callable[..., Restorer], taken: Path) -> None:
    restore = restorer()
    before, offset = digest(restore.server), restore.server.client().info("replication")["master_repl_offset"]
    answer = restore.run(path=str(taken), check=True, diff=True)
    assert answer["changed"] is True
    message = answer["restore"]["message"]
    assert message.startswith(f"would restore {taken}, ")
    assert "s old, online, because writers wait meanwhile" in message
    assert "keys now 302 in database 0, 3 in database 3, then 2001 in database 0, 20 in database 3" in message
    assert answer["diff"]["after"]["3"]["keys"] == 20
    assert digest(restore.server) == before
    assert restore.server.client().info("replication")["master_repl_offset"] == offset
    assert not restore.state_dir.exists()


# --- refused ---

LEAST = (
    "restorer on >pw resetchannels &* %R~* -@all +psync +replconf +ping +info +select +pubsub|numsub +replicaof "
    "+client|pause +client|unpause +config|get +config|set +dump +pexpiretime"
)


def test_a_user_with_the_least_rights_may_restore(
    restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path
) -> None:
    restore = restorer(users=[LEAST])
    answer = restore.run(path=str(taken), login_user="restorer", login_password="pw")
    assert answer["status"] == "ok", told(answer)
    assert digest(restore.server) == digest(seeded_redis)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "too few databases": ({"config": ["databases 3"]}, {}, "database 3 and the server only 3 databases"),
    "maxmemory": ({"config": ["maxmemory 1100kb"]}, {}, "and maxmemory is 1126400"),
    "a cluster": ({"config": ["cluster-enabled yes"]}, {}, "a node of a cluster"),
    "rights": (
        {"users": [LEAST.replace("+replicaof +client|pause", "").replace("+dump", "")]},
        {"login_user": "restorer", "login_password": "pw"},
        "its ACL needs +replicaof +client|pause +dump",
    ),
    "settings": (
        {"users": [LEAST.replace("+config|get", "")]},
        {"login_user": "restorer", "login_password": "pw"},
        "its ACL needs +config|get",
    ),
    "renamed": ({"config": ['rename-command REPLICAOF ""']}, {}, "its ACL needs +replicaof"),
    "digest": ({"config": ["enable-debug-command no"]}, {"digest": True}, "digest needs DEBUG"),
    "offline without commands": ({}, {"mode": "offline"}, "how to stop and start the server is not told"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_each_refusal_is_named_before_anything_is_touched(
    start_redis: RedisFactory, taken: Path, tmp_path: Path, case: str
) -> None:
    server_settings, options, words = REFUSED[case]
    restore = Restorer(start_redis(**server_settings), tmp_path)
    before = digest(restore.server) if "digest" not in case else ""
    for check in (True, False) if case == "rights" else (False,):
        answer = restore.run(path=str(taken), check=check, **options)
        assert answer["failed"]
        assert not answer["changed"]
        assert any(words in refusal for refusal in answer["restore"]["refusals"]), answer["restore"]
        assert f"nothing was touched: {answer['restore']['refusals'][0]}" in answer["msg"]
    assert "digest" in case or digest(restore.server) == before
    assert not list(restore.state_dir.glob("*/*/journal.json"))


def test_a_server_that_replicates_by_tls(
    start_redis: RedisFactory,
    seeded_redis: RedisServer,
    certificate_authority: CertificateAuthority,
    taken: Path,
    tmp_path: Path,
) -> None:
    files = certificate_authority.issue("localhost", "127.0.0.1").write(tmp_path / "tls", "server")
    server = start_redis(tls=ServerTls(files.fullchain, files.key, certificate_authority.root_file))
    restore = Restorer(server, tmp_path)
    refused = restore.run(path=str(taken), scratch_address="0.0.0.0")
    assert "the server replicates by TLS, the scratch server does not" in refused["msg"]
    assert restore.run(path=str(taken))["status"] == "ok"
    assert digest(server) == digest(seeded_redis)
    assert server.cli("config", "get", "tls-replication").split() == ["tls-replication", "yes"]


def test_a_replica_is_refused(start_redis: RedisFactory, taken: Path, tmp_path: Path) -> None:
    master = start_redis("master")
    restore = Restorer(start_redis("replica", config=[f"replicaof 127.0.0.1 {master.port}"]), tmp_path)
    answer = restore.run(path=str(taken))
    assert f"a replica of 127.0.0.1:{master.port}" in answer["msg"]


def test_a_server_whose_disk_is_full_or_that_is_rewriting(
    start_redis: RedisFactory, taken: Path, tmp_path: Path
) -> None:
    restore = Restorer(start_redis(appendonly=True, config=["rdb-key-save-delay 20000"]), tmp_path)
    seed(restore.server.client(), keys=1000)
    restore.server.cli("bgrewriteaof")
    assert "is rewriting its append-only file" in restore.run(path=str(taken))["msg"]
    restore.server.kill(children_only=True)


@pytest.mark.parametrize("damage", ["flipped", "no manifest", "newer"])
def test_a_snapshot_that_was_not_proved_is_refused(
    restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path, tmp_path: Path, damage: str
) -> None:
    restore = restorer()
    path = Path(shutil.copy(taken, tmp_path / "copy.rdb.zst"))
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    if damage != "no manifest":
        shutil.copy(f"{taken}.json", f"{path}.json")
    if damage == "newer":
        plain = run_module("redis_snapshot", {**seeded_redis.connection(), "dest": str(path), "compression": "none"})
        assert plain["changed"]
        path.write_bytes(path.read_bytes().replace(b"REDIS0010", b"REDIS0099", 1)[:-8] + bytes(8))
        Path(f"{path}.json").unlink()
    answer = restore.run(path=str(path))
    assert answer["failed"]
    assert restore.server.cli("get", "live") == "only here"
    words = {
        "flipped": "the snapshot was not proved",
        "no manifest": "the snapshot has no manifest",
        "newer": "RDB version 99",
    }
    assert words[damage] in told(answer)
    if damage == "no manifest":
        assert restore.run(path=str(path), unverified=True)["restore"]["message"].startswith("restored 2021 keys")


def test_no_room_for_the_safety_snapshot(restorer: Callable[..., Restorer], taken: Path, small_disk: Path) -> None:
    restore = restorer()
    restore.state_dir = small_disk
    answer = restore.run(path=str(taken))
    assert f"{small_disk} would need about" in answer["msg"]
    assert restore.server.cli("get", "live") == "only here"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "upkeep-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# --- offline ---


@pytest.mark.parametrize("persistence", [[*AOF], ["save 3600 1"], []], ids=["aof", "rdb", "memory only"])
def test_offline_gives_the_server_exactly_the_snapshot(
    restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path, persistence: list[str]
) -> None:
    restore = restorer(config=[*persistence, "dbfilename other.rdb", "appendfilename log.aof", "appenddirname logs"])
    server = restore.server
    answer = restore.run(path=str(taken), mode="offline", **restore.commands())
    assert (answer["status"], answer["changed"]) == ("ok", True), told(answer)
    assert answer["restore"]["mode"] == "offline"
    assert digest(server) == digest(seeded_redis)
    assert server.cli("fcall", "ping2", "0") == "pong2"
    server.client().set("written", "afterwards")
    (aside,) = server.folder.glob("upkeep-before-*")
    kept = {"appendonly yes": {"logs"}, "save 3600 1": {"other.rdb"}, "": set()}
    assert {path.name for path in aside.iterdir()} == kept["".join(persistence)]
    if persistence == AOF:
        server.stop()
        server.start()
        assert server.cli("get", "written") == "afterwards"
        server.client().delete("written")
        assert digest(server) == digest(seeded_redis)
    assert restore.run("confirmed")["changed"]
    assert not aside.exists()


def test_auto_goes_offline_where_online_cannot_be_done(
    restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path
) -> None:
    restore = restorer(config=['rename-command REPLICAOF ""', "save 3600 1"])
    answer = restore.run(path=str(taken), **restore.commands())
    assert answer["status"] == "ok", told(answer)
    assert answer["restore"]["mode"] == "offline"
    assert "its ACL needs +replicaof" in answer["restore"]["why"]
    assert digest(restore.server) == digest(seeded_redis)


def test_offline_refuses_an_appendonly_that_its_file_contradicts(
    restorer: Callable[..., Restorer], taken: Path
) -> None:
    restore = restorer(appendonly=True)
    restore.server.cli("config", "set", "appendonly", "no")
    answer = restore.run(path=str(taken), mode="offline", **restore.commands())
    assert "appendonly is no and would be yes after a restart" in answer["msg"]


def test_a_stop_command_that_stops_nothing(restorer: Callable[..., Restorer], taken: Path) -> None:
    restore = restorer(config=["save 3600 1"])
    before = digest(restore.server)
    commands = {**restore.commands(), "stop_command": ["true"]}
    answer = restore.run(path=str(taken), mode="offline", timeout=1, **commands)
    assert "was taken back: the server, process" in answer["msg"]
    assert "still runs 1 s after its stop" in answer["msg"]
    assert digest(restore.server) == before


def test_a_service_manager_that_starts_it_again_is_noticed(restorer: Callable[..., Restorer], taken: Path) -> None:
    restore = restorer(config=["save 3600 1"])
    commands, before = restore.commands(), digest(restore.server)
    stop = commands["stop_command"][-1]
    again = " ".join(f"'{word}'" for word in commands["start_command"])
    commands["stop_command"] = ["sh", "-c", f"{stop}; sleep 0.5; {again}"]
    answer = restore.run(path=str(taken), mode="offline", timeout=5, **commands)
    assert answer["failed"]
    assert digest(restore.server) == before


# --- clients ---


@pytest.mark.parametrize("persistence", [[*AOF], ["save 3600 1"]], ids=["aof", "rdb"])
def test_under_load_no_write_fails_online(
    restorer: Callable[..., Restorer], taken: Path, persistence: list[str]
) -> None:
    restore = restorer(config=persistence)
    with Clients(restore.server) as clients:
        answer = restore.run(path=str(taken))
    assert answer["status"] == "ok", told(answer)
    assert clients.failed_writes == {}
    assert set(clients.failed_reads) <= {"BusyLoadingError"}
    assert clients.longest_write < answer["restore"]["held_seconds"] + 1
    assert restore.server.client().exists(*(f"writer:{number}" for number in range(3))) == 3
    assert answer["restore"]["safety"].endswith("safety-held.rdb")  # they wrote after the first one


def test_under_load_offline(restorer: Callable[..., Restorer], taken: Path) -> None:
    restore = restorer(config=AOF)
    with Clients(restore.server) as clients:
        answer = restore.run(path=str(taken), mode="offline", **restore.commands())
    assert answer["status"] == "ok", told(answer)
    assert clients.failed_writes
    assert set(clients.failed_writes) <= {"ConnectionError", "BusyLoadingError"}
    assert restore.server.client().get("string:20") is not None


# --- back ---


def test_going_back_and_confirming(restorer: Callable[..., Restorer], seeded_redis: RedisServer, taken: Path) -> None:
    restore = restorer()
    before = digest(restore.server)
    assert "no restore into" in restore.run("rolled_back")["msg"]
    assert restore.run("confirmed")["changed"] is False
    restore.run(path=str(taken))
    assert digest(restore.server) == digest(seeded_redis)
    planned = restore.run("rolled_back", check=True)
    assert planned["changed"]
    assert digest(restore.server) == digest(seeded_redis)
    back = restore.run("rolled_back")
    assert (back["changed"], back["restore"]["rolled_back"]) == (True, True)
    assert digest(restore.server) == before
    assert restore.run("rolled_back")["changed"] is False
    assert restore.run("confirmed", check=True)["changed"]
    assert restore.run("confirmed")["changed"]
    assert not list(restore.state_dir.glob("*/2*"))


def test_two_runs_at_once(restorer: Callable[..., Restorer], taken: Path) -> None:
    """The second one waits, and finds what the first one did."""
    restore = restorer()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(restore_once(restore, taken))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["changed"] for answer in answers) == [False, True]


def restore_once(restore: Restorer, taken: Path) -> dict[str, Any]:
    return run_module("redis_restore", restore.arguments(path=str(taken)))


def test_the_examples_run(start_redis: RedisFactory, taken: Path, tmp_path: Path) -> None:
    server = start_redis(password="pw")
    replacements = {
        "/var/backups/redis/cache.rdb.zst": str(taken),
        "login_host: redis.example.org": f"login_host: 127.0.0.1\n    login_port: {server.port}\n    "
        f"state_dir: {tmp_path / 'state'}",
    }
    run_examples("redis_restore", replacements, {"redis_password": "pw"})
    assert server.client().dbsize() == 0
