"""Every way in which a backup goes bad, and the message by which it is found out.

The sets hold a real snapshot. What can befall the export of a Firestore database in its bucket is a table of the same
kind in test_firestore_verify.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.harness import run_module
from tests.platform.parts.redis import RedisServer

RDB = "redis/cache.rdb"
PART = {"name": "redis:cache", "path": RDB}
DESCRIBED = {**PART, "manifest": f"{RDB}.json"}

Spoil = Callable[[Path], object]


@dataclass
class Sets:
    root: Path

    def run(self, state: str, **options: Any) -> dict[str, Any]:
        return run_module("backup_set", {"root": str(self.root), "state": state, "fail_on": "never", **options})

    def make(self, snapshot: Path, part: dict[str, str]) -> str:
        opened = self.run("open", owner="maker")["set"]
        folder = Path(opened["path"]) / "redis"
        shutil.copy(snapshot, folder / "cache.rdb")
        if "manifest" in part:
            shutil.copy(f"{snapshot}.json", folder / "cache.rdb.json")
        done = self.run("complete", owner="maker", id=opened["id"], parts=[part])
        assert not done["failed"], done
        return str(opened["id"])

    def prove(self, **expected: Any) -> list[dict[str, Any]]:
        """Look at the newest set as the role does, record what came of it, and return the findings."""
        looked = self.run("checked", max_age="26h", required_parts=["redis:cache"], **expected)
        found = list(looked["findings"])
        if looked["set"] is not None:
            described = {"path": f"{looked['set']['path']}/{RDB}", "name": "redis:cache", "digest": False}
            found += run_module("redis_verify", {**described, "fail_on": "never"})["findings"]
            about_set = [each for each in found if each["check"] not in ("backup_present", "backup_age", "backup_size")]
            self.run("judged", id=looked["set"]["id"], level=3, findings=about_set)
        return found


@pytest.fixture(scope="module")
def snapshot(seeded_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("taken") / "cache.rdb"
    taken = run_module("redis_snapshot", {**seeded_redis.connection(), "dest": str(path), "compression": "none"})
    assert not taken["failed"], taken
    return path


@pytest.fixture(scope="module")
def sound(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """A root with one set that was verified; only to be copied."""
    sets = Sets(tmp_path_factory.mktemp("sound") / "sets")
    sets.make(snapshot, DESCRIBED)
    assert {finding["status"] for finding in sets.prove()} == {"ok"}
    assert sets.run("found")["newest_verified"]
    return sets


@pytest.fixture
def sets(sound: Sets, tmp_path: Path) -> Sets:
    return Sets(Path(shutil.copytree(sound.root, tmp_path / "sets")))


def flip(rdb: Path) -> None:
    content = bytearray(rdb.read_bytes())
    content[len(content) // 2] ^= 1
    rdb.write_bytes(content)


def cut(size: int) -> Spoil:
    """Cut a file at a multiple of a block, or in the middle of whatever stands there."""
    return lambda rdb: os.truncate(rdb, size)


def over_an_older_one(rdb: Path) -> None:
    """A dump that was written over an older, larger one without cutting that off first."""
    dump = rdb.read_bytes()
    rdb.write_bytes(dump + dump[-5000:])


def of_a_newer_server(rdb: Path) -> None:
    # A checksum of zero says that there is none.
    rdb.write_bytes((b"REDIS0079" + rdb.read_bytes()[9:])[:-8] + bytes(8))


def edit(folder: Path, *, digest: bool = False) -> None:
    """Let the manifest tell the truth about another file."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / RDB).write_bytes(b"REDIS0011 evil")
    sha256 = subprocess.run(["sha256sum", folder / RDB], check=True, stdout=subprocess.PIPE, text=True).stdout[:64]
    manifest["files"][RDB] = {"bytes": 14, "sha256": sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if digest:
        done = subprocess.run(["sha256sum", "manifest.json"], cwd=folder, check=True, stdout=subprocess.PIPE)
        (folder / "manifest.json.sha256").write_bytes(done.stdout)


def edit_description(folder: Path) -> None:
    path = folder / f"{RDB}.json"
    path.write_text(path.read_text().replace('"keys": 2001', '"keys": 2000'))


def at_rdb(spoil: Spoil) -> Spoil:
    return lambda folder: spoil(folder / RDB)


#: What befalls a set that was verified, and what is said of it then: check and message.
BEFALLS: dict[str, tuple[Spoil, list[tuple[str, str]]]] = {
    "a flipped bit": (at_rdb(flip), [
        ("backup_bytes", "set *: redis/cache.rdb has another sha256 than when it was written"),
        ("snapshot_bytes", "*"),
        ("snapshot_format", "*CRC-64 is * and should be *"),
    ]),
    "a truncation in the middle of a record": (at_rdb(cut(10001)), [
        ("backup_bytes", "set *: redis/cache.rdb has 10001 bytes instead of *"),
        ("snapshot_format", "*end mark is missing*"),
    ]),
    "a truncation on the edge of a block": (at_rdb(cut(16384)), [
        ("backup_bytes", "set *: redis/cache.rdb has 16384 bytes instead of *"),
        ("snapshot_format", "the snapshot is not sound: *"),
    ]),
    "an empty file": (at_rdb(cut(0)), [
        ("backup_bytes", "set *: redis/cache.rdb has 0 bytes instead of *"),
        ("snapshot_bytes", "*the snapshot is empty*"),
    ]),
    "a missing file": (at_rdb(Path.unlink), [
        ("backup_bytes", "set *: redis/cache.rdb is missing"),
        ("snapshot_bytes", "there is no snapshot *"),
    ]),
    "a foreign file in its place": (at_rdb(lambda rdb: rdb.write_text("<html>not found</html>")), [
        ("backup_bytes", "set *: redis/cache.rdb has 22 bytes instead of *"),
        ("snapshot_format", "*it is no RDB: it begins with b'<html>not'*"),
    ]),
    "a foreign file beside it": (lambda folder: (folder / "redis/dump.rdb").write_text("x"), [
        ("backup_bytes", "set *: redis/dump.rdb is not in the manifest"),
    ]),
    "a manifest that was edited": (edit, [
        ("backup_manifest", "set *: manifest.json was changed after the set was completed: *manifest.json.sha256"),
    ]),
    "a manifest that was edited with its digest": (lambda folder: edit(folder, digest=True), [
        ("backup_manifest", "set *: manifest.json was changed after the set was verified: *verification.json"),
    ]),
    "a snapshot's manifest that was edited": (edit_description, [
        ("backup_bytes", "set *: redis/cache.rdb.json has another sha256 than when it was written"),
        ("snapshot_bytes", "*was changed after it was written*"),
    ]),
    "a dump over an older larger file": (at_rdb(over_an_older_one), [
        ("backup_bytes", "set *: redis/cache.rdb has * bytes instead of *"),
        ("snapshot_format", "*or it was written over an older, larger snapshot"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BEFALLS))
def test_what_befalls_a_set_is_found_out_and_named(sets: Sets, case: str) -> None:
    spoil, told = BEFALLS[case]
    (folder,) = sets.root.glob("2*Z")
    spoil(folder)
    assert_told(sets.prove(), told, "critical")
    found = sets.run("found")
    assert found["sets"][0]["state"] == "failed" and found["sets"][0]["problem"], "it is marked"
    assert found["newest"] == found["newest_verified"] == "", "recovery never chooses it"
    assert sets.run("open", owner="next", max_age="12h")["due"], "and it makes no new one needless"


#: What was wrong already when it was taken, so that its bytes are those that were written.
TAKEN: dict[str, tuple[Spoil, str, str]] = {
    "a flipped bit": (flip, "critical", "*CRC-64 is * and should be *"),
    "a truncation in the middle of a record": (cut(10001), "critical", "*end mark is missing*"),
    "a truncation on the edge of a block": (cut(16384), "critical", "the snapshot is not sound: *"),
    "a foreign file": (lambda rdb: rdb.write_text("<html>not found</html>"), "critical", "*it is no RDB*"),
    "a dump over an older larger file": (
        over_an_older_one,
        "critical",
        "*or it was written over an older, larger snapshot",
    ),
    "an RDB of a newer server": (of_a_newer_server, "unknown", "*cannot load RDB version 79*"),
}


@pytest.mark.parametrize("case", list(TAKEN))
def test_what_was_taken_badly_never_counts_as_verified(snapshot: Path, tmp_path: Path, case: str) -> None:
    spoil, status, message = TAKEN[case]
    bad = copied(snapshot, tmp_path)
    spoil(bad)
    sets = Sets(tmp_path / "sets")
    identifier = sets.make(bad, PART)
    found = sets.prove()
    checks = ("snapshot_load",) if status == "unknown" else ("snapshot_format",)
    assert_told(found, [(check, message) for check in checks], status)
    assert [each["status"] for each in found if each["check"] == "backup_bytes"] == ["ok"]
    state = sets.run("found", id=identifier)["set"]["state"]
    assert state == ("complete" if status == "unknown" else "failed"), "never verified"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut(0), "redis:cache is not in the set: */cache.rdb is empty or no file; take it again, or abandon the set"),
        (Path.unlink, "redis:cache is not in the set: */cache.rdb is missing; take it again, or abandon the set"),
    ],
)
def test_what_was_not_taken_completes_no_set(snapshot: Path, tmp_path: Path, spoil: Spoil, message: str) -> None:
    sets = Sets(tmp_path / "sets")
    opened = sets.run("open", owner="maker")["set"]
    rdb = Path(shutil.copy(snapshot, f"{opened['path']}/{RDB}"))
    spoil(rdb)
    answer = sets.run("complete", owner="maker", id=opened["id"], parts=[PART])
    assert answer["failed"] and fnmatchcase(answer["msg"], message), answer["msg"]


