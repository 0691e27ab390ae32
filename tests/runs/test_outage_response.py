# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbook outage_response.yml, from injected faults to closed incidents, on the platform in miniature."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import run_tasks
from tests.fixtures.docker import Shop
from tests.harness import ROOT, run_module
from tests.platform import faults
from tests.platform.miniature import Miniature
from tests.platform.parts.process import free_port


class Site:
    """A platform that runs, with the inventory of the demo."""

    def __init__(self, demo: Path) -> None:
        self.demo = demo
        self.platform = Miniature(demo / "platform", free_port())
        self.state = demo / "state"

    def run(self, *arguments: str) -> str:
        """Run the playbook; its output, whatever its verdict."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(ROOT / "inventories/demo/hosts.yml"),
             # All of them: what else goes on on this machine may be suspected more.
             "-e", f"demo_root={self.demo}", "-e", "outage_response_suspects=999",
             str(ROOT / "playbooks" / "outage_response.yml"), *arguments],
            cwd=ROOT, text=True, capture_output=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160"},
        )  # fmt: skip
        assert done.returncode in (0, 2), done.stdout + done.stderr
        return done.stdout

    def incidents(self) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self.state / "history.sqlite3")
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute("SELECT * FROM incidents ORDER BY id")]
        finally:
            connection.close()

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body that the gateway answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.platform.nginx.port}{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def told(self, contact: str) -> str:
        path = self.demo / "alerts" / f"{contact}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("demo"))
    try:
        site.platform.up()
        nginx = site.platform.nginx
        services = [
            {"name": name, "servers": [f"127.0.0.1:{port}" for port in ports]}
            for name, ports in nginx.upstreams.items()
        ]
        given = {"folder": str(nginx.traffic), "nginx_command": nginx.command, "pid_file": str(nginx.master_pid_file)}
        run_module("gateway_traffic", {**given, "state": "installed", "services": services})
        nginx.reload()
        yield site
    finally:
        site.platform.down()


CONFIRMED = ("-e", "upkeep_confirm=demo", "-e", "outage_response_contain=isolate", "-e", "outage_response_recover=true")


def test_from_a_fault_to_a_closed_incident(site: Site) -> None:
    faults.switch(site.platform, "service-down")
    told = site.run(*CONFIRMED[2:], "--check")
    assert "would be isolated" in told and "auth-service: would be restarted: say -e upkeep_confirm=demo" in told
    assert not site.state.exists() and site.ask("/api/auth-service/health")[0] == 502, "check mode changes nothing"

    assessed = site.run("--tags", "assess")
    assert "Down: auth-service, since" in assessed and re.search(
        r"service auth-service \(weight \d+\): answered 502", assessed
    )
    (incident,) = site.incidents()
    assert incident["opened_by"] == "outage_response" and json.loads(incident["services"]) == ["auth-service"]
    status, page = site.ask("/status/status.json")
    assert (status, json.loads(page)["status"]) == (200, "partial_outage")
    assert "does not work" in site.ask("/status/")[1]

    assert {site.ask("/api/auth-service/health")[0] for _ in range(100)} == {502}
    # Another service takes the requests of the one that is recovered, and answers its probe.
    fallback = {"auth-service": [f"127.0.0.1:{site.platform.nginx.upstreams['link-service'][0]}"]}
    contained = {"outage_response_contain": "redirect", "outage_response_fallback": fallback}
    done = site.run(*CONFIRMED[:2], "--tags", "contain,communicate", "-e", json.dumps(contained))
    assert "auth-service: redirected to the fallback" in done and "so the incident is not closed" in " ".join(
        done.split()
    )
    assert json.loads(site.ask("/api/auth-service/health")[1])["service"] == "link-service"
    (incident,) = site.incidents()
    assert incident["recovered_at"] and not incident["closed_at"], "users are served, but not by what failed"

    words = {"outage_response_public": "We are on it.", "outage_response_cause": "It was stopped."}
    recovered = site.run(*CONFIRMED[:2], *CONFIRMED[4:], "-e", json.dumps(words))
    assert f"log {site.platform.nginx.error_log} on demo" in " ".join(recovered.split()), "what nginx says of it counts"
    assert json.loads(site.ask("/api/auth-service/health")[1])["service"] == "auth-service", "its own server again"
    assert site.ask("/api/auth-service/health")[0] == 200
    (incident,) = site.incidents()
    assert incident["recovered_at"] and incident["closed_at"] and incident["cause"] == "It was stopped."
    document = (site.state / "incidents" / f"{incident['id']}.md").read_text()
    assert re.search(r"\| impact \| \d+\.\d minutes", document) and "redirected to the fallback" in document
    assert "auth-service: opened again, for 127.0.0.1:" in document
    assert all(words in document for words in ("it was started as pid", "_To be filled in", "- suspect 1. "))
    shown = json.loads(site.ask("/status/status.json")[1])
    assert shown["status"] == "operational" and shown["incidents"] == []
    assert [update["text"] for update in shown["past"][0]["updates"]] == ["We are on it."]
    lead, support = site.told("devops-lead"), site.told("customer-support")
    assert "OUTAGE: auth-service does not work" in lead and "OUTAGE OVER" in lead
    assert "OUTAGE CONTAINED" in support and "OUTAGE: " not in support

    document_path = site.state / "incidents" / f"{incident['id']}.md"
    document_path.write_text("filled in by people")
    site.run(*CONFIRMED)
    assert document_path.read_text() == "filled in by people" and len(site.incidents()) == 1
    faults.switch(site.platform, "none")


def test_one_that_does_not_come_back_is_told_with_what_was_tried(site: Site) -> None:
    faults.switch(site.platform, "service-503")
    done = site.run(*CONFIRMED)
    words = " ".join(done.split())
    assert "link-service still down" in words and "tried: demo: link-service: it did not come back" in words
    assert site.ask("/api/link-service/health")[0] == 503 and site.ask("/api/auth-service/health")[0] == 200
    incident = site.incidents()[-1]
    assert json.loads(incident["services"]) == ["link-service"] and not incident["recovered_at"]
    assert "OUTAGE, RECOVERY" in site.told("devops-lead") and "Still down: link-service" in site.told("devops-lead")

    faults.switch(site.platform, "none")
    opened = site.run("-e", "upkeep_confirm=demo", "-e", "outage_response_contain=open")
    assert "link-service: opened again" in opened
    incident = site.incidents()[-1]
    assert incident["closed_at"] and site.ask("/api/link-service/health")[0] == 200


def test_a_gateway_that_does_not_run(site: Site) -> None:
    running = {name: service.process.pid() for name, service in site.platform.services.items()}
    site.platform.nginx.stop()
    try:
        done = " ".join(site.run(*CONFIRMED).split())
        assert "outage_containment" in done and "outage_response run of demo: CRITICAL" in done
        assert "still down" in done and "works when it is asked alone, so it was not restarted" in done
        assert {name: service.process.pid() for name, service in site.platform.services.items()} == running
    finally:
        site.platform.nginx.start()


def test_a_container_goes_back_to_the_image_that_served_well(shop: Shop, tmp_path: Path) -> None:
    """The second of two images never becomes healthy; which was before is known from a restart that went well."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    probe = {"type": "command", "argv": ["docker", "exec", shop.name, "/bin/sh", "-c", "[ $VERSION = 1 ]"]}
    service = {
        "name": "shop", "critical": True, "hosts": ["app1"], "health": probe, "stop_timeout": 1,
        "runner": {"type": "docker", "container": shop.name},
    }  # fmt: skip
    catalogue = {
        "upkeep_site": "test", "upkeep_state": str(tmp_path / "state"), "upkeep_services": [service],
        "health_check_retries": 0, "service_restart_health_passes": 1, "service_restart_health_interval": 0.1,
    }  # fmt: skip
    names = {"recorder": "localhost", "platform": "app1"}
    groups = {group: {"hosts": {host: local}} for group, host in names.items()}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": catalogue, "children": groups}}))

    def play(playbook: str, **variables: Any) -> str:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(tmp_path / "inventory.yml")]
        done = subprocess.run(
            [*command, str(ROOT / "playbooks" / f"{playbook}.yml"), "-e", json.dumps(variables)],
            cwd=ROOT, text=True, capture_output=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160"},
        )  # fmt: skip
        return " ".join((done.stdout + done.stderr).split())

    def turn(record: dict[str, Any]) -> dict[str, Any]:
        return run_module("release_rollback", {**shop.options, "state": "returned", "record": record})

    second = run_module("release_rollback", shop.options)["release"]
    assert turn(shop.first)["changed"]
    play("service_restart", service="shop")
    (recorded,) = json.loads((tmp_path / "state" / "releases" / "shop.json").read_text())
    assert recorded["release"]["image"] == shop.first["image"]
    turn(second)
    told = play("outage_response", outage_response_recover=True, outage_response_rollback=True, upkeep_confirm="test")
    assert f"it went back to its previous image {shop.image}:live {shop.first['image']['id'][:19]} and serves" in told
    assert shop.settings()["version"] == "1" and shop.inspect()["State"]["Running"]
    assert "outage_response run of test: CRITICAL" in told, "it was down, though it is not any more"


