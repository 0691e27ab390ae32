"""Restores that are killed or fail at each of their steps: the server ends with all of one data or all of the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks
from tests.fixtures.redis import RedisFactory
from tests.harness import run_module
from tests.platform.parts.process import ServerProcess, accepts, free_port
from tests.platform.parts.redis import RedisServer, seed
from tests.restorer import Restorer

ONLINE = ("safety snapshot", "holding writers", "copying", "promoting", "compared", "waiting for the append-only file")
OFFLINE = ("stopping", "replacing its files", "starting", "compared")
#: Steps from which on the restored data is there, whole, when the module is killed.
REPLACED = ("promoting", "compared", "waiting for the append-only file")
AOF = "appendonly yes"
SETTINGS = ("masterauth", "replica-read-only", "repl-diskless-load", "repl-diskless-sync-delay", "replica-lazy-flush")


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A snapshot, and the digest of the data in it."""
    folder = tmp_path_factory.mktemp("taken")
    with RedisServer(folder / "server") as server:
        seed(server.client(), keys=500)
        run_module("redis_snapshot", {**server.connection(), "dest": str(folder / "cache.rdb.zst")})
        yield folder / "cache.rdb.zst", server.cli("debug", "digest")


@pytest.fixture
def restorer(start_redis: RedisFactory, tmp_path: Path) -> Callable[..., Restorer]:
    """A function that starts a server with other data, to be restored into."""

    def make(*config: str, **settings: Any) -> Restorer:
        server = start_redis(config=["masterauth before", *config], **settings)
        seed(server.client(), keys=50)
        server.client().set("live", "only here")
        return Restorer(server, tmp_path)

    return make


def digest(server: RedisServer) -> str:
    return server.cli("debug", "digest")


def settings(server: RedisServer) -> dict[str, Any]:
    return dict(server.client(decode_responses=True).config_get(*SETTINGS))


def assert_fine(answer: dict[str, Any]) -> None:
    assert answer.get("status") == "ok", answer.get("msg", answer)


def assert_in_order(restore: Restorer, before: dict[str, Any]) -> None:
    """Nothing of the restore is left in the server: it is a master with its own settings, and takes writes."""
    assert settings(restore.server) == before
    assert restore.server.client().info("replication")["role"] == "master"
    client = restore.server.client(socket_timeout=1)
    client.set("probe", 1)
    client.delete("probe")


# --- the module is killed ---


@pytest.mark.parametrize("step", ONLINE)
def test_killed_online_and_run_again(restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str) -> None:
    restore = restorer(AOF)
    before = settings(restore.server)
    assert restore.run(path=str(taken[0]), actions={step: "kill me"}, hold_timeout=1) == {}
    assert restore.steps[-1] == step
    client = restore.server.client(socket_timeout=5)
    begun = time.monotonic()
    client.exists("live")  # readers are served
    client.set("meanwhile", 1)  # and writers wait no longer than told
    assert time.monotonic() - begun < 4
    client.delete("meanwhile")
    answer = restore.run(path=str(taken[0]))
    assert_fine(answer)
    assert f"was killed during {step!r}" in answer["restore"]["continued"]
    assert digest(restore.server) == taken[1]
    assert_in_order(restore, before)


def test_the_disk_of_the_journal_is_full(restorer: Callable[..., Restorer], taken: tuple[Path, str]) -> None:
    """The journal is written before each step, so nothing was touched; the server is as it was."""
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    restore.state_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "upkeep-test", str(restore.state_dir)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        fill = ["sh", "-c", f"dd if=/dev/zero of={restore.state_dir}/full bs=4k 2>/dev/null || true"]
        answer = restore.run(path=str(taken[0]), actions={"safety snapshot": fill})
        assert "No space left on device" in answer["msg"]
        assert digest(restore.server) == data
        assert_in_order(restore, before)
        (restore.state_dir / "full").unlink()
        assert_fine(restore.run(path=str(taken[0])))
        assert digest(restore.server) == taken[1]
    finally:
        subprocess.run(["umount", str(restore.state_dir)], check=True)


