# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status page as users see it, and its hook."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._history import opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_incidents import Call, Entry, Incidents
from ansible_collections.upkeep.ops.plugins.module_utils._runs import outcome_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

from tests.examples import run_tasks
from tests.fixtures.http import TOKEN, HttpServer
from tests.runs.test_report_page import CHROMIUM

NOW = datetime.now(timezone.utc)
_PROBE = """<!doctype html><body><iframe src="{page}" width="{width}" height="900" onload="
  const page = this.contentDocument;
  document.body.textContent = JSON.stringify({{
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    verdict: page.querySelector('h1').textContent,
    services: [...page.querySelectorAll('.service')].map(row => row.innerText.split('\\n')),
    incidents: [...page.querySelectorAll('h3')].map(head => head.firstChild.textContent.trim()),
    stale: page.querySelector('#stale').style.display,
    scripts: page.scripts.length, injected: page.title.includes('hacked')
  }});"></iframe>"""


def write_history(path: Path) -> None:
    """auth is down since ten minutes ago, news is slow; there was an incident yesterday."""
    statuses = {"auth": "critical", "chat": "ok", "news": "warning"}
    at = isoformat(NOW - timedelta(minutes=10))
    with opened(str(path), write=True) as history:
        findings = [
            {"check": "service_health", "subject": name, "status": status, "summary": "s3cret", "observed_at": at}
            for name, status in statuses.items()
        ]
        outcome = outcome_from("health_check", "localhost", {"started_at": at, "findings": findings})
        history.close_run("r", "health_check", "test", NOW, "critical", [outcome], outcome.findings)
        incidents = Incidents(history.connection, "test")
        past = NOW - timedelta(days=1)
        old, _done = incidents.open(["chat"], "Chat lost messages", "warning", past, Call(past, "Ana"))
        incidents.recover(old, Call(past + timedelta(minutes=20), "Ana"))
        incidents.close(old, Call(past + timedelta(minutes=30), "Ana"), "", "")
        title = "<script>document.title = 'hacked'</script>Nobody can sign in" + "withoutAnyBreak" * 8
        new, _done = incidents.open(["auth"], title, "critical", NOW, Call(NOW, "Ana"))
        incidents.note(new, [Entry(isoformat(NOW), "public", "Ana", "We found the cause and are mending it.")])


def publish(folder: Path, *, check: bool = False, away: str = "", **more: Any) -> str:
    """Run the role; nothing answers on the host ``away``."""
    variables = {
        "status_page_database": str(folder / "history.sqlite3"),
        "status_page_site": "test",
        "status_page_title": "Example",
        "status_page_services": [
            {"name": "auth", "health": {"type": "tcp"}},
            {"name": "chat", "health": {"type": "tcp"}},
            {"name": "news", "critical": False, "health": {"type": "tcp"}},
            {"name": "not-probed"},
        ],
        "status_page_directory": str(folder / "status"),
        **more,
    }
    role = {"name": "Publish", "ansible.builtin.include_role": {"name": "upkeep.ops.status_page"}}
    silent = {"name": away, "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    lost = [{"name": "Add a host that is away", "ansible.builtin.add_host": silent}] if away else []
    return run_tasks([*lost, role], variables, check=check)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_history(folder / "history.sqlite3")
    publish(folder, check=True)
    assert not (folder / "status").exists(), "check mode writes nothing"
    publish(folder)
    return folder


def test_the_files_may_be_read_by_the_gateway(site: Path) -> None:
    folder = site / "status"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "index.html": 0o644,
        "status.json": 0o644,
    }
    told = json.loads((folder / "status.json").read_text())
    assert told["status"] == "partial_outage"
    assert [service["status"] for service in told["services"]] == ["outage", "operational", "degraded"]
    assert "s3cret" not in (folder / "index.html").read_text() + (folder / "status.json").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1100, 360], ids=["screen", "phone"])
def test_the_page_as_users_see_it(site: Path, width: int) -> None:
    assert CHROMIUM
    probe = site / "status" / f"probe-{width}.html"
    probe.write_text(_PROBE.format(page="index.html", width=width))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
         f"--user-data-dir={site / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000",
         "--dump-dom", probe.as_uri()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    probe.unlink()
    found = re.search(r"\{.*\}", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    shown = json.loads(found[0])
    assert shown["overflow"] <= 0, "the page must not scroll sideways"
    assert shown["verdict"] == "Some services do not work"
    assert shown["services"] == [["auth", "does not work"], ["chat", "works"], ["news", "slow"]]
    assert "Nobody can sign in" in shown["incidents"][0] and shown["incidents"][1] == "Chat lost messages"
    assert (shown["stale"], shown["scripts"], shown["injected"]) == ("none", 1, False)


def test_the_hook_gets_the_same_with_its_token(site: Path, http_server: HttpServer) -> None:
    hook = {"status_page_hook_url": http_server.url + "/up", "status_page_hook_token": TOKEN}
    told = publish(site, **hook)
    method, _path, headers = http_server.seen[-1]
    assert (method, headers["Authorization"]) == ("POST", f"Bearer {TOKEN}")
    assert int(headers["Content-Length"]) > 100 and TOKEN not in told
    before = len(http_server.seen)
    publish(site, check=True, **hook)
    assert len(http_server.seen) == before, "check mode sends nothing"


@pytest.mark.parametrize(
    ("path", "told"), [("/status/403", "it answered 403"), (":1/s3cret?key=s3cret", "did not take the status")]
)
def test_a_hook_that_refuses_is_named_without_its_secrets(
    site: Path, http_server: HttpServer, path: str, told: str
) -> None:
    url = ("http://127.0.0.1" if path.startswith(":") else http_server.url) + path
    with pytest.raises(AssertionError) as failed:
        publish(site, status_page_hook_url=url, status_page_hook_token=TOKEN)
    output = str(failed.value).partition("\nPLAY ")[2]
    assert told in output and "127.0.0.1" in output
    assert "s3cret" not in output and TOKEN not in output


def test_a_gateway_that_is_away_is_named_and_the_others_get_the_page(site: Path, http_server: HttpServer) -> None:
    """The run goes on with its rescue: were the recorder lost with the gateway, it would end without its verdict."""
    page = site / "status" / "index.html"
    page.unlink()
    hook = {"status_page_hook_url": http_server.url + "/up", "status_page_hook_token": TOKEN}
    with pytest.raises(AssertionError) as failed:
        publish(site, away="gateway1", status_page_hosts=["gateway1", "localhost"], **hook)
    output = " ".join(str(failed.value).split())
    assert "the status page could not be written on gateway1: it cannot be reached" in output
    assert "failed=1" in output and page.exists() and http_server.seen[-1][0] == "POST"
