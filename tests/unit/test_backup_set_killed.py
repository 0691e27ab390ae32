"""A run that is killed before any single step on the file system leaves whole sets only, and can be run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._backup_retention import Retention, apply_policy, finish
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import read_sets
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import (
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
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_verification import check_bytes
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._retention import Policy

NOW = datetime(2026, 1, 31, 3, tzinfo=timezone.utc)
CONTENTS = Contents(
    [
        {"name": "redis:cache", "path": "redis/cache.rdb"},
        {"name": "firestore:main", "path": "firestore/main.json", "record": {"documents": 1}},
    ],
    "test",
    {},
)
FINDINGS = [
    {"check": "snapshot_load", "subject": "redis:cache", "status": "ok", "summary": "loaded"},
    {"check": "export_format", "subject": "firestore:main", "status": "ok", "summary": "read back"},
]
OLD, OPEN = "20260129T030000Z", "20260131T030000Z"
#: Audit events of Python that come before a change of the file system.
_STEPS = frozenset(("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"))

Step = Callable[[Store], Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of runs with a few fsync each take long on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as path:
        yield Path(path)


def store(root: Path, now: datetime = NOW) -> Store:
    return Store(str(root), lambda: now, time.sleep, 43200)


def begin(where: Store) -> None:
    open_set(where, "a", None, "verified", 0)


def fill(where: Store) -> None:
    path = Path(where.partial_path(OPEN)) / "redis"
    path.mkdir(exist_ok=True)
    (path / "cache.rdb").write_bytes(b"x" * 100)


def complete(where: Store) -> None:
    complete_set(where, OPEN, "a", CONTENTS, 86400)


def prepare(root: Path, *steps: Step) -> None:
    """A root with one old complete set, what a dead run left two days ago, and the given steps done."""
    old = store(root, NOW - timedelta(days=2))
    opened = open_set(old, "a", None, "verified", 0)
    assert opened.backup_set is not None
    (Path(opened.backup_set.path) / "redis/cache.rdb").write_bytes(b"old")
    complete_set(old, OLD, "a", CONTENTS, 86400)
    left = root / "20260129T040000Z.partial"
    left.mkdir()
    os.utime(left, (0, 0))
    for step in steps:
        step(store(root))


def killed_at(step: Step, where: Store, number: int) -> bool:
    """Do a step in a child that kills itself before its n-th change of the file system; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in _STEPS and str(arguments[0]).startswith(where.root):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            step(where)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def assert_whole(root: Path) -> None:
    """Every set that is seen as one is whole, with sha256sum as the witness; the old one is always among them."""
    sets = [entry for entry in read_sets(str(root)) if entry.state != "partial"]
    for entry in sets:
        assert entry.state in ("complete", "verified"), entry.problem
        listed = "".join(f"{known['sha256']}  {name}\n" for name, known in entry.files.items())
        subprocess.run(["sha256sum", "--check", "--status"], cwd=entry.path, input=listed, text=True, check=True)
        subprocess.run(["sha256sum", "--check", "--status", "manifest.json.sha256"], cwd=entry.path, check=True)
        found = FindingsBuilder(NOW)
        check_bytes(found, entry)
        assert {finding.status for finding in found.findings} == {"ok"}, found.findings
    assert OLD in [entry.id for entry in sets]


@pytest.mark.parametrize(
    ("before", "step", "least"),
    [
        pytest.param([], begin, 8, id="open"),
        pytest.param([begin, fill], complete, 20, id="complete"),
        pytest.param([begin, fill], lambda where: abandon_set(where, OPEN, "a", False), 6, id="abandon"),
        pytest.param([begin, fill, complete], lambda where: judge_set(where, OPEN, 2, FINDINGS), 4, id="judge"),
        pytest.param([begin, fill, complete], lambda where: hold_set(where, OPEN, Hold("x")), 4, id="hold"),
        pytest.param([begin, fill, complete], lambda where: remove_set(where, OPEN, True), 8, id="remove"),
    ],
)
def test_killed_before_each_step(folder: Path, before: list[Step], step: Step, least: int) -> None:
    number = 0
    killed = True
    while killed:
        number += 1
        root = folder / str(number)
        prepare(root, *before)
        killed = killed_at(step, store(root), number)
        assert_whole(root)
        step(store(root))  # the same step again is no error, and does what was left undone
        assert_whole(root)
        assert not [path for path in root.rglob(".*") if path.name not in (".mutex", ".lock")]
    assert number > least, "the step touches the file system less often than this test believes"


