# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes' parsers, arithmetic, deadlines and verdicts."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._deadline import (
    Deadline,
    DeadlineExceededError,
    Watchdog,
    call_within,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import rank
from ansible_collections.upkeep.ops.plugins.module_utils._probe import Probe, ProbeFailedError, Trace
from ansible_collections.upkeep.ops.plugins.module_utils._probe_answer import (
    body_problems,
    parse_path,
    parse_ranges,
    said,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import not_after
from ansible_collections.upkeep.ops.plugins.module_utils._probe_http import endpoint_of
from ansible_collections.upkeep.ops.plugins.module_utils._probe_local import _judge_unit
from ansible_collections.upkeep.ops.plugins.module_utils._probe_options import (
    as_written,
    find_circle,
    probe_from_options,
    problems,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_rounds import Result, Runner
from ansible_collections.upkeep.ops.plugins.module_utils._probe_verdict import findings
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.platform.parts.certificates import sign

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


# -- Answers


@given(st.lists(st.tuples(st.integers(100, 599), st.integers(0, 99)), min_size=1))
def test_ranges_hold_what_they_say(pairs: list[tuple[int, int]]) -> None:
    texts = [f"{low}-{low + more}" if more else str(low) for low, more in pairs if low + more < 1000]
    codes = {code for codes in parse_ranges(texts) for code in codes}
    assert codes == {code for low, more in pairs for code in range(low, low + more + 1)}


@pytest.mark.parametrize("text", ["", "2xx", "20", "299-200", "200-", "-299", "200,204"])
def test_what_is_no_range_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no status"):
        parse_ranges([text])


KEYS = st.text("abc.-_0 ", min_size=1, max_size=5)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def _leaves(document: Any, path: str = "$") -> list[tuple[str, Any]]:
    """Every JSON path of a document with its value."""
    inside: list[tuple[str, Any]] = [(path, document)] if path != "$" else []
    if isinstance(document, dict):
        for key, value in document.items():
            inside += _leaves(value, f"{path}['{key}']")
    elif isinstance(document, list):
        for index, value in enumerate(document):
            inside += _leaves(value, f"{path}[{index}]")
    return inside


@given(DOCUMENTS)
def test_every_value_is_found_by_its_path(document: Any) -> None:
    assert list(body_problems(json.dumps(document).encode(), "", dict(_leaves(document)), True)) == []


@given(DOCUMENTS)
def test_every_other_value_is_noticed(document: Any) -> None:
    paths = {path: "another value" for path, _value in _leaves(document)}
    assert len(list(body_problems(json.dumps(document).encode(), "", paths, True))) == len(paths)


def test_paths() -> None:
    assert parse_path("$.checks[0].name") == ["checks", 0, "name"]
    assert parse_path("checks.0") == ["checks", "0"]
    assert parse_path("['a.b'][\"c\"]") == ["a.b", "c"]
    for wrong in ("a[", "a[b]", "a..b", "]"):
        with pytest.raises(ValueError, match="is no JSON path"):
            parse_path(wrong)


def test_of_a_failure_only_words_in_json_are_quoted() -> None:
    assert said(b'{"error": "overloaded"}') == """; it says '{"error": "overloaded"}'"""
    assert len(said(b'{"error": "%s"}' % (b"x" * 9999))) < 250
    for page in (b"<html>Bad Gateway</html>", b"", b"[" * 100_000, b'"text"'):
        assert said(page) == ""


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_can_be_a_body(body: bytes, complete: bool) -> None:
    assert len(list(body_problems(body, "no such text", {"a": 1}, complete))) == 2


def test_deep_json_is_no_crash() -> None:
    assert list(body_problems(b"[" * 100_000, "", {"a": 1}, True))


# -- Certificates


@given(st.datetimes(datetime(1999, 1, 1), datetime(2090, 1, 1)))
def test_expiry_is_read_from_any_certificate(moment: datetime) -> None:
    start = moment.replace(microsecond=0, tzinfo=timezone.utc)
    certificate = sign(["example.test"], None, days=1, not_before=start).certificate
    assert not_after(certificate.public_bytes(Encoding.DER)) == start + timedelta(days=1)


@given(st.binary(max_size=100))
def test_expiry_of_nonsense_is_unknown(data: bytes) -> None:
    assert not_after(data) is None


# -- Deadlines


def test_the_watchdog_breaks_off_in_the_order_of_the_deadlines() -> None:
    order: list[str] = []
    finished = threading.Event()
    watchdog = Watchdog()

    def end() -> None:
        order.append("late")
        finished.set()

    with watchdog.watch(0.2) as late, watchdog.watch(0.05) as early, watchdog.watch(0.02) as done:
        late.guard(end)
        early.guard(lambda: order.append("early"))
        done.guard(lambda: order.append("done"))
        done.done()
        assert finished.wait(5)
    assert order == ["early", "late"]


def test_what_is_guarded_too_late_is_broken_off_at_once() -> None:
    deadline = Deadline(0)
    deadline.expire()
    broken: list[bool] = []
    deadline.guard(lambda: broken.append(True))
    assert broken == [True]
    with pytest.raises(DeadlineExceededError):
        deadline.remaining()


def test_a_call_that_hangs_is_left_behind() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        call_within(Deadline(0.05), lambda: time.sleep(5))
    assert time.monotonic() - started < 4
    assert call_within(Deadline(5), lambda: "in time") == "in time"
    with pytest.raises(ZeroDivisionError):
        call_within(Deadline(5), lambda: 1 / 0)


# -- Options


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3)))
def test_a_circle_is_one(parents: dict[str, list[str]]) -> None:
    circle = find_circle(parents)
    if circle:
        assert circle[0] == circle[-1]
        assert all(parent in parents[child] for child, parent in zip(circle, circle[1:]))
        return
    # Without a circle there is always one without parents to take away.
    left = dict(parents)
    while left:
        free = [name for name in left if not any(parent in left for parent in left[name])]
        assert free
        for name in free:
            del left[name]


