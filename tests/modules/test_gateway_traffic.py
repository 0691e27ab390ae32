# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gateway_traffic on a real nginx, judged by requests from outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.gateway import Gateway
from tests.harness import run_module

TOKEN = "let-me-through-please"


def call(gateway: Gateway, state: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("gateway_traffic", {**gateway.options, "state": state, **options}, check=check, diff=True)


@pytest.fixture
def installed(gateway: Gateway) -> Gateway:
    answer = call(gateway, "installed", services=gateway.services, retry_after=120, bypass_token=TOKEN)
    assert answer["changed"] and TOKEN not in json.dumps(answer), answer
    # What nothing included yet is read when the site's own configuration is read next.
    gateway.nginx.reload()
    return gateway


def test_the_folder_is_made_once_and_keeps_what_is_out(installed: Gateway) -> None:
    again = {"services": installed.services, "retry_after": 120, "bypass_token": TOKEN}
    assert not call(installed, "installed", **again)["changed"]
    call(installed, "out", service="auth", server=installed.servers[0])
    kept = call(installed, "installed", **again)
    assert not kept["changed"] and [server["down"] for server in kept["services"]["auth"]["servers"]] == [True, False]


def test_a_server_is_taken_out_and_put_back(installed: Gateway) -> None:
    first, second = installed.ports
    assert installed.answering() == {first, second}
    planned = call(installed, "out", check=True, service="auth", server=installed.servers[0])
    assert planned["changed"] and planned["reloaded"] and installed.answering() == {first, second}
    answer = call(installed, "out", service="auth", server=installed.servers[0])
    assert answer["changed"] and answer["drained"] is True
    assert installed.answering() == {second}
    assert not call(installed, "out", service="auth", server=installed.servers[0])["changed"]
    assert call(installed, "in", service="auth", server=installed.servers[0])["changed"]
    assert installed.answering() == {first, second}
    assert not call(installed, "in", service="auth", server=installed.servers[0])["changed"]


def test_the_last_server_is_never_taken_out(installed: Gateway) -> None:
    call(installed, "out", service="auth", server=installed.servers[0])
    answer = call(installed, "out", service="auth", server=installed.servers[1])
    assert answer["failed"] and "is the last server that auth has: isolate the service instead" in answer["msg"]
    assert installed.answering() == {installed.ports[1]}


def test_taking_out_waits_for_requests_in_flight(installed: Gateway) -> None:
    answers: list[int] = []
    slow = [threading.Thread(target=lambda: answers.append(installed.ask("/api/auth/slow").status)) for _ in range(4)]
    for thread in slow:
        thread.start()
    time.sleep(0.2)
    taken = call(installed, "out", service="auth", server=installed.servers[0])
    assert taken["drained"] is True
    for thread in slow:
        thread.join()
    assert answers == [200] * 4


def test_what_does_not_drain_in_time_is_told(installed: Gateway) -> None:
    thread = threading.Thread(target=lambda: installed.ask("/api/auth/slow"))
    thread.start()
    time.sleep(0.2)
    answer = call(installed, "out", service="auth", server=installed.servers[0], drain_timeout=0.1)
    thread.join()
    assert answer["drained"] is False and "still in progress after 0.1 s" in str(answer["warnings"])


def test_no_request_fails_while_servers_come_and_go(installed: Gateway) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: apt-get install wrk")
    url = f"http://127.0.0.1:{installed.nginx.port}/api/auth/"
    # nginx closes kept connections with each reload, for whoever reloads it; a client has to open another one then.
    arguments = ["-t1", "-c8", "-d6s", "-H", "Connection: close", url]
    load = subprocess.Popen(["wrk", *arguments], stdout=subprocess.PIPE, text=True)
    for server in installed.servers:
        call(installed, "out", service="auth", server=server)
        call(installed, "in", service="auth", server=server)
    told = load.communicate(timeout=30)[0]
    assert "Non-2xx" not in told and "Socket errors" not in told and "requests in" in told


def test_a_service_is_isolated_without_a_reload(installed: Gateway) -> None:
    answer = call(installed, "isolated", service="auth")
    assert answer["changed"] and not answer["reloaded"] and answer["services"]["auth"]["isolated"]
    closed = installed.ask()
    assert (closed.status, closed.headers["Retry-After"]) == (503, "120")
    assert closed.body["status"] == "unavailable" and closed.body["retry_after"] == 120
    assert installed.ask("/api/news/").status == 200
    assert installed.ask(X_Upkeep_Bypass=TOKEN).status == 200
    assert installed.ask(X_Upkeep_Bypass="guessed").status == 503
    assert not call(installed, "isolated", service="auth")["changed"]
    assert call(installed, "open", service="auth")["changed"] and installed.ask().status == 200


def test_maintenance_closes_everything_but_the_status_page(installed: Gateway) -> None:
    assert call(installed, "maintenance", check=True)["changed"] and installed.ask().status == 200
    answer = call(installed, "maintenance")
    assert answer["maintenance"] and not answer["reloaded"]
    assert {installed.ask(path).status for path in ("/api/auth/", "/api/news/", "/")} == {503}
    (installed.nginx.status / "index.html").write_text("closed until six")
    assert installed.ask("/status/").text == "closed until six"
    assert call(installed, "open")["changed"] and installed.ask().status == 200
    assert not call(installed, "open")["changed"]


def test_it_can_be_told_beforehand_who_would_pass(installed: Gateway) -> None:
    token = "token-of-this-test"
    call(installed, "installed", services=installed.services, bypass_token=token)
    assert installed.ask(X_Upkeep_Rehearse="closed").status == 503 and installed.ask().status == 200
    assert installed.ask(X_Upkeep_Rehearse="closed", X_Upkeep_Bypass=token).status == 200
    assert installed.ask(X_Upkeep_Rehearse="closed", X_Upkeep_Bypass="another-one-than-that").status == 503


def test_a_service_is_redirected_and_comes_back(installed: Gateway) -> None:
    first, second = installed.servers
    assert call(installed, "redirected", service="auth", fallback=[second])["services"]["auth"]["fallback"]
    assert installed.answering() == {installed.ports[1]}
    refused = call(installed, "open", service="auth")
    assert refused["failed"] and "name its regular servers" in refused["msg"]
    assert call(installed, "out", service="auth", server=first)["failed"]
    none = call(installed, "open", service="auth", services=installed.services, keep_out=[first, second])
    assert none["failed"] and "no server of auth would be left" in none["msg"]
    kept = call(installed, "open", service="auth", services=installed.services, keep_out=[first])
    assert [server["down"] for server in kept["services"]["auth"]["servers"]] == [True, False]
    assert installed.answering() == {installed.ports[1]}
    call(installed, "open", service="auth", services=installed.services)
    assert installed.answering() == set(installed.ports)


def test_a_configuration_that_nginx_refuses_changes_nothing(installed: Gateway) -> None:
    config = installed.nginx.config
    sound = config.read_text()
    config.write_text(sound.replace("server_tokens off;", "server_tokens maybe;"))
    answer = call(installed, "out", service="auth", server=installed.servers[0])
    assert answer["failed"] and 'invalid value "maybe"' in answer["msg"] and "as they were before" in answer["msg"]
    config.write_text(sound)
    assert call(installed, "read")["services"]["auth"]["servers"][0]["down"] is False
    assert installed.answering() == set(installed.ports)


def test_an_nginx_that_does_not_run_is_told_and_files_stay(installed: Gateway) -> None:
    installed.nginx.stop()
    answer = call(installed, "out", service="auth", server=installed.servers[0])
    assert answer["failed"] and "nginx does not run" in answer["msg"]
    assert call(installed, "read")["services"]["auth"]["servers"][0]["down"] is False


@pytest.mark.parametrize(
    "state, options, told",
    [
        ("out", {"service": "auth", "server": "app9:1"}, "auth has no server app9:1: it has 127.0.0.1:"),
        ("out", {"service": "chat", "server": "app9:1"}, "the gateway knows no servers of chat"),
        ("isolated", {"service": "../auth"}, "is no name of a service"),
        ("redirected", {"service": "auth", "fallback": ["x; return 200"]}, "is no address such as app1:8081"),
        ("installed", {"services": [{"name": "auth", "servers": []}]}, "the service auth has no servers"),
        ("installed", {"services": [{"name": "a", "servers": ["b:1"]}], "bypass_token": "short"}, "at least 16"),
    ],
)
def test_what_makes_no_sense_is_refused(installed: Gateway, state: str, options: dict[str, Any], told: str) -> None:
    answer = call(installed, state, **options)
    assert answer["failed"] and told in answer["msg"]
    assert installed.answering() == set(installed.ports)


def test_examples(gateway: Gateway) -> None:
    folder = gateway.options["folder"]
    Path(folder, "upstreams", "auth.conf").rename(Path(folder, "upstreams", "auth-service.conf"))
    config = gateway.nginx.config
    config.write_text(config.read_text().replace("upstreams/auth.conf", "upstreams/auth-service.conf"))
    run_examples(
        "gateway_traffic",
        {
            f"folder: {'/etc/nginx/upkeep'}": f"folder: {folder}\n    nginx_command: '{{{{ nginx }}}}'\n"
            f"    pid_file: {gateway.options['pid_file']}",
            "app1:8081, app2:8081": ", ".join(gateway.servers),
            "app1:8081": gateway.servers[0],
        },
        {"nginx": gateway.nginx.command},
    )
    assert gateway.answering() == set(gateway.ports)
