"""What speaks against a restore, from what a server tells; the cases that no server here can be brought to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_preflight import (
    Snapshot,
    Way,
    Wishes,
    judge,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import Facts

SNAPSHOT = Snapshot(verified=True, rdb_bytes=1000, used_memory=5000, highest_database=0, scratch_version="7.0.15")
COMMANDS = "how to stop and start the server is not told"


def facts(folder: Path, **changes: Any) -> Facts:
    info = {"redis_version": "7.0.15", "role": "master", "used_memory_dataset": 10, **changes.pop("info", {})}
    config = {"dir": str(folder), "databases": "16", "maxmemory": "0", "appendonly": "no", **changes.pop("config", {})}
    return replace(Facts(info, config, forbidden=[], sentinels=0, debug=True, local=True), **changes)


def wishes(folder: Path, **changes: Any) -> Wishes:
    nothing = Wishes("auto", False, False, False, False, "127.0.0.1", str(folder / "not" / "yet"))
    return replace(nothing, **changes)


def way(folder: Path, snapshot: Snapshot = SNAPSHOT, /, **changes: Any) -> Way:
    wanted = changes.pop("wishes", {})
    return judge(facts(folder, **changes), snapshot, wishes(folder, **wanted))


def test_nothing_speaks_against_it(tmp_path: Path) -> None:
    assert way(tmp_path) == Way("online", "writers wait meanwhile instead of failing, and nothing is stopped", [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"info": {"aof_last_write_status": "err"}}, "cannot write its append-only file"),
        ({"info": {"aof_rewrite_in_progress": 1}}, "is rewriting its append-only file"),
        ({"sentinels": 3}, "3 Sentinels watch the server"),
        ({"info": {"cluster_enabled": 1}}, "a node of a cluster"),
        ({"config": {"maxmemory": "4999"}}, "needs 5000 bytes of memory and maxmemory is 4999"),
    ],
)
def test_what_speaks_against_either_way(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    for mode in ("auto", "online", "offline"):
        refused = way(tmp_path, **{**changes, "wishes": {"way": mode, "commands": True}}).refusals
        assert len(refused) == 1
        assert words in refused[0]


@pytest.mark.parametrize(("link", "told"), [("up", False), ("down", True)])
def test_a_replica_whose_master_is_gone_may_be_what_a_lost_restore_left(tmp_path: Path, link: str, told: bool) -> None:
    replica = {"role": "slave", "master_host": "127.0.0.1", "master_port": 4711, "master_link_status": link}
    (refusal, *_) = way(tmp_path, info=replica).refusals
    assert "the server is a replica of 127.0.0.1:4711" in refusal
    assert ("restart it, or promote it with REPLICAOF NO ONE" in refusal) == told


def test_room_on_the_disk_of_the_server_and_for_safety_snapshots(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    large = replace(SNAPSHOT, rdb_bytes=free * 2)
    (told,) = way(tmp_path, large).refusals
    assert str(tmp_path) in told
    assert way(tmp_path, large, local=False).refusals == []
    (told,) = way(tmp_path, info={"used_memory_dataset": free}, local=False).refusals
    assert str(tmp_path / "not" / "yet") in told


@pytest.mark.parametrize(("scratch", "fine"), [("7.0.15", True), ("6.2.14", True), ("8.0.1", False), ("99.0", False)])
def test_a_scratch_server_that_is_newer_than_the_server(tmp_path: Path, scratch: str, fine: bool) -> None:
    found = way(tmp_path, replace(SNAPSHOT, scratch_version=scratch))
    assert (found.refusals == []) == fine
    if not fine:
        assert f"the scratch server is Redis {scratch}, whose data Redis 7.0.15 may not understand" in found.refusals[0]
        assert COMMANDS in found.refusals[1]
        offline = way(tmp_path, replace(SNAPSHOT, scratch_version=scratch), wishes={"commands": True})
        assert (offline.mode, offline.refusals) == ("offline", [])
        assert "whose data Redis 7.0.15 may not understand" in offline.why


def test_a_scratch_server_of_the_same_unknown_version_is_fine(tmp_path: Path) -> None:
    assert way(tmp_path, replace(SNAPSHOT, scratch_version="99.0"), info={"redis_version": "99.0"}).refusals == []


def test_a_server_that_is_too_old(tmp_path: Path) -> None:
    told = way(tmp_path, replace(SNAPSHOT, scratch_version="6.2.14"), info={"redis_version": "6.2.14"}).refusals
    assert told == ["the server is Redis 6.2.14; restores are made for 7.0 and newer"]


def test_what_its_file_says_of_appendonly(tmp_path: Path) -> None:
    configuration = tmp_path / "redis.conf"
    configuration.write_text("appendonly no\n# appendonly no\nAppendOnly 'yes'\n")
    told = way(tmp_path, info={"config_file": str(configuration)}, wishes={"way": "offline", "commands": True}).refusals
    assert "appendonly is no and would be yes after a restart" in told[0]