@pytest.mark.parametrize("step", ["copying", "promoting", "compared"])
def test_killed_online_and_taken_back(restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    restore.run(path=str(taken[0]), actions={step: "kill me"}, hold_timeout=1)
    answer = restore.run("rolled_back")
    assert (answer["status"], answer["restore"]["rolled_back"]) == ("ok", True), answer
    assert digest(restore.server) == data
    assert_in_order(restore, before)
    assert restore.run("rolled_back")["changed"] is False


@pytest.mark.parametrize(
    ("step", "action"), [("copying", "kill me"), ("compared", "kill me"), ("copying", "kill scratch")]
)
def test_going_back_is_killed_or_fails_and_is_run_again(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str, action: str
) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    restore.run(path=str(taken[0]))
    restore.run("rolled_back", actions={step: action}, hold_timeout=1)
    assert digest(restore.server) == (taken[1] if step == "copying" else data)
    assert_fine(restore.run("rolled_back"))
    assert digest(restore.server) == data
    assert restore.journal()["state"] == "back"
    assert_in_order(restore, before)


def test_killed_while_data_flows(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], slow_scratch: Path, tmp_path: Path
) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    later = ["sh", "-c", "(sleep 0.4; kill -9 $1) > /dev/null 2>&1 &", "-", "PARENT"]
    slowly = {"server_binary": str(slow_scratch), "progress_file": str(tmp_path / "progress")}
    restore.run(path=str(taken[0]), actions={"copying": later}, hold_timeout=1, **slowly)
    assert '"what": "restore into redis://127.0.0.1:' in (tmp_path / "progress").read_text()
    assert restore.steps[-1] == "copying"
    assert restore.server.client().info("replication")["role"] == "slave"
    assert_fine(restore.run("rolled_back"))
    assert digest(restore.server) == data
    assert_in_order(restore, before)


def test_what_was_written_after_a_death_is_kept(restorer: Callable[..., Restorer], taken: tuple[Path, str]) -> None:
    """The server had its old data and went on: going back means to leave it as it is."""
    restore = restorer(AOF)
    restore.run(path=str(taken[0]), actions={"copying": "kill me"}, hold_timeout=0.1)
    restore.server.client().set("written", "since")
    planned = restore.run(path=str(taken[0]), check=True)
    assert "was killed during 'copying'" in planned["restore"]["message"]
    answer = restore.run("rolled_back")
    assert "the server holds what it held before" in answer["restore"]["message"]
    assert restore.server.cli("get", "written") == "since"


def test_the_safety_snapshot_of_a_dead_run_is_what_goes_back(
    restorer: Callable[..., Restorer], taken: tuple[Path, str]
) -> None:
    """Killed with the restored data in place, and restored again: rolled_back still knows the data before both."""
    restore = restorer(AOF)
    data = digest(restore.server)
    restore.run(path=str(taken[0]), actions={"promoting": "kill me"}, hold_timeout=0.1)
    restore.server.client().set("written", "since")
    assert_fine(restore.run(path=str(taken[0])))
    assert digest(restore.server) == taken[1]
    assert_fine(restore.run("rolled_back"))
    assert digest(restore.server) == data


@pytest.mark.parametrize(
    ("step", "persistence"),
    [
        ("stopping", AOF),
        ("stopping", 'save ""'),
        ("replacing its files", AOF),
        ("replacing its files", "save 3600 1"),
        ("starting", AOF),
        ("starting", 'save ""'),
        ("compared", "save 3600 1"),
    ],
)
def test_killed_offline(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str, persistence: str
) -> None:
    restore = restorer(persistence)
    data, options = digest(restore.server), {"mode": "offline", **restore.commands()}
    restore.run(path=str(taken[0]), actions={step: "kill me"}, hold_timeout=0.1, **options)
    assert restore.steps[-1] == step
    if OFFLINE.index(step) % 2:
        assert_fine(restore.run(path=str(taken[0]), **options))
        assert digest(restore.server) == taken[1]
    else:
        answer = restore.run("rolled_back", **options)
        assert_fine(answer)
        assert digest(restore.server) == data
    restore.server.client(socket_timeout=2).set("probe", 1)