def test_options_become_probes() -> None:
    probe = probe_from_options({"name": "a", "timeout": None, "status": ["200"], "body": [1], "json": {"a": 1}}, 3)
    assert (probe.timeout, probe.status, probe.body, probe.json) == (3, ("200",), [1], {"a": 1})
    assert problems([Probe("a", url="http://127.0.0.1:99999/")]) == ["a: Port out of range 0-65535"]
    assert problems([Probe("a", type="tcp", timeout=0)]) == [
        "a: timeout, attempts and max_bytes must be above 0, interval must not be below"
    ]


def test_the_invocation_names_what_was_written() -> None:
    params = {
        "timeout": 10,
        "probes": [{"name": "a", "type": "http", "method": "HEAD", "status": ["200-299"], "body": None}],
    }
    assert as_written(params) == {"timeout": 10, "probes": [{"name": "a", "method": "HEAD"}]}


def test_where_a_url_is_asked() -> None:
    def where(url: str, **probe: Any) -> tuple[str, int, str, bool]:
        endpoint = endpoint_of(url, Probe("a", **probe))
        return endpoint.host, endpoint.port, endpoint.server_name, endpoint.tls

    assert where("http://www.example.org/x") == ("www.example.org", 80, "www.example.org", False)
    assert where("https://[::1]:8443/") == ("::1", 8443, "::1", True)
    assert where("https://www.example.org/", host="10.0.0.1", port=8443) == ("10.0.0.1", 8443, "www.example.org", True)
    with pytest.raises(ProbeFailedError, match="not encrypted"):
        endpoint_of("http://www.example.org/", Probe("a", type="https"))


# -- Rounds


def test_nobody_waits_for_an_interval_in_a_worker() -> None:
    """Thirty probes that fail share two workers; one after the other the intervals alone would take 3 s."""
    tries: dict[str, int] = {}

    def fail(probe: Probe, _trace: Trace) -> str:
        tries[probe.name] = tries.get(probe.name, 0) + 1
        raise ProbeFailedError("no")

    started = time.monotonic()
    results = Runner({"tcp": fail}, 2).run([Probe(f"p{n}", type="tcp", attempts=3, interval=0.05) for n in range(30)])
    assert time.monotonic() - started < 2.8
    assert set(tries.values()) == {3}
    assert {result.attempts for result in results} == {3}


def test_a_probe_that_breaks_takes_no_other_with_it() -> None:
    def probe_tcp(probe: Probe, _trace: Trace) -> str:
        return {"good": "answered"}[probe.name]

    results = Runner({"tcp": probe_tcp}, 2).run([Probe("good", type="tcp"), Probe("bad", type="tcp")])
    assert [result.outcome for result in results] == ["passed", "unknown"]
    assert "KeyError" in results[1].summary


def test_no_probes_are_no_failure() -> None:
    assert Runner({}, 20).run([]) == []


# -- Verdicts


def _result(
    name: str, outcome: str = "passed", total_ms: float = 10, expires_days: float | None = None, **probe: Any
) -> Result:
    trace = Trace(Deadline(1))
    trace.phases["total"] = total_ms / 1000
    if expires_days is not None:
        trace.certificate_expires = NOW + timedelta(days=expires_days)
    return Result(Probe(name, type="tcp", **probe), outcome, "said", "", trace)


@pytest.mark.parametrize(
    ("days", "status"), [(31, "ok"), (30, "warning"), (8, "warning"), (7, "critical"), (-1, "critical")]
)
def test_days_of_the_certificate(days: float, status: str) -> None:
    result = _result("a", expires_days=days, certificate_warning_days=30, certificate_critical_days=7)
    assert findings([result], NOW)[0].status == status


def test_severity() -> None:
    found = findings(
        [
            _result("failed", "failed"),
            _result("minor", "failed", critical=False),
            _result("unmeasured", "unknown"),
            _result("slow", total_ms=50, latency_critical_ms=50),
        ],
        NOW,
    )
    assert [finding.status for finding in found] == ["critical", "warning", "unknown", "critical"]


@given(st.lists(st.tuples(st.sampled_from(["passed", "failed", "unknown"]), st.booleans()), min_size=2, max_size=6))
def test_somebody_is_always_told_of_the_worst(states: list[tuple[str, bool]]) -> None:
    """A chain in which each depends on the one before: at least one finding of the worst status has no parent."""
    results = [
        _result(str(n), outcome, critical=critical, depends_on=(str(n - 1),) if n else ())
        for n, (outcome, critical) in enumerate(states)
    ]
    found = findings(results, NOW)
    worst = max(rank(finding.status) for finding in found)
    assert any(not finding.parent for finding in found if rank(finding.status) == worst)


def test_units_of_systemd() -> None:
    state = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MainPID": "7", "Result": "success"}
    assert _judge_unit("x.service", state) == "the unit is active (running), pid 7"
    with pytest.raises(ProbeFailedError, match=r"failed \(failed\), result exit-code"):
        _judge_unit("x.service", {**state, "ActiveState": "failed", "SubState": "failed", "Result": "exit-code"})
    with pytest.raises(ProbeFailedError, match="there is no unit"):
        _judge_unit("x.service", {**state, "LoadState": "not-found", "ActiveState": "inactive"})
