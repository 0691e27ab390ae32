"""A run as a whole, with procedures of the test's own: whatever happens to one, the rest goes on and it is told."""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT
from tests.platform.parts.process import free_port

FINE = {
    "findings": [
        {
            "check": "probe",
            "subject": "door",
            "status": "ok",
            "summary": "is closed",
            "observed_at": "2026-01-31T06:00:00Z",
            "value": 3,
            "unit": "ms",
        }
    ],
    "changes": ["oiled the hinge"],
    "artifacts": {"metrics": {"hinge_percent": 12.5}},
}


class Site:
    """An inventory of a recorder and hosts, procedures as roles, and a playbook that runs them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.procedures: list[str] = []
        self.hosts: dict[str, Any] = {"app1": _local()}
        self.contacts = [{"name": "Ops", "urls": [f"file://{folder}/alerts.log"]}]

    def procedure(self, name: str, tasks: list[dict[str, Any]]) -> None:
        self.procedures.append(name)
        path = self.folder / "roles" / name / "tasks" / "main.yml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(tasks))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(self._inventory()))
        (self.folder / "run.yml").write_text(yaml.safe_dump(self._playbook()))
        (self.folder / "ansible.cfg").write_text(
            f"[defaults]\ncollections_path = {ROOT / 'collections'}\nroles_path = {self.folder / 'roles'}\n"
            "callbacks_enabled = upkeep.ops.summary\nnocolor = true\n"
        )
        return subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "run.yml", *arguments],
            cwd=self.folder, text=True, capture_output=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "COLUMNS": "160"},
        )  # fmt: skip

    def _inventory(self) -> dict[str, Any]:
        catalogue = {"upkeep_site": "test", "upkeep_state": str(self.state), "upkeep_contacts": self.contacts}
        groups = {"recorder": {"hosts": {"localhost": _local()}}, "platform": {"hosts": self.hosts}}
        return {"all": {"vars": catalogue, "children": groups}}

    def _playbook(self) -> list[dict[str, Any]]:
        def end(entry: str) -> dict[str, Any]:
            role = {"name": "upkeep.ops.run", "tasks_from": entry}
            tasks = [{"ansible.builtin.import_role": role, "tags": ["always"]}]
            play = {"hosts": "recorder", "gather_facts": False, "vars": {"run_name": "nightly"}, "tasks": tasks}
            return {**play, "any_errors_fatal": entry == "open"}

        roles = [
            {"role": "upkeep.ops.procedure", "procedure_name": name, "procedure_role": name, "tags": [name]}
            for name in self.procedures
        ]
        middle = {
            "hosts": "platform:recorder",
            "gather_facts": False,
            "vars": {"procedure_hosts": "{{ groups['platform'] }}"},
            "roles": roles,
        }
        return [end("open"), middle, end("close")]

    def history(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.state / "history.sqlite3")
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def report(self, form: str) -> str:
        newest = max((self.state / "reports").glob(f"2*.{form}"), key=lambda path: path.stat().st_mtime_ns)
        return newest.read_text()


def _local() -> dict[str, str]:
    return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def leave(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "Leave the outcome", "ansible.builtin.set_fact": {"upkeep_outcome": outcome}}]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_sound_run_ends_well_and_everything_of_it_is_kept(site: Site) -> None:
    site.procedure("fine", leave(FINE))
    done = site.run()
    assert done.returncode == 0, done.stdout
    assert "nightly run of test: OK" in done.stdout
    assert "fine on app1: oiled the hinge" in done.stdout
    assert site.history("SELECT procedure, host, status, changes FROM outcomes") == [
        ("fine", "app1", "ok", '["oiled the hinge"]')
    ]
    assert site.history("SELECT name, value FROM metrics") == [("hinge_percent", 12.5)]
    assert "All is well" in site.report("html")
    assert json.loads(site.report("json"))["run"]["status"] == "ok"
    assert not (site.folder / "alerts.log").exists()


def test_one_failure_stops_nothing_and_the_run_fails_at_its_end(site: Site) -> None:
    failing = {"name": "Break", "ansible.builtin.fail": {"msg": "the disk is full"}}
    site.procedure("broken", [failing])
    site.procedure("fine", leave(FINE))
    done = site.run()
    assert done.returncode == 2, done.stdout
    assert site.history("SELECT procedure, status FROM outcomes") == [("broken", "critical"), ("fine", "ok")]
    assert re.search(r"broken +app1 +critical +broken: failed: Break: the disk is full", done.stdout)
    assert "the disk is full" in site.report("html") and "the disk is full" in (site.folder / "alerts.log").read_text()


def test_a_role_that_is_not_there_is_a_failure_like_any_other(site: Site) -> None:
    site.procedures.append("missing")
    site.procedure("fine", leave(FINE))
    done = site.run()
    assert done.returncode == 2, done.stdout
    assert site.history("SELECT procedure, status FROM outcomes") == [("missing", "critical"), ("fine", "ok")]
    assert "missing" in site.history("SELECT error FROM outcomes WHERE failed")[0][0]


def test_findings_of_a_failed_check_are_kept(site: Site) -> None:
    found = {**FINE["findings"][0], "status": "critical", "summary": "is open"}
    tasks = [*leave({"findings": [found]}), {"name": "Break", "ansible.builtin.fail": {"msg": "after that"}}]
    site.procedure("broken", tasks)
    site.run()
    assert ("door", "critical") in site.history("SELECT subject, status FROM findings")


def test_lost_hosts_are_unknown_even_when_all_are_lost(site: Site) -> None:
    closed = {"ansible_host": "127.0.0.1", "ansible_port": free_port(), "ansible_ssh_common_args": "-F /dev/null"}
    site.hosts = {"gone1": closed, "gone2": closed}
    site.procedure("remote", [{"name": "Ask", "ansible.builtin.ping": {}}, *leave(FINE)])
    done = site.run()
    assert done.returncode != 0
    assert site.history("SELECT subject, status FROM findings WHERE check_name = 'host_answers'") == [
        ("gone1", "unknown"),
        ("gone2", "unknown"),
    ]
    text = (site.folder / "alerts.log").read_text()
    assert text.count("UNKNOWN") == 3, "a title and two hosts; what did not run on them is told under them"
    assert "under it: remote" in text
    assert "could not be reached" in done.stdout and "could not be reached" in site.report("md")


def test_only_the_tagged_procedure_runs_and_is_expected(site: Site) -> None:
    site.procedure("fine", leave(FINE))
    site.procedure("other", leave(FINE))
    done = site.run("--tags", "other")
    assert done.returncode == 0, done.stdout
    assert site.history("SELECT procedure FROM outcomes") == [("other",)]


def test_check_mode_runs_to_the_end_and_keeps_nothing(site: Site) -> None:
    site.procedure("fine", leave(FINE))
    done = site.run("--check")
    assert done.returncode == 0, done.stdout
    assert "nightly run of test: OK" in done.stdout
    assert not site.state.exists()


def test_a_limit_without_the_recorder_is_refused_with_the_remedy(site: Site) -> None:
    site.procedure("fine", leave(FINE))
    done = site.run("--limit", "app1")
    assert done.returncode == 2
    assert "--limit '<hosts>,localhost'" in " ".join(done.stdout.split())


def test_no_text_of_a_finding_reaches_the_page_as_markup(site: Site) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    keys = ("check", "subject", "summary", "hint", "unit", "value")
    found = {**dict.fromkeys(keys, evil), "status": "critical", "observed_at": "2026-01-31T06:00:00Z"}
    process = {"name": evil, "user": "root", "pid": 7, "rss_bytes": 3 << 20, "percent": 1.5}
    site.procedure("fine", leave({"findings": [found], "changes": [evil], "artifacts": {"processes": [process]}}))
    site.run()
    page = site.report("html")
    assert "<script" not in page and "<img" not in page and html.escape(evil) in page
    assert "Largest processes" in page and "3.0 MiB" in page
    assert "<script" not in site.report("md")


def test_alerts_that_cannot_be_sent_do_not_hide_the_report(site: Site) -> None:
    site.contacts = [{"name": "Ops", "urls": ["file:///proc/nowhere/alerts.log"]}]
    site.procedure("broken", [{"name": "Break", "ansible.builtin.fail": {"msg": "no"}}])
    done = site.run()
    assert done.returncode == 2 and "/proc/nowhere/alerts.log cannot be written" in done.stdout
    assert "Something is broken" in site.report("html")
    assert "not delivered: /proc/nowhere/alerts.log" in site.report("html")
    assert "not delivered: /proc/nowhere/alerts.log" in site.report("md")
    assert ("alert", "alert_delivery") in site.history("SELECT procedure, check_name FROM findings")


def test_a_report_that_cannot_be_written_does_not_hide_the_alerts(site: Site) -> None:
    site.procedure("fine", leave(FINE))
    done = site.run("-e", "report_directory=/proc/nowhere/reports")
    assert done.returncode == 2
    assert "there is no report" in done.stdout