# --- what it is about, without a platform -----------------------------------------------------------------------------

SECRET = "s3cret-of-the-shop"


@pytest.fixture
def catalogue(tmp_path: Path) -> dict[str, Any]:
    """Services, of which the name of one is a part of the other's, and a gateway that knows no servers."""
    health = {"type": "command", "argv": ["true"]}
    asked = {"type": "http", "url": "http://127.0.0.1:9/", "secret_headers": {"Authorization": SECRET}}
    return {
        "upkeep_site": "test", "upkeep_confirm": "test", "upkeep_state": str(tmp_path / "state"),
        "upkeep_services": [{"name": "auth-service", "health": health}, {"name": "auth", "health": health},
                            {"name": "shop", "health": asked}],
        "upkeep_gateway": {"state_dir": str(tmp_path / "gateway"), "nginx_command": ["true"]},
        "upkeep_contacts": [{"name": "lead", "urls": [f"file://{tmp_path}/lead.log"],
                             "stages": ["assess", "contain", "recover", "closed"]}],
    }  # fmt: skip


def test_a_mistyped_name_is_told_and_nothing_done(catalogue: dict[str, Any], tmp_path: Path) -> None:
    local = {"hosts": {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
    catalogue["upkeep_services"].pop()
    groups = dict.fromkeys(("recorder", "platform", "gateway"), local)
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"vars": catalogue, "children": groups}}))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), *CONFIRMED[2:],
         "-e", "outage_response_services=auth-servcie", "--tags", "contain,recover,communicate",
         str(ROOT / "playbooks" / "outage_response.yml")],
        cwd=ROOT, text=True, capture_output=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "160"},
    )  # fmt: skip
    told = " ".join(done.stdout.split())
    assert done.returncode == 2 and "there is no service auth-servcie: name some of auth-service, auth" in told, told
    assert "isolated" not in told and "all services work" not in told, told
    assert told.count("nothing is done, for it could not be found what this is about") >= 5, told
    with sqlite3.connect(tmp_path / "state" / "history.sqlite3") as history:
        assert history.execute("SELECT COUNT(*) FROM incidents").fetchone() == (0,)
    assert "OUTAGE" not in (tmp_path / "lead.log").read_text(), "they hear of a run that failed, not of an outage"
    assert not (tmp_path / "gateway" / "flags").exists()


