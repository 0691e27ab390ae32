# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_security on real sockets, files and package lists."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module
from tests.platform.parts.process import ServerProcess, accepts, free_port, running


def check(**options: Any) -> dict[str, Any]:
    return run_module("host_security", {"fail_on": "never", "updates": False, **options})


def of_port(answer: dict[str, Any], port: int) -> list[tuple[str, str]]:
    """Check and status of the findings about one port."""
    return [
        (each["check"], each["status"]) for each in answer["findings"] if each["subject"].startswith(f"tcp/{port} ")
    ]


def test_ports_are_seen_as_they_are_bound() -> None:
    with socket.create_server(("0.0.0.0", 0)) as world, socket.create_server(("127.0.0.1", 0)) as local:
        open_port, local_port = world.getsockname()[1], local.getsockname()[1]
        answer = check(allowed_ports=["22"])
        seen = {each["port"]: each for each in answer["listening"]}
        assert (seen[open_port]["local"], seen[local_port]["local"]) == (False, True)
        assert seen[open_port]["pid"] == os.getpid()
        assert of_port(answer, open_port) == [("unexpected_port", "warning")]
        assert of_port(answer, local_port) == []
        assert of_port(check(allowed_ports=[f"{open_port - 1}-{open_port}"]), open_port) == []
        assert of_port(check(), open_port) == []
        assert of_port(check(local_only=[str(open_port)]), open_port) == [("loopback_only", "critical")]


def test_ipv6_is_seen_too() -> None:
    try:
        world = socket.create_server(("::", 0), family=socket.AF_INET6)
        local = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this host has no IPv6")
    with world, local:
        seen = {each["port"]: each for each in check()["listening"]}
        assert (seen[world.getsockname()[1]]["address"], seen[world.getsockname()[1]]["local"]) == ("::", False)
        assert (seen[local.getsockname()[1]]["address"], seen[local.getsockname()[1]]["local"]) == ("::1", True)


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_a_redis_that_the_world_can_reach_is_critical(tmp_path: Path) -> None:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path), "--bind"]
    with running(ServerProcess("open", tmp_path), [*command, "0.0.0.0"], lambda: accepts(port)):
        answer = check()
        assert ("loopback_only", "critical") in of_port(answer, port)
        failed = run_module("host_security", {"updates": False})
        assert (
            failed["failed"]
            and f"tcp/{port} (redis-server)" in failed["msg"]
            and "Bind it to 127.0.0.1" in failed["msg"]
        )
    with running(ServerProcess("local", tmp_path), [*command, "127.0.0.1"], lambda: accepts(port)):
        assert of_port(check(), port) == []


def test_an_interpreter_is_named_with_what_it_runs(tmp_path: Path) -> None:
    script = tmp_path / "cloud-firestore-emulator.py"
    script.write_text(
        "import socket, time\ns = socket.create_server(('0.0.0.0', int(__import__('sys').argv[1])))\ntime.sleep(60)\n"
    )
    port = free_port()
    with running(ServerProcess("emulator", tmp_path), [sys.executable, str(script), str(port)], lambda: accepts(port)):
        assert of_port(check(), port) == [("loopback_only", "critical")]


def test_modes_and_owners(tmp_path: Path) -> None:
    modes = {"good.key": 0o600, "group.key": 0o640, "world.key": 0o604, "written.key": 0o602, "strict.key": 0o400}
    for name, mode in modes.items():
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "dangling.key").symlink_to("nothing")
    me = pwd.getpwuid(os.getuid()).pw_name
    answer = check(file_modes=[{"path": str(tmp_path / "*.key"), "mode": "0600", "owner": me}, {"path": "/none/*"}])
    found = {Path(each["subject"]).name: each for each in answer["findings"] if each["check"] == "file_mode"}
    assert {name: each["status"] for name, each in found.items()} == {
        "group.key": "warning",
        "world.key": "critical",
        "written.key": "critical",
    }
    assert answer["files"] == len(modes)
    for each in found.values():
        subprocess.run(each["hint"], shell=True, check=True)
    told = subprocess.run(
        ["stat", "-c", "%a", *(tmp_path / name for name in modes)], capture_output=True, text=True, check=True
    )
    assert set(told.stdout.split()) == {"600", "400"}
    answer = check(file_modes=[{"path": str(tmp_path / "*.key"), "owner": "nobody"}])
    assert {each["status"] for each in answer["findings"] if each["check"] == "file_mode"} == {"warning"}


def test_a_nonsense_rule_is_refused() -> None:
    assert "'rw' is no octal mode" in check(file_modes=[{"path": "/etc/passwd", "mode": "rw"}])["msg"]
    assert "'http' is neither a port" in check(allowed_ports=["http"])["msg"]
    assert "'soon' is no duration" in check(lists_max_age="soon")["msg"]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs APT")
def test_updates_are_those_of_dpkg_and_old_lists_are_unknown() -> None:
    answer = check(updates=True, lists_max_age="3650d")
    finding = next(each for each in answer["findings"] if each["check"] == "security_updates")
    if finding["status"] == "unknown":
        pytest.skip(finding["summary"])
    assert finding["value"] == len(answer["updates"]) and (finding["status"] == "warning") == bool(answer["updates"])
    plan = subprocess.run(
        ["apt-get", "-s", "dist-upgrade"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    upgraded = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ") and "[" in line.split()[2]}
    secured = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ") and "ecurity" in line}
    assert secured & upgraded <= {update["package"] for update in answer["updates"]}
    for update in answer["updates"][:5]:
        shown = ["dpkg-query", "-W", "-f", "${Version}\n", update["package"]]
        installed = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
        assert update["installed"] in installed
        newer = ["dpkg", "--compare-versions", update["available"], "gt", update["installed"]]
        assert subprocess.run(newer, check=False).returncode == 0
    answer = check(updates=True, lists_max_age="0s")
    finding = next(each for each in answer["findings"] if each["check"] == "security_updates")
    assert finding["status"] == "unknown" and "old" in finding["summary"] and "apt-get update" in finding["hint"]


def test_examples(tmp_path: Path) -> None:
    replacements = {
        "/etc/letsencrypt/archive": str(tmp_path),
        "/srv": str(tmp_path),
        "[redis-server,": "[no-server,",
        '"443"]': '"443"]\n    updates: false',
        '"80"': '"80", 1024-65535',
    }
    run_examples("host_security", replacements)
