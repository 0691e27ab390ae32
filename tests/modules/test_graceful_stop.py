# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""graceful_stop on real processes: those that end, those that do not want to, and those that are not meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module

#: Programs that tell when they are ready; the word after them makes their command line one of a kind.
POLITE = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
DRAINING = """
import signal, sys, time
def drain(*_):
    time.sleep(0.5)
    open(sys.argv[1] + '.drained', 'w').close()
    sys.exit()
signal.signal(15, drain)
print('ready', flush=True)
time.sleep(600)
"""
#: Its child ignores the signal and outlives it.
PARENT = """
import subprocess, sys, time
child = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, '-c', child, sys.argv[1] + '-child'])
time.sleep(600)
"""


class Service:
    """A process in a group of its own with a pid file, as a service that was started as a daemon."""

    def __init__(self, folder: Path, name: str, program: str, *, own_group: bool = True) -> None:
        self.pid_file = folder / f"{name}.pid"
        self.argv = [sys.executable, "-c", program, str(folder / name)]
        self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, start_new_session=own_group)
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"
        self.pid_file.write_text(f"{self.process.pid}\n")

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def stop(self, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"pid_file": str(self.pid_file), "command": self.argv, "timeout": 5, **options}
        return run_module("graceful_stop", given, check=check, diff=True)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    services: list[Service] = []

    def started(program: str, name: str = "auth", **options: Any) -> Service:
        services.append(Service(tmp_path, name, program, **options))
        return services[-1]

    yield started
    for service in services:
        service.kill()


def test_a_service_ends_by_itself_and_again_there_is_nothing_to_stop(start: Any) -> None:
    service = start(POLITE)
    planned = service.stop(check=True)
    assert planned["changed"] and service.runs and service.pid_file.exists()
    answer = service.stop()
    assert (answer["changed"], answer["ended"], answer["pid"]) == (True, "terminated", service.process.pid)
    assert service.process.wait(5) == -signal.SIGTERM and not service.pid_file.exists()
    again = service.stop()
    assert (again["changed"], again["ended"]) == (False, "absent")


def test_a_service_has_the_time_that_it_needs(start: Any, tmp_path: Path) -> None:
    answer = start(DRAINING).stop()
    assert answer["ended"] == "terminated" and 0.4 < answer["seconds"] < 4
    assert (tmp_path / "auth.drained").exists(), "it was killed in the midst of its last request"


def test_a_service_that_ignores_the_signal_is_killed_only_after_its_time(start: Any) -> None:
    service = start(STUBBORN)
    started = time.monotonic()
    answer = service.stop(timeout=1)
    assert answer["ended"] == "killed" and "did not end within 1 s after SIGTERM" in answer["msg"]
    assert 1 <= time.monotonic() - started < 10
    assert service.process.wait(5) == -signal.SIGKILL


def test_its_whole_group_ends(start: Any) -> None:
    service = start(PARENT)
    answer = service.stop(timeout=1)
    assert (answer["ended"], answer["processes"]) == ("killed", 2)
    service.process.wait(5)
    assert not _group(service.process.pid)


def test_without_its_group_the_child_is_left(start: Any) -> None:
    service = start(PARENT)
    assert service.stop(group=False)["ended"] == "terminated"
    assert len(_group(service.process.pid)) == 1


def _group(group: int) -> list[str]:
    """Members of a process group, as ps tells."""
    told = subprocess.run(["ps", "-e", "-o", "pgid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in told.splitlines()]
    return [pid for found, state, pid in rows if int(found) == group and not state.startswith("Z")]


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(start: Any) -> None:
    service, stranger = start(POLITE), start(POLITE, "stranger")
    service.kill()
    service.pid_file.write_text(f"{stranger.process.pid}\n")
    answer = service.stop()
    assert (answer["changed"], answer["ended"]) == (True, "stale") and "another command line" in answer["msg"]
    assert stranger.runs and not service.pid_file.exists()


def test_a_pid_file_that_is_older_than_its_process_is_not_believed(start: Any) -> None:
    service = start(POLITE)
    os.utime(service.pid_file, (time.time() - 3600,) * 2)
    answer = service.stop(command=[])
    assert answer["ended"] == "stale" and "started after it was written" in answer["msg"]
    assert service.runs


def test_a_name_that_is_part_of_anothers_hits_nobody(start: Any) -> None:
    other = start(POLITE, "auth-service-admin")
    service = start(POLITE, "auth-service")
    service.stop()
    assert service.process.wait(5) == -signal.SIGTERM and other.runs


def test_a_process_that_is_no_leader_takes_nobody_with_it(start: Any) -> None:
    """It shares the group of this test."""
    service = start(POLITE, own_group=False)
    assert service.stop()["processes"] == 1


def test_a_zombie_has_ended(start: Any) -> None:
    service = start(POLITE)
    service.process.kill()
    time.sleep(0.2)
    answer = service.stop()
    assert answer["ended"] == "stale" and "has ended" in answer["msg"]


@pytest.mark.parametrize("content", ["", "soon\n", "1\n", "-5\n"])
def test_what_is_no_pid_of_a_service_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    answer = run_module("graceful_stop", {"pid_file": str(tmp_path / "pid")})
    assert answer["failed"] and "holds no pid of a service" in answer["msg"]
    assert (tmp_path / "pid").exists()


def test_a_process_of_another_user_is_told(start: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    service = start(POLITE)
    code = (
        "import os, signal, sys, time;"
        "from ansible_collections.upkeep.ops.plugins.module_utils._processes import *;"
        "process = look(int(sys.argv[1])); os.setgid(65534); os.setuid(65534);"
        "end(process, True, signal.SIGTERM, Patience(1, 1, time.monotonic))"
    )
    collections = Path(__file__).parents[2] / "collections"
    done = subprocess.run(
        [sys.executable, "-c", code, str(service.process.pid)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(collections)},
    )  # fmt: skip
    assert "may not be signalled by this user: use become" in done.stderr
    assert service.runs


def test_examples(start: Any) -> None:
    service = start(POLITE)
    run_examples(
        "graceful_stop",
        {
            "/run/auth-service.pid": str(service.pid_file),
            "[node, /srv/auth-service/current/server.js]": "'{{ command_line }}'",
        },
        {"command_line": service.argv},
    )
    assert service.process.wait(5) == -signal.SIGTERM
