"""Signs of life to a real HTTP server with every manner."""

from __future__ import annotations

from typing import Any

import pytest

from tests.examples import run_examples, run_tasks
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.http import HttpServer, StartHttp
from tests.harness import run_module
from tests.platform.parts.process import free_port

SECRET = "3b1d7c1e-secret"


def beat(signal: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("heartbeat", {"signal": signal, "tries": 1, **options}, check=check)


def paths(server: HttpServer, about: str) -> list[str]:
    return [path for _method, path, _headers in server.seen if about in path]


@pytest.mark.parametrize(
    ("signal", "path"), [("start", "/up/a/start"), ("success", "/up/a"), ("failure", "/up/a/fail")]
)
def test_each_signal_has_its_address(http_server: HttpServer, signal: str, path: str) -> None:
    http_server.seen.clear()
    answer = beat(signal, url=f"{http_server.url}/up/a/", name="backup")
    assert answer["sent"] and not answer["changed"] and paths(http_server, "/up") == [path]
    assert answer["findings"][0]["subject"] == "backup" and answer["status"] == "ok"


def test_a_query_stays_behind_the_path_and_own_addresses_win(http_server: HttpServer) -> None:
    http_server.seen.clear()
    beat("failure", url=f"{http_server.url}/up/slug?create=1")
    beat("failure", url=f"{http_server.url}/up/slug", failure_url=f"{http_server.url}/up/own")
    assert paths(http_server, "/up") == ["/up/slug/fail?create=1", "/up/own"]
    assert not beat("start", success_url=f"{http_server.url}/up/only-success")["findings"]
    assert len(http_server.seen) == 2


def test_in_check_mode_nothing_is_sent(http_server: HttpServer) -> None:
    http_server.seen.clear()
    answer = beat("success", url=f"{http_server.url}/up", check=True)
    assert (answer["sent"], answer["findings"], http_server.seen) == (False, [], [])


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/status/404", "status 404: it does not know this address"),
        ("/status/400", "status 400"),
        ("/status/503", "status 503"),
        ("/hang", "did not answer within 0.3 s"),
        ("/drip-head", "did not answer within 0.3 s"),
        ("/drip-body", "did not answer within 0.3 s"),
        ("/nonsense", "could not be reached: BadStatusLine"),
        ("/crash", "Remote end closed connection"),
    ],
)
def test_what_does_not_arrive_is_a_warning_with_its_cause(http_server: HttpServer, path: str, cause: str) -> None:
    answer = beat("success", url=f"{http_server.url}{path}", timeout=0.3)
    assert not answer["failed"] and not answer["sent"] and answer["status"] == "warning"
    assert "http at 127.0.0.1 " in answer["findings"][0]["summary"] and cause in answer["findings"][0]["summary"]


def test_nobody_there_and_no_url() -> None:
    nobody = beat("start", url=f"http://127.0.0.1:{free_port()}/{SECRET}")
    assert "could not be reached: Connection refused" in nobody["findings"][0]["summary"]
    assert SECRET not in str(nobody)
    senseless = beat("start", url=SECRET)
    assert "is no URL such as" in senseless["findings"][0]["summary"] and SECRET not in str(senseless)
    assert beat("start", url=SECRET, fail_on="warning")["failed"]


def test_it_tries_again_while_that_may_help(http_server: HttpServer) -> None:
    http_server.seen.clear()
    answer = beat("success", url=f"{http_server.url}/fails-first/1", tries=3)
    assert answer["sent"] and "at try 2" in answer["findings"][0]["summary"]
    beat("success", url=f"{http_server.url}/status/404", tries=3)
    assert len(paths(http_server, "/status/404")) == 1
    twice = beat("success", url=f"{http_server.url}/status/503", tries=2)
    assert twice["findings"][0]["summary"].endswith("status 503 (2 tries)")


def test_an_address_that_the_service_does_not_know(http_server: HttpServer) -> None:
    assert beat("success", url=f"{http_server.url}/says/OK")["sent"]
    answer = beat("success", url=f"{http_server.url}/says/OK_(not_found)")
    assert "answered 'OK (not found)'" in answer["findings"][0]["summary"]


def test_certificates_are_checked(start_http: StartHttp, certificate_authority: CertificateAuthority) -> None:
    server = start_http(identity=certificate_authority.issue("127.0.0.1"))
    untrusted = beat("success", url=f"{server.url}/up")
    assert "certificate verify failed" in untrusted["findings"][0]["summary"].lower()
    assert beat("success", url=f"{server.url}/up", ca_certs=str(certificate_authority.root_file))["sent"]


def test_the_examples_run_and_ansible_shows_no_address(http_server: HttpServer) -> None:
    url = f"{http_server.url}/up/{SECRET}"
    http_server.seen.clear()
    run_examples("heartbeat", {}, {"vault_backup_switch": url})
    assert paths(http_server, SECRET) == [f"/up/{SECRET}/start", f"/up/{SECRET}/done"]
    output = run_tasks([{"upkeep.ops.heartbeat": {"signal": "start", "url": f"{url}/%zz"}, "register": "told"}])
    assert SECRET not in output
