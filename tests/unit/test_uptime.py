# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time weighted uptime against hand-computed stretches, and against a second by second model."""

from __future__ import annotations

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._uptime import (
    DOWN,
    PLANNED,
    UNKNOWN,
    UP,
    Failure,
    Observation,
    Span,
    combined,
    merged,
    timeline,
    uptime,
    with_planned,
)
from hypothesis import given
from hypothesis import strategies as st

END = 200
_STATES = st.sampled_from([UP, DOWN, UNKNOWN])
_OBSERVATIONS = st.lists(
    st.builds(Observation, st.integers(-50, END), _STATES), max_size=25, unique_by=lambda seen: seen.at
)
_WINDOWS = st.lists(st.tuples(st.integers(-20, END), st.integers(-20, END + 20)), max_size=5)
_GAPS = st.integers(1, 60)


def test_an_outage_counts_by_its_time_and_not_by_its_probes() -> None:
    """Ten minutes of a day, probed each minute while up and each 20 s while down: counting says 97.945 %."""
    down = range(43_200, 43_800, 20)
    up = [second for second in range(0, 86_400, 60) if not 43_200 <= second < 43_800]
    seen = [Observation(at, DOWN) for at in down] + [Observation(at, UP) for at in up]
    figures = uptime(timeline(seen, 0, 86_400, 180))
    assert (figures.up, figures.down, figures.unknown) == (85_800, 600, 0)
    assert figures.percent == pytest.approx(99.306, abs=0.001)
    assert figures.failures == (Failure(43_200, 43_800, 600, recovered=True),)
    assert (figures.mttr, figures.mtbf) == (600, 85_800)


def test_nobody_vouches_for_a_gap() -> None:
    seen = [Observation(0, UP), Observation(100, UP)]
    assert timeline(seen, 0, 200, 30) == [
        Span(0, 30, UP),
        Span(30, 100, UNKNOWN),
        Span(100, 130, UP),
        Span(130, 200, UNKNOWN),
    ]
    assert uptime(timeline([], 0, 200, 30)).percent is None


def test_the_last_observation_before_the_period_vouches_for_its_beginning() -> None:
    seen = [Observation(-20, DOWN), Observation(10, UP)]
    assert timeline(seen, 0, 40, 60) == [Span(0, 10, DOWN), Span(10, 40, UP)]


def test_a_gap_within_an_outage_makes_it_neither_two_nor_longer() -> None:
    seen = [Observation(0, UP), Observation(10, DOWN), Observation(100, DOWN), Observation(110, UP)]
    figures = uptime(timeline(seen, 0, 120, 20))
    assert figures.failures == (Failure(10, 110, 30, recovered=True),)


def test_an_outage_that_goes_on_has_not_recovered() -> None:
    figures = uptime(timeline([Observation(0, UP), Observation(10, DOWN)], 0, 30, 60))
    assert figures.failures == (Failure(10, 30, 20, recovered=False),)


def test_planned_time_is_a_class_of_its_own() -> None:
    spans = [Span(0, 50, UP), Span(50, 90, DOWN), Span(90, 100, UNKNOWN)]
    told = with_planned(spans, [(40, 70), (95, 100)])
    assert told == [
        Span(0, 50, UP),
        Span(50, 70, PLANNED),
        Span(70, 90, DOWN),
        Span(90, 95, UNKNOWN),
        Span(95, 100, PLANNED),
    ]
    assert uptime(told).percent == pytest.approx(100 * 50 / 70)


def test_the_platform_is_down_while_any_service_is() -> None:
    first = [Span(0, 10, UP), Span(10, 20, DOWN), Span(20, 30, UP)]
    second = [Span(0, 15, UNKNOWN), Span(15, 25, PLANNED), Span(25, 30, UP)]
    assert combined([first, second]) == [
        Span(0, 10, UNKNOWN),
        Span(10, 20, DOWN),
        Span(20, 25, PLANNED),
        Span(25, 30, UP),
    ]


@given(_OBSERVATIONS, _GAPS)
def test_a_timeline_is_what_a_clock_would_have_seen(seen: list[Observation], gap: int) -> None:
    spans = timeline(seen, 0, END, gap)
    assert [span.begin for span in spans] == [0, *(span.end for span in spans[:-1])] and spans[-1].end == END
    for second in range(END):
        last = max((one for one in seen if one.at <= second), key=lambda one: one.at, default=None)
        expected = last.state if last is not None and second < last.at + gap else UNKNOWN
        assert next(span.state for span in spans if span.begin <= second < span.end) == expected


@given(_OBSERVATIONS, _GAPS, _WINDOWS)
def test_no_second_is_lost_or_counted_twice(seen: list[Observation], gap: int, windows: list[tuple[int, int]]) -> None:
    figures = uptime(with_planned(timeline(seen, 0, END, gap), merged(windows, 0, END)))
    assert figures.up + figures.down + figures.planned + figures.unknown == END
    assert sum(failure.seconds for failure in figures.failures) == figures.down


@given(_OBSERVATIONS, _GAPS, _WINDOWS)
def test_a_window_takes_no_time_from_up(seen: list[Observation], gap: int, windows: list[tuple[int, int]]) -> None:
    spans = timeline(seen, 0, END, gap)
    assert uptime(with_planned(spans, merged(windows, 0, END))).up == uptime(spans).up


@given(_WINDOWS)
def test_merged_windows_cover_the_same_seconds_once(windows: list[tuple[int, int]]) -> None:
    union = merged(windows, 0, END)
    covered = {second for begin, end in windows for second in range(max(begin, 0), min(end, END))}
    assert [second for begin, end in union for second in range(int(begin), int(end))] == sorted(covered)


@given(st.lists(_OBSERVATIONS, min_size=1, max_size=4), _GAPS)
def test_the_platform_is_never_better_than_its_worst_service(many: list[list[Observation]], gap: int) -> None:
    timelines = [timeline(seen, 0, END, gap) for seen in many]
    platform = uptime(combined(timelines))
    assert platform.up <= min(uptime(spans).up for spans in timelines)
    assert platform.down >= max(uptime(spans).down for spans in timelines)
