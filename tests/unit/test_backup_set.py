"""Backup sets: ids, states, what is found in a set and what follows from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    DRILL_LEVEL,
    BackupSet,
    BackupSetError,
    find_set,
    moment_of,
    newest,
    read_sets,
    set_id,
    standing,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import (
    Change,
    Contents,
    Hold,
    Store,
    abandon_set,
    complete_set,
    hold_set,
    open_set,
    remove_set,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_judgements import judge_set
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_schedule import due_level, parse_periods
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_verification import (
    Expectations,
    check_bytes,
    check_newest,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat
from hypothesis import given
from hypothesis import strategies as st

HOUR = 3600.0
DAY = 86400.0
PARTS = [
    {"name": "redis:cache", "path": "redis/cache.rdb", "manifest": "redis/cache.rdb.json"},
    {"name": "firestore:main", "path": "firestore/main.json", "record": {"documents": 100, "output": "gs://b/x"}},
]
CONTENTS = Contents(PARTS, "test", {"ansible-core": "2.19"})
LOADED = {"check": "snapshot_load", "subject": "redis:cache", "status": "ok", "summary": "loaded"}
READ_BACK = {"check": "export_format", "subject": "firestore:main", "status": "ok", "summary": "read back"}


LIKE_SERVER = {**LOADED, "check": "snapshot_live"}
LIKE_DATABASE = {**READ_BACK, "check": "export_live"}


@dataclass
class House:
    """A root for sets with a clock that the test turns; sleeping lets it go on."""

    root: Path
    now: datetime = datetime(2026, 1, 31, 3, tzinfo=timezone.utc)
    naps: list[float] = field(default_factory=list)

    def store(self, check: bool = False) -> Store:
        return Store(str(self.root), lambda: self.now, self._sleep, 12 * HOUR, check)

    def _sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += timedelta(seconds=seconds)

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def open(self, owner: str = "a", **options: Any) -> Change:
        settings = {"max_age": None, "accept": "verified", "patience": 0.0, **options}
        return open_set(self.store(settings.pop("check", False)), owner, **settings)

    def fill(self, opened: Change, size: int = 1000) -> None:
        assert opened.backup_set is not None
        folder = Path(opened.backup_set.path)
        (folder / "redis/cache.rdb").write_bytes(b"x" * size)
        (folder / "redis/cache.rdb.json").write_text('{"keys": 7}')

    def complete(self, identifier: str, owner: str = "a", check: bool = False) -> Change:
        return complete_set(self.store(check), identifier, owner, CONTENTS, DAY)

    def make(self, *, size: int = 1000, verified: bool = False) -> BackupSet:
        """One complete set of this moment."""
        opened = self.open()
        assert opened.backup_set is not None
        self.fill(opened, size)
        done = self.complete(opened.backup_set.id).backup_set
        assert done is not None
        if verified:
            self.judge(done.id, 2, LOADED, READ_BACK)
        return done

    def judge(self, identifier: str, level: int, *findings: dict[str, Any]) -> Change:
        return judge_set(self.store(), identifier, level, findings)

    def drill(self, identifier: str, *findings: dict[str, Any], **figures: Any) -> Change:
        return judge_set(self.store(), identifier, DRILL_LEVEL, findings, figures)

    def get(self, identifier: str) -> BackupSet:
        found = find_set(str(self.root), identifier)
        assert found is not None
        return found

    def bytes_of(self, identifier: str) -> dict[tuple[str, str], Finding]:
        found = FindingsBuilder(self.now)
        check_bytes(found, self.get(identifier))
        return {(entry.check, entry.subject): entry for entry in found.findings}

    def check(self, **expected: Any) -> dict[tuple[str, str], Finding]:
        settings = {"parts": ["redis:cache"], "warning_age": None, "max_age": 26 * HOUR, "max_shrink": 50.0}
        found = FindingsBuilder(self.now)
        wanted = Expectations(**{**settings, "leftover_age": DAY, **expected})
        check_newest(found, self.store(), read_sets(str(self.root)), wanted)
        return {(entry.check, entry.subject): entry for entry in found.findings}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "sets")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def tree(root: Path) -> dict[str, bytes]:
    """Everything below a folder, with what is in it."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


# --- ids -------------------------------------------------------------------------------------------------------------


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1)), st.integers(-14, 14))
def test_an_id_is_its_moment_in_utc_and_sorts_as_text(moment: datetime, offset: int) -> None:
    there = moment.replace(microsecond=0, tzinfo=timezone(timedelta(hours=offset)))
    assert moment_of(set_id(there)) == there
    assert set_id(there) < set_id(there + timedelta(seconds=1))


@given(st.text(max_size=20))
def test_what_is_no_id_is_refused_with_an_example(text: str) -> None:
    try:
        moment_of(text)
    except BackupSetError as error:
        assert "such as 20260131T235959Z" in str(error)
    else:
        assert len(text) == 16


@pytest.mark.parametrize(
    "text", ["../20260131T030000Z", "20261331T030000Z", "20260131T030000Z.partial", "\u0968\u0966260131T030000Z"]
)
def test_ids_that_would_lead_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(BackupSetError):
        moment_of(text)


