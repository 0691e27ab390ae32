# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling restarts by the shipped playbook, judged from outside: by wrk, by requests and by history."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._files import published_link

from tests.fixtures.rolling import LOCAL, Site
from tests.harness import run_module

pytestmark = pytest.mark.slow


def test_no_request_fails_while_two_servers_are_restarted(site: Site) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: apt-get install wrk")
    before = site.pids()
    planned = site.play("--check")
    assert planned.returncode == 0, planned.stdout
    assert site.pids() == before and site.down() == []
    loads = [
        subprocess.Popen(
            ["wrk", "-t1", "-c2", "-d300s", "--timeout", "60s", *header, site.url], stdout=subprocess.PIPE, text=True
        )
        for header in (["-H", "Connection: close"], [])
    ]
    try:
        done = site.play()
    finally:
        for load in loads:
            load.send_signal(2)
        anew, kept = (load.communicate(timeout=30)[0] for load in loads)
    assert done.returncode == 0, done.stdout
    assert "Non-2xx" not in anew and "Socket errors" not in anew and "requests in" in anew, anew
    # Each of the four reloads may close each of the two kept connections under its client, which opens another one.
    lost = re.search(r"Socket errors: connect 0, read (\d+), write 0, timeout 0", kept)
    assert "Non-2xx" not in kept and "requests in" in kept, kept
    assert int(lost[1]) <= 8 if lost else "Socket errors" not in kept, kept
    after = site.pids()
    assert all(after[name] and after[name] != before[name] for name in before)
    assert site.down() == []
    back = site.findings("service_back")
    assert {host: finding["status"] for host, finding in back.items()} == {"app1": "ok", "app2": "ok"}
    assert "nobody sent it requests" in back["app1"]["summary"]


