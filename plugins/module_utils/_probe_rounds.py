# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes many probes at once: rounds of attempts, and what looks slow is timed again alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import DeadlineExceededError, Watchdog
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import judge
from ansible_collections.upkeep.ops.plugins.module_utils._probe import (
    NotMeasurableError,
    Probe,
    ProbeFailedError,
    Prober,
    Trace,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import Connector, trust_of
from ansible_collections.upkeep.ops.plugins.module_utils._probe_http import http_prober
from ansible_collections.upkeep.ops.plugins.module_utils._probe_local import probe_command, probe_process
from ansible_collections.upkeep.ops.plugins.module_utils._probe_redis import redis_prober
from ansible_collections.upkeep.ops.plugins.module_utils._probe_servers import (
    firestore_prober,
    tcp_prober,
    tls_prober,
)

#: Types whose latency is that of a server, and which can be asked twice without harm.
TIMED_TYPES = ("http", "https", "tcp", "tls", "redis", "firestore")

#: Seconds after which no more slow probes are timed again alone.
_ALONE_BUDGET = 10.0

#: Seconds a thread may compute while others wait; Python's own 5 ms would show in every figure.
_SWITCH_INTERVAL = 0.0005


@dataclass(frozen=True)
class Result:
    """How a probe ended: ``outcome`` is passed, failed or unknown, ``trace`` is that of its last attempt."""

    probe: Probe
    outcome: str
    summary: str
    hint: str
    trace: Trace
    attempts: int = 1
    alone: bool = False

    @property
    def total_ms(self) -> float:
        """Milliseconds of the last attempt."""
        return self.trace.milliseconds()["total_ms"]

    @property
    def latency(self) -> tuple[str, float | None]:
        """Status of the latency, and the limit in ms that decided it."""
        return judge(self.total_ms, self.probe.latency_warning_ms, self.probe.latency_critical_ms)


def make_probers(probes: Sequence[Probe], connector: Connector) -> dict[str, Prober]:
    """A prober for each type that occurs; libraries are loaded for these alone."""
    factories: Mapping[str, Callable[[], Prober]] = {
        "http": lambda: http_prober(connector),
        "https": lambda: http_prober(connector),
        "tcp": lambda: tcp_prober(connector),
        "tls": lambda: tls_prober(connector),
        "redis": lambda: redis_prober(connector),
        "firestore": firestore_prober,
        "process": lambda: probe_process,
        "command": lambda: probe_command,
    }
    probers = {}
    for kind in {probe.type for probe in probes}:
        try:
            probers[kind] = factories[kind]()
        except MissingDependencyError as error:
            probers[kind] = _refuser(NotMeasurableError(*str(error).split(". ", 1)))
    for probe in probes:
        if probe.tls or probe.type == "tls" or probe.url.startswith("https:"):
            connector.prepare(trust_of(probe))
    return probers


def _refuser(error: NotMeasurableError) -> Prober:
    def refuse(_probe: Probe, _trace: Trace) -> str:
        raise error

    return refuse


class Runner:
    """Runs probes with up to ``concurrency`` at a time."""

    def __init__(
        self,
        probers: Mapping[str, Prober],
        concurrency: int,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probers = probers
        self._concurrency = concurrency
        self._sleep = sleep
        self._clock = clock
        self._watchdog = Watchdog()

    def run(self, probes: Sequence[Probe]) -> list[Result]:
        """The results, in the order of the probes."""
        with _short_switches():
            results = self._rounds(probes)
            return self._slow_ones_alone(results) if min(self._concurrency, len(probes)) > 1 else results

    def _rounds(self, probes: Sequence[Probe]) -> list[Result]:
        """Rounds of attempts: who failed goes into the next one, and waits there for its interval only."""
        results: dict[str, Result] = {}
        due: list[tuple[float, Probe]] = [(self._clock(), probe) for probe in probes]
        with ThreadPoolExecutor(max(1, min(self._concurrency, len(probes)))) as workers:
            attempt = 0
            while due:
                attempt += 1
                for result in workers.map(self._attempt_when_due, due):
                    results[result.probe.name] = replace(result, attempts=attempt)
                due = [
                    (self._clock() + probe.interval, probe)
                    for _moment, probe in due
                    if results[probe.name].outcome == "failed" and attempt < probe.attempts
                ]
                due.sort(key=lambda item: item[0])
        return [results[probe.name] for probe in probes]

    def _attempt_when_due(self, item: tuple[float, Probe]) -> Result:
        moment, probe = item
        wait = moment - self._clock()
        if wait > 0:
            self._sleep(wait)
        return self._attempt(probe)

    def _attempt(self, probe: Probe) -> Result:
        with self._watchdog.watch(probe.timeout) as deadline:
            trace = Trace(deadline)
            outcome, hint = "failed", ""
            try:
                summary = self._probers[probe.type](probe, trace)
                deadline.remaining()
                outcome = "passed"
            except DeadlineExceededError:
                summary, hint = silence(probe, trace)
            except NotMeasurableError as error:
                outcome, summary, hint = "unknown", error.summary, error.hint
            except ProbeFailedError as error:
                summary, hint = error.summary, error.hint
            except Exception as error:
                # One probe that breaks must not take the others' results with it.
                outcome, summary = "unknown", f"the probe itself broke: {type(error).__name__}: {error}"
            trace.reached("total")
        return Result(probe, outcome, summary, hint, trace)

    def _slow_ones_alone(self, results: Sequence[Result]) -> list[Result]:
        """Time again what is above its limits, one after the other: beside others it may only seem slow."""
        end = self._clock() + _ALONE_BUDGET
        final = []
        for result in results:
            suspect = result.outcome == "passed" and result.probe.type in TIMED_TYPES and result.latency[0] != "ok"
            if suspect and self._clock() < end:
                result = replace(self._rounds([result.probe])[0], alone=True)
            final.append(result)
        return final


def silence(probe: Probe, trace: Trace) -> tuple[str, str]:
    """What is said, and advised, of a probe that was broken off by its deadline."""
    if probe.type == "command":
        return (
            f"{probe.argv[0]} did not end within {probe.timeout:.1f} s and was killed",
            "Run the command by hand on this host",
        )
    connected = f"connected in {trace.phases.get('connect', 0) * 1000:.0f} ms, then"
    first = trace.phases.get("ttfb", 0) * 1000
    explained = {
        "dns": ("the name look-up did not end", "Check the resolver of this host"),
        "connect": ("no connection", "Check whether the host is up, routes and firewalls"),
        "tls": (f"{connected} no TLS handshake", "Check whether the port speaks TLS, and the server's load"),
        "answer": (
            f"{connected} only {trace.bytes_read} bytes, the first after {first:.0f} ms"
            if trace.bytes_read
            else f"{connected} silence",
            "Look at the service's log and load: it accepts, but does not answer",
        ),
    }
    why, hint = explained.get(trace.step, ("", "Check the network and the service's log"))
    return f"no answer within {probe.timeout:.1f} s" + (f" ({why})" if why else ""), hint


@contextmanager
def _short_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
