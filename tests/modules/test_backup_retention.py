# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""backup_retention as Ansible runs it, with sets that backup_set made and redated."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module, start_module
from tests.platform.parts.redis import RedisServer

FINDING = {"check": "snapshot_load", "subject": "redis:cache", "status": "ok", "summary": "loaded"}


@dataclass
class Sets:
    root: Path

    def set(self, state: str, **options: Any) -> dict[str, Any]:
        return run_module("backup_set", {"root": str(self.root), "state": state, **options})

    def make(self, days: int, *, state: str = "verified", uri: str = "") -> str:
        """Id of a set that is dated so many days ago."""
        opened = self.set("open", owner="maker")
        (Path(opened["set"]["path"]) / "redis/cache.rdb").write_bytes(os.urandom(100))
        parts: list[dict[str, Any]] = [{"name": "redis:cache", "path": "redis/cache.rdb"}]
        findings = [{**FINDING, "status": "critical" if state == "failed" else "ok"}]
        then = f"{datetime.now(timezone.utc) - timedelta(days=days):%Y%m%dT%H%M%SZ}"
        if uri:
            record = {"output_uri_prefix": uri.format(then)}
            parts.append({"name": "firestore:main", "path": "firestore/main.json", "record": record})
            findings.append({**FINDING, "subject": "firestore:main"})
        made = str(opened["set"]["id"])
        self.set("complete", owner="maker", id=made, parts=parts)
        folder = (self.root / made).rename(self.root / then)
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace(made, then))
        digest = subprocess.run(["sha256sum", "manifest.json"], cwd=folder, check=True, stdout=subprocess.PIPE)
        (folder / "manifest.json.sha256").write_bytes(digest.stdout)
        if state != "complete":
            self.set("judged", id=then, level=2, findings=findings)
        return then

    def retain(self, *, check: bool = False, diff: bool = False, **keep: Any) -> dict[str, Any]:
        return run_module("backup_retention", {"root": str(self.root), "keep": keep}, check=check, diff=diff)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path / "sets")


@pytest.fixture(scope="module")
def one_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sets, str]:
    """A set that is only looked at."""
    sets = Sets(tmp_path_factory.mktemp("one") / "sets")
    return sets, sets.make(1)


def test_what_goes_and_what_stays_foretold_and_done(sets: Sets) -> None:
    oldest, failed, held, middle, newest = (
        sets.make(days, state=state)
        for days, state in ((9, "verified"), (8, "failed"), (7, "verified"), (6, "verified"), (1, "verified"))
    )
    sets.set("held", id=held, reason="audit")
    before = sets.names()
    would = sets.retain(check=True, diff=True, last=2)
    assert {entry["id"]: entry["reason"] for entry in would["kept"]} == {
        newest: "the newest verified one; last (1 of 2)", middle: "last (2 of 2)", held: "held (audit)",
    }  # fmt: skip
    assert {entry["id"]: entry["reason"] for entry in would["removed"]} == {
        failed: f"it failed, and {newest} is verified", oldest: "no rule keeps it",
    }  # fmt: skip
    assert would["diff"]["after"]["sets"] == [held, middle, newest] and sets.names() == before
    did = sets.retain(diff=True, last=2)
    assert (did["kept"], did["removed"], did["diff"]) == (would["kept"], would["removed"], would["diff"])
    assert sets.names() == [".mutex", held, middle, newest]
    again = sets.retain(last=2)
    assert (again["changed"], again["removed"]) == (False, [])
    assert sets.set("found")["newest_verified"] == newest


def test_without_a_rule_nothing_is_removed(sets: Sets) -> None:
    sets.make(900), sets.make(1)
    answer = sets.retain()
    assert not answer["changed"] and len(answer["kept"]) == 2
    assert "without one nothing is removed" in answer["kept"][0]["reason"]


def test_a_failed_set_stays_for_a_look_until_a_newer_one_is_verified(sets: Sets) -> None:
    sets.make(3), sets.make(2, state="failed")
    assert not sets.retain(last=1)["changed"]
    newest = sets.make(1)
    assert len(sets.retain(last=1)["removed"]) == 2 and sets.names() == [".mutex", newest]


def test_where_an_export_is_stays_known_until_it_is_removed(sets: Sets) -> None:
    uri = "gs://bucket/firestore/{}/main"
    oldest, newest = sets.make(5, uri=uri), sets.make(1, uri=uri)
    expired = [{"set": oldest, "part": "firestore:main", "uri": uri.format(oldest)}]
    assert sets.retain(check=True, last=1)["expired"] == expired
    did = sets.retain(last=1)
    assert did["expired"] == expired and did["known"] == [oldest, newest]
    assert [path.name for path in sets.root.glob(".*.expired/*")] == ["manifest.json"], "and its bytes are free"
    again = sets.retain(last=1)
    assert not again["changed"] and again["expired"] == expired
    finished = {"root": str(sets.root), "state": "finished", "ids": [oldest]}
    assert run_module("backup_retention", finished, check=True)["finished"] == [oldest]
    assert run_module("backup_retention", finished)["changed"]
    assert not run_module("backup_retention", finished)["changed"]
    assert sets.names() == [".mutex", newest]


