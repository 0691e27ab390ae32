# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbook maintenance_window.yml from its start to its end, on a service that is down in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import run_tasks
from tests.fixtures.docker import Shop
from tests.harness import ROOT, run_module
from tests.platform.parts.process import free_port

pytestmark = pytest.mark.slow

TITLE = "Release 42 of auth"
PORT = free_port()
NGINX = """\
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200 "{words}"; }} }}
"""
NO_STAGING = {"staging_run": "this site has no staging"}


class Hook(BaseHTTPRequestHandler):
    """Where a hosted status page takes the status; one that hangs until it is told not to."""

    reached, released = threading.Event(), threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reached.set()
        self.released.wait(60)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture(scope="module")
def hook() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        Hook.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, hook: str) -> Iterator[Path]:
    """A site with a service whose health is a file and one that nobody runs, a verified backup set, and an nginx."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path_factory.mktemp("site")
    (folder / "releases" / "41").mkdir(parents=True)
    (folder / "current").symlink_to(folder / "releases" / "41")
    (folder / "releases" / "42").mkdir()
    configure(folder, "old")
    nginx = ["nginx", "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = {"pid_file": str(folder / "auth.pid"), "command": ["/bin/sleep", "599"]}
    (folder / "healthy").write_text("")
    root = {"root": str(folder / "backups")}
    (folder / "backups").mkdir()
    opened = run_module("backup_set", {**root, "state": "open"})
    part = Path(opened["set"]["path"]) / "notes.json"
    part.write_text("{}")
    known = {**root, "id": opened["set"]["id"]}
    parts = [{"name": "redis:notes", "path": "notes.json"}]
    run_module("backup_set", {**known, "state": "complete", "owner": opened["owner"], "parts": parts})
    finding = {"check": "redis_verify", "subject": "redis:notes", "status": "ok", "summary": "all keys are there"}
    run_module("backup_set", {**known, "state": "judged", "level": 2, "findings": [finding]})
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    catalogue = {
        "upkeep_site": "test",
        "upkeep_state": str(folder / "state"),
        "upkeep_backup": root,
        "upkeep_gateway": {
            "config": str(folder / "nginx.conf"),
            "nginx_command": nginx,
            "status_dir": str(folder / "status"),
            "status_hook_url": hook,
        },
        "upkeep_services": [
            {
                "name": "auth",
                "critical": True,
                "releases": str(folder / "releases"),
                "health": {"type": "command", "argv": ["test", "-e", str(folder / "healthy")], "timeout": 5},
                "runner": {"type": "process", **process},
            },
            {
                "name": "docs",
                "releases": str(folder / "docs" / "releases"),
                "health": {"type": "command", "argv": ["true"]},
            },
        ],
        "service_restart_health_passes": 1,
        "upkeep_contacts": [{"name": "Ops", "urls": [f"file://{folder}/ops.log"]}],
        "health_check_retries": 0,
    }
    names = {"recorder": "localhost", "platform": "app1", "backup": "data1"}
    groups = {group: {"hosts": {host: local}} for group, host in names.items()}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": catalogue, "children": groups}}))
    shutil.copytree(folder / "releases", folder / "docs" / "releases")
    (folder / "docs" / "current").symlink_to(folder / "docs" / "releases" / "41")
    subprocess.run(nginx, check=True)
    try:
        yield folder
    finally:
        subprocess.run([*nginx, "-s", "stop"], check=True)
        run_module("graceful_stop", process)


def configure(folder: Path, words: str) -> None:
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=PORT, words=words))


def deploy(folder: Path, release: str) -> None:
    """Both services get a release, as a deployment does it."""
    for place in (folder, folder / "docs"):
        (place / "current").unlink()
        (place / "current").symlink_to(place / "releases" / release)


def in_use(folder: Path) -> list[str]:
    return [(place / "current").resolve().name for place in (folder, folder / "docs")]


def served() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=10) as answer:
        return str(answer.read().decode())


def command(site: Path, playbook: str, *arguments: str, **variables: Any) -> list[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    given = [str(ROOT / "playbooks" / f"{playbook}.yml"), "-e", json.dumps(variables), *arguments]
    return [program, "-i", str(site / "inventory.yml"), *given]


def play(site: Path, playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(site, playbook, *arguments, **variables),
        cwd=ROOT, text=True, capture_output=True, check=False, timeout=180, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160"},
    )  # fmt: skip


def window(site: Path, stage: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    given = {"maintenance_window_stage": stage, "upkeep_confirm": "test", "maintenance_window_title": TITLE}
    return play(site, "maintenance_window", *arguments, **{**given, **variables})


def rows(site: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(site / "state" / "history.sqlite3")) as history:
        return history.execute("SELECT status, record FROM windows").fetchall()


def killed_while_the_page_is_published(site: Path, **services: Any) -> None:
    """The window is claimed, and people are told; it has not begun, and nothing is held yet."""
    given = {"maintenance_window_stage": "start", "upkeep_confirm": "test", "maintenance_window_title": TITLE}
    given.update(maintenance_window_overrides=NO_STAGING, **services)
    Hook.reached.clear()
    Hook.released.clear()
    process = subprocess.Popen(
        command(site, "maintenance_window", **given), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )  # fmt: skip
    try:
        assert Hook.reached.wait(150) and process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        Hook.released.set()
    assert [status for status, _record in rows(site)] == ["planned"]


def words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split())


def test_a_window_from_start_to_end(site: Path) -> None:
    Hook.released.set()
    unconfirmed = window(site, "start", upkeep_confirm="")
    assert unconfirmed.returncode != 0 and "-e upkeep_confirm=test" in unconfirmed.stdout
    foretold = window(site, "start", "--check")
    assert foretold.returncode != 0 and "staging_run" in foretold.stdout, "the check that will fail is foretold"
    assert "rollback_prepared" not in foretold.stdout and "could not be copied" not in words(foretold)
    assert rows(site) == [] and not (site / "state" / "rollback").exists()

    services = {"maintenance_window_services": "auth, docs", "maintenance_window_duration": "2h"}
    killed_while_the_page_is_published(site, **services)
    begun = window(site, "start", maintenance_window_overrides=NO_STAGING, **services)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    ((status, record),) = rows(site)
    assert status == "started"
    told = {item["name"]: item for item in json.loads(record)["checks_before"]}
    assert "the status page tells of it; told: Ops" in told["users_told"]["summary"]
    assert "is verified" in told["backup_fresh"]["summary"]
    assert any("release 41 of auth" in point for point in json.loads(record)["rollback"])
    way = 'maintenance_window_stage=rollback -e \'{"maintenance_window_title": "Release 42 of auth"}\' -e'
    assert way in words(begun), "the operator is told how to go back"
    (copy,) = (site / "state" / "rollback" / "Release-42-of-auth").iterdir()
    assert copy.read_text() == (site / "nginx.conf").read_text()
    assert TITLE in (site / "status" / "index.html").read_text()
    assert (site / "ops.log").read_text().count(f"] {TITLE}: planned maintenance") == 1, "nobody is told twice"

    (site / "healthy").unlink()
    down = play(site, "health_check")
    assert f"held during maintenance '{TITLE}': auth" in down.stdout
    assert "CRITICAL  auth" not in (site / "ops.log").read_text()
    refused = window(site, "end", maintenance_window_title="")
    assert refused.returncode != 0 and "auth: " in refused.stdout and rows(site)[0][0] == "started"
    shown = window(site, "status", upkeep_confirm="")
    assert "down in 2" in shown.stdout, shown.stdout

    (site / "healthy").write_text("")
    deploy(site, "42")
    configure(site, "new")
    foretold = window(site, "rollback", "--check")
    assert "auth: would go back: release 42 -> 41; would be restarted" in words(foretold), foretold.stdout
    assert (
        in_use(site) == ["42", "42"] and not (site / "auth.pid").exists() and "new" in (site / "nginx.conf").read_text()
    )
    back = window(site, "rollback")
    assert in_use(site) == ["41", "41"] and served() == "old", back.stdout
    assert "auth: went back: release 42 -> 41; " in words(back) and (site / "auth.pid").exists()
    assert "it was not restarted, for the catalogue lacks its runner" in words(back)
    assert not list(site.glob("releases/*.bad")), "what was tried may be tried again"

    foretold = window(site, "end", "--check")
    assert "would end, it began at" in words(foretold) and rows(site)[0][0] == "started", foretold.stdout
    ended = window(site, "end")
    assert rows(site)[0][0] == "ended", ended.stdout
    (document,) = (site / "state" / "reports").glob("window-*.md")
    text = document.read_text()
    assert "went back: release 42 -> 41" in text and "nginx.conf: put back as it was before the window" in text
    assert "this site has no staging" in text and "| services_verified | ok | they are well: auth, docs |" in text
    assert "maintenance is over" in (site / "ops.log").read_text()

    later = {"maintenance_window_title": "Next month", "maintenance_window_starts_at": "2099-01-01T00:00:00Z"}
    for stage, flags, state in (
        ("plan", [], "planned"),
        ("cancel", ["--check"], "planned"),
        ("cancel", [], "cancelled"),
    ):
        done = window(site, stage, *flags, **later, maintenance_window_duration="2h")
        assert done.returncode == 0 and [row[0] for row in rows(site)] == ["ended", state], done.stdout

    signed = play(
        site, "checklist_signoff", checklist_signoff_list="post", checklist_signoff_item="post_maintenance_review",
        checklist_signoff_who="Ops", checklist_signoff_evidence="notes of the review",
    )  # fmt: skip
    assert signed.returncode == 0 and "post, post_maintenance_review for" in signed.stdout, signed.stdout
    reported = play(site, "report")
    assert reported.returncode == 0, reported.stdout
    (month,) = (site / "state" / "reports").glob("month-*.json")
    figures = json.loads(month.read_text())
    assert figures["metrics"]["planned_windows"]["seconds"] > 0 and not figures["metrics"]["services"][0]["failures"]
    assert [item["title"] for item in figures["events"]["windows"]] == [TITLE]
    assert TITLE in month.with_suffix(".md").read_text()


def test_a_recorded_configuration_that_nginx_does_not_take_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("no configuration\n")
    nginx = tmp_path / "nginx.conf"
    nginx.write_text("events {}\n")
    kept = {"kept_as": str(tmp_path / "copy"), "sha256": "", "mode": "0644", "owner": os.getuid(), "group": os.getgid()}
    variables = {
        "maintenance_window_way_back": {"localhost": {"files": {str(nginx): kept}}},
        "maintenance_window_nginx_config": str(nginx), "maintenance_window_rollback_directory": str(tmp_path),
        "maintenance_window_nginx_command": ["nginx", "-e", "stderr", "-c", str(nginx)],
        "maintenance_window_stage": "rollback", "maintenance_window_site": "test", "maintenance_window_confirm": "test",
    }  # fmt: skip
    with pytest.raises(AssertionError, match=r"nginx does not take the recorded[\s\S]*left as it is"):
        run_tasks(
            [{"name": "Go back", "ansible.builtin.include_role": {"name": "upkeep.ops.maintenance_window"}}], variables
        )
    assert nginx.read_text() == "events {}\n"


def test_a_way_back_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    """The link was turned, and the process of the newer release still runs."""
    (tmp_path / "releases" / "41").mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "41")
    process = {"pid_file": str(tmp_path / "pid"), "command": ["/bin/sleep", "598"]}
    service = {
        "name": "auth", "releases": str(tmp_path / "releases"), "runner": {"type": "process", **process},
        "ready": {"type": "command", "argv": ["true"]},
    }  # fmt: skip
    (tmp_path / "unfinished.json").write_text('{"services": ["auth"], "files": []}')
    release = run_module("release_rollback", {"releases": str(tmp_path / "releases")})["release"]
    variables = {
        "maintenance_window_way_back": {"localhost": {"services": {"auth": release}}},
        "maintenance_window_catalogue": [service], "maintenance_window_rollback_directory": str(tmp_path),
        "maintenance_window_stage": "rollback", "maintenance_window_site": "test", "maintenance_window_confirm": "test",
        "service_restart_health_passes": 1,
    }  # fmt: skip
    back = [{"name": "Go back", "ansible.builtin.include_role": {"name": "upkeep.ops.maintenance_window"}}]
    try:
        run_tasks(back, variables)
        assert (tmp_path / "pid").exists(), "it was restarted, though its link was right"
        assert not (tmp_path / "unfinished.json").exists()
    finally:
        run_module("graceful_stop", process)


def test_image_and_packages_are_recorded_and_the_image_is_gone_back_to(shop: Shop, tmp_path: Path) -> None:
    service = {
        "name": "shop", "runner": {"type": "docker", "container": shop.name}, "packages": ["dpkg"], "stop_timeout": 1,
        "ready": {"type": "command", "argv": ["true"]},
    }  # fmt: skip
    variables = {
        "maintenance_window_catalogue": [service], "maintenance_window_rollback_directory": str(tmp_path),
        "maintenance_window_stage": "rollback", "maintenance_window_site": "test", "maintenance_window_confirm": "test",
        "maintenance_window_title": "Release 42", "service_restart_health_passes": 1, "upkeep_state": str(tmp_path),
        "maintenance_window_way_back": "{{ {'localhost': maintenance_window_rollback.way_back} }}",
    }  # fmt: skip

    def role(**options: str) -> dict[str, Any]:
        return {
            "name": "Call the role",
            "ansible.builtin.include_role": {"name": "upkeep.ops.maintenance_window", **options},
        }

    version = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", "dpkg"], capture_output=True, text=True
    )
    second = run_module("release_rollback", shop.options)["release"]
    points = [
        f"image {shop.image}:live {shop.first['image']['id'][:19]} of shop",
        f"package dpkg {version.stdout} of shop",
    ]
    deploy = {"container": shop.name, "state": "returned", "record": second}
    run_module("release_rollback", {**shop.options, "state": "returned", "record": shop.first})
    run_tasks(
        [
            role(tasks_from="rollback"),
            {
                "name": "Find what was recorded",
                "ansible.builtin.assert": {
                    "that": [
                        f"maintenance_window_rollback.points == {points}",
                        "not maintenance_window_rollback.problems",
                    ]
                },
            },
            {"name": "Deploy another image", "upkeep.ops.release_rollback": deploy},
            role(),
        ],
        variables,
    )
    assert shop.settings()["version"] == "1" and shop.inspect()["State"]["Running"]
