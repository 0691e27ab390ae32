"""alert with a real history, real files and a real HTTP target that Apprise talks to."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module
from tests.modules.test_maintenance_history import Recorder, finding, outcomes


class Target(ThreadingHTTPServer):
    """Takes the JSON notifications of Apprise, or refuses them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[dict[str, Any]] = []
        self.answer = 200

    @property
    def url(self) -> str:
        return f"json://user:s3cretpass@127.0.0.1:{self.server_address[1]}/hook-t0ken"


class _Handler(BaseHTTPRequestHandler):
    server: Target

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(json.loads(body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def target() -> Iterator[Target]:
    server = Target()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "history.sqlite3")


def alert(recorder: Recorder, closed: dict[str, Any], urls: list[str], **more: Any) -> dict[str, Any]:
    check = more.pop("check", False)
    arguments = {
        "database": str(recorder.database),
        "run": closed["run"],
        "contacts": [{"name": "Ops", "urls": urls, "email": "ops@company.com"}],
        "fail_on": "never",
        **more,
    }
    return run_module("alert", arguments, check=check, diff=True)


def test_a_problem_is_told_once_and_its_end_once(recorder: Recorder, tmp_path: Path) -> None:
    log = tmp_path / "alerts" / "ops.log"
    urls = [f"file://{log}"]
    first = alert(recorder, recorder.close(outcomes(finding("critical"))), urls)
    assert first["changed"] and "1 new)" in first["messages"][0]["title"]
    again = alert(recorder, recorder.close(outcomes(finding("critical"))), urls)
    assert not again["changed"] and again["messages"] == []
    over = alert(recorder, recorder.close(outcomes(finding("ok"))), urls)
    assert "RECOVERED" in over["messages"][0]["title"]
    assert log.read_text().count("\n[test]") + 1 == 2
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_same_run_told_twice_is_told_once(recorder: Recorder, tmp_path: Path) -> None:
    closed = recorder.close(outcomes(finding("critical")))
    urls = [f"file://{tmp_path}/ops.log"]
    assert alert(recorder, closed, urls)["changed"]
    assert not alert(recorder, closed, urls)["changed"]


def test_check_mode_shows_the_message_and_sends_nothing(recorder: Recorder, tmp_path: Path) -> None:
    closed = recorder.close(outcomes(finding("critical")))
    urls = [f"file://{tmp_path}/ops.log"]
    checked = alert(recorder, closed, urls, check=True)
    assert checked["changed"] and "auth" in checked["diff"]["after"]
    assert not (tmp_path / "ops.log").exists()
    assert alert(recorder, closed, urls)["messages"] == checked["messages"]


def test_apprise_brings_it_to_a_service(recorder: Recorder, target: Target) -> None:
    answer = alert(recorder, recorder.close(outcomes(finding("critical"))), [target.url])
    assert answer["deliveries"][0]["delivered"]
    assert target.received[0]["title"].startswith("[test] CRITICAL") and "auth" in target.received[0]["message"]


def test_what_was_not_delivered_is_told_by_the_next_run(recorder: Recorder, target: Target) -> None:
    target.answer = 500
    refused = alert(recorder, recorder.close(outcomes(finding("critical"))), [target.url])
    assert refused["status"] == "critical" and "500" in refused["findings"][0]["summary"]
    target.answer = 200
    assert alert(recorder, recorder.close(outcomes(finding("critical"))), [target.url])["deliveries"][0]["delivered"]


def test_one_target_of_two_is_enough_but_the_other_is_named(recorder: Recorder, tmp_path: Path) -> None:
    urls = [f"file://{tmp_path}/ops.log", "file:///proc/nowhere/ops.log"]
    answer = alert(recorder, recorder.close(outcomes(finding("critical"))), urls)
    assert answer["status"] == "warning" and "/proc/nowhere" in answer["findings"][0]["summary"]
    assert alert(recorder, recorder.close(outcomes(finding("critical"))), urls)["messages"] == []


def test_no_secret_of_a_target_is_shown_or_stored(recorder: Recorder, target: Target) -> None:
    target.answer = 403
    answer = alert(recorder, recorder.close(outcomes(finding("critical"))), [target.url])
    shown = json.dumps(answer) + recorder.database.read_bytes().decode("latin-1")
    assert "s3cretpass" not in shown and "hook-t0ken" not in shown
    assert answer["deliveries"][0]["target"] == "json at 127.0.0.1"


def test_a_url_that_apprise_does_not_know_is_named(recorder: Recorder) -> None:
    answer = alert(recorder, recorder.close(outcomes(finding("critical"))), ["carrierpigeon://roof"])
    assert "carrierpigeon at roof: Apprise does not know this kind" in answer["findings"][0]["summary"]


def test_problems_that_nobody_is_told_of_are_a_finding(recorder: Recorder) -> None:
    answer = alert(recorder, recorder.close(outcomes(finding("critical"))), [])
    assert answer["findings"][0]["check"] == "alert_routing"


def test_two_contacts_of_one_name_are_both_told_once_and_named(recorder: Recorder, tmp_path: Path) -> None:
    contacts = [
        {"name": "Ops", "urls": [f"file://{tmp_path}/first.log"], "severities": ["critical"]},
        {"name": "Ops", "urls": [f"file://{tmp_path}/second.log"], "severities": ["warning"]},
    ]
    for _run in range(3):
        told = alert(recorder, recorder.close(outcomes(finding("warning"))), [], contacts=contacts)
    assert [(item["check"], item["subject"]) for item in told["findings"]] == [("alert_routing", "Ops")]
    assert not (tmp_path / "first.log").exists()
    assert (tmp_path / "second.log").read_text().count("WARNING: auth (daily: 1 new)") == 1


def test_a_run_that_is_none_is_refused_with_the_remedy(recorder: Recorder) -> None:
    answer = run_module("alert", {"database": str(recorder.database), "run": {"id": "x"}, "contacts": []})
    assert "give it what maintenance_history returned" in answer["msg"]


def test_examples_run(recorder: Recorder, tmp_path: Path) -> None:
    recorder.call("opened")
    replacements = {
        "/var/lib/upkeep/history.sqlite3": str(recorder.database),
        "/var/log/upkeep": str(tmp_path / "log"),
        "site: example": "site: test",
    }
    run_examples("alert", replacements)
