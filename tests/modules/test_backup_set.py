"""backup_set as Ansible runs it: each state, in check mode and repeated, two runs at once, killed, with a full disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import ROOT, run_module, start_module

ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
PART = {"name": "redis:cache", "path": "redis/cache.rdb", "manifest": "redis/cache.rdb.json"}
RECORD = {"name": "firestore:main", "path": "firestore/main.json", "record": {"documents": 5}}
FINDINGS = [
    {"check": "snapshot_load", "subject": "redis:cache", "status": "ok", "summary": "loaded"},
    {"check": "export_format", "subject": "firestore:main", "status": "ok", "summary": "read back"},
]


@dataclass
class Sets:
    root: Path

    def run(self, state: str, *, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("backup_set", {"root": str(self.root), "state": state, **options}, check=check, diff=diff)

    def fill(self, opened: dict[str, Any]) -> None:
        folder = Path(opened["set"]["path"]) / "redis"
        (folder / "cache.rdb").write_bytes(os.urandom(1000))
        (folder / "cache.rdb.json").write_text('{"keys": 7}')

    def make(self, **options: Any) -> str:
        """Id of a new complete set."""
        opened = self.run("open", owner="maker", **options)
        self.fill(opened)
        identifier = str(opened["set"]["id"])
        done = self.run("complete", owner="maker", id=identifier, parts=[PART, RECORD])
        assert not done["failed"], done
        return identifier

    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes() if path.is_file() else b""
            for path in self.root.rglob("*")
        }


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path / "sets")


def _four(sets: Sets, state: str, **options: Any) -> dict[str, Any]:
    """In check mode, for real, repeated, and repeated in check mode. Returns what the second one said."""
    before = sets.tree()
    would = sets.run(state, check=True, diff=True, **options)
    assert would["changed"] and not would["failed"], would
    assert sets.tree() == before
    did = sets.run(state, diff=True, **options)
    assert did["changed"] and not did["failed"], did
    after = sets.tree()
    assert after != before
    assert state == "open" or _timeless(would["diff"]) == _timeless(did["diff"])
    for check in (False, True):
        again = sets.run(state, check=check, **options)
        assert not again["changed"] and not again["failed"], again
        assert sets.tree() == after
    return did


def _timeless(diff: dict[str, Any]) -> str:
    return re.sub(r"\d\d:\d\d:\d\dZ", "", json.dumps(diff))


def test_create_change_and_remove_a_set_each_in_check_mode_and_repeated(sets: Sets) -> None:
    opened = _four(sets, "open", owner="run-1")
    assert opened["diff"] == {"before": {}, "after": {"id": opened["set"]["id"], "state": "partial"}}
    sets.fill(opened)
    identifier = opened["set"]["id"]
    done = _four(sets, "complete", owner="run-1", id=identifier, parts=[PART, RECORD], site="test")
    assert done["set"]["state"] == "complete" and done["set"]["files"] == 3
    judged = _four(sets, "judged", id=identifier, level=2, findings=FINDINGS)
    assert judged["result"] == "passed" and judged["set"]["state"] == "verified"
    _four(sets, "held", id=identifier, reason="audit")
    assert "is held (audit)" in sets.run("absent", id=identifier)["msg"]
    _four(sets, "unheld", id=identifier)
    refused = sets.run("absent", id=identifier)
    assert refused["failed"] and "newest verified" in refused["msg"]
    removed = _four(sets, "absent", id=identifier, force=True)
    assert removed["diff"]["before"]["files"] and not removed["diff"]["after"]
    assert [path.name for path in sets.root.iterdir()] == [".mutex"]


def test_abandon_in_check_mode_and_repeated(sets: Sets) -> None:
    sets.fill(sets.run("open", owner="run-1"))
    _four(sets, "abandoned", owner="run-1")
    assert [path.name for path in sets.root.iterdir()] == [".mutex"]


def test_a_young_verified_set_makes_a_new_one_needless(sets: Sets) -> None:
    identifier = sets.make()
    assert sets.run("open", owner="b", max_age="1h", check=True)["due"]
    accepted = sets.run("open", owner="b", max_age="1h", accept_state="complete")
    assert (accepted["due"], accepted["changed"], accepted["set"]["id"]) == (False, False, identifier)
    sets.run("judged", id=identifier, level=2, findings=FINDINGS)
    opened = sets.run("open", owner="b", max_age="1h")
    assert (opened["due"], opened["set"]["state"]) == (False, "verified")
    assert not (sets.root / ".lock").exists()


def test_found_tells_sets_states_ages_and_who_works(sets: Sets) -> None:
    assert sets.run("found")["sets"] == []
    older = sets.make()
    sets.run("judged", id=older, level=2, findings=FINDINGS)
    newer = sets.make()
    sets.run("open", owner="run-3")
    found = sets.run("found")
    assert [entry["state"] for entry in found["sets"]] == ["partial", "complete", "verified"]
    assert (found["newest"], found["newest_verified"], found["set"]["id"]) == (newer, older, newer)
    assert found["lock"]["owner"] == "run-3" and found["lock"]["gone"] == "" and 0 <= found["lock"]["age"] < 60
    assert 0 <= found["set"]["age"] < 60
    assert sets.run("found", id=older)["set"]["verified_level"] == 2
    assert sets.run("found", id="20200101T000000Z")["set"] is None


def test_found_by_what_a_set_is_by_age_and_before_a_time(sets: Sets) -> None:
    drilled, verified, complete, failed = (sets.make() for _ in range(4))
    drill = {"rto_seconds": 300, "parts": ["redis:cache", "firestore:main"]}
    told = sets.run("drilled", id=drilled, drill=drill)
    assert (told["result"], told["set"]["drill"]["rto_seconds"]) == ("passed", 300)
    sets.run("judged", id=verified, level=2, findings=FINDINGS)
    sets.run("judged", id=failed, level=2, findings=[{**FINDINGS[0], "status": "critical"}])
    found = sets.run("found")
    assert [found[f"newest{kind}"] for kind in ("", "_verified", "_drilled")] == [complete, verified, drilled]
    for accept, identifiers in {
        "complete": [complete, verified, drilled], "verified": [verified, drilled], "drilled": [drilled],
    }.items():  # fmt: skip
        assert [entry["id"] for entry in sets.run("found", accept_state=accept)["sets"]] == identifiers
    completed = next(entry["completed_at"] for entry in found["sets"] if entry["id"] == verified)
    assert sets.run("found", before=completed)["newest"] == drilled, "it was completed at that time, not before"
    assert sets.run("found", before=completed, accept_state="verified")["set"]["id"] == drilled
    assert sets.run("found", max_age="1h")["newest"] == complete
    assert sets.run("found", max_age="0s")["sets"] == []
    refused = sets.run("absent", id=drilled)
    assert refused["failed"] and "restored in a drill: drill a newer one first" in refused["msg"]


def test_checked_reads_the_bytes_only_when_a_level_is_due(sets: Sets) -> None:
    identifier = sets.make()
    periods = {"1": "1d", "2": "1d", "3": "7d"}
    due = sets.run("checked", verification=periods)
    assert due["due_level"] == 3 and "backup_bytes" in {finding["check"] for finding in due["findings"]}
    sets.run("judged", id=identifier, level=3, findings=FINDINGS)
    rested = sets.run("checked", verification=periods)
    assert rested["due_level"] == 0 and "backup_bytes" not in {finding["check"] for finding in rested["findings"]}
    newer = sets.make()
    assert sets.run("checked", verification=periods)["due_level"] == 2, "level 3 was passed by another set"
    sets.run("judged", id=newer, level=2, findings=FINDINGS)
    assert sets.run("checked", verification=periods)["due_level"] == 0
    sets.run("judged", id=newer, level=3, findings=[{**FINDINGS[0], "status": "critical"}])
    assert sets.run("checked", verification={"1": "1d"}, fail_on="never")["due_level"] == 3, "where it failed"
    assert sets.run("checked", fail_on="never")["due_level"] == 0, "nobody asked"


def test_checked_fails_as_told_and_names_what_is_wrong(sets: Sets) -> None:
    none = sets.run("checked")
    assert none["failed"] and none["set"] is None and "no complete backup set below" in none["msg"]
    identifier = sets.make()
    good = sets.run("checked", max_age="26h", required_parts=["redis:cache", "firestore:main"])
    assert (good["status"], good["failed"]) == ("ok", False)
    path = sets.root / identifier / "redis/cache.rdb"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    bad = sets.run("checked")
    assert bad["failed"] and "redis:cache: set" in bad["msg"] and "another sha256" in bad["msg"]
    assert not sets.run("checked", fail_on="never")["failed"]
    assert sets.run("checked", id=identifier, fail_on="never")["status"] == "critical"
    assert "no complete set 20200101T000000Z" in sets.run("checked", id="20200101T000000Z")["msg"]


def test_a_set_that_is_too_old(sets: Sets) -> None:
    young = sets.make()
    old = "20200131T030000Z"
    (sets.root / young).rename(sets.root / old)
    manifest = sets.root / old / "manifest.json"
    manifest.write_text(manifest.read_text().replace(young, old))
    digest = subprocess.run(["sha256sum", "manifest.json"], cwd=manifest.parent, check=True, stdout=subprocess.PIPE)
    (manifest.parent / "manifest.json.sha256").write_bytes(digest.stdout)
    answer = sets.run("checked", max_age="26h")
    assert (
        answer["failed"] and f"the newest good set {old} is" in answer["msg"] and "1 d 2 h are allowed" in answer["msg"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "open", "max_age": "soon"}, "'soon' is no duration"),
        ({"state": "complete"}, "all of the following are missing: id"),
        ({"state": "complete", "id": "../x", "parts": [PART]}, "is no id of a backup set"),
        ({"state": "complete", "id": "20260131T030000Z", "parts": [PART]}, "is not open below"),
        ({"state": "judged", "id": "20260131T030000Z", "level": 2, "findings": FINDINGS}, "there is no complete set"),
        ({"state": "held", "id": "20260131T030000Z"}, "there is no set"),
        ({"state": "absent", "id": "20260131T030000Z", "root": "/proc/nothing/here"}, None),
        ({"state": "open", "root": "/proc/nothing"}, "cannot be worked on: .*No such file"),
        ({"state": "found", "id": "newest"}, "'newest' is no id of a backup set"),
        ({"state": "found", "before": "noon"}, "'noon' is no point in time"),
        ({"state": "drilled", "id": "20260131T030000Z"}, "all of the following are missing: drill"),
        (
            {"state": "checked", "verification": {"5": "1d"}},
            "'5' is no level of verification: the levels are 1, 2, 3, 4",
        ),
        ({"state": "checked", "verification": {"2": "often"}}, "'often' is no duration"),
        ({"state": "found", "root": "/etc/passwd"}, "cannot be worked on: .*Not a directory"),
    ],
)
def test_errors_name_the_cause(sets: Sets, options: dict[str, Any], message: str | None) -> None:
    answer = run_module("backup_set", {"root": str(sets.root), **options})
    assert answer["failed"] == (message is not None), answer
    if message:
        assert re.search(message, answer["msg"]), answer["msg"]


# --- faults ----------------------------------------------------------------------------------------------------------


def test_of_two_runs_at_once_one_makes_the_set_and_the_other_says_why_not(sets: Sets) -> None:
    sets.root.mkdir()
    runs = [
        start_module("backup_set", {"root": str(sets.root), "state": "open", "owner": f"run-{n}"}) for n in range(4)
    ]
    answers = [json.loads(run.communicate(timeout=60)[0].splitlines()[-1]) for run in runs]
    opened = [answer for answer in answers if not answer.get("failed")]
    assert len(opened) == 1, answers
    for answer in answers:
        if answer.get("failed"):
            assert f"another run works on set {opened[0]['set']['id']}" in answer["msg"]
            assert f"owner {opened[0]['owner']}" in answer["msg"]
    assert len(list(sets.root.glob("*.partial"))) == 1


def test_a_run_that_waits_gets_the_lock_when_the_other_is_done(sets: Sets) -> None:
    opened = sets.run("open", owner="first")
    waiting = start_module(
        "backup_set", {"root": str(sets.root), "state": "open", "owner": "second", "lock_timeout": "30s"}
    )
    sets.fill(opened)
    sets.run("complete", owner="first", id=opened["set"]["id"], parts=[PART])
    answer = json.loads(waiting.communicate(timeout=60)[0].splitlines()[-1])
    assert answer["due"] and answer["set"]["id"] > opened["set"]["id"]


def test_killed_while_it_reads_a_large_file_it_can_be_run_again(sets: Sets) -> None:
    older = sets.make()
    opened = sets.run("open", owner="run-1")
    sets.fill(opened)
    large = Path(opened["set"]["path"]) / "redis/large"
    with large.open("wb") as stream:
        stream.truncate(8 << 30)  # eight gigabytes of nothing: takes no room and seconds to read
    arguments = {"root": str(sets.root), "state": "complete", "owner": "run-1", "id": opened["set"]["id"]}
    module = start_module("backup_set", {**arguments, "parts": [PART, RECORD]})
    _wait_until(lambda: _reads(module.pid, large))
    module.send_signal(signal.SIGKILL)
    module.communicate()
    found = sets.run("found")
    assert found["newest"] == older and found["lock"]["owner"] == "run-1"
    large.unlink()
    assert sets.run("complete", owner="run-1", id=opened["set"]["id"], parts=[PART, RECORD])["changed"]
    assert sets.run("checked")["status"] == "ok"


def test_the_lock_of_a_playbook_that_was_killed_is_taken_over_at_once(sets: Sets, tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    task = {"upkeep.ops.backup_set": {"root": str(sets.root), "state": "open"}}
    wait = {"ansible.builtin.command": {"argv": ["sleep", "60"]}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task, wait]}
    playbook.write_text(json.dumps([play]))
    interpreter = f"ansible_python_interpreter={sys.executable}"
    run = subprocess.Popen(
        [ANSIBLE_PLAYBOOK, "-i", "localhost,", "-c", "local", "-e", interpreter, playbook],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        cwd=tmp_path,
        stdout=(tmp_path / "output").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_until(lambda: bool(list(sets.root.glob("*.partial/firestore"))))
        lock = sets.run("found")["lock"]
        assert lock["pid"] == run.pid and lock["gone"] == ""
        assert f"process {run.pid}" in sets.run("open", owner="next")["msg"]
    finally:
        for pid in _family(run.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()
    assert sets.run("found")["lock"]["gone"] == f"its process {run.pid} has ended"
    opened = sets.run("open", owner="next")
    assert opened["changed"] and "took over the lock of" in json.dumps(opened["warnings"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_costs_no_set(small_disk: Path) -> None:
    sets = Sets(small_disk / "sets")
    older = sets.make()
    opened = sets.run("open", owner="run-1")
    sets.fill(opened)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        while _written(stream):
            pass
    full = sets.run("complete", owner="run-1", id=opened["set"]["id"], parts=[PART, RECORD])
    assert full["failed"] and "No space left on device" in full["msg"] and str(sets.root) in full["msg"]
    assert sets.run("found")["newest"] == older
    assert sets.run("checked")["status"] == "ok"
    assert sets.run("abandoned", owner="run-1")["changed"]
    filler.unlink()
    assert sets.make() > older


def test_a_disk_that_is_full_from_the_start_leaves_no_lock(small_disk: Path) -> None:
    sets = Sets(small_disk / "sets")
    with (small_disk / "filler").open("wb", buffering=0) as stream:
        while _written(stream):
            pass
    answer = sets.run("open", owner="run-1")
    assert answer["failed"] and "No space left on device" in answer["msg"]
    assert not (sets.root / ".lock").exists()


def test_the_examples_run(tmp_path: Path) -> None:
    run_examples("backup_set", {"/var/backups/upkeep": str(tmp_path / "sets")})
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [".mutex"]


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _written(stream: Any) -> bool:
    try:
        return bool(stream.write(bytes(4096)))
    except OSError:
        return False


def _reads(pid: int, file: Path) -> bool:
    try:
        return any(link.resolve() == file for link in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