def test_killed_anywhere_in_completing_the_next_run_makes_a_set(folder: Path) -> None:
    number = 0
    killed = True
    while killed:
        number += 1
        root = folder / str(number)
        prepare(root, begin, fill)
        killed = killed_at(complete, store(root), number)
        later = store(root, NOW + timedelta(days=1))
        opened = open_set(later, "b", None, "verified", 0)
        assert opened.due and opened.backup_set is not None
        (Path(opened.backup_set.path) / "redis/cache.rdb").write_bytes(b"new")
        complete_set(later, opened.backup_set.id, "b", CONTENTS, 86400)
        assert_whole(root)
        assert read_sets(str(root))[0].id == "20260201T030000Z"
        assert not (root / ".lock").exists()


# --- retention -------------------------------------------------------------------------------------------------------

EXPORT = "gs://bucket/{}/main"


def many(root: Path) -> list[str]:
    """Three verified sets a day apart, the oldest of which records an export; ids from the oldest on."""
    identifiers = []
    for days in (3, 2, 1):
        where = store(root, NOW - timedelta(days=days))
        opened = open_set(where, "a", None, "verified", 0).backup_set
        assert opened is not None
        (Path(opened.path) / "redis/cache.rdb").write_bytes(b"x")
        record = {"output_uri_prefix": EXPORT.format(opened.id)} if days == 3 else {"documents": 1}
        parts = [CONTENTS.parts[0], {**CONTENTS.parts[1], "record": record}]
        complete_set(where, opened.id, "a", Contents(parts, "test", {}), 86400)
        judge_set(where, opened.id, 2, FINDINGS)
        identifiers.append(opened.id)
    return identifiers


def retain(where: Store) -> Retention:
    return apply_policy(where, Policy(last=1))


def test_retention_killed_before_each_step_leaves_whole_sets_and_forgets_no_export(folder: Path) -> None:
    number = 0
    killed = True
    while killed:
        number += 1
        root = folder / str(number)
        oldest, older, newest = many(root)
        killed = killed_at(retain, store(root), number)
        for entry in read_sets(str(root)):
            found = FindingsBuilder(NOW)
            check_bytes(found, entry)
            assert {finding.status for finding in found.findings} == {"ok"}, "what has a name is whole"
        assert newest in [entry.id for entry in read_sets(str(root))]
        open_set(store(root), "b", None, "verified", 0)  # another run sweeps up after dead ones
        abandon_set(store(root), "", "b", False)
        again = retain(store(root))
        assert again.expired == {oldest: [{"part": "firestore:main", "uri": EXPORT.format(oldest)}]}
        assert sorted(path.name for path in root.iterdir()) == [f".{oldest}.expired", ".mutex", newest], older
        assert [path.name for path in (root / f".{oldest}.expired").iterdir()] == ["manifest.json"]
        assert not retain(store(root)).resumed, "there is nothing more to do"
        assert finish(store(root), [oldest, newest]) == [oldest]
        assert sorted(path.name for path in root.iterdir()) == [".mutex", newest]
    assert number > 12, "the step touches the file system less often than this test believes"


def test_retention_in_check_mode_touches_nothing(folder: Path) -> None:
    oldest, older, newest = many(folder)
    before = sorted(str(path) for path in folder.rglob("*"))
    would = apply_policy(Store(str(folder), lambda: NOW, time.sleep, 43200, check=True), Policy(last=1))
    assert [(each.entry.id, each.keep) for each in would.decisions] == [(newest, True), (older, False), (oldest, False)]
    assert list(would.expired) == [oldest]
    assert sorted(str(path) for path in folder.rglob("*")) == before