@pytest.mark.parametrize("persistence", [AOF, "save 3600 1"])
def test_killed_offline_and_the_files_from_before_are_not_whole(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], persistence: str
) -> None:
    """They are not believed, and not by a later run either: the safety snapshot is what goes back."""
    restore = restorer(persistence)
    data, options = digest(restore.server), {"mode": "offline", **restore.commands()}
    restore.run(path=str(taken[0]), actions={"starting": "kill me"}, hold_timeout=0.1, **options)
    for file in [path for path in Path(restore.journal()["aside"]).rglob("*") if path.is_file()]:
        file.unlink()
    killed = restore.run("rolled_back", actions={"holding writers": "kill me"}, hold_timeout=0.1, **options)
    first, second = sorted(restore.state_dir.glob("*/*/journal.json"))
    assert killed == {} and json.loads(first.read_text())["lost"]
    shutil.rmtree(second.parent)  # as if it had been killed earlier still
    answer = restore.run("rolled_back", **options)
    assert_fine(answer)
    assert "lacks data of the safety snapshot" in answer["restore"]["continued"], answer
    assert digest(restore.server) == data


def test_sigterm_goes_back(restorer: Callable[..., Restorer], taken: tuple[Path, str]) -> None:
    restore = restorer()
    before, data = settings(restore.server), digest(restore.server)
    answer = restore.run(path=str(taken[0]), actions={"promoting": "stop me"})
    assert "stopped by SIGTERM" in answer["msg"]
    assert restore.journal()["state"] == "back"
    assert digest(restore.server) == data
    assert_in_order(restore, before)


# --- a server is killed ---


@pytest.mark.parametrize("step", ["copying", "promoting"])
def test_the_scratch_server_is_killed(restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    answer = restore.run(path=str(taken[0]), actions={step: "kill scratch"})
    if step == "copying":
        assert f"the restore failed during {step!r} and was taken back" in answer["msg"]
        assert (answer["changed"], answer["restore"]["rolled_back"]) == (False, True)
    assert digest(restore.server) == (data if answer["failed"] else taken[1])  # by then the server has everything
    assert_in_order(restore, before)


def kill_and_start(restore: Restorer) -> list[str]:
    """A command that does what a crash and a service manager do to the server."""
    start = " ".join(f"'{word}'" for word in restore.commands()["start_command"])
    return ["sh", "-c", f"kill -9 $(cut -d' ' -f1 {restore.server.process.pid_file}); sleep 0.2; {start}"]


@pytest.mark.parametrize("step", [step for step in ONLINE if step != "compared"])
def test_the_server_crashes_and_comes_back(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], step: str
) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    answer = restore.run(path=str(taken[0]), actions={step: kill_and_start(restore)})
    if answer["failed"]:
        assert "and was taken back" in answer["msg"], answer["msg"]
    assert digest(restore.server) == (data if answer["failed"] else taken[1])
    assert answer["failed"] or step != "copying"  # its writers were not held any more
    assert_in_order(restore, before)


def test_a_server_that_stays_down_is_told_of_and_put_right_later(
    restorer: Callable[..., Restorer], taken: tuple[Path, str]
) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    kill = ["sh", "-c", f"kill -9 $(cut -d' ' -f1 {restore.server.process.pid_file})"]
    answer = restore.run(path=str(taken[0]), actions={"promoting": kill}, timeout=2)
    assert "Going back failed too" in answer["msg"]
    assert "the server did not come back within 2 s" in answer["msg"]
    assert f"The data from before is in {restore.journal()['safety']}" in answer["msg"]
    restore.server.kill()
    restore.server.start()
    assert_fine(restore.run("rolled_back"))
    assert digest(restore.server) == data
    assert_in_order(restore, before)


# --- the data is not what it should be ---


def written_to(restore: Restorer, step: str) -> dict[str, list[str]]:
    """Somebody lets the writers go and writes, so that the check must fail."""
    cli = f"redis-cli -p {restore.server.port}"
    return {step: ["sh", "-c", f"{cli} client unpause && {cli} set intruder 1"]}


def test_a_failed_check_online_goes_back_by_itself(restorer: Callable[..., Restorer], taken: tuple[Path, str]) -> None:
    restore = restorer(AOF)
    before, data = settings(restore.server), digest(restore.server)
    answer = restore.run(path=str(taken[0]), actions=written_to(restore, "promoting"))
    assert "database 0 has 502 keys instead of 501" in answer["msg"]
    assert (answer["restore"]["rolled_back"], answer["changed"]) == (True, False)
    assert digest(restore.server) == data
    assert_in_order(restore, before)
    restore.server.stop()
    restore.server.start()
    assert digest(restore.server) == data