# --- standing --------------------------------------------------------------------------------------------------------

judgements = st.lists(
    st.builds(
        lambda level, result: {"level": level, "result": result, "at": ""},
        st.integers(1, 5),
        st.sampled_from(["passed", "failed", "unknown"]),
    )
)


@given(judgements, st.integers(1, 5))
def test_a_failure_fails_whatever_was_before(before: list[dict[str, Any]], level: int) -> None:
    passed, failed = standing([*before, {"level": level, "result": "failed", "at": ""}])
    assert failed is not None and (passed is None or passed["level"] < level)


@given(judgements)
def test_a_full_pass_heals_whatever_was_before(before: list[dict[str, Any]]) -> None:
    passed, failed = standing([*before, {"level": 5, "result": "passed", "at": ""}])
    assert failed is None and passed is not None and passed["level"] == 5


@given(judgements, judgements)
def test_what_stays_unknown_changes_nothing(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    unknown = {"level": 3, "result": "unknown", "at": ""}
    assert standing([*before, unknown, *after]) == standing([*before, *after])


def test_a_lower_pass_does_not_heal_a_higher_failure() -> None:
    failure = {"level": 3, "result": "failed", "at": ""}
    assert standing([failure, {"level": 2, "result": "passed", "at": ""}])[1] == failure


# --- open ------------------------------------------------------------------------------------------------------------


def test_open_makes_a_private_folder_and_names_it_by_the_time(house: House) -> None:
    opened = house.open()
    assert opened.changed and opened.due and opened.backup_set is not None
    assert opened.backup_set.id == "20260131T030000Z"
    assert names(house.root) == [".lock", ".mutex", "20260131T030000Z.partial"]
    assert house.root.stat().st_mode & 0o777 == 0o700
    assert Path(opened.backup_set.path).stat().st_mode & 0o777 == 0o700


def test_open_again_by_the_same_owner_gives_back_the_same_set(house: House) -> None:
    first = house.open()
    again = house.open()
    assert not again.changed and again.due
    assert first.backup_set is not None and again.backup_set is not None
    assert again.backup_set.path == first.backup_set.path


def test_open_mends_what_a_kill_between_lock_and_folder_left(house: House) -> None:
    first = house.open()
    assert first.backup_set is not None
    shutil.rmtree(first.backup_set.path)
    again = house.open()
    assert again.changed and again.backup_set is not None
    assert again.backup_set.id == first.backup_set.id and Path(again.backup_set.path).is_dir()


def test_open_in_check_mode_writes_nothing_not_even_the_root(house: House) -> None:
    would = house.open(check=True)
    assert would.changed and would.due and would.backup_set is not None
    assert would.backup_set.path == str(house.root / "20260131T030000Z.partial")
    assert not house.root.exists()


def test_a_second_run_is_told_who_works_there(house: House) -> None:
    house.open("a")
    house.go_on(90)
    with pytest.raises(BackupSetError, match=r"20260131T030000Z .*owner a\) for 1 min 30 s.*lock_timeout"):
        house.open("b")
    assert not house.naps


def test_a_second_run_waits_until_the_first_is_done(house: House) -> None:
    first = house.open("a")
    assert first.backup_set is not None
    house.fill(first)
    identifier = first.backup_set.id

    def finish_while_the_other_sleeps(seconds: float) -> None:
        house.now += timedelta(seconds=seconds)
        if house.now.second == 5:
            house.complete(identifier)

    store = Store(str(house.root), lambda: house.now, finish_while_the_other_sleeps, 12 * HOUR)
    second = open_set(store, "b", None, "verified", 60)
    assert second.changed and second.backup_set is not None and second.backup_set.id == "20260131T030005Z"
    store = Store(str(house.root), lambda: house.now, finish_while_the_other_sleeps, 12 * HOUR)
    with pytest.raises(BackupSetError, match="another run"):
        open_set(store, "c", None, "verified", 20)


def test_a_stale_lock_is_taken_over_and_told(house: House) -> None:
    house.open("a")
    house.go_on(13 * HOUR)
    second = house.open("b")
    assert second.changed and second.backup_set is not None
    assert "took over the lock of" in second.warnings[0] and "owner a" in second.warnings[0]
    with pytest.raises(BackupSetError, match=r"was taken over by .*owner b.*taken for dead"):
        house.complete("20260131T030000Z", "a")


@pytest.mark.parametrize(
    ("verified", "accept", "due"), [(True, "verified", False), (False, "verified", True), (False, "complete", False)]
)
def test_open_is_needless_while_a_good_set_is_young(house: House, verified: bool, accept: str, due: bool) -> None:
    house.make(verified=verified)
    house.go_on(11 * HOUR)
    opened = house.open("b", max_age=12 * HOUR, accept=accept)
    assert (opened.due, opened.changed) == (due, due)
    assert not due or names(house.root)[-1].endswith(".partial")


def test_open_is_due_again_at_the_very_age(house: House) -> None:
    house.make(verified=True)
    house.go_on(12 * HOUR - 1)
    assert not house.open("b", max_age=12 * HOUR).due
    house.go_on(1)
    assert house.open("b", max_age=12 * HOUR).due


def test_a_set_that_a_wrong_clock_dated_ahead_makes_no_new_one_needless(house: House) -> None:
    house.go_on(24 * HOUR)
    house.make(verified=True)
    house.go_on(-48 * HOUR)
    assert house.open("b", max_age=12 * HOUR).due


def test_a_failed_set_makes_no_new_one_needless(house: House) -> None:
    done = house.make(verified=True)
    house.judge(done.id, 2, {**LOADED, "status": "critical", "summary": "torn"})
    assert house.open("b", max_age=12 * HOUR, accept="complete").due


def test_two_sets_are_never_opened_in_the_same_second(house: House) -> None:
    first = house.make()
    second = house.make()
    assert first.id < second.id and house.naps


# --- complete --------------------------------------------------------------------------------------------------------


def test_complete_writes_a_manifest_that_sha256sum_proves(house: House) -> None:
    done = house.make()
    folder = house.root / done.id
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 1 and manifest["id"] == done.id and manifest["site"] == "test"
    assert set(manifest["files"]) == {"redis/cache.rdb", "redis/cache.rdb.json", "firestore/main.json"}
    assert manifest["parts"][0]["details"] == {"keys": 7}
    assert manifest["parts"][1]["details"]["documents"] == 100
    assert manifest["completed_at"] == "2026-01-31T03:00:00Z"
    subprocess.run(["sha256sum", "--check", "--status", "manifest.json.sha256"], cwd=folder, check=True)
    listed = "".join(f"{entry['sha256']}  {name}\n" for name, entry in manifest["files"].items())
    subprocess.run(["sha256sum", "--check", "--status"], cwd=folder, input=listed, text=True, check=True)
    assert not (house.root / ".lock").exists()
    assert house.get(done.id).state == "complete"


def test_complete_again_changes_nothing(house: House) -> None:
    done = house.make()
    before = tree(house.root)
    again = house.complete(done.id)
    assert not again.changed and again.backup_set is not None and again.backup_set.state == "complete"
    assert tree(house.root) == before


def test_complete_in_check_mode_looks_and_writes_nothing(house: House) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    with pytest.raises(BackupSetError, match="redis:cache is not in the set"):
        house.complete(opened.backup_set.id, check=True)
    house.fill(opened)
    before = tree(house.root)
    would = house.complete(opened.backup_set.id, check=True)
    assert would.changed and would.after["files"] == ["firestore/main.json", "redis/cache.rdb", "redis/cache.rdb.json"]
    assert tree(house.root) == before
    did = house.complete(opened.backup_set.id)
    assert (did.before, did.after) == (would.before, would.after)


def test_empty_folders_do_not_stay(house: House) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    house.fill(opened)
    done = complete_set(house.store(), opened.backup_set.id, "a", Contents(PARTS[:1], "", {}), DAY)
    assert done.backup_set is not None and not (Path(done.backup_set.path) / "firestore").exists()


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "redis/cache.rdb").unlink(), "redis:cache is not in the set: .*missing"),
        (lambda path: (path / "redis/cache.rdb").write_bytes(b""), "redis:cache is not in the set: .*empty"),
        (lambda path: (path / "redis/cache.rdb.json").unlink(), "redis:cache is not in the set: .*missing"),
        (lambda path: (path / "redis/cache.rdb.json").write_text("{"), "of redis:cache is no JSON"),
        (lambda path: (path / "redis/cache.rdb.json").write_text("[]"), "of redis:cache is no JSON object"),
        (lambda path: (path / "redis/.cache.rdb.x1.partial").write_text("x"), "is unfinished"),
        (lambda path: (path / "redis/link").symlink_to("/etc/passwd"), "is no regular file"),
        (lambda path: (path / "folder").symlink_to("/etc"), "is no regular file"),
        (lambda path: os.mkfifo(path / "redis/pipe"), "is no regular file"),
    ],
)
def test_a_set_that_is_not_whole_is_not_completed(house: House, spoil: Spoil, message: str) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    house.fill(opened)
    spoil(Path(opened.backup_set.path))
    with pytest.raises(BackupSetError, match=message):
        house.complete(opened.backup_set.id)
    assert [entry.state for entry in read_sets(str(house.root))] == ["partial"]


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "redis/../../x"])
def test_a_part_outside_the_set_is_refused(house: House, path: str) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    with pytest.raises(BackupSetError, match="lies outside the set"):
        complete_set(house.store(), opened.backup_set.id, "a", Contents([{"name": "x", "path": path}], "", {}), DAY)