def test_one_that_never_gets_healthy_stops_the_roll_and_the_rest_serves(site: Site) -> None:
    # A host that cannot be reached must not end the playbook before its close; here it may be lost.
    site.hosts["app0"] = {**LOCAL, "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    site.hosts["app0"].update(auth_port=1, auth_folder="/nowhere", auth_command=["none"])
    before = site.pids()
    (site.apps["app1"].folder / "fault").write_text("503")
    done = site.play(service_restart_max_failures=1, service_restart_health_attempts=3)
    assert done.returncode != 0
    back = site.findings("service_back")
    assert {host: finding["status"] for host, finding in back.items()} == {
        "app0": "critical",
        "app1": "critical",
        "app2": "unknown",
    }, done.stdout
    assert "cannot be reached" in back["app0"]["summary"]
    assert "never became healthy" in back["app1"]["summary"] and "where the others serve" in back["app1"]["summary"]
    assert "the roll was stopped: see app0, app1" in back["app2"]["summary"]
    assert site.pids()["app2"] == before["app2"] and site.down() == ["app1"]
    assert {site.ask() for _ in range(10)} == {200}

    (site.apps["app1"].folder / "fault").unlink()
    del site.hosts["app0"]
    mended = site.play()
    assert mended.returncode == 0, mended.stdout
    assert site.down() == [] and site.pids()["app2"] != before["app2"]


def test_one_that_dies_is_put_back_to_its_previous_release(site: Site) -> None:
    releases = site.folder / "app1" / "releases"
    program = site.apps["app1"].folder / "server.py"
    for name, text in (("1", program.read_text()), ("2", "print('no such table: users')\nraise SystemExit(3)\n")):
        (releases / name).mkdir(parents=True)
        (releases / name / "server.py").write_text(text)
        shutil.copy(site.apps["app1"].folder / "service.json", releases / name)
    current = site.folder / "app1" / "current"
    current.symlink_to("releases/1")
    site.apps["app1"].stop()
    command = [sys.executable, str(current / "server.py")]
    first = subprocess.Popen(command)
    (site.folder / "app1" / "service.pid").write_text(f"{first.pid}\n")
    # What serves is the first; the link is turned to the second, as a deployment does before it restarts.
    published_link(str(current), "releases/2")
    service = {
        **site.service,
        "releases": "{{ auth_folder | default() }}/releases",
        "runner": {
            "type": "process",
            "command": [sys.executable, "{{ auth_folder | default() }}/current/server.py"],
            "pid_file": "{{ auth_folder | default() }}/service.pid",
            "log": "{{ auth_folder | default() }}/output.log",
        },
    }
    try:
        done = site.play(upkeep_services=[service], service_restart_rollback=True)
        assert done.returncode != 0
        back = site.findings("service_back")
        told = back["app1"]["summary"]
        assert "no such table: users" in told and "went back to its previous release 1 and serves" in told, done.stdout
        assert back["app2"]["status"] == "unknown"
        assert current.readlink() == Path("releases/1") and (releases / "2.bad").exists()
        assert site.down() == [] and {site.ask() for _ in range(10)} == {200}
    finally:
        first.kill()
        first.wait()
        run_module("graceful_stop", {"pid_file": str(site.folder / "app1" / "service.pid")})


def test_a_dependency_is_new_everywhere_before_its_dependants(site: Site) -> None:
    """Service by service, each on one host after the other; one that fails stops the roll over all that comes after."""
    store = {
        "name": "store", "hosts": ["app1", "app2"], "stop_timeout": 5,
        "ready": {"type": "command", "argv": ["test", "!", "-e", "{{ auth_folder | default() }}/ill"]},
        "runner": {
            "type": "process", "command": ["/bin/sleep", "597"], "pid_file": "{{ auth_folder | default() }}/store.pid",
        },
    }  # fmt: skip
    services = {"upkeep_services": [{**site.service, "depends_on": ["store"]}, store]}
    ordered = ("-e", "service=all", "-e", "service_restart_order=services")
    try:
        done = site.play(*ordered, **services)
        assert done.returncode == 0, done.stdout
        files = [site.apps[host].folder / name for name in ("store.pid", "service.pid") for host in ("app1", "app2")]
        times = [file.stat().st_mtime_ns for file in files]
        assert times == sorted(times), "store on app1, store on app2, auth on app1, auth on app2"
        assert site.down() == []

        (site.apps["app1"].folder / "ill").touch()
        failed = site.play(*ordered, **services, service_restart_health_attempts=1)
        assert failed.returncode != 0
        kept = [file.stat().st_mtime_ns for file in files]
        assert kept[0] > times[0] and kept[1:] == times[1:], "what comes after was left as it was"
        told = {(row["host"], row["subject"]): row for row in site.all_findings("service_back")}
        assert "never became healthy" in told["app1", "store"]["summary"]
        left = [told[key]["summary"] for key in (("app2", "store"), ("app1", "auth"), ("app2", "auth"))]
        assert all("the roll was stopped: see app1" in summary for summary in left)
        assert site.down() == [] and site.ask() == 200
    finally:
        for app in site.apps.values():
            run_module("graceful_stop", {"pid_file": str(app.folder / "store.pid"), "command": ["/bin/sleep", "597"]})


def test_a_service_that_stands_alone_is_closed_meanwhile(site: Site) -> None:
    """Its clients are told to come again; where no gateway can close it, it is said that requests failed."""
    alone = {**site.service, "hosts": ["app1"], "backends": {"app1": site.servers["app1"]}}
    upstream = site.nginx.traffic / "upstreams" / "auth.conf"
    upstream.write_text(f"server {site.servers['app1']};\n")
    site.nginx.reload()
    site.apps["app2"].stop()
    (site.apps["app1"].folder / "fault").write_text("503")
    failed = site.play(upkeep_services=[alone], service_restart_health_attempts=1)
    assert failed.returncode != 0 and site.ask() == 503
    assert "it is closed at the gateway" in site.findings("service_back")["app1"]["summary"]
    (site.apps["app1"].folder / "fault").unlink()
    done = site.play(upkeep_services=[alone])
    assert done.returncode == 0, done.stdout
    assert "clients were told to try again later" in site.findings("service_back")["app1"]["summary"]
    assert site.ask() == 200


def test_a_gateway_that_cannot_be_reached_leaves_the_service_as_it_is(site: Site) -> None:
    """It was taken out of the first gateway already, and is put back there."""
    site.gateways["gateway2"] = {**LOCAL, "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    before = site.pids()
    done = site.play("-e", "service_restart_max_failures=1")
    assert done.returncode != 0
    told = site.findings("service_back")["app1"]["summary"]
    assert "the gateway gateway2 cannot be reached; it was left as it was" in told, done.stdout
    assert site.pids() == before and site.down() == []