@pytest.mark.parametrize("persistence", [AOF, "save 3600 1", 'save ""'])
def test_a_server_that_does_not_start_gets_its_old_files_back(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], tmp_path: Path, persistence: str
) -> None:
    restore = restorer(persistence)
    data, commands = digest(restore.server), restore.commands()
    start = " ".join(f"'{word}'" for word in commands["start_command"])
    flag = tmp_path / "failed"
    commands["start_command"] = ["sh", "-c", f"[ -e {flag} ] && exec {start}; touch {flag}; echo broken unit; exit 3"]
    answer = restore.run(path=str(taken[0]), mode="offline", **commands)
    assert "was taken back: sh -c" in answer["msg"]
    assert "broken unit" in answer["msg"]
    assert digest(restore.server) == data
    restore.server.client(socket_timeout=2).set("probe", 1)


def test_a_server_that_cannot_reach_the_scratch_server(
    restorer: Callable[..., Restorer], taken: tuple[Path, str], tmp_path: Path
) -> None:
    """It does not hold its writers for the whole timeout."""
    restore = restorer()
    before, data = settings(restore.server), digest(restore.server)
    deaf = tmp_path / "deaf-redis"
    deaf.write_text('#!/bin/sh\n[ "$1" = --version ] && exec redis-server --version\nexec redis-server "$@" --port 0\n')
    deaf.chmod(0o700)
    answer = restore.run(path=str(taken[0]), answer_timeout=1, server_binary=str(deaf))
    assert "did not reach the scratch server within 1 s" in answer["msg"]
    assert digest(restore.server) == data
    assert_in_order(restore, before)


@pytest.fixture
def slow_scratch(tmp_path: Path) -> Path:
    """A redis-server that takes a second to hand out its data."""
    path = tmp_path / "slow-redis"
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec redis-server --version\n'
        'exec redis-server "$@" --rdb-key-save-delay 2000\n'
    )
    path.chmod(0o700)
    return path


# --- Sentinel ---


