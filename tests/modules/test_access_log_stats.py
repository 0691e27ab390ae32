# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of real nginx logs against sort and awk."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import run_examples
from tests.harness import run_module
from tests.platform.parts.process import ServerProcess, accepts, free_port

_CONFIG = """\
{user}daemon off;
pid {folder}/nginx.master.pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format timed '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                     '"$http_referer" "$http_user_agent" rt=$request_time urt="$upstream_response_time"';
    log_format own escape=json '{{"time":"$time_iso8601","request":"$request","status":$status,'
                               '"body_bytes_sent":$body_bytes_sent,"request_time":$request_time}}';
    access_log {folder}/timed.log timed;
    access_log {folder}/plain.log combined;
    access_log {folder}/json.log own;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location /api/ {{ return 200 "hello"; }}
        location /broken {{ return 503; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what a real nginx wrote of 64 requests, in three formats."""
    folder = tmp_path_factory.mktemp("nginx")
    port = free_port()
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, port=port, user=user))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    server = ServerProcess("nginx", folder)
    argv = [program, "-e", f"{folder}/error.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    server.start(argv, lambda: accepts(port))
    try:
        for number in range(60):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/orders/{number}?token=s3cret").read()
        for _ in range(4):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/broken")
    finally:
        server.stop()
    yield folder


@pytest.mark.parametrize("name", ["timed.log", "json.log", "plain.log"])
def test_lines_of_a_real_nginx(logs: Path, name: str) -> None:
    answer = run_module("access_log_stats", {"paths": [str(logs / name)], "fail_on": "never"})
    found = {route["route"]: route for route in answer["routes"]}
    assert found["GET /api/orders/:id"]["requests"] == 60
    assert (found["GET /broken"]["requests"], found["GET /broken"]["errors"]) == (4, 4)
    assert answer["overall"]["error_percent"] == pytest.approx(100 * 4 / answer["overall"]["requests"], abs=0.001)
    assert answer["files"][0]["malformed"] == 0
    assert answer["period"]["first"] <= answer["period"]["last"]
    assert "s3cret" not in str(answer)
    assert (answer["overall"]["p95_ms"] is None) == (name == "plain.log")


def test_without_response_times_the_finding_says_what_to_log(logs: Path) -> None:
    answer = run_module("access_log_stats", {"paths": [str(logs / "plain.log")], "fail_on": "warning"})
    assert answer["failed"]
    assert answer["status"] == "unknown"
    (finding,) = (finding for finding in answer["findings"] if finding["check"] == "response_time")
    assert "rt=$request_time" in finding["hint"]


def write_log(path: Path, count: int, seed: int) -> None:
    """A log as nginx writes it, over the last hour, with long tails."""
    rng = random.Random(seed)
    start = int(time.time()) - 3600
    lines = []
    for number in range(count):
        at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(start + number * 3500 // count))
        route = rng.choice(["orders", "users"])
        lines.append(
            f'10.0.0.1 - - [{at}] "GET /api/{route}/{rng.randrange(5000)} HTTP/1.1" {rng.choice([200, 200, 404, 502])} '
            f'{rng.randrange(5000)} "-" "curl" rt={rng.lognormvariate(-2.5, 0.8):.3f} urt="0.001"\n'
        )
    path.write_text("".join(lines))


def sorted_by_awk(text: str, route: str, percent: int) -> int:
    """The nearest-rank percentile in milliseconds, by tools that share nothing with the module."""
    program = (
        f"grep 'GET /api/{route}/' | sed 's/.* rt=\\([0-9.]*\\).*/\\1/' | sort -n | "
        f"awk '{{v[NR] = $1}} END {{r = NR * {percent} / 100; i = int(r); if (i < r) i++; print v[i] * 1000}}'"
    )
    output = subprocess.run(["sh", "-c", program], input=text, capture_output=True, text=True, check=True).stdout
    return round(float(output))


def test_percentiles_are_those_of_sort_and_awk_over_rotated_files(tmp_path: Path) -> None:
    for number, name in enumerate(("access.log", "access.log.1", "access.log.2")):
        write_log(tmp_path / name, 3000, number)
    text = "".join(path.read_text() for path in sorted(tmp_path.iterdir()))
    (tmp_path / "access.log.2.gz").write_bytes(gzip.compress((tmp_path / "access.log.2").read_bytes()))
    (tmp_path / "access.log.2").unlink()
    answer = run_module("access_log_stats", {"paths": [f"{tmp_path}/access.log*"], "period": "2h", "fail_on": "never"})
    assert answer["overall"]["requests"] == 9000
    for route in answer["routes"]:
        name = route["route"].split("/")[2]
        for percent in (50, 95, 99):
            assert route[f"p{percent}_ms"] == pytest.approx(sorted_by_awk(text, name, percent), rel=0.005)
        assert route["max_ms"] == sorted_by_awk(text, name, 100)
    assert answer["overall"]["errors"] == text.count('" 502 ')
    assert answer["overall"]["client_errors"] == text.count('" 404 ')


def test_thresholds_fail_the_task_and_name_the_route(logs: Path) -> None:
    limits = {"error_critical_percent": 50, "min_requests": 4, "p95_warning_ms": 60000}
    answer = run_module("access_log_stats", {"paths": [str(logs / "timed.log")], **limits})
    assert answer["failed"]
    assert "GET /broken: 4 of 4 requests failed" in answer["msg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "access.log").touch(mode=0)
    answer = run_module("access_log_stats", {"paths": [f"{tmp_path}/access.log"]})
    assert answer["status"] == "unknown"


def test_a_missing_file_is_unknown_unless_it_may_be_missing(tmp_path: Path) -> None:
    answer = run_module("access_log_stats", {"paths": [f"{tmp_path}/none.log"]})
    assert (answer["failed"], answer["status"]) == (False, "unknown")
    assert "no such file" in answer["findings"][0]["summary"]
    answer = run_module("access_log_stats", {"paths": [f"{tmp_path}/none.log"], "missing_ok": True})
    assert (answer["findings"], answer["files"], answer["metrics"]) == ([], [], {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"period": "soon"}, "no duration"),
        ({"since": "yesterday"}, "no point in time"),
        ({"log_format": "$status"}, "needs $status and one of"),
        ({"period": "1h", "since": "2026-01-01"}, "mutually exclusive"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, str], told: str) -> None:
    answer = run_module("access_log_stats", {"paths": ["/nowhere"], **arguments})
    assert answer["failed"]
    assert told in answer["msg"]


def test_examples(tmp_path: Path) -> None:
    lines = (
        f'10.0.0.1 - - [{time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())}] "GET /api/orders/{number} HTTP/1.1" '
        f'200 5 "-" "curl" rt=0.{number:03} urt="0.001"\n'
        for number in range(1, 31)
    )
    (tmp_path / "access.log").write_text("".join(lines))
    (tmp_path / "access.log.1").touch()
    output = run_examples("access_log_stats", {"/var/log/nginx": str(tmp_path)})
    assert "GET /api/orders/30" in output
