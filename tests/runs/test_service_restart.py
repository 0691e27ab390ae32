# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling restarts by the shipped playbook, judged from outside: by wrk, by requests and by history."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.fixtures.rolling import LOCAL, Site

pytestmark = pytest.mark.slow


def test_no_request_fails_while_two_servers_are_restarted(site: Site) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: apt-get install wrk")
    before = site.pids()
    planned = site.play("--check")
    assert planned.returncode == 0, planned.stdout
    assert site.pids() == before and site.down() == []
    # nginx closes kept connections with each reload, for whoever reloads it; a client has to open another one then.
    arguments = ["-t1", "-c4", "-d300s", "-H", "Connection: close", site.url]
    load = subprocess.Popen(["wrk", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        done = site.play()
    finally:
        load.send_signal(2)
        told = load.communicate(timeout=30)[0]
    assert done.returncode == 0, done.stdout
    assert "Non-2xx" not in told and "Socket errors" not in told and "requests in" in told, told
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