def test_two_parts_of_one_name_are_refused(house: House) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    house.fill(opened)
    with pytest.raises(BackupSetError, match="same name: redis:cache"):
        complete_set(house.store(), opened.backup_set.id, "a", Contents([PARTS[0], PARTS[0]], "", {}), DAY)


def test_a_set_without_parts_is_no_backup(house: House) -> None:
    opened = house.open()
    assert opened.backup_set is not None
    with pytest.raises(BackupSetError, match="a set without parts is no backup"):
        complete_set(house.store(), opened.backup_set.id, "a", Contents([], "", {}), DAY)


def test_only_the_owner_completes(house: House) -> None:
    opened = house.open("a")
    assert opened.backup_set is not None
    house.fill(opened)
    with pytest.raises(BackupSetError, match="was opened by another run"):
        house.complete(opened.backup_set.id, "b")
    with pytest.raises(BackupSetError, match="is not open below"):
        house.complete("20250101T000000Z")
    (house.root / ".lock").unlink()
    with pytest.raises(BackupSetError, match="nobody holds the lock"):
        house.complete(opened.backup_set.id, "a")


def test_a_run_that_loses_its_lock_while_it_reads_the_files_publishes_nothing(house: House) -> None:
    opened = house.open("a")
    assert opened.backup_set is not None
    house.fill(opened)
    lock = house.root / ".lock"

    def clock() -> datetime:  # is asked after the first look at the lock
        lock.write_text(lock.read_text().replace('"owner": "a"', '"owner": "b"'))
        return house.now

    store = Store(str(house.root), clock, house.naps.append, 12 * HOUR)
    with pytest.raises(BackupSetError, match="was opened by another run"):
        complete_set(store, opened.backup_set.id, "a", CONTENTS, DAY)
    assert [entry.state for entry in read_sets(str(house.root))] == ["partial"]