def test_only_what_was_named_and_seen_is_told_of(catalogue: dict[str, Any], tmp_path: Path) -> None:
    """Names as text, nothing to contain, a containment that fails, and an incident of a service nobody looks at."""

    def stage(name: str, case: dict[str, Any], **variables: Any) -> list[dict[str, Any]]:
        known = {"down": [], "redirected": [], "closed": [], "incident": None, "suspects": [], "findings": []}
        return [
            {"ansible.builtin.set_fact": {"outage_response_case": {**known, **case}, "upkeep_outcome": {}}},
            {
                "ansible.builtin.include_role": {"name": "upkeep.ops.outage_response"},
                "vars": {"outage_response_stage": name, **variables},
            },
            {"ansible.builtin.debug": {"var": "upkeep_outcome"}, "name": "Came of it"},
        ]

    database = str(tmp_path / "state" / "history.sqlite3")
    incident = run_module(
        "incident", {"database": database, "site": "test", "state": "opened", "services": ["auth", "ghost"]}
    )["incident"]
    seen = [{"subject": "auth", "state": "up", "at": "2026-01-31T06:00:00Z"}]
    failing = {"outage_response_contain": "redirect", "outage_response_fallback": {"shop": ["127.0.0.1:9"]}}
    told = run_tasks(
        [
            *stage("contain", {"incident": incident}, outage_response_contain="isolate"),
            *stage("contain", {}, outage_response_contain="isolate", outage_response_services=" auth-service, "),
            {"block": stage("contain", {"down": ["shop"]}, **failing), "rescue": [{"ansible.builtin.meta": "noop"}]},
            {"ansible.builtin.set_fact": {"upkeep_outcomes": {"health_check": {"artifacts": {"observations": seen}}}}},
            *stage("close", {"incident": incident}),
        ],
        catalogue,
    )
    words = " ".join(told.split())
    assert "nothing to isolate: no service is down and none was named" in words, told
    assert "- 'auth-service: isolated at the gateway, clients get 503'" in words, told
    assert [path.name for path in (tmp_path / "gateway" / "flags").iterdir()] == ["isolated-auth-service"]
    assert "the gateway knows no servers of shop" in words and SECRET not in told, told
    assert "nobody has looked at ghost, so the incident is not closed" in words, told
    with sqlite3.connect(database) as history:
        assert history.execute("SELECT recovered_at, closed_at FROM incidents").fetchone() in ((None, None), ("", ""))
    assert not (tmp_path / "lead.log").exists()