class Watched:
    """A master with a replica, and a Sentinel that fails over after a second."""

    def __init__(self, restore: Restorer, replica: RedisServer, folder: Path) -> None:
        self.restore, self.replica = restore, replica
        self.port = free_port()
        self.process = ServerProcess("sentinel", folder)
        folder.mkdir()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor cache 127.0.0.1 {restore.server.port} 1",
            "sentinel down-after-milliseconds cache 1000",
            "sentinel failover-timeout cache 10000",
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        configuration = str(self.process.folder / "sentinel.conf")
        self.process.start(["redis-server", configuration, "--sentinel"], lambda: accepts(self.port))

    def __enter__(self) -> Watched:
        self.start()
        deadline = time.monotonic() + 15
        while self.master()["num-slaves"] != "1":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def master(self) -> dict[str, str]:
        words = subprocess.run(
            ["redis-cli", "-p", str(self.port), "sentinel", "master", "cache"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        return dict(zip(words[::2], words[1::2]))

    def fail_over(self) -> None:
        """Make the replica the master, as an operator does."""
        subprocess.run(["redis-cli", "-p", str(self.port), "sentinel", "failover", "cache"], check=True)
        deadline = time.monotonic() + 30
        while self.master()["port"] != str(self.replica.port) or self.master()["role-reported"] != "master":
            assert time.monotonic() < deadline, self.master()
            time.sleep(0.1)

    def options(self) -> dict[str, Any]:
        return {"sentinel_hosts": [f"127.0.0.1:{self.port}"], "sentinel_master": "cache"}


@pytest.fixture
def watched(start_redis: RedisFactory, tmp_path: Path) -> Iterator[Watched]:
    master = start_redis("master", appendonly=True)
    seed(master.client(), keys=50)
    replica = start_redis("replica", config=[f"replicaof 127.0.0.1 {master.port}"])
    with Watched(Restorer(master, tmp_path), replica, tmp_path / "sentinel") as found:
        yield found


def test_sentinel_does_not_fail_over_and_the_replica_follows(watched: Watched, taken: tuple[Path, str]) -> None:
    restore = watched.restore
    refused = restore.run(path=str(taken[0]))
    assert "1 Sentinels watch the server and would fail over meanwhile" in refused["msg"]
    commands = restore.commands()
    commands["start_command"] = ["sh", "-c", 'sleep 2.5; exec "$@"', "-", *commands["start_command"]]
    killed = restore.run(
        path=str(taken[0]), mode="offline", actions={"starting": "kill me"}, **commands, **watched.options()
    )
    assert killed == {}
    assert watched.master()["down-after-milliseconds"] == "86400000"
    time.sleep(1.5)
    answer = restore.run(path=str(taken[0]), mode="offline", **commands, **watched.options())
    assert_fine(answer)
    assert_watched(watched, taken[1])
    online = restore.run("rolled_back", **watched.options())
    assert (online["status"], online["restore"]["mode"]) == ("ok", "online"), online
    assert_watched(watched, digest(restore.server))


def test_a_sentinel_that_is_gone_is_no_reason_to_go_back(watched: Watched, taken: tuple[Path, str]) -> None:
    restore = watched.restore
    stop = ["sh", "-c", f"kill -9 $(cut -d' ' -f1 {watched.process.pid_file})"]
    steps = {"waiting for the append-only file": stop}
    answer = restore.run(path=str(taken[0]), actions=steps, **watched.options())
    assert "the data was restored, but a Sentinel still waits for a day" in answer["msg"]
    assert digest(restore.server) == taken[1]
    watched.start()
    assert watched.master()["down-after-milliseconds"] == "86400000"
    assert_fine(restore.run(path=str(taken[0]), **watched.options()))
    assert_watched(watched, taken[1])


def test_after_a_failover_the_new_master_gets_back_what_was_there(watched: Watched, taken: tuple[Path, str]) -> None:
    restore, before = watched.restore, digest(watched.restore.server)
    assert_fine(restore.run(path=str(taken[0]), **watched.options()))
    assert_watched(watched, taken[1])
    watched.fail_over()
    assert_fine(restore.run("rolled_back", **watched.options()))
    assert digest(watched.replica) == before


def test_a_killed_restore_is_not_settled_in_another_master(watched: Watched, taken: tuple[Path, str]) -> None:
    restore, old = watched.restore, watched.restore.server.port
    assert restore.run(path=str(taken[0]), actions={"promoting": "kill me"}, **watched.options()) == {}
    watched.fail_over()
    for state in ("restored", "rolled_back"):
        refused = restore.run(state, path=str(taken[0]), **watched.options())
        assert refused["failed"] and f"restore into redis://127.0.0.1:{old} was killed during" in refused["msg"]
        assert f"the Sentinels name redis://127.0.0.1:{watched.replica.port} as the master now" in refused["msg"]
        assert restore.journal()["safety"] in refused["msg"]


@pytest.mark.parametrize(("phase", "taken_back"), [("begun", True), ("ended", False)])
def test_a_recovery_knows_what_must_be_taken_back(
    restorer: Callable[..., Restorer], tmp_path: Path, phase: str, taken_back: bool
) -> None:
    server = restorer().server
    entries = [{"step": "restore redis:cache", "phase": phase, "direction": "forward"}]
    variables = {
        "emergency_recovery_backup_host": "localhost",
        "emergency_recovery_state": str(tmp_path / "lost"),
        "emergency_recovery_redis": [{"name": "cache", "host": server.host, "port": server.port}],
        "_emergency_recovery_id": "20260131T140500Z",
        "_emergency_recovery_journal": {"recovery": {"entries": entries}},
        "_emergency_recovery_step": {"part": "redis:cache", "to": "rolled_back", "again": True},
        "_emergency_recovery_chosen": {
            "path": "/none", "digests": {}, "parts": [{"name": "redis:cache", "path": "x", "manifest": ""}],
        },
    }  # fmt: skip
    role = {"ansible.builtin.include_role": {"name": "upkeep.ops.emergency_recovery", "tasks_from": "act_redis"}}
    told = {"ansible.builtin.debug": {"msg": "FOUND {{ ansible_failed_result.results[0].msg }}"}}
    output = run_tasks([{"block": [role], "rescue": [told]}], variables)
    assert ("FOUND" in output) != taken_back, output


def assert_watched(watched: Watched, data: str) -> None:
    """The master is the same, has the data, and the replica follows; Sentinel watches as before."""
    seen = watched.master()
    assert (seen["port"], seen["down-after-milliseconds"]) == (str(watched.restore.server.port), "1000")
    deadline = time.monotonic() + 15
    while digest(watched.replica) != data:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert digest(watched.restore.server) == data
    time.sleep(1.5)
    assert watched.master()["flags"] == "master"
    assert watched.restore.server.client().info("replication")["role"] == "master"