def test_a_success_removes_old_leftovers_and_no_young_ones(house: House) -> None:
    now = house.now.timestamp()
    for name, age in (("20260129T030000Z", 2 * DAY), ("20260131T020000Z", HOUR)):
        left = house.root / f"{name}.partial" / "redis"
        left.mkdir(parents=True)
        (left / "x").write_text("x")
        for path in (left / "x", left, left.parent):
            os.utime(path, (now - age, now - age))
    half_removed = house.root / ".20260101T030000Z.removing"
    half_removed.mkdir()
    done = house.make()
    left = [name for name in names(house.root) if name != ".mutex"]
    assert left == ["20260131T020000Z.partial", done.id]


def test_a_leftover_in_which_somebody_still_writes_stays(house: House) -> None:
    left = house.root / "20260129T030000Z.partial" / "redis"
    left.mkdir(parents=True)
    (left / "x").write_text("x")
    now = house.now.timestamp()
    for path, age in ((left / "x", 60), (left, 2 * DAY), (left.parent, 2 * DAY)):
        os.utime(path, (now - age, now - age))
    house.make()
    assert left.exists()


# --- abandon, hold, remove -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["", "20260131T030000Z"])
def test_abandon_removes_the_set_and_the_lock_once(house: House, identifier: str) -> None:
    house.fill(house.open())
    before = tree(house.root)
    would = abandon_set(house.store(check=True), identifier, "a", force=False)
    assert would.changed and tree(house.root) == before
    assert abandon_set(house.store(), identifier, "a", force=False).changed
    assert names(house.root) == [".mutex"]
    assert not abandon_set(house.store(), identifier, "a", force=False).changed
    assert not abandon_set(house.store(check=True), identifier, "a", force=False).changed


def test_the_set_of_another_run_is_abandoned_only_with_force(house: House) -> None:
    house.open("a")
    with pytest.raises(BackupSetError, match=r"worked on by .*owner a.*force"):
        abandon_set(house.store(), "20260131T030000Z", "b", force=False)
    assert not abandon_set(house.store(), "", "b", force=False).changed
    assert abandon_set(house.store(), "20260131T030000Z", "b", force=True).changed


def test_hold_and_unhold(house: House) -> None:
    done = house.make()
    assert hold_set(house.store(check=True), done.id, Hold("migration")).changed
    assert not house.get(done.id).held
    assert hold_set(house.store(), done.id, Hold("migration")).changed
    assert (house.get(done.id).held, house.get(done.id).hold_reason) == (True, "migration")
    assert not hold_set(house.store(), done.id, Hold("migration")).changed
    assert not hold_set(house.store(check=True), done.id, Hold("migration")).changed
    assert hold_set(house.store(), done.id, Hold("audit")).changed
    assert hold_set(house.store(check=True), done.id, None).changed
    assert hold_set(house.store(), done.id, None).changed
    assert not hold_set(house.store(), done.id, None).changed
    assert not house.get(done.id).held
    with pytest.raises(BackupSetError, match="there is no set"):
        hold_set(house.store(), "20250101T000000Z", Hold(""))


def test_a_hold_ends_by_itself_and_a_safety_set_stays_known_as_one(house: House) -> None:
    done = house.make()
    hold_set(house.store(), done.id, Hold("recovery", 3600, safety=True))
    now = house.now
    held = house.get(done.id)
    assert held.held_at(now + timedelta(seconds=3599)) and not held.held_at(now + timedelta(seconds=3600))
    assert not hold_set(house.store(), done.id, Hold("recovery", 3600)).changed
    assert hold_set(house.store(check=True), done.id, None).after["held"] is False
    ended = hold_set(house.store(), done.id, None)
    assert ended.changed and not hold_set(house.store(), done.id, None).changed
    assert house.get(done.id).safety and not house.get(done.id).held_at(now)


