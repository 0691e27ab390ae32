"""The lock of a run: who holds it, and when its owner is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._lock import (
    Lock,
    LockError,
    Place,
    free_lock,
    here,
    mutex,
    new_lock,
    owner_gone,
    read_lock,
    run_process,
    start_time,
    write_lock,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
PLACE = Place("backup1", "machine", "boot-1", "pid:[1]")
HOUR = 3600.0


def lock(pid: int = 0, started: int = 0, age: float = 0, place: Place = PLACE) -> Lock:
    return Lock("run-1", "20260131T110000Z", isoformat(NOW - timedelta(seconds=age)), place, "root", pid, started)


def gone(held: Lock, place: Place = PLACE) -> str:
    return owner_gone(held, NOW, 12 * HOUR, place)


def test_a_live_process_is_never_overruled_however_old_its_lock() -> None:
    started = start_time(os.getpid())
    assert gone(lock(os.getpid(), started, age=1000 * HOUR)) == ""


def test_a_process_that_ended_frees_its_lock_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held = lock(child.pid, start_time(child.pid))
    assert gone(held) == ""
    child.communicate(b"\n")
    assert gone(held) == f"its process {child.pid} has ended"


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    held = lock(child.pid, start_time(child.pid))
    deadline = time.monotonic() + 10
    while not gone(held) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "has ended" in gone(held)
    child.wait()


def test_a_pid_that_was_given_to_another_process_is_not_the_owner() -> None:
    assert "has ended" in gone(lock(os.getpid(), start_time(os.getpid()) - 1))


def test_a_restart_of_the_host_frees_the_lock() -> None:
    assert gone(lock(age=60), replace(PLACE, boot="boot-2")) == "backup1 was restarted since"


@pytest.mark.parametrize(
    "place",
    [
        replace(PLACE, host="backup2", boot="boot-2"),
        replace(PLACE, machine="another machine of the same name", boot="boot-2"),
        replace(PLACE, namespace="pid:[2]"),
    ],
)
def test_a_process_that_cannot_be_seen_counts_as_gone_by_age_alone(place: Place) -> None:
    unseen = lock(pid=4194304, started=1, age=11 * HOUR)
    assert gone(unseen, place) == ""
    assert "cannot be seen from here" in gone(replace(unseen, taken_at=isoformat(NOW - timedelta(hours=13))), place)


def test_without_a_pid_the_age_decides() -> None:
    assert gone(lock(age=11 * HOUR)) == ""
    assert "older than 12 h" in gone(lock(age=13 * HOUR))


def _process(proc: Path, pid: int, parent: int, *command: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    fields = ["S", str(parent), *["0"] * 17, str(pid * 100), "0"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a) name) {' '.join(fields)}")
    (proc / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))


def test_the_run_is_the_oldest_of_the_forks_of_ansible_playbook(tmp_path: Path) -> None:
    playbook = ("/usr/bin/python3", "/usr/bin/ansible-playbook", "daily.yml")
    _process(tmp_path, 10, 1, "bash")
    _process(tmp_path, 20, 10, *playbook)
    _process(tmp_path, 30, 20, *playbook)
    _process(tmp_path, 40, 30, "/bin/sh", "-c", "python3 module.py ansible-playbook")
    _process(tmp_path, 50, 40, "/usr/bin/python3", "module.py")
    assert run_process(50, str(tmp_path)) == (20, 2000)


def test_a_run_within_a_run_is_one_of_its_own(tmp_path: Path) -> None:
    _process(tmp_path, 10, 1, "/usr/bin/ansible-playbook", "outer.yml")
    _process(tmp_path, 20, 10, "/usr/bin/ansible-playbook", "inner.yml")
    _process(tmp_path, 30, 20, "python3", "module.py")
    assert run_process(30, str(tmp_path)) == (20, 2000)


def test_over_ssh_there_is_no_run_to_be_seen(tmp_path: Path) -> None:
    _process(tmp_path, 10, 1, "sshd: root@notty")
    _process(tmp_path, 20, 10, "python3", "module.py")
    assert run_process(20, str(tmp_path)) == (0, 0)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    assert read_lock(path) is None
    held = new_lock("run-1", "20260131T110000Z", NOW)
    assert held.place == here()
    write_lock(path, held)
    assert read_lock(path) == held
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600
    free_lock(path)
    free_lock(path)
    assert read_lock(path) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"owner": "x"}', "\x00\x01"])
def test_a_lock_file_of_somebody_else_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".lock"
    path.write_text(content)
    with pytest.raises(LockError, match="remove that file when no backup is running"):
        read_lock(str(path))


def test_the_description_tells_a_person_whom_to_look_for() -> None:
    assert lock(4711, 1, age=90).describe(NOW) == "root on backup1 (owner run-1, process 4711) for 1 min 30 s"


def test_the_mutex_lets_one_in_and_gives_up_on_the_other(tmp_path: Path) -> None:
    path = str(tmp_path / ".mutex")
    waits: list[float] = []
    with mutex(path, waits.append), pytest.raises(LockError, match="another process"), mutex(path, waits.append, 1):
        pass
    assert 0.9 < sum(waits) <= 1.1
    with mutex(path, waits.append):
        pass


def test_the_mutex_is_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / ".mutex")
    program = f"import fcntl, os; d = os.open({path!r}, os.O_RDWR | os.O_CREAT); fcntl.flock(d, 2); print(1); input()"
    holder = subprocess.Popen(
        [sys.executable, "-uc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    holder.stdout.readline()
    with pytest.raises(LockError), mutex(path, time.sleep, 0.2):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with mutex(path, time.sleep):
        pass