def test_a_set_that_was_never_completed(sets: Sets) -> None:
    (folder,) = sets.root.glob("2*Z")
    folder.rename(f"{folder}.partial")
    assert_told(sets.prove(), [("backup_present", f"there is no complete backup set below {sets.root}")], "critical")
    assert_told(sets.prove(), [("backup_leftovers", f"1 unfinished set of dead runs: {folder.name}")], "warning")


def test_a_set_that_is_too_old(sets: Sets) -> None:
    (folder,) = sets.root.glob("2*Z")
    redate(folder, "20260101T030000Z")
    message = "the newest good set 20260101T030000Z is * d * h old, 1 d 2 h are allowed"
    assert_told(sets.prove(), [("backup_age", message)], "critical")


def test_a_set_that_is_much_smaller_than_its_predecessors(sets: Sets, redis_server: RedisServer) -> None:
    """The server lost its data, and what is left of it was backed up without a fault."""
    (folder,) = sets.root.glob("2*Z")
    redate(folder, "20260101T030000Z")
    small = sets.root / "small.rdb"
    assert run_module("redis_snapshot", {**redis_server.connection(), "dest": str(small)})["changed"]
    newest = sets.make(small, DESCRIBED)
    message = f"set {newest} holds * B, its predecessors *"
    assert_told(sets.prove(), [("backup_size", message)], "warning")


def assert_told(found: list[dict[str, Any]], told: list[tuple[str, str]], status: str) -> None:
    """Each message is that of a finding with that check and status, which says what to do too."""
    for check, message in told:
        matching = [each for each in found if each["check"] == check and fnmatchcase(each["summary"], message)]
        assert matching, f"no {check} says {message!r}: {[each['summary'] for each in found]}"
        assert matching[0]["status"] == status, matching
        assert matching[0]["hint"], "and says what to do"


def copied(snapshot: Path, folder: Path) -> Path:
    return Path(shutil.copy(snapshot, folder / "taken.rdb"))


def redate(folder: Path, identifier: str) -> None:
    """Give a set another date, as if it had been made then."""
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(folder.name, identifier))
    digest = subprocess.run(["sha256sum", "manifest.json"], cwd=folder, check=True, stdout=subprocess.PIPE)
    (folder / "manifest.json.sha256").write_bytes(digest.stdout)
    (folder / "verification.json").unlink()
    folder.rename(folder.with_name(identifier))