def test_a_safety_set_is_nobodys_newest(house: House) -> None:
    good = house.make(verified=True)
    house.now += timedelta(hours=3)
    replaced = house.make(verified=True)
    hold_set(house.store(), replaced.id, Hold("recovery", 3600, safety=True))
    sets = read_sets(str(house.root))
    assert [newest(sets, state) for state in ("complete", "verified")] == [house.get(good.id)] * 2
    assert open_set(house.store(), "a", 2 * HOUR, "verified", 0).due, "it makes no backup needless"


def test_remove_takes_one_named_set_once(house: House) -> None:
    old, new = house.make(), house.make()
    before = tree(house.root)
    would = remove_set(house.store(check=True), old.id, force=False)
    assert would.changed and would.before["files"] and tree(house.root) == before
    assert remove_set(house.store(), old.id, force=False).changed
    assert [entry.id for entry in read_sets(str(house.root))] == [new.id]
    assert not remove_set(house.store(), old.id, force=False).changed
    assert not remove_set(house.store(check=True), old.id, force=False).changed


def test_the_set_that_recovery_would_choose_is_removed_only_with_force(house: House) -> None:
    verified = house.make(verified=True)
    complete = house.make()
    with pytest.raises(BackupSetError, match="is the newest verified one"):
        remove_set(house.store(), verified.id, force=False)
    assert remove_set(house.store(), complete.id, force=False).changed
    assert remove_set(house.store(), verified.id, force=True).changed
    only = house.make()
    with pytest.raises(BackupSetError, match="is the newest complete one"):
        remove_set(house.store(), only.id, force=False)


def test_a_held_set_and_an_unfinished_one_are_not_removed(house: House) -> None:
    old = house.make()
    house.make()
    hold_set(house.store(), old.id, Hold("audit"))
    with pytest.raises(BackupSetError, match=r"is held \(audit\)"):
        remove_set(house.store(), old.id, force=False)
    opened = house.open()
    assert opened.backup_set is not None
    with pytest.raises(BackupSetError, match="unfinished: abandon it"):
        remove_set(house.store(), opened.backup_set.id, force=False)


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_an_untouched_set_is_ok_in_everything(house: House) -> None:
    done = house.make(verified=True)
    hold_set(house.store(), done.id, Hold(""))
    found = house.bytes_of(done.id)
    assert {key: entry.status for key, entry in found.items()} == {
        ("backup_manifest", "backup"): "ok",
        ("backup_bytes", "redis:cache"): "ok",
        ("backup_bytes", "firestore:main"): "ok",
    }


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["redis/cache.rdb"]["bytes"] = 4
    (folder / "redis/cache.rdb").write_bytes(b"evil")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _edit_with_digest(folder: Path) -> None:
    _edit(folder)
    digest = subprocess.run(["sha256sum", "manifest.json"], cwd=folder, check=True, capture_output=True, text=True)
    (folder / "manifest.json.sha256").write_text(digest.stdout)


@pytest.mark.parametrize(
    ("spoil", "check", "subject", "words"),
    [
        (lambda path: _flip(path / "redis/cache.rdb"), "backup_bytes", "redis:cache", "another sha256"),
        (lambda path: _flip(path / "redis/cache.rdb.json"), "backup_bytes", "redis:cache", "another sha256"),
        (lambda path: os.truncate(path / "redis/cache.rdb", 3), "backup_bytes", "redis:cache", "3 bytes instead of"),
        (lambda path: (path / "firestore/main.json").unlink(), "backup_bytes", "firestore:main", "is missing"),
        (lambda path: (path / "redis/evil").write_text("x"), "backup_bytes", "backup", "redis/evil is not in the man"),
        (_edit, "backup_manifest", "backup", "does not match manifest.json.sha256"),
        (_edit_with_digest, "backup_manifest", "backup", "does not match verification.json"),
        (lambda path: (path / "manifest.json.sha256").unlink(), "backup_manifest", "backup", "is missing"),
        (lambda path: (path / "manifest.json").unlink(), "backup_manifest", "backup", "has no manifest.json"),
        (lambda path: (path / "manifest.json").write_text("{"), "backup_manifest", "backup", "cannot be read"),
        (lambda path: (path / "manifest.json").write_text("{}"), "backup_manifest", "backup", "has format None"),
        (lambda path: (path / "verification.json").write_text("[1]"), "backup_manifest", "backup", "no JSON object"),
        (lambda path: (path / "hold.json").write_bytes(b"\xff"), "backup_manifest", "backup", "hold.json cannot be"),
    ],
)
def test_whatever_was_spoiled_is_named(house: House, spoil: Spoil, check: str, subject: str, words: str) -> None:
    done = house.make(verified=True)
    spoil(house.root / done.id)
    finding = house.bytes_of(done.id)[check, subject]
    assert finding.status == "critical" and words in finding.summary and finding.hint


