# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_control on real processes and, where a daemon answers, on real containers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.docker import docker
from tests.harness import run_module, start_module

POLITE = "import sys, time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
DYING = "import sys, time; print('no such table: users', flush=True); time.sleep(0.2); sys.exit(3)"
TELLING = "import os, time; print(os.getcwd(), os.environ.get('COLOUR'), os.getsid(0), flush=True); time.sleep(600)"
#: It goes into the background, and writes its pid file itself.
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
open(sys.argv[1] + '.pid', 'w').write(str(os.getpid()))
time.sleep(600)
"""


class Service:
    """A service as the catalogue describes it; whatever it becomes is ended with the test."""

    def __init__(self, folder: Path, name: str, program: str, **runner: Any) -> None:
        self.name = name
        self.pid_file = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"
        self.command = [sys.executable, "-c", program, str(folder / name)]
        paths = {"pid_file": str(self.pid_file), "log": str(self.log)}
        self.runner = {"type": "process", "command": self.command, **paths, **runner}

    @property
    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "runner": self.runner, "settle": 0.5, "stop_timeout": 5}

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    @property
    def runs(self) -> bool:
        return self.pid_file.exists() and self._command_line() == self.command

    def _command_line(self) -> list[str]:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")[:-1]
        return []

    def end(self) -> None:
        if self.runs:
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[Service] = []

    def service(program: str = POLITE, name: str = "auth", **runner: Any) -> Service:
        made.append(Service(tmp_path, name, program, **runner))
        return made[-1]

    yield service
    for each in made:
        each.end()


def call(state: str, *services: Service, check: bool = False, **options: Any) -> dict[str, Any]:
    entries = [{**service.entry, **options} for service in services]
    return run_module("service_control", {"state": state, "services": entries}, check=check, diff=True)


def statuses(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(each["check"], each["subject"]): each["status"] for each in answer["findings"]}


def test_a_service_is_started_once_restarted_and_stopped(make: Any) -> None:
    service = make()
    assert call("started", service, check=True)["changed"] and not service.pid_file.exists()
    assert call("started", service)["changed"] and service.runs
    first = service.pid
    assert not call("started", service)["changed"] and service.pid == first
    answer = call("restarted", service)
    (told,) = answer["services"]
    assert (told["ended"], told["before"], told["backend"]) == ("terminated", "running", "process")
    assert service.runs and service.pid != first and told["stop_seconds"] < 3 and told["start_seconds"] >= 0.5
    assert set(statuses(answer).values()) == {"ok"}
    assert call("stopped", service, check=True)["changed"] and service.runs
    assert call("stopped", service)["services"][0]["ended"] == "terminated" and not service.pid_file.exists()
    assert not call("stopped", service)["changed"]


def test_it_is_started_as_the_catalogue_says(make: Any, tmp_path: Path) -> None:
    service = make(TELLING, working_dir=str(tmp_path), environment={"COLOUR": "blue"})
    call("started", service)
    folder, colour, session = service.log.read_text().split()
    assert (folder, colour) == (str(tmp_path), "blue")
    assert int(session) == service.pid, "it has a session of its own"


def test_a_daemon_that_forks_is_known_by_its_own_pid_file(make: Any) -> None:
    service = make(DAEMON, forks=True)
    assert call("started", service)["changed"] and service.runs
    assert call("stopped", service)["services"][0]["ended"] == "terminated"


def test_a_service_that_ignores_sigterm_is_killed_and_comes_back(make: Any) -> None:
    service = make(STUBBORN)
    call("started", service)
    first = service.pid
    answer = call("restarted", service, stop_timeout=1)
    (told,) = answer["services"]
    assert told["ended"] == "killed" and "did not end within 1 s and was killed" in told["message"]
    assert statuses(answer)["service_stop", "auth"] == "warning" and service.runs and service.pid != first


def test_a_service_that_starts_and_dies_is_told_with_the_end_of_its_log(make: Any) -> None:
    service, after = make(DYING), make(name="chat")
    service.log.write_text("old lines of an earlier start\n")
    answer = call("started", service, after)
    assert answer["failed"] and "ended with exit status 3" in answer["msg"]
    assert answer["services"][0]["log"] == ["no such table: users"] and "no such table: users" in answer["msg"]
    assert not service.pid_file.exists() and not after.pid_file.exists()
    assert statuses(answer)["service_start", "chat"] == "unknown", "what comes after it is left as it is"


def test_what_cannot_be_started_at_all_is_told(make: Any) -> None:
    service = make()
    service.runner["command"] = ["/no/such/program"]
    answer = call("started", service)
    assert answer["failed"] and "it cannot be started: /no/such/program: No such file" in answer["msg"]


def test_a_stale_pid_file_that_names_somebody_else_hurts_nobody(make: Any) -> None:
    stranger, service = make(name="stranger"), make()
    call("started", stranger)
    service.pid_file.write_text(f"{stranger.pid}\n")
    planned = call("stopped", service, check=True)
    assert planned["changed"] and planned["services"][0]["before"] == "stale" and service.pid_file.exists()
    answer = call("restarted", service)
    assert answer["services"][0]["ended"] == "stale" and service.runs and stranger.runs
    assert service.pid != stranger.pid


def test_a_name_that_is_part_of_anothers_hits_nobody(make: Any) -> None:
    service, other = make(name="auth"), make(name="auth-admin")
    call("started", service, other)
    first = other.pid
    call("restarted", service)
    call("stopped", service)
    assert other.runs and other.pid == first


def test_a_module_that_is_killed_leaves_a_service_that_is_known(make: Any) -> None:
    service = make()
    module = start_module("service_control", {"state": "started", "services": [{**service.entry, "settle": 60}]})
    deadline = time.monotonic() + 20
    while not service.runs and time.monotonic() < deadline:
        time.sleep(0.05)
    module.kill()
    module.communicate()
    assert service.runs and call("stopped", service)["services"][0]["ended"] == "terminated"


def test_another_user_runs_it(make: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    service = make(user="nobody")
    service.runner["command"][0] = "/usr/bin/python3"
    call("started", service)
    assert Path(f"/proc/{service.pid}").stat().st_uid == 65534


def test_what_a_runner_needs_is_demanded() -> None:
    answer = run_module("service_control", {"services": [{"name": "auth", "runner": {"type": "systemd"}}]})
    assert answer["failed"] and "type is systemd but all of the following are missing: unit" in answer["msg"]


def test_examples(make: Any) -> None:
    service = make()
    call("started", service)
    run_examples(
        "service_control",
        {
            "/run/auth-service.pid": str(service.pid_file),
            "[node, /srv/auth-service/current/server.js]": "'{{ command_line }}'",
            "/var/log/services/auth-service.log": str(service.log),
        },
        {"command_line": service.command},
    )
    assert not service.runs


# --- Docker ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def container(docker_image: str) -> Iterator[Any]:
    names: list[str] = []

    def created(script: str, *options: str) -> dict[str, Any]:
        names.append(f"upkeep-test-{os.getpid()}-{len(names)}")
        docker("run", "-d", "--network=none", "--name", names[-1], *options, docker_image, "/bin/sh", "-c", script)
        return {"name": "auth", "runner": {"type": "docker", "container": names[-1]}, "stop_timeout": 2}

    yield created
    for name in names:
        docker("rm", "-f", name)


WAITING = "while :; do sleep 1 & wait; done"


@pytest.mark.parametrize(
    "script, ended, status",
    [
        (f"trap 'exit 0' TERM; {WAITING}", "terminated", "ok"),
        (f"trap '' TERM; {WAITING}", "killed", "warning"),
        (f"trap 'exit 7' TERM; {WAITING}", "failed", "warning"),
    ],
)
def test_a_container_is_restarted(container: Any, script: str, ended: str, status: str) -> None:
    service = container(script)
    name = service["runner"]["container"]
    first = docker("inspect", "--format", "{{.State.Pid}}", name)
    answer = run_module("service_control", {"state": "restarted", "services": [service]})
    assert answer["services"][0]["ended"] == ended and statuses(answer)["service_stop", "auth"] == status
    assert docker("inspect", "--format", "{{.State.Running}}", name) == "true"
    assert docker("inspect", "--format", "{{.State.Pid}}", name) != first


def test_a_container_that_dies_or_is_not_there_is_told(container: Any) -> None:
    service = container("echo no such table; exit 4")
    answer = run_module("service_control", {"state": "started", "services": [service]})
    assert answer["failed"] and "exit status 4" in answer["msg"] and "no such table" in answer["msg"]
    service["runner"]["container"] = "upkeep-test-of-nobody"
    assert "No such container" in run_module("service_control", {"services": [service]})["msg"]


def test_the_stop_timeout_of_a_container_is_judged(container: Any) -> None:
    service = {**container(f"trap 'exit 0' TERM; {WAITING}", "--stop-timeout=1"), "stop_timeout": 30}
    answer = run_module("service_control", {"state": "stopped", "services": [service]})
    assert statuses(answer)["stop_settings", "auth"] == "warning" and answer["services"][0]["ended"] == "terminated"
