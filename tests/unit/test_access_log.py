# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting per route: names, caps, the period, and figures against sorted lists."""

from __future__ import annotations

import gzip
import io
import math
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._access_log import (
    OTHER,
    AccessLogCounter,
    RouteNames,
    Thresholds,
    judge_logs,
    read_logs,
    rounded,
)
from ansible_collections.upkeep.ops.plugins.module_utils._access_log_files import blocks, enter, expand
from ansible_collections.upkeep.ops.plugins.module_utils._access_log_format import Record
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2026, 11, 23, tzinfo=timezone.utc)
ALL = 1 << 40


def line(second: int, path: str = "/a", status: int = 200, seconds: str = "0.010") -> str:
    at = (START + timedelta(seconds=second)).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return f'10.0.0.1 - - [{at}] "GET {path} HTTP/1.1" {status} 100 "-" "curl" rt={seconds}\n'


def record(target: str = "GET /a", status: str = "200", seconds: str = "0.010", at: str = "1795392000") -> Record:
    return at.encode(), target.encode(), status.encode(), b"100", seconds.encode(), b""


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/orders/17", "/api/orders/:id"),
        ("/api/orders/17/items/4", "/api/orders/:id/items/:id"),
        ("/api/v2/orders", "/api/v2/orders"),
        ("/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/u/:id/x"),
        ("/u/507f1f77bcf86cd799439011", "/u/:id"),
        ("/docs/Zq3bT9xYw1LmN0pQ7rSt", "/docs/:id"),
        ("/docs/getting-started-with-redis", "/docs/getting-started-with-redis"),
        ("/documentation", "/documentation"),
        ("/users/ann@example.org/mail", "/users/:id/mail"),
        ("/users/ann%40example.org", "/users/:id"),
        ("/static/app.3f2a9c1b.js", "/static/app.:id.js"),
        ("/static/app.min.js", "/static/app.min.js"),
        ("/", "/"),
    ],
)
def test_identifiers_are_folded(path: str, route: str) -> None:
    assert RouteNames([]).name(f"GET {path}".encode()) == f"GET {route}"


def test_templates_go_before_folding_and_the_first_one_wins() -> None:
    names = RouteNames(["GET /shop/:shop/item", "/shop/*", "/x.y"])
    assert names.name(b"GET /shop/berlin/item") == "GET /shop/:shop/item"
    assert names.name(b"POST /shop/berlin/item") == "POST /shop/*"
    assert names.name(b"GET /xzy") == "GET /xzy"
    assert names.name(b"GET /orders/7") == "GET /orders/:id"
    assert names.name(b"") == "(no request)"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["200", "404", "500"]), st.integers(0, 999)), min_size=1)
)
def test_figures_are_those_of_sorted_lists(requests: list[tuple[str, str, int]]) -> None:
    counter = AccessLogCounter(RouteNames([]), keep=3)
    counter.add([record(f"GET /{name}", status, f"{ms / 1000:.3f}") for name, status, ms in requests])
    result = counter.result()
    assert result["overall"]["requests"] == len(requests) == sum(route["requests"] for route in result["routes"])
    for route in result["routes"]:
        times = sorted(ms for name, _status, ms in requests if f"GET /{name}" == route["route"])
        assert route["p95_ms"] == times[math.ceil(len(times) * 0.95) - 1]
        assert route["max_ms"] == times[-1]
    assert result["overall"]["errors"] == sum(status == "500" for _name, status, _ms in requests)
    slowest = sorted((ms for _name, _status, ms in requests), reverse=True)[:3]
    assert [request["ms"] for request in result["slowest"]] == slowest


@given(st.integers(0, 10**8))
def test_rounding_keeps_three_digits(milliseconds: int) -> None:
    assert abs(rounded(milliseconds) - milliseconds) <= milliseconds * 0.005
    if milliseconds < 1000:
        assert rounded(milliseconds) == milliseconds


def test_lists_of_upstreams_are_added_and_a_dash_is_none() -> None:
    counter = AccessLogCounter(RouteNames([]))
    counter.add([(*record()[:5], b"0.010, 0.020 : 0.003"), (*record()[:5], b"-"), (*record()[:5], b"-, 0.033")])
    assert counter.result()["overall"]["upstream_p95_ms"] == 33


