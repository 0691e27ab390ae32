# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long something was up, down, in maintenance or unobserved, from single observations. Pure arithmetic of time.

Counting observations misleads: a probe that is tried again while it fails is counted too often. Here each observation
vouches for the time until the next one, at most for ``max_gap``; what nobody vouches for is unknown and belongs to
no figure. Points in time are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UP, DOWN, PLANNED, UNKNOWN = "up", "down", "planned", "unknown"


@dataclass(frozen=True)
class Span:
    """A half-open stretch of time, ``begin`` to ``end``, in one state."""

    begin: float
    end: float
    state: str

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Observation:
    """What was seen of something at a moment: up, down or unknown."""

    at: float
    state: str


@dataclass(frozen=True)
class Failure:
    """A stretch of being down. ``seconds`` is the observed downtime in it; ``recovered`` tells whether it has ended."""

    begin: float
    end: float
    seconds: float
    recovered: bool


@dataclass(frozen=True)
class Uptime:
    """Seconds of a period in each state, and its failures in the order of time."""

    up: float
    down: float
    planned: float
    unknown: float
    failures: tuple[Failure, ...]

    @property
    def measured(self) -> float:
        """Seconds of which it is known whether the service was to be up and was."""
        return self.up + self.down

    @property
    def percent(self) -> float | None:
        """Share of the measured time that it was up; None when nothing was measured."""
        return 100 * self.up / self.measured if self.measured else None

    @property
    def mttr(self) -> float | None:
        """Mean time to recovery in seconds: downtime by number of failures; None without failures."""
        return self.down / len(self.failures) if self.failures else None

    @property
    def mtbf(self) -> float | None:
        """Mean time between failures in seconds: time up by number of failures; None without failures."""
        return self.up / len(self.failures) if self.failures else None


def timeline(observations: Iterable[Observation], begin: float, end: float, max_gap: float) -> list[Span]:
    """The period from ``begin`` to ``end`` without holes, as spans of up, down and unknown.

    Observations before the period are welcome: the last of them vouches for the beginning.
    """
    ordered = sorted(observations, key=lambda seen: seen.at)
    spans: list[Span] = []
    at = begin
    for index, seen in enumerate(ordered):
        until = ordered[index + 1].at if index + 1 < len(ordered) else end
        first, last = max(seen.at, begin), min(seen.at + max_gap, until, end)
        if last <= first:
            continue
        if first > at:
            spans.append(Span(at, first, UNKNOWN))
        spans.append(Span(first, last, seen.state))
        at = last
    if at < end:
        spans.append(Span(at, end, UNKNOWN))
    return _joined(spans)


def merged(windows: Iterable[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    """The union of stretches of time, cut to the period, in order and without overlaps."""
    union: list[tuple[float, float]] = []
    for first, last in sorted((max(first, begin), min(last, end)) for first, last in windows):
        if last <= first:
            continue
        if union and first <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], last))
        else:
            union.append((first, last))
    return union


def with_planned(spans: Sequence[Span], windows: Sequence[tuple[float, float]]) -> list[Span]:
    """The same time, with what was not up inside planned windows told as planned.

    ``windows`` are those of :func:`merged`. Time up in a window stays up: users were served.
    """
    cuts = sorted({edge for window in windows for edge in window})
    result: list[Span] = []
    for span in spans:
        edges = [span.begin, *(cut for cut in cuts if span.begin < cut < span.end), span.end]
        for first, last in zip(edges, edges[1:]):
            inside = any(begin <= first and last <= end for begin, end in windows)
            result.append(Span(first, last, PLANNED if inside and span.state != UP else span.state))
    return _joined(result)


def combined(timelines: Sequence[Sequence[Span]]) -> list[Span]:
    """The platform as a whole: down while any service is down, unknown or planned while any is, else up.

    All timelines cover the same period. A service that is down outweighs one that is not observed.
    """
    edges = sorted({edge for spans in timelines for span in spans for edge in (span.begin, span.end)})
    positions = [0] * len(timelines)
    result: list[Span] = []
    for first, last in zip(edges, edges[1:]):
        states = set()
        for index, spans in enumerate(timelines):
            while spans[positions[index]].end <= first:
                positions[index] += 1
            states.add(spans[positions[index]].state)
        result.append(Span(first, last, next(state for state in (DOWN, UNKNOWN, PLANNED, UP) if state in states)))
    return _joined(result)


def uptime(spans: Sequence[Span]) -> Uptime:
    """The figures of a timeline."""
    seconds = dict.fromkeys((UP, DOWN, PLANNED, UNKNOWN), 0.0)
    for span in spans:
        seconds[span.state] += span.seconds
    return Uptime(seconds[UP], seconds[DOWN], seconds[PLANNED], seconds[UNKNOWN], tuple(_failures(spans)))


def _failures(spans: Sequence[Span]) -> list[Failure]:
    """Stretches of being down. Only being up ends a failure, not what is unobserved or planned after it."""
    failures: list[Failure] = []
    for span in spans:
        if span.state == DOWN:
            if failures and not failures[-1].recovered:
                last = failures.pop()
                failures.append(Failure(last.begin, span.end, last.seconds + span.seconds, recovered=False))
            else:
                failures.append(Failure(span.begin, span.end, span.seconds, recovered=False))
        elif span.state == UP and failures and not failures[-1].recovered:
            last = failures.pop()
            failures.append(Failure(last.begin, last.end, last.seconds, recovered=True))
    return failures


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of one state as one span."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].state == span.state and joined[-1].end == span.begin:
            joined[-1] = Span(joined[-1].begin, span.end, span.state)
        else:
            joined.append(span)
    return joined
