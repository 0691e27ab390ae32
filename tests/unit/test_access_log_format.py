# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of access logs: what is read out of a line, and that no line whatever breaks the reading."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _access_log_format as formats
from hypothesis import given
from hypothesis import strategies as st

COMBINED = b'10.0.0.1 - - [23/Nov/2026:15:25:06 +0000] "GET /a/7?token=x HTTP/1.1" 200 512 "-" "curl/7.88.1"'
TIMED = COMBINED + b' rt=0.123 urt="0.100, 0.020"'

#: Every format with one line of it.
EVERY = {
    "combined": (formats.combined(), TIMED),
    "json": (formats.JsonLines(), b'{"time":"2026-11-23T15:25:06Z","request":"GET /a/7?t=1 HTTP/1.1","status":200}'),
    "log_format": (
        formats.from_log_format('$remote_addr [$time_local] "$request" $status $body_bytes_sent $request_time'),
        b'10.0.0.1 [23/Nov/2026:15:25:06 +0000] "GET /a/7?token=x HTTP/1.1" 200 512 0.123',
    ),
    "pattern": (
        formats.from_pattern(r"(?P<method>[A-Z]+) (?P<path>[^ ?]+)\S* -> (?P<status>\d+) in (?P<seconds>[\d.]+)s"),
        b"GET /a/7?token=x -> 200 in 0.123s",
    ),
}


def only(reader: formats.Format, line: bytes) -> formats.Record:
    records, malformed = reader.records(line + b"\n")
    assert (len(records), malformed) == (1, 0)
    return records[0]


def test_combined_with_times() -> None:
    assert only(formats.combined(), TIMED) == (
        b"23/Nov/2026:15:25:06 +0000",
        b"GET /a/7",
        b"200",
        b"512",
        b"0.123",
        b"0.100, 0.020",
    )


@pytest.mark.parametrize(
    ("tail", "seconds", "upstream"),
    [
        (b"", b"", b""),
        (b" rt=0.5", b"0.5", b""),
        (b' rt="0.5" urt="-"', b"0.5", b""),
        (b' "10.2.3.4" rt=0.5 uct="0.001" urt="0.4"', b"0.5", b"0.4"),
        (b" request_time=0.5 upstream_response_time=0.4", b"0.5", b"0.4"),
        (b" urt=0.4", b"", b"0.4"),
    ],
)
def test_what_stands_behind_combined(tail: bytes, seconds: bytes, upstream: bytes) -> None:
    assert only(formats.combined(), COMBINED + tail)[4:] == (seconds, upstream)


@pytest.mark.parametrize("request_line", [b"", b"-", b"\\x16\\x03\\x01", b"\\x22quoted\\x22"])
def test_what_is_no_request_is_a_line_all_the_same(request_line: bytes) -> None:
    line = COMBINED.replace(b"GET /a/7?token=x HTTP/1.1", request_line).replace(b" 200 ", b" 400 ")
    assert only(formats.combined(), line)[1:3] == (b"", b"400")


def test_common_format_without_referer() -> None:
    assert only(formats.combined(), COMBINED.split(b' "-"')[0])[1:4] == (b"GET /a/7", b"200", b"512")


def test_custom_format_in_any_order() -> None:
    reader = formats.from_log_format(
        "$request_time|$status|$remote_user|$request_method|$uri|$time_iso8601|$upstream_response_time|$bytes_sent"
    )
    line = b"1.250|503|-|POST|/x|2026-11-23T15:25:06+00:00|0.010, 0.020 : 0.003|77"
    assert only(reader, line) == (
        b"2026-11-23T15:25:06+00:00",
        b"POST /x",
        b"503",
        b"77",
        b"1.250",
        b"0.010, 0.020 : 0.003",
    )


def test_custom_format_passes_over_lists_with_spaces() -> None:
    reader = formats.from_log_format("$remote_addr $http_x_forwarded_for [$time_local] ${status} $request_uri")
    assert only(reader, b"1.2.3.4 9.9.9.9, 8.8.8.8 [23/Nov/2026:15:25:06 +0000] 404 /x?y=1")[1:3] == (b" /x", b"404")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: formats.from_log_format("$request"), "needs $status"),
        (lambda: formats.from_log_format("$status"), r"\$request"),
        (lambda: formats.from_pattern("("), "named groups"),
        (lambda: formats.from_pattern("(?P<status>.)(?P<path>."), "no regular expression"),
        (lambda: formats.from_pattern("(?P<status>.)(?P<path>.)(?P<ip>.)"), "unknown group ip"),
        (lambda: formats.from_pattern("(?P<status>.)(?P<path>.)(?P<target>.)"), "both"),
    ],
)
def test_a_format_that_cannot_be_used_says_why(make: object, told: str) -> None:
    with pytest.raises(formats.FormatError, match=told.replace("$s", r"\$s")):
        make()  # type: ignore[operator]


def test_json_with_separate_fields_and_other_names() -> None:
    line = json.dumps({"ts": 1795447506.5, "method": "GET", "uri": "/a?b", "status": "200", "rt": 0.2}).encode()
    assert only(formats.JsonLines(), line) == (b"1795447506.5", b"GET /a", b"200", b"", b"0.2", b"")


def test_detection() -> None:
    assert formats.detect(b'\n {"a": 1}\n').name == "json"
    assert formats.detect(TIMED).name == "combined"
    assert formats.detect(b"").name == "combined"


@pytest.mark.parametrize("name", EVERY)
@given(before=st.binary(max_size=60), after=st.binary(max_size=60), cut=st.integers(0, 80))
def test_no_line_breaks_the_reading_and_the_counts_add_up(name: str, before: bytes, after: bytes, cut: int) -> None:
    reader, good = EVERY[name]
    block = good + b"\n" + before + b"\n" + good[:cut] + after + b"\n\n" + good + b"\n"
    records, malformed = reader.records(block)
    assert len(records) + malformed == sum(1 for line in block.split(b"\n") if line.strip())
    assert len(records) >= 2
    for record in records:
        assert len(record) == 6
        formats.epoch(record[0], {})


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_local_times_are_read_as_they_were_written(moment: datetime, zone: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=timezone.utc)
    shifted = moment.timestamp() + zone * 60
    sign = "-" if zone < 0 else "+"
    told = datetime.fromtimestamp(shifted, timezone.utc).strftime("%d/%b/%Y:%H:%M:%S")
    text = f"{told} {sign}{abs(zone) // 60:02}{abs(zone) % 60:02}"
    assert formats.epoch(text.encode(), {}) == moment.timestamp()


@pytest.mark.parametrize(
    "token", [b"", b"-", b"31/Foo/2026:00:00:00 +0000", b"aa/Nov/2026:00:00:00 +0000", b"\xff\xfe"]
)
def test_what_is_no_time_is_none(token: bytes) -> None:
    assert formats.epoch(token, {}) is None


def test_other_times() -> None:
    assert formats.epoch(b"1795447506.250", {}) == 1795447506.25
    assert formats.epoch(b"2026-11-23T15:25:06+00:00", {}) == 1795447506.0