def test_scanners_do_not_push_the_real_routes_out() -> None:
    counter = AccessLogCounter(RouteNames([]), max_routes=2)
    counter.add([record(f"GET /scan{letter}{other}") for letter in "abcdefgh" for other in "abcdefgh"])
    counter.add([record("GET /real")] * 100)
    assert len(counter._routes) <= 2 * 20 + 1
    late = counter.result()
    assert [route["route"] for route in late["routes"]][-1] == OTHER
    assert late["overall"]["requests"] == 164

    counter = AccessLogCounter(RouteNames([]), max_routes=2)
    counter.add([record("GET /real")] * 100 + [record(f"GET /scan{letter}") for letter in "abcdefgh"])
    assert [(route["route"], route["requests"]) for route in counter.result()["routes"]] == [
        ("GET /real", 100),
        ("GET /scana", 1),
        (OTHER, 7),
    ]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of one day, one line a second, a little out of order, larger than several blocks."""
    path = tmp_path_factory.mktemp("logs") / "access.log"
    path.write_text("".join(line(second ^ 3) for second in range(86400)))
    end = START.timestamp() + 86400
    os.utime(path, (end, end))
    return path


def test_of_a_plain_file_only_the_period_is_read(day: Path) -> None:
    since = (START + timedelta(hours=23)).timestamp()
    counter = AccessLogCounter(RouteNames([]), since)
    (report,) = read_logs([str(day)], counter, None, since, ALL)
    assert report.requests == 3600
    assert report.bytes_read < day.stat().st_size / 8
    assert counter.first == since


@settings(deadline=None, max_examples=20)
@given(hours=st.floats(0, 23.9), length=st.floats(0, 24))
def test_bisection_loses_nothing(day: Path, hours: float, length: float) -> None:
    since = START.timestamp() + hours * 3600
    until = since + length * 3600
    counter = AccessLogCounter(RouteNames([]), since, until)
    read_logs([str(day)], counter, None, since, ALL)
    seconds = range(math.ceil(since), min(int(START.timestamp()) + 86399, math.floor(until)) + 1)
    assert counter.result()["overall"]["requests"] == len(seconds)


def test_a_file_last_written_before_the_period_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "access.log.1"
    path.write_text(line(0))
    os.utime(path, (0, START.timestamp()))
    (report,) = read_logs([str(path)], AccessLogCounter(RouteNames([])), None, START.timestamp() + 60, ALL)
    assert (report.bytes_read, report.problem, report.complete) == (0, "", True)


def test_the_limit_keeps_the_newest_lines_and_says_so(day: Path) -> None:
    counter = AccessLogCounter(RouteNames([]))
    (report,) = read_logs([str(day)], counter, None, -math.inf, 100_000)
    assert not report.complete
    assert report.malformed == 0
    assert report.bytes_read <= 100_000
    assert counter.last == (START + timedelta(seconds=86399)).timestamp()
    (finding, *_) = judge_logs(counter.result(), [report], Thresholds(), START)
    assert (finding.status, finding.hint) == ("warning", "Raise max_bytes or shorten the period")


def test_a_truncated_archive_is_unknown_and_what_it_held_is_counted(tmp_path: Path) -> None:
    whole = gzip.compress("".join(line(second) for second in range(50_000)).encode())
    path = tmp_path / "access.log.2.gz"
    path.write_bytes(whole[: len(whole) // 2])
    counter = AccessLogCounter(RouteNames([]))
    (report,) = read_logs([str(path)], counter, None, -math.inf, ALL)
    assert report.requests > 0
    (finding, *_) = judge_logs(counter.result(), [report], Thresholds(), START)
    assert finding.status == "unknown"
    assert "only in part" in finding.summary
    assert "end-of-stream" in finding.summary


def test_a_flipped_byte_in_an_archive_is_unknown(tmp_path: Path) -> None:
    data = bytearray(gzip.compress("".join(line(second) for second in range(5_000)).encode()))
    data[len(data) // 2] ^= 0x55
    path = tmp_path / "access.log.2.gz"
    path.write_bytes(bytes(data))
    (report,) = read_logs([str(path)], AccessLogCounter(RouteNames([])), None, -math.inf, ALL)
    assert report.problem


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "access.log")  # type: ignore[operator]
    (report,) = read_logs([str(tmp_path / "access.log")], AccessLogCounter(RouteNames([])), None, -math.inf, ALL)
    assert "no regular file" in report.problem


def test_overlapping_patterns_count_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line(0))
    (tmp_path / "b.log").symlink_to("a.log")
    (tmp_path / "dead.log").symlink_to("nowhere")
    files, missing = expand([f"{tmp_path}/*.log", f"{tmp_path}/a.log", f"{tmp_path}/none*"])
    assert files == [str(tmp_path / "a.log")]
    assert missing == [str(tmp_path / "dead.log"), f"{tmp_path}/none*"]


@given(st.binary(max_size=3000), st.integers(1, 4000))
def test_blocks_hold_every_byte_up_to_the_limit(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, limit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks"
    path.write_bytes(data)
    with path.open("rb") as stream:
        read = b"".join(blocks(stream, limit))
    wanted = data[:limit]
    assert read == (wanted if wanted.endswith(b"\n") or not wanted else wanted + b"\n")


@pytest.mark.parametrize(("position", "found"), [(0, 0), (1, 3), (2, 3), (3, 3), (4, 6), (6, 6)])
def test_a_line_is_entered_at_its_start(position: int, found: int) -> None:
    assert enter(io.BytesIO(b"ab\ncd\n"), position) == found


def test_an_endless_line_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"x" * 5_000_000 + b"\n" + line(1).encode())
    (report,) = read_logs([str(path)], AccessLogCounter(RouteNames([])), None, -math.inf, ALL)
    assert report.requests == 1
    assert report.malformed >= 1


def test_judging() -> None:
    counter = AccessLogCounter(RouteNames([]))
    counter.add(
        [record("GET /slow", seconds="2.000")] * 20 + [record("GET /bad", "500")] * 20 + [record("GET /few", "500")]
    )
    thresholds = Thresholds(500, 1000, 1, 60, min_requests=20)
    found = {(f.check, f.subject): f.status for f in judge_logs(counter.result(), [], thresholds, START)}
    assert found == {
        ("error_rate", "all routes"): "warning",
        ("response_time", "all routes"): "critical",
        ("error_rate", "GET /slow"): "ok",
        ("response_time", "GET /slow"): "critical",
        ("error_rate", "GET /bad"): "critical",
        ("response_time", "GET /bad"): "ok",
    }