def test_a_set_stays_while_a_drill_that_was_stopped_midway_reads_it(
    sets: Sets, seeded_redis: RedisServer, tmp_path: Path
) -> None:
    old = sets.make(5)
    sets.make(1)
    snapshot = sets.root / old / "redis/seeded.rdb"
    assert run_module("redis_snapshot", {**seeded_redis.connection(), "dest": str(snapshot)})["changed"]
    # It comes as far as the start of its private server, and waits there.
    begun, go_on, slow = (tmp_path / name for name in ("begun", "go-on", "slow-redis"))
    slow.write_text(f'#!/bin/sh\ntouch {begun}\nuntil [ -e {go_on} ]; do sleep 0.05; done\nexec redis-server "$@"\n')
    slow.chmod(0o755)
    options = {"state": "drilled", "path": str(snapshot), "server_binary": str(slow), "scratch_dir": str(tmp_path)}
    drill = start_module("redis_restore", options)
    try:
        while not begun.exists():
            assert drill.poll() is None, drill.communicate()
            time.sleep(0.02)
        drill.send_signal(signal.SIGSTOP)
        would, did = sets.retain(check=True, last=1), sets.retain(last=1)
        for answer in (would, did):
            assert (answer["removed"], answer["in_use"], answer["changed"]) == ([], [old], False)
            assert answer["kept"][1]["reason"].startswith("a drill, a copy, a verification or a restore reads it now")
        refused = run_module("backup_set", {"root": str(sets.root), "state": "absent", "id": old})
        assert refused["failed"] and f"set {old} is in use" in refused["msg"]
    finally:
        go_on.touch()
        drill.send_signal(signal.SIGCONT)
    output, errors = drill.communicate(timeout=60)
    assert drill.returncode == 0, f"the drill came to its end: {output}{errors}"
    assert [entry["id"] for entry in sets.retain(last=1)["removed"]] == [old], "and then the set goes"


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("redis_restore", {"state": "drilled", "path": "{set}/redis/cache.rdb"}),
        ("redis_restore", {"state": "restored", "path": "{set}/redis/cache.rdb", "login_port": 1}),
        ("redis_verify", {"path": "{set}/redis/cache.rdb", "level": 2}),
        ("firestore_verify", {"path": "{set}/redis/cache.rdb", "project": "demo"}),
        ("firestore_import", {"path": "{set}/redis/cache.rdb", "project": "demo"}),
        ("firestore_drill", {"root": "{root}", "id": "{id}", "path": "redis/cache.rdb", "project": "demo"}),
        ("backup_copy", {"root": "{root}", "destination": "{root}/../copies", "id": "{id}"}),
        ("backup_set", {"root": "{root}", "state": "checked", "id": "{id}"}),
    ],
    ids=["drill", "restore", "verify", "verify-firestore", "import", "drill-firestore", "copy", "check"],
)
def test_who_reads_a_set_locks_it_before(one_set: tuple[Sets, str], module: str, options: dict[str, Any]) -> None:
    """While the set is being removed they all wait for that, which shows that they ask for the lock."""
    sets, made = one_set
    words = {"root": sets.root, "set": sets.root / made, "id": made}
    given = {key: value.format(**words) if isinstance(value, str) else value for key, value in options.items()}
    with (sets.root / made / "manifest.json").open() as manifest:
        fcntl.flock(manifest, fcntl.LOCK_EX)
        reader = start_module(module, given)
        try:
            while not waits_for_a_lock(reader.pid):
                assert reader.poll() is None, reader.communicate()
                time.sleep(0.02)
        finally:
            reader.kill()
            reader.communicate()


def waits_for_a_lock(pid: int) -> bool:
    """As the kernel tells it: a second line with an arrow for each lock that is waited for."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(words[1:3] == ["->", "FLOCK"] and words[4:6] == ["READ", str(pid)] for words in lines)


def test_a_hold_for_some_time_ends_by_itself_and_a_safety_set_fills_no_place(sets: Sets) -> None:
    ordinary, safety, newest = sets.make(3), sets.make(2), sets.make(1)
    held = sets.set("held", id=safety, reason="recovery", hold_for="7d", safety=True)["set"]
    assert held["held"] and held["safety"] and held["hold_until"] > f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    kept = {entry["id"]: entry["reason"] for entry in sets.retain(last=2)["kept"]}
    assert set(kept) == {ordinary, safety, newest} and kept[ordinary] == "last (2 of 2)"
    assert kept[safety] == f"held until {held['hold_until']} (recovery)"
    sets.set("held", id=safety, reason="recovery", hold_for="0s")
    found = sets.set("found", id=safety)["set"]
    assert (found["held"], found["safety"], found["hold_reason"]) == (False, True, "recovery")
    (gone,) = sets.retain(last=2)["removed"]
    assert gone["id"] == safety and gone["reason"] == "it is a safety set, and its hold is over"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"dayly": 7}}, "dayly"),
        ({"keep": {"daily": -7}}, "the rule daily must keep 0 or more, not -7"),
        ({"keep": {"within": "long"}}, "'long' is no duration"),
        ({"state": "finished", "ids": ["../x"]}, "is no id of a backup set"),
        ({"root": "/etc/passwd", "keep": {"last": 1}}, "cannot be worked on"),
    ],
)
def test_errors_name_the_cause(sets: Sets, options: dict[str, Any], message: str) -> None:
    answer = run_module("backup_retention", {"root": str(sets.root), **options})
    assert answer["failed"] and message in answer["msg"]


def test_the_examples_run(sets: Sets) -> None:
    sets.make(1)
    run_examples("backup_retention", {"/var/backups/upkeep": str(sets.root)})
    assert len(sets.set("found")["sets"]) == 1