def test_a_set_that_was_renamed_to_look_young_is_found_out(house: House) -> None:
    done = house.make(verified=True)
    (house.root / done.id).rename(house.root / "20260201T030000Z")
    found = house.get("20260201T030000Z")
    assert found.state == "failed" and f"is that of set '{done.id}'" in found.problem


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["format", "id", "files", "parts", "bytes", "sha256", "name", "path", "a"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=15,
    )
)
def test_no_manifest_makes_the_reader_stumble(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    folder = tmp_path_factory.mktemp("sets") / "20260131T030000Z"
    folder.mkdir()
    if isinstance(content, dict):
        content = {**content, "format": 1, "id": folder.name}
    (folder / "manifest.json").write_text(json.dumps(content))
    (entry,) = read_sets(str(folder.parent))
    found = FindingsBuilder(datetime(2026, 1, 31, tzinfo=timezone.utc))
    check_bytes(found, entry)
    assert entry.as_dict(datetime(2026, 1, 31, tzinfo=timezone.utc)) and found.findings


def test_a_manifest_of_a_later_release_is_not_misread(house: House) -> None:
    done = house.make()
    path = house.root / done.id / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert "has format 2, this release reads 1" in house.get(done.id).problem


# --- the newest set --------------------------------------------------------------------------------------------------


def test_no_set_at_all_is_critical(house: House) -> None:
    found = house.check()
    assert found["backup_present", "backup"].status == "critical"
    assert "database_backup" in found["backup_present", "backup"].hint


@pytest.mark.parametrize(("hours", "status"), [(24, "ok"), (26, "warning"), (30.1, "critical"), (-1, "unknown")])
def test_age(house: House, hours: float, status: str) -> None:
    done = house.make()
    house.now = moment_of(done.id) + timedelta(hours=hours)
    finding = house.check(warning_age=25 * HOUR, max_age=30 * HOUR)["backup_age", "backup"]
    assert (finding.status, finding.value) == (status, int(hours * HOUR))
    assert bool(finding.hint) == (status != "ok")


def test_a_part_that_should_be_there_and_is_not(house: House) -> None:
    house.make()
    found = house.check(parts=["redis:cache", "redis:sessions"])
    assert found["backup_part", "redis:cache"].status == "ok"
    assert found["backup_part", "redis:sessions"].status == "critical"


def test_a_set_of_half_the_data_is_told(house: House) -> None:
    for _day in range(3):
        house.make(size=1000)
        house.go_on(DAY)
    house.make(size=499)
    found = house.check()
    assert found["backup_size", "redis:cache"].status == "warning"
    assert "499 B, its predecessors 1000" in found["backup_size", "redis:cache"].summary
    assert (found["backup_size", "firestore:main"].value, found["backup_size", "firestore:main"].unit) == (
        100,
        "documents",
    )
    assert house.check(max_shrink=60.0)["backup_size", "redis:cache"].status == "ok"


def test_the_first_set_has_no_predecessor_to_be_smaller_than(house: House) -> None:
    house.make()
    assert ("backup_size", "redis:cache") not in house.check()


def test_a_failed_newest_set_is_critical_and_the_age_is_that_of_the_newest_good_one(house: House) -> None:
    good = house.make(verified=True)
    house.go_on(DAY)
    bad = house.make()
    house.judge(bad.id, 2, {**LOADED, "status": "critical", "summary": "the CRC is wrong"})
    found = house.check()
    present = found["backup_present", "backup"]
    assert present.status == "critical" and "the CRC is wrong" in present.summary and good.id in present.summary
    assert found["backup_age", "backup"].value == int(DAY)


def test_leftovers_are_told_and_a_running_backup_is_none(house: House) -> None:
    house.make()
    (house.root / "20260129T030000Z.partial").mkdir()
    finding = house.check()["backup_leftovers", "backup"]
    assert finding.status == "warning" and "20260129T030000Z" in finding.summary
    (house.root / "20260129T030000Z.partial").rmdir()
    house.open("b")
    finding = house.check()["backup_leftovers", "backup"]
    assert finding.status == "ok" and "is being made by" in finding.summary
    house.go_on(13 * HOUR)
    assert house.check()["backup_leftovers", "backup"].status == "warning"


# --- judgements ------------------------------------------------------------------------------------------------------


def test_a_judgement_makes_a_set_verified_and_leaves_the_manifest_alone(house: House) -> None:
    done = house.make()
    before = tree(house.root / done.id)
    judged = house.judge(done.id, 2, LOADED, READ_BACK)
    assert judged.changed and judged.result == "passed"
    after = tree(house.root / done.id)
    assert set(after) - set(before) == {"verification.json"} and {name: after[name] for name in before} == before
    assert (house.get(done.id).state, house.get(done.id).verified_level) == ("verified", 2)
    assert not house.judge(done.id, 2, LOADED, READ_BACK).changed


def test_a_judgement_in_check_mode_writes_nothing(house: House) -> None:
    done = house.make()
    before = tree(house.root)
    would = judge_set(house.store(check=True), done.id, 2, [LOADED, READ_BACK])
    assert would.changed and would.result == "passed" and len(would.after["judgements"]) == 1
    assert tree(house.root) == before


@pytest.mark.parametrize(
    ("level", "findings", "result"),
    [
        (1, [{**LOADED, "check": "backup_bytes"}, READ_BACK], "passed"),
        (2, [{**LOADED, "check": "backup_bytes"}, READ_BACK], "unknown"),
        (2, [{**LOADED, "status": "warning"}, READ_BACK], "passed"),
        (2, [LOADED], "unknown"),
        (2, [], "unknown"),
        (2, [LOADED, {**READ_BACK, "status": "unknown"}], "unknown"),
        (3, [{**LOADED, "status": "critical"}, {**READ_BACK, "status": "unknown"}], "failed"),
        (4, [LOADED, READ_BACK], "unknown"),
        (4, [LOADED, READ_BACK, LIKE_SERVER], "unknown"),
        (4, [LIKE_SERVER, LIKE_DATABASE], "passed"),
        (4, [{**LOADED, "status": "warning"}, LIKE_SERVER, LIKE_DATABASE], "passed"),
        (4, [LIKE_SERVER, {**LIKE_DATABASE, "status": "warning"}], "unknown"),
    ],
)
def test_only_what_was_proved_has_passed(house: House, level: int, findings: list[dict[str, Any]], result: str) -> None:
    done = house.make()
    assert house.judge(done.id, level, *findings).result == result
    state = {"passed": "verified" if level > 1 else "complete", "failed": "failed", "unknown": "complete"}[result]
    assert house.get(done.id).state == state


def test_the_digest_that_a_pass_told_first_stands(house: House) -> None:
    done = house.make()
    name = LOADED["subject"]
    wrong = {**LOADED, "status": "critical"}
    for level, loaded, digest in ((3, wrong, "of a failure"), (3, LOADED, "first"), (4, LIKE_SERVER, "second")):
        judge_set(house.store(), done.id, level, [loaded, READ_BACK, LIKE_DATABASE], digests={name: digest})
    told = house.get(done.id).as_dict(house.store().clock())
    assert told["digests"] == {name: "first"}


def test_an_unknown_later_takes_nothing_back(house: House) -> None:
    done = house.make(verified=True)
    house.judge(done.id, 3, LOADED, {**READ_BACK, "status": "unknown"})
    assert house.get(done.id).state == "verified"
    house.judge(done.id, 1, {**LOADED, "status": "critical"})
    assert house.get(done.id).state == "failed"
    house.judge(done.id, 3, LOADED, READ_BACK)
    assert (house.get(done.id).state, house.get(done.id).verified_level) == ("verified", 3)


@pytest.mark.parametrize("finding", [{}, {"check": "x", "subject": "y", "summary": "z"}])
def test_what_is_no_finding_is_refused(house: House, finding: dict[str, Any]) -> None:
    done = house.make()
    with pytest.raises(BackupSetError, match="needs check, subject, status and summary"):
        house.judge(done.id, 2, finding)


def test_a_drill_that_passed_is_the_best_proof_and_told_with_its_figures(house: House) -> None:
    done = house.make()
    figures = {"rto_seconds": 340.0, "rpo_seconds": 60.0, "parts": ["redis:cache"]}
    drill = house.drill(done.id, LOADED, READ_BACK, **figures)
    assert (drill.result, drill.message) == ("passed", f"set {done.id}: drill passed")
    told = house.get(done.id).as_dict(house.now)
    assert (told["state"], told["verified_level"], told["drilled_at"]) == ("verified", 5, "2026-01-31T03:00:00Z")
    assert (told["drill"]["rto_seconds"], told["drill"]["rpo_bytes"]) == (340.0, None)
    levels = {entry["level"]: entry["result"] for entry in told["verifications"]}
    assert levels == {1: "passed", 2: "passed", 3: "passed"}, "a drill asks no live server"
    assert not house.drill(
        done.id, LOADED, READ_BACK, rto_seconds=340.0, rpo_seconds=60.0, parts=["redis:cache"]
    ).changed
    assert house.drill(done.id, LOADED, READ_BACK, rto_seconds=350.0).changed, "another drill"


def test_a_failed_drill_fails_the_set_and_only_another_drill_heals_it(house: House) -> None:
    done = house.make(verified=True)
    house.drill(done.id, LOADED, READ_BACK)
    lost = {**LOADED, "status": "critical", "summary": "3 keys are missing"}
    assert (
        house.drill(done.id, lost, READ_BACK).message == f"set {done.id}: drill failed: redis:cache: 3 keys are missing"
    )
    failed = house.get(done.id)
    assert (failed.state, failed.drilled_at, failed.problem) == ("failed", "", "redis:cache: 3 keys are missing")
    house.judge(done.id, 4, LIKE_SERVER, LIKE_DATABASE)
    assert house.get(done.id).state == "failed"
    house.drill(done.id, LOADED, READ_BACK)
    assert (house.get(done.id).state, house.get(done.id).drilled_at) == ("verified", "2026-01-31T03:00:00Z")


def test_a_failure_after_a_drill_takes_the_drill_back(house: House) -> None:
    done = house.make()
    house.drill(done.id, LOADED, READ_BACK)
    house.judge(done.id, 1, {**LOADED, "status": "critical"})
    assert (house.get(done.id).state, house.get(done.id).drilled_at) == ("failed", "")


def test_a_drill_of_half_a_set_leaves_the_set_undrilled(house: House) -> None:
    done = house.make(verified=True)
    half = house.drill(done.id, LOADED, parts=["redis:cache"])
    assert half.result == "unknown" and half.message.endswith("nothing of the drill was found out about firestore:main")
    assert (house.get(done.id).state, house.get(done.id).drilled_at) == ("verified", "")
    whole = house.drill(done.id, parts=["redis:cache", {"name": "firestore:main", "documents": 100}])
    assert whole.result == "passed"
    with pytest.raises(BackupSetError, match=r"has no part redis:other, it holds redis:cache, firestore:main"):
        house.drill(done.id, parts=["redis:other"])


# --- which level is due ----------------------------------------------------------------------------------------------

WEEKLY = {1: DAY, 2: DAY, 3: 7 * DAY, 4: 7 * DAY}


def _passed(level: int, now: datetime, days: float, result: str = "passed") -> dict[str, Any]:
    return {"level": level, "result": result, "at": isoformat(now - timedelta(days=days)), "reason": ""}


@pytest.mark.parametrize(
    ("recorded", "elsewhere", "due"),
    [
        pytest.param([], [], 4, id="nothing was ever verified"),
        pytest.param([(4, 0.5)], [], 0, id="all within their periods"),
        pytest.param([(2, 0.2)], [(4, 2)], 0, id="the heavy levels were passed by another set"),
        pytest.param([], [(4, 2)], 2, id="a new set is made verified first"),
        pytest.param([(2, 0.2)], [(3, 2), (4, 7)], 4, id="a week later"),
        pytest.param([(2, 0.2)], [(4, 6.4)], 4, id="a tenth of the period early"),
        pytest.param([(2, 0.2)], [(4, 6.2)], 0, id="not earlier"),
        pytest.param([(2, 0.99)], [(4, 2)], 2, id="a daily run that begins a minute earlier"),
        pytest.param([(5, 0.5)], [], 4, id="a drill asks no live server"),
        pytest.param([(5, 0.5)], [(4, 1)], 0, id="a drill proves the rest"),
        pytest.param([(4, -1)], [], 4, id="a pass of the future counts for nothing"),
    ],
)
def test_the_highest_level_that_is_due(
    house: House, recorded: list[tuple[int, float]], elsewhere: list[tuple[int, float]], due: int
) -> None:
    done, other = (
        BackupSet("x", "x", "complete", judgements=[_passed(level, house.now, days) for level, days in told])
        for told in (recorded, elsewhere)
    )
    assert due_level(done, [done, other], WEEKLY, house.now) == due


@pytest.mark.parametrize(
    ("recorded", "due"),
    [
        pytest.param([(3, "failed")], 3, id="a lower pass proves nothing against it"),
        pytest.param([(3, "unknown")], 0, id="level 3 has no period here"),
        pytest.param([(3, "failed"), (3, "passed")], 0, id="healed"),
        pytest.param([(5, "failed")], 0, id="no verification heals a failed drill"),
    ],
)
def test_a_level_at_which_the_set_failed_is_due_until_it_passes(
    house: House, recorded: list[tuple[int, str]], due: int
) -> None:
    told = [_passed(level, house.now, 0.2, result) for level, result in [*recorded, (2, "passed")]]
    assert due_level(BackupSet("x", "x", "failed", judgements=told), [], {1: DAY, 2: DAY}, house.now) == due


def test_what_stayed_unknown_is_due_again(house: House) -> None:
    told = [_passed(2, house.now, 0.2), _passed(3, house.now, 0.1, "unknown")]
    assert due_level(BackupSet("x", "x", "verified", judgements=told), [], {2: DAY, 3: 7 * DAY}, house.now) == 3


def test_no_period_no_level(house: House) -> None:
    assert due_level(BackupSet("x", "x", "complete"), [], {}, house.now) == 0
    assert parse_periods({1: "1d", "3": "1w"}) == {1: DAY, 3: 7 * DAY}


def test_a_damaged_set_can_be_marked(house: House) -> None:
    done = house.make(verified=True)
    (house.root / done.id / "manifest.json").write_text("{")
    assert house.judge(done.id, 1, {**LOADED, "status": "critical"}).result == "failed"
    assert house.get(done.id).state == "failed"


def test_foreign_folders_and_files_are_not_taken_for_sets(house: House) -> None:
    done = house.make()
    for name in ("lost+found", "20261331T000000Z", "20260131T030000Z.old"):
        (house.root / name).mkdir()
    (house.root / "20260130T030000Z").write_text("a file")
    sets = read_sets(str(house.root))
    assert [entry.id for entry in sets] == [done.id] and newest(sets, "complete") == sets[0]
