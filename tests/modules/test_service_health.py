# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_health against real servers with every manner; curl and redis-cli say what is true."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.certificates import StartTlsServer
from tests.fixtures.http import PASSWORD, TOKEN, USER, HttpServer, StartHttp
from tests.fixtures.redis import RedisFactory
from tests.harness import ROOT, run_module, start_module
from tests.platform.parts.certificates import CertificateAuthority, defective
from tests.platform.parts.process import free_port
from tests.platform.parts.sentinel import Sentinel

Probes = list[dict[str, Any]]


def health(probes: Probes, **options: Any) -> dict[str, Any]:
    """Run the module; it never fails by its findings."""
    answer = run_module("service_health", {"probes": probes, "fail_on": "never", **options})
    assert not answer["failed"], answer["msg"]
    return answer


def findings(probes: Probes, **options: Any) -> dict[str, dict[str, Any]]:
    """The findings by subject."""
    return {finding["subject"]: finding for finding in health(probes, **options)["findings"]}


def one(probe: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The finding of a single probe."""
    return findings([{"name": "it", **probe}], **options)["it"]


def told(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The details by name."""
    return {probe["name"]: probe for probe in answer["probes"]}


def curl(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code of curl, and its own measures."""
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{json}", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


# -- HTTP: what is expected ------------------------------------------------------------------------------------------


def test_good_answers_are_ok(http_server: HttpServer) -> None:
    up = http_server.url + "/up"
    found = findings(
        [
            {"name": "plain", "url": up},
            {"name": "json", "url": up, "json": {"status": "UP", "checks[1].latency": 1.5, "$.checks[0].ok": True}},
            {"name": "regex", "url": up, "regex": '"name": "(redis|memcached)"'},
            {"name": "other status", "url": http_server.url + "/status/401", "status": ["200-299", "401"]},
            {"name": "redirects", "url": http_server.url + "/redirect/3"},
            {
                "name": "redirect itself",
                "url": http_server.url + "/redirect/3",
                "follow_redirects": False,
                "status": 302,
            },
        ]
    )
    assert {finding["status"] for finding in found.values()} == {"ok"}, found
    assert found["plain"]["summary"].startswith("answered 200 in ")
    assert found["plain"]["unit"] == "ms"
    assert 0 < found["plain"]["value"] < 2000


def test_wrong_answers_say_what_was_expected(http_server: HttpServer) -> None:
    up = http_server.url + "/up"
    found = findings(
        [
            {"name": "503", "url": http_server.url + "/status/503"},
            {"name": "json", "url": up, "json": {"status": "DOWN", "checks[7].name": "x", "checks[0].ok": 1}},
            {"name": "regex", "url": up, "regex": "DOWN"},
            {"name": "no json", "url": http_server.url + "/status/200", "json": {"status": "UP"}},
            {"name": "minor", "url": http_server.url + "/status/503", "critical": False},
            {"name": "502", "url": http_server.url + "/status/502"},
            {"name": "404", "url": http_server.url + "/status/404"},
            {"name": "says why", "url": up, "status": ["204"]},
        ]
    )
    assert found["503"]["status"] == "critical"
    assert "see whether the service runs" in found["502"]["hint"] and "URL" in found["404"]["hint"]
    assert "expected 204; it says '{" in found["says why"]["summary"]
    assert found["503"]["summary"].startswith("answered 503 after ")
    assert found["503"]["summary"].endswith("ms, expected 200-299")
    assert 'status is \'"UP"\', expected "DOWN"' in found["json"]["summary"]
    assert "no checks[7].name in the JSON answer" in found["json"]["summary"]
    assert "checks[0].ok is 'true', expected 1" in found["json"]["summary"]
    assert "no match of 'DOWN'" in found["regex"]["summary"]
    assert "no JSON" in found["no json"]["summary"]
    assert found["minor"]["status"] == "warning"
    assert all(finding["hint"] for finding in found.values())


def test_requests_carry_method_headers_body_and_credentials(http_server: HttpServer) -> None:
    echo = http_server.url + "/echo"
    found = findings(
        [
            {"name": "basic", "url": http_server.url + "/auth", "username": USER, "password": PASSWORD},
            {"name": "wrong", "url": http_server.url + "/auth", "username": USER, "password": "another pass"},
            {
                "name": "digest",
                "url": http_server.url + "/digest",
                "username": USER,
                "password": PASSWORD,
                "auth_scheme": "digest",
            },
            {"name": "token", "url": http_server.url + "/token", "token": TOKEN},
            {
                "name": "text",
                "url": echo,
                "method": "POST",
                "body": "größe",
                "json": {"method": "POST", "body": "größe"},
            },
            {"name": "json", "url": echo, "method": "POST", "body": {"a": 1}, "json": {"type": "application/json"}},
            {"name": "headers", "url": echo, "headers": {"X-A": "1"}, "secret_headers": {"X-B": "hidden"}},
        ]
    )
    assert {name for name, finding in found.items() if finding["status"] != "ok"} == {"wrong"}, found
    assert "answered 401" in found["wrong"]["summary"]
    seen = next(headers for _method, _path, headers in http_server.seen if "X-A" in headers)
    assert (seen["X-A"], seen["X-B"]) == ("1", "hidden")


def test_secrets_are_not_shown_and_not_sent_to_other_hosts(http_server: HttpServer, start_http: StartHttp) -> None:
    other = start_http()
    target = base64.urlsafe_b64encode((other.url + "/up").encode()).decode()
    secrets = {"token": "a-bearer-token", "secret_headers": {"X-Api-Key": "an-api-key"}}
    answer = health([{"name": "leak", "url": f"{http_server.url}/redirect-to/{target}", **secrets}])
    assert answer["status"] == "ok"
    assert not [text for text in ("a-bearer-token", "an-api-key") if text in json.dumps(answer)]
    # ansible-core up to 2.19 hands the arguments back; the token is there then, and censored.
    assert "invocation" not in answer or "token" in answer["invocation"]["module_args"]["probes"][0]
    assert "X-Api-Key" in http_server.seen[-1][2]
    assert "Authorization" in http_server.seen[-1][2]
    assert not {"X-Api-Key", "Authorization"} & other.seen[-1][2].keys()


def test_redirects_that_must_not_be(http_server: HttpServer) -> None:
    circle = one({"url": http_server.url + "/redirect/9"})
    assert "more than 5 redirects" in circle["summary"]
    target = base64.urlsafe_b64encode(b"ftp://127.0.0.1/file").decode()
    assert "ftp://127.0.0.1/file" in one({"url": f"{http_server.url}/redirect-to/{target}"})["summary"]


# -- Deadlines: what hangs, drips or never ends ----------------------------------------------------------------------


def test_nothing_stretches_the_deadline(http_server: HttpServer, silent_port: int) -> None:
    limit = 0.6
    manners = ["hang", "drip-head", "drip-body"]
    probes: Probes = [{"name": manner, "url": f"{http_server.url}/{manner}"} for manner in manners]
    probes += [{"name": kind, "type": kind, "host": "127.0.0.1", "port": silent_port} for kind in ("tls", "redis")] + [
        {"name": "https", "type": "https", "url": f"https://127.0.0.1:{silent_port}/"}
    ]
    answer = health(probes, timeout=limit)
    found = {finding["subject"]: finding for finding in answer["findings"]}
    for name, finding in found.items():
        assert finding["status"] == "critical"
        assert finding["summary"].startswith("no answer within 0.6 s (connected in "), (name, finding)
        assert 590 <= finding["value"] < 1500, (name, finding)
    assert "then silence" in found["hang"]["summary"]
    assert "then only " in found["drip-head"]["summary"]
    assert "then only " in found["drip-body"]["summary"]
    assert "then no TLS handshake" in found["tls"]["summary"]
    assert told(answer)["drip-body"]["status_code"] == 200
    assert curl("-m", str(limit), f"{http_server.url}/drip-body")[0] == 28  # operation timed out


def test_dripping_redis_meets_the_deadline(scripted_port: Callable[[bytes, float], int]) -> None:
    port = scripted_port(b"+" + b"P" * 400, 0.05)
    found = one({"type": "redis", "host": "127.0.0.1", "port": port, "timeout": 0.4})
    assert "only " in found["summary"]
    assert found["value"] < 1200


@pytest.fixture
def dead_resolver() -> Iterator[str]:
    """Address of a name server that takes every question and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.0.0.99", 53))
        except PermissionError:
            pytest.skip("only root may be a name server")
        yield "127.0.0.99"


def test_dead_resolver_meets_the_deadline(tmp_path: Path, dead_resolver: str) -> None:
    """In a mount namespace of its own, which has this resolver."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {dead_resolver}\n")
    script = (
        "import json, sys\nfrom tests.harness import ROOT, run_module\n"
        "print(json.dumps(run_module('service_health', json.loads(sys.argv[1]))))"
    )
    probe = {"name": "lost", "url": "http://name.nowhere.test/", "timeout": 0.5}
    arguments = json.dumps({"probes": [probe], "fail_on": "never"})
    mount = f'mount --bind {tmp_path / "resolv.conf"} /etc/resolv.conf && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", script, arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'collections'}"},
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace to be had: {done.stderr}")
    finding = json.loads(done.stdout)["findings"][0]
    assert finding["summary"] == "no answer within 0.5 s (the name look-up did not end)"
    assert 490 <= finding["value"] < 1500


def test_what_is_read_is_capped(http_server: HttpServer) -> None:
    before = http_server.sent
    answer = health(
        [
            {
                "name": "body",
                "url": http_server.url + "/huge/200",
                "timeout": 5,
                "max_bytes": 20000,
                "regex": "hugehuge",
            },
            {"name": "json", "url": http_server.url + "/huge/200", "timeout": 5, "max_bytes": 20000, "json": {"a": 1}},
            {"name": "redirect", "url": http_server.url + "/huge/302", "timeout": 5, "max_bytes": 20000},
        ]
    )
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert found["body"]["status"] == "ok"
    assert "longer than max_bytes (20000)" in found["json"]["summary"]
    assert found["redirect"]["status"] == "ok"
    assert told(answer)["redirect"]["redirects"] == 1
    assert max(probe["bytes_read"] for probe in answer["probes"]) < 100_000
    # The rest is what the buffers of the kernel took.
    assert http_server.sent - before < 30_000_000


def test_broken_answers_name_the_cause(http_server: HttpServer) -> None:
    closed = free_port()
    found = findings(
        [
            {"name": "break-off", "url": http_server.url + "/break-off"},
            {"name": "crash", "url": http_server.url + "/crash"},
            {"name": "nonsense", "url": http_server.url + "/nonsense"},
            {"name": "closed", "url": f"http://127.0.0.1:{closed}/"},
            {"name": "nameless", "url": "http://name.invalid/"},
            {"name": "not tls", "type": "https", "url": http_server.url.replace("http:", "https:") + "/up"},
            {"name": "not redis", "type": "redis", "host": "127.0.0.1", "port": http_server.port},
            {"name": "no port", "type": "tcp", "host": "127.0.0.1", "port": closed},
        ]
    )
    assert {finding["status"] for finding in found.values()} == {"critical"}
    assert "answered 200, but the answer broke off after" in found["break-off"]["summary"]
    assert "closed the connection without an answer" in found["crash"]["summary"]
    assert "does not speak HTTP" in found["nonsense"]["summary"]
    assert found["closed"]["summary"] == f"connection refused by 127.0.0.1:{closed}"
    assert found["no port"]["summary"] == f"connection refused by 127.0.0.1:{closed}"
    assert "the name name.invalid cannot be resolved" in found["nameless"]["summary"]
    assert f"127.0.0.1:{http_server.port} does not speak TLS" in found["not tls"]["summary"]
    assert "does not speak the protocol of Redis" in found["not redis"]["summary"]
    assert curl(http_server.url + "/break-off")[0] == 18  # partial file
    assert curl(http_server.url + "/crash")[0] == 52  # empty reply


# -- Figures ---------------------------------------------------------------------------------------------------------


def test_phases_are_those_of_curl(start_http: StartHttp, certificate_authority: CertificateAuthority) -> None:
    server = start_http(identity=certificate_authority.issue("localhost"))
    url = f"https://localhost:{server.port}/slow/200"
    trust = str(certificate_authority.root_file)
    answer = health([{"name": "it", "url": url, "ca_certs": trust}])
    ours = answer["probes"][0]["phases"]
    _rc, theirs = curl("--cacert", trust, url)
    assert set(ours) == {"dns_ms", "connect_ms", "tls_ms", "ttfb_ms", "total_ms"}
    assert ours["dns_ms"] + ours["connect_ms"] + ours["tls_ms"] <= ours["ttfb_ms"] <= ours["total_ms"]
    assert ours["ttfb_ms"] == pytest.approx(theirs["time_starttransfer"] * 1000, abs=60)
    assert ours["total_ms"] == pytest.approx(theirs["time_total"] * 1000, abs=60)
    assert ours["tls_ms"] == pytest.approx((theirs["time_appconnect"] - theirs["time_connect"]) * 1000, abs=40)
    assert answer["probes"][0]["address"].endswith(f":{server.port}")


def test_latency_limits(http_server: HttpServer) -> None:
    slow = http_server.url + "/slow/100"
    found = findings(
        [
            {"name": "fast", "url": slow, "latency_warning_ms": 5000},
            {"name": "slow", "url": slow, "latency_warning_ms": 90, "latency_critical_ms": 5000},
            {"name": "too slow", "url": slow, "latency_warning_ms": 20, "latency_critical_ms": 50},
            {"name": "minor", "url": slow, "latency_critical_ms": 50, "critical": False},
        ]
    )
    assert {name: finding["status"] for name, finding in found.items()} == {
        "fast": "ok",
        "slow": "warning",
        "too slow": "critical",
        "minor": "warning",
    }
    assert found["too slow"]["threshold"] == 50
    assert found["too slow"]["summary"].endswith(" ms, the limit is 50 ms")


def test_what_is_slow_only_in_company_is_timed_again_alone(http_server: HttpServer) -> None:
    url = http_server.url + "/slow-in-company/300"
    answer = health([{"name": f"s{n}", "url": url, "latency_warning_ms": 200} for n in range(4)])
    assert answer["status"] == "ok", answer["findings"]
    alone = [probe for probe in answer["probes"] if probe["alone"]]
    assert alone
    assert all(probe["phases"]["total_ms"] < 200 for probe in alone)


def test_many_probes_run_at_a_time(http_server: HttpServer) -> None:
    started = time.monotonic()
    answer = health([{"name": f"s{n}", "url": http_server.url + "/slow/200"} for n in range(60)], concurrency=30)
    assert answer["summary"] == "60 ok"
    assert time.monotonic() - started < 6  # one after the other would take 12 s


# -- Attempts and dependencies ---------------------------------------------------------------------------------------


def test_attempts_until_one_succeeds(http_server: HttpServer) -> None:
    answer = health(
        [
            {"name": "third", "url": http_server.url + "/fails-first/2", "attempts": 5, "interval": 0.05},
            {"name": "never", "url": http_server.url + "/status/500", "attempts": 3, "interval": 0.05},
        ]
    )
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert found["third"]["status"] == "ok"
    assert told(answer)["third"]["attempts"] == 3
    assert found["never"]["summary"].endswith("expected 200-299 (3 attempts)")


def test_children_are_told_under_their_failed_parent(http_server: HttpServer) -> None:
    down, up = http_server.url + "/status/503", http_server.url + "/up"
    found = findings(
        [
            {"name": "cache", "type": "tcp", "host": "127.0.0.1", "port": free_port()},
            {"name": "log", "url": down, "critical": False},
            {"name": "auth", "url": down, "depends_on": ["cache"]},
            {"name": "chat", "url": down, "depends_on": ["auth"]},
            {"name": "news", "url": up, "depends_on": ["cache"]},
            {"name": "admin", "url": down, "depends_on": ["log"]},
        ]
    )
    assert {name: finding["parent"] for name, finding in found.items()} == {
        "cache": "",
        "log": "",
        "auth": "cache",
        "chat": "auth",
        "news": "",  # it works without its parent
        "admin": "",  # a mere warning must not hide what is critical
    }


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ([{"name": "a", "type": "tcp", "host": "h", "depends_on": ["b"]}], "there is no such probe"),
        ([{"name": "a", "type": "tcp", "host": "h"}, {"name": "a", "type": "tcp", "host": "i"}], "2 probes have this"),
        ([{"name": "a", "url": "http://user:secret@h/"}], "put them into username and password"),
        ([{"name": "a", "type": "https", "url": "http://h/"}], "must begin with https"),
        ([{"name": "a", "url": "http://h/", "status": "2xx"}], "'2xx' is no status"),
        ([{"name": "a", "url": "http://h/", "regex": "("}], "is not valid"),
        ([{"name": "a", "type": "redis"}], "host, unix_socket, sentinel_hosts"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(probes: Probes, message: str) -> None:
    answer = run_module("service_health", {"probes": probes})
    assert answer["failed"]
    assert message in answer["msg"]


def test_fail_on(http_server: HttpServer) -> None:
    probes = [{"name": "it", "url": http_server.url + "/status/503", "critical": False}]
    assert not run_module("service_health", {"probes": probes})["failed"]
    answer = run_module("service_health", {"probes": probes, "fail_on": "warning"}, check=True)
    assert answer["failed"]
    assert answer["msg"].startswith("it: answered 503 after ")
    assert answer["findings"][0]["status"] == "warning"


# -- Where and how to connect ----------------------------------------------------------------------------------------


def test_unix_socket_ipv6_and_another_host(start_http: StartHttp, tmp_path: Path) -> None:
    by_unix, by_six, by_four = str(tmp_path / "http.sock"), start_http("::1"), start_http()
    start_http(unix_socket=by_unix)
    absent = str(tmp_path / "absent.sock")
    found = findings(
        [
            {"name": "unix", "url": "http://localhost/up", "unix_socket": by_unix},
            {"name": "unix tcp", "type": "tcp", "unix_socket": by_unix},
            {"name": "absent", "url": "http://localhost/up", "unix_socket": absent},
            {"name": "ipv6", "url": by_six.url + "/up"},
            {"name": "wrong family", "url": by_four.url + "/up", "ip_version": "ipv6"},
            {"name": "elsewhere", "url": f"http://node.test:{by_four.port}/up", "host": "127.0.0.1"},
        ]
    )
    assert {name for name, finding in found.items() if finding["status"] != "ok"} == {"absent", "wrong family"}, found
    assert found["absent"]["summary"] == f"there is no unix socket {absent}"
    assert "cannot be resolved" in found["wrong family"]["summary"]
    assert by_four.seen[-1][2]["Host"] == f"node.test:{by_four.port}"
    assert curl("--unix-socket", by_unix, "http://localhost/up")[1]["http_code"] == 200


def test_certificates(
    start_http: StartHttp, certificate_authority: CertificateAuthority, tls_server: StartTlsServer
) -> None:
    trust = {"ca_certs": str(certificate_authority.root_file)}
    good = start_http(identity=certificate_authority.issue("localhost", days=20))
    defects = {name: tls_server(defective(certificate_authority, name)) for name in ("expired", "wrong_host")}
    url = f"https://localhost:{good.port}/up"
    probes: Probes = [
        {"name": "good", "type": "https", "url": url, **trust, "certificate_warning_days": 10},
        {"name": "soon", "url": url, **trust, "certificate_warning_days": 30, "certificate_critical_days": 7},
        {"name": "too soon", "url": url, **trust, "certificate_critical_days": 25},
        {"name": "untrusted", "url": url},
        {"name": "unchecked", "url": url, "validate_certs": False, "certificate_warning_days": 30},
        {"name": "no file", "url": url, "ca_certs": "/absent.pem"},
    ]
    probes += [
        {"name": name, "type": "tls", "host": "localhost", "port": port, **trust} for name, port in defects.items()
    ]
    answer = health(probes)
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert {name: finding["status"] for name, finding in found.items()} == {
        "good": "ok",
        "soon": "warning",
        "too soon": "critical",
        "untrusted": "critical",
        "unchecked": "warning",
        "no file": "unknown",
        "expired": "critical",
        "wrong_host": "critical",
    }
    assert "the certificate expires in " in found["soon"]["summary"]
    assert found["expired"]["summary"].startswith("the certificate has expired (localhost, ")
    assert found["wrong_host"]["summary"].startswith("the certificate is for another host name")
    assert "/absent.pem" in found["no file"]["summary"]
    expires = subprocess.run(
        ["sh", "-c", f"openssl s_client -connect localhost:{good.port} </dev/null 2>/dev/null | "
         "openssl x509 -noout -enddate -dateopt iso_8601"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert expires == "notAfter=" + told(answer)["unchecked"]["certificate_expires"].replace("T", " ")
    assert curl("--cacert", trust["ca_certs"], f"https://localhost:{defects['expired']}/")[0] == 60


def test_redirect_to_plain_http_fails_an_https_probe(
    start_http: StartHttp, http_server: HttpServer, certificate_authority: CertificateAuthority
) -> None:
    server = start_http(identity=certificate_authority.issue("localhost"))
    target = base64.urlsafe_b64encode((http_server.url + "/up").encode()).decode()
    probe = {"url": f"https://localhost:{server.port}/redirect-to/{target}", "validate_certs": False}
    assert one(probe)["status"] == "ok"
    assert "which is not encrypted" in one({"type": "https", **probe})["summary"]


# -- Redis and Firestore ---------------------------------------------------------------------------------------------


def test_redis(start_redis: RedisFactory) -> None:
    server = start_redis(password="the right one", unix_socket=True, users=["prober on >pw -@all +ping"])
    where = {"type": "redis", "host": server.host, "port": server.port}
    answer = health(
        [
            {"name": "right", **where, "password": "the right one"},
            {"name": "user", **where, "username": "prober", "password": "pw"},
            {"name": "socket", "type": "redis", "unix_socket": str(server.socket_path), "password": "the right one"},
            {"name": "none", **where},
            {"name": "wrong", **where, "password": "a wrong one"},
        ]
    )
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert [found[name]["status"] for name in ("right", "user", "socket")] == ["ok"] * 3, found
    assert found["right"]["summary"].startswith("answered PONG in ")
    assert found["none"]["summary"].startswith("alive, but not ready: NOAUTH")
    assert found["wrong"]["summary"].startswith("alive, but not ready: WRONGPASS")
    assert told(answer)["none"]["alive"]
    assert not told(answer)["none"]["ok"]
    said = subprocess.run(
        ["redis-cli", "-p", str(server.port), "ping"], capture_output=True, text=True, check=False
    ).stdout
    assert "NOAUTH" in said
    server.process.stop()
    assert one({**where})["summary"] == f"connection refused by 127.0.0.1:{server.port}"


def test_the_master_that_sentinel_knows(start_redis: RedisFactory, silent_port: int, tmp_path: Path) -> None:
    server, closed = start_redis(password="the server's"), free_port()
    with Sentinel(tmp_path / "sentinel", server, name="cache", password="the sentinel's") as sentinel:
        known = {"type": "redis", "sentinel_master": "cache", "sentinel_password": "the sentinel's", "timeout": 5}
        known |= {"sentinel_hosts": [sentinel.address], "password": "the server's"}
        silent, dead = f"127.0.0.1:{silent_port}", f"127.0.0.1:{closed}"
        probes = [
            {"name": "right", **known},
            {"name": "third", **known, "sentinel_hosts": [dead, silent, sentinel.address]},
            {"name": "other", **known, "sentinel_master": "queue"},
            {"name": "refused", **known, "sentinel_password": "a wrong one"},
            {"name": "redis", **known, "sentinel_hosts": [f"127.0.0.1:{server.port}"], "sentinel_password": ""},
            {"name": "password", **known, "password": "a wrong one"},
            {"name": "none", **known, "sentinel_hosts": [dead, silent], "timeout": 1},
        ]
        found = findings(probes)
        master = f"answered PONG as the master 127.0.0.1:{server.port} of Sentinel {sentinel.address}"
        assert found["right"]["summary"].startswith(master) and found["third"]["summary"].startswith(master)
        assert "'queue' is: " in found["other"]["summary"] and "it knows no such master" in found["other"]["summary"]
        assert "alive, but not ready: WRONGPASS" in found["refused"]["summary"]
        assert "it is no Sentinel but another server" in found["redis"]["summary"]
        assert found["password"]["summary"].startswith("alive, but not ready: WRONGPASS")
        assert f"connection refused by {dead}; {silent} does not answer" in found["none"]["summary"]
        assert {found[name]["status"] for name in found} == {"ok", "critical"}
        server.process.stop()
        assert one(known)["summary"] == f"connection refused by 127.0.0.1:{server.port}"
    assert (
        "is no address such as"
        in run_module("service_health", {"probes": [{"name": "x", **known, "sentinel_hosts": ["a b"]}]})["msg"]
    )


def test_firestore(firestore_emulator: Any, silent_port: int) -> None:
    closed = free_port()
    probe = {"type": "firestore", "project": "probed"}
    answer = health(
        [
            {"name": "option", **probe, "emulator_host": firestore_emulator.host},
            {"name": "closed", **probe, "emulator_host": f"127.0.0.1:{closed}", "timeout": 3},
            {"name": "silent", **probe, "emulator_host": f"127.0.0.1:{silent_port}", "timeout": 1},
        ]
    )
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert found["option"]["status"] == "ok", found["option"]
    assert f"(emulator at {firestore_emulator.host})" in found["option"]["summary"]
    assert found["closed"]["status"] == "critical"
    assert f"127.0.0.1:{closed}" in found["closed"]["summary"]
    assert found["silent"]["status"] == "critical"
    assert found["silent"]["value"] < 2000


def test_emulator_of_the_environment_is_never_passed_by(firestore_emulator: Any) -> None:
    answer = run_module(
        "service_health",
        {"probes": [{"name": "it", "type": "firestore", "project": "probed"}]},
        env={"FIRESTORE_EMULATOR_HOST": firestore_emulator.host},
    )
    assert f"(emulator at {firestore_emulator.host})" in answer["findings"][0]["summary"]


# -- Processes and commands ------------------------------------------------------------------------------------------


def test_processes_by_pid_file(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    files = {name: tmp_path / name for name in ("running", "reused", "ended", "nonsense")}
    files["running"].write_text(f"{process.pid}\n")
    files["reused"].write_text(f"{process.pid}\n")
    os.utime(files["reused"], (time.time() - 3600,) * 2)
    ended = subprocess.Popen(["true"])
    ended.wait()
    files["ended"].write_text(f"{ended.pid}\n")
    files["nonsense"].write_text("no pid\n")
    try:
        found = findings(
            [{"name": name, "type": "process", "pid_file": str(path)} for name, path in files.items()]
            + [{"name": "absent", "type": "process", "pid_file": str(tmp_path / "absent")}]
        )
    finally:
        process.kill()
        process.wait()
    assert found["running"]["status"] == "ok", found["running"]
    assert f"runs as pid {process.pid} for " in found["running"]["summary"]
    assert "belongs to another process" in found["reused"]["summary"]
    assert f"pid {ended.pid} of {files['ended']} is gone" in found["ended"]["summary"]
    assert "holds no pid" in found["nonsense"]["summary"]
    assert "there is no pid file" in found["absent"]["summary"]


def test_commands(tmp_path: Path) -> None:
    left_behind = tmp_path / "left-behind"
    found = findings(
        [
            {"name": "good", "type": "command", "argv": ["echo", "all is well"], "regex": "well$"},
            {"name": "right code", "type": "command", "argv": ["sh", "-c", "exit 3"], "rc": [0, 3]},
            {"name": "wrong code", "type": "command", "argv": ["sh", "-c", "echo reason >&2; exit 2"]},
            {"name": "no match", "type": "command", "argv": ["echo", "down"], "regex": "up"},
            {"name": "signal", "type": "command", "argv": ["sh", "-c", "kill -9 $$"]},
            {"name": "absent", "type": "command", "argv": ["/no/such/command"]},
            {"name": "endless", "type": "command", "argv": ["yes"], "timeout": 0.5, "max_bytes": 100},
            {
                "name": "children",
                "type": "command",
                "argv": ["sh", "-c", f"(sleep 1.2; touch {left_behind}) & sleep 30"],
                "timeout": 0.5,
            },
            {"name": "daemon", "type": "command", "argv": ["sh", "-c", f"(sleep 1; touch {left_behind}) & echo done"]},
        ]
    )
    assert {name for name, finding in found.items() if finding["status"] == "ok"} == {"good", "right code", "daemon"}
    assert found["wrong code"]["summary"] == "sh returned 2, expected 0: reason"
    assert "no match of 'up' in 'down'" in found["no match"]["summary"]
    assert "was ended by signal 9" in found["signal"]["summary"]
    assert found["absent"]["status"] == "unknown"
    assert found["children"]["summary"] == "sh did not end within 0.5 s and was killed"
    assert found["children"]["value"] < 800
    assert found["daemon"]["value"] < 800
    time.sleep(1)
    assert not left_behind.exists()


# -- Libraries -------------------------------------------------------------------------------------------------------


def test_missing_library_makes_only_its_probes_unknown(tmp_path: Path, silent_port: int) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "__init__.py").write_text("raise ImportError('No module named requests')\n")
    answer = run_module(
        "service_health",
        {
            "probes": [
                {"name": "http", "url": "http://127.0.0.1:1/"},
                {"name": "tcp", "type": "tcp", "host": "127.0.0.1", "port": silent_port},
            ],
        },
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'collections'}"},
    )
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert found["tcp"]["status"] == "ok"
    assert found["http"]["status"] == "unknown"
    assert "the Python library requests" in found["http"]["summary"]
    assert "Install it with " in found["http"]["hint"]


def test_no_library_is_loaded_for_probes_without_need(silent_port: int) -> None:
    """Import times tell what was imported."""
    process = start_module(
        "service_health",
        {"probes": [{"name": "tcp", "type": "tcp", "host": "127.0.0.1", "port": silent_port}]},
        env={"PYTHONPROFILEIMPORTTIME": "1"},
    )
    _output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "_probe_http" in errors
    assert not [name for name in ("requests", "redis", "google.cloud") if f"| {name}" in errors.replace("|   ", "| ")]


def test_examples(http_server: HttpServer, start_redis: RedisFactory, tmp_path: Path) -> None:
    server = start_redis(password="example")
    pid_file = tmp_path / "worker.pid"
    pid_file.write_text(str(os.getpid()))
    run_examples(
        "service_health",
        {
            "http://127.0.0.1:8080/api/auth-service/health": http_server.url + "/up",
            "port: 6379": f"port: {server.port}",
            "type: https\n": "type: http\n",
            "https://www.example.org/": http_server.url + "/status/401",
            "/run/worker.pid": str(pid_file),
        },
        {"redis_password": "example"},
    )
