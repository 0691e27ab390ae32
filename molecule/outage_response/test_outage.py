# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users got at each stage of the outage, and whether history tells the same."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

testinfra_hosts = ["local://"]

_ROOT = Path(__file__).resolve().parents[2] / ".cache" / "molecule-daily-outage"
_OWN, _STANDBY, _CLOSED = (200, "auth-service", ""), (200, "auth-standby", ""), (503, "unavailable", "300")
_BROKEN, _NEWS = (502, "", ""), (200, "news-service", "")
# How long it may take until a failure or its end is seen: a run has to begin, on a machine that may be busy.
_NOTICE_SECONDS = 60


def _host(name: str) -> Host:
    return testinfra.get_host(f"docker://upkeep-{name}")


def _lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _host("data1").check_output(f"cat {path}").splitlines()]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What the client outside got, in the order in which it asked."""
    told = sorted(_lines("/root/answers"), key=lambda answer: answer["began"])
    return [{**answer, "got": (answer["status"], answer["by"], answer["retry_after"])} for answer in told]


@pytest.fixture(scope="module")
def outage(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of before the window."""
    (seen,) = [told for told in _lines("/root/phases") if told["name"] == "recover"]
    return [answer for answer in answers if answer["began"] < seen["ended"]]


@pytest.fixture(scope="module")
def history() -> Any:
    with contextlib.closing(sqlite3.connect(f"file:{_ROOT}/state/history.sqlite3?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def _said(name: str) -> str:
    # Ansible shows messages as YAML, which doubles apostrophes.
    return " ".join((_ROOT / f"{name}.log").read_text().split()).replace("''", "'")


@pytest.mark.parametrize(
    ("phase", "auth", "news"),
    [
        ("well", _OWN, _NEWS),
        ("assess", _BROKEN, _NEWS),
        ("check", _BROKEN, _NEWS),
        ("redirect", _STANDBY, _NEWS),
        ("maintenance", _CLOSED, _CLOSED),
        ("open", _BROKEN, _NEWS),
        ("recover", _OWN, _NEWS),
        ("window", _OWN, _NEWS),
        ("restart", _OWN, _NEWS),
        ("held", _BROKEN, _NEWS),
        ("ended", _OWN, _NEWS),
    ],
)
def test_what_users_got_after_each_stage(answers: list[dict[str, Any]], phase: str, auth: Any, news: Any) -> None:
    (seen,) = [told for told in _lines("/root/phases") if told["name"] == phase]
    within = [answer for answer in answers if seen["began"] < answer["began"] and answer["ended"] < seen["ended"]]
    for service, expected in (("auth-service", auth), ("news-service", news)):
        got = [answer["got"] for answer in within if answer["service"] == service]
        assert set(got) == {expected} and len(got) >= 30, (phase, service, set(got), len(got))


def test_nobody_got_an_error_while_it_was_contained(outage: list[dict[str, Any]]) -> None:
    phases = {told["name"]: told for told in _lines("/root/phases")}
    auth = [answer for answer in outage if answer["service"] == "auth-service"]
    broken = [answer["began"] for answer in auth if answer["got"] == _BROKEN]
    redirected = min(answer["began"] for answer in auth if answer["got"] == _STANDBY)
    # Old workers of nginx answer for a moment after a reload; a flag is seen at once.
    assert not [at for at in broken if redirected + 5 < at < phases["maintenance"]["ended"]]
    isolated = min(
        answer["ended"] for answer in auth if answer["got"] == _CLOSED and answer["began"] > phases["open"]["ended"]
    )
    assert not [at for at in broken if at > isolated], "none while isolated, while recovered, and when opened again"
    last = [answer["got"] for answer in auth if answer["began"] > isolated]
    assert set(last) == {_CLOSED, _OWN} and sorted(last, key=[_CLOSED, _OWN].index) == last, "closed, then open"
    closed = [answer for answer in outage if answer["service"] == "news-service" and answer["got"] != _NEWS]
    assert {answer["got"] for answer in closed} == {_CLOSED}
    assert phases["redirect"]["ended"] < min(answer["ended"] for answer in closed)
    assert max(answer["began"] for answer in closed) < phases["open"]["began"], "isolation closes no service beside it"


def test_one_incident_tells_all_of_it(history: sqlite3.Connection, outage: list[dict[str, Any]]) -> None:
    (incident,) = history.execute("SELECT * FROM incidents").fetchall()
    assert json.loads(incident["services"]) == ["auth-service", "news-service"] and incident["closed_at"]
    own = [answer for answer in outage if answer["got"] == _OWN]
    failed = min(answer["began"] for answer in outage if answer["got"] == _BROKEN)
    last_good = max(answer["ended"] for answer in own if answer["began"] < failed)
    first_good = min(answer["began"] for answer in own if answer["began"] > failed)
    began, recovered = (_seconds(incident[name]) for name in ("began_at", "recovered_at"))
    # History writes whole seconds.
    assert last_good - 1 <= began <= last_good + _NOTICE_SECONDS
    assert first_good - 1 <= recovered <= first_good + _NOTICE_SECONDS
    print(f"MTTR: {recovered - began:.0f} s by history, {first_good - last_good:.1f} s by the client outside")
    texts = [row["text"] for row in history.execute("SELECT text FROM incident_events ORDER BY rowid")]
    for one in ("app1", "app2"):
        assert f"{one}: auth-service: it went back to its previous release 1.0.0 and serves" in texts
    assert "auth-service: opened again, for app1:8081, app2:8081 work" in texts
    told = [text.split(" after")[0] for text in texts if text.startswith(("recovered", "failed again"))]
    assert told == ["recovered", "failed again", "recovered"], "the fallback served users until all was closed"
    runs = dict(history.execute("SELECT name, count(*) FROM runs GROUP BY name"))
    assert runs["outage_response"] == 5, "check mode leaves none"


def test_the_figures_agree_with_what_the_client_saw(outage: list[dict[str, Any]]) -> None:
    report = max((_ROOT / "state" / "reports").glob("*-outage_response-*.json"))
    metrics = json.loads(report.read_text())["metrics"]
    (told,) = [service for service in metrics["services"] if service["name"] == "auth-service"]
    # Users were served by the fallback meanwhile, so that it failed twice for them.
    assert (told["mttr"]["n"], len(told["failures"])) == (2, 2)
    auth = [answer for answer in outage if answer["service"] == "auth-service"]
    spans = list(itertools.pairwise(auth))
    down = sum(after["began"] - before["began"] for before, after in spans if before["status"] != 200)
    print(f"down: {told['seconds']['down']:.0f} s by the figures, {down:.1f} s by the client outside")
    assert abs(told["seconds"]["down"] - down) < _NOTICE_SECONDS
    assert told["mttr"]["value"] == pytest.approx(told["seconds"]["down"] / 2)


def test_the_release_is_suspected_first_with_its_evidence() -> None:
    told = _said("assess")
    first, second = told.index("1. release auth-service on app"), told.index("2. release auth-service on app")
    assert first < second and "release 1.1.0 went live" in told[first:second]
    assert "unit auth-service.service on app1" in told and "the unit auth-service.service failed: exit-code" in told
    assert "No module named 'sessions'" in _said("recover"), "the service's own words"


def test_check_mode_tells_what_would_be_done() -> None:
    told = _said("check")
    assert "auth-service: would be isolated at the gateway" in told
    assert told.count("would be restarted, and put back to the previous release") >= 2


def test_what_is_left() -> None:
    document = (_ROOT / "state" / "incidents").glob("*.md")
    (text,) = [path.read_text() for path in document]
    assert "Release 1.1.0 lacks a module." in text and "went back to its previous release" in text
    lead = (_ROOT / "lead.log").read_text()
    assert all(words in lead for words in ("OUTAGE CONTAINED", "OUTAGE OVER"))
    for name in ("app1", "app2"):
        host = _host(name)
        assert host.service("auth-service").is_running
        assert host.file("/srv/auth-service/current").linked_to == "/srv/auth-service/releases/1.0.0"
        assert host.file("/srv/auth-service/releases/1.1.0.bad").exists
    gateway = _host("gateway1")
    assert gateway.check_output("ls /etc/nginx/upkeep/flags") == ""
    assert gateway.file("/etc/nginx/upkeep/upstreams/auth-service.conf").content_string.count("server app") == 2
    assert json.loads(gateway.file("/var/www/status/status.json").content_string)["status"] == "operational"


def test_the_window_in_which_it_was_restarted(history: sqlite3.Connection, answers: list[dict[str, Any]]) -> None:
    phases = {told["name"]: told for told in _lines("/root/phases")}
    begun, restarted = phases["window"]["ended"], phases["restart"]["ended"]
    assert {answer["status"] for answer in answers if begun < answer["began"] < restarted} == {200}
    (window,) = history.execute("SELECT * FROM windows").fetchall()
    assert window["status"] == "ended" and json.loads(window["services"]) == ["auth-service"]
    document = Path(json.loads(window["record"])["document"]).read_text()
    assert all(f"| service_restart | {host} | auth-service: it ended" in document for host in ("app1", "app2")), (
        document
    )
    assert "held during maintenance 'Release 1.0.0 again': auth-service" in _said("held")
    assert "(health_check:" not in (_ROOT / "lead.log").read_text(), "nobody is told of what is maintained"
    asked = "SELECT subject, summary FROM findings WHERE check_name = 'checklist_overdue'"
    done = {subject: summary.split(" items")[0] for subject, summary in history.execute(asked)}
    # Of the post-maintenance checklist the review is for people, and there are no figures of before to compare with.
    assert (done["checklist pre"], done["checklist post"]) == ("5 of 5", "3 of 5")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
