# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Percentiles of counts against sorted lists, and growth against a known slope with rotation and clean-ups."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._statistics import DAY, growth, percentile, theil_sen
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200), st.sampled_from([1, 50, 95, 99, 100]))
def test_percentile_is_the_nearest_rank_of_the_sorted_list(values: list[int], percent: int) -> None:
    expected = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    assert percentile(Counter(values), percent) == expected


def test_percentile_of_nothing() -> None:
    assert percentile({}, 50) is None


def sawing_disk(seed: int, days: int = 30) -> list[tuple[float, float]]:
    """Hourly use in GB: 1.0 a day, a weekly rotation that frees 6, one clean-up of 25 on day 12, nightly backups."""
    rng = random.Random(seed)
    samples = []
    for hour in range(days * 24):
        day = hour / 24
        use = 250 + day + (day % 7) / 7 * 6 - (25 if day >= 12 else 0) + rng.gauss(0, 0.3)
        samples.append((hour * 3600.0, use + (3 if hour % 24 in (2, 3) else 0)))
    return samples


@pytest.mark.parametrize("seed", range(5))
def test_growth_sees_through_rotation_and_clean_up(seed: int) -> None:
    found = growth(sawing_disk(seed))
    assert found.method == "weekly differences"
    assert found.per_day == pytest.approx(1.0, abs=0.1)
    assert found.days == 30


@given(st.floats(-1e9, 1e9), st.floats(0, 1e12), st.integers(3, 9))
def test_growth_of_a_short_straight_line_is_its_slope(slope: float, start: float, days: int) -> None:
    found = growth((day * DAY + 60.0, start + slope * day) for day in range(days))
    assert found.method == "theil-sen"
    assert found.per_day == pytest.approx(slope, rel=1e-3, abs=1)


@pytest.mark.parametrize("days", [0, 1, 2])
def test_two_days_are_no_history(days: int) -> None:
    found = growth((day * DAY, float(day)) for day in range(days))
    assert (found.per_day, found.method, found.days) == (None, "none", days)


def test_theil_sen_is_not_turned_by_one_runaway() -> None:
    points = [(float(day), float(day)) for day in range(9)]
    assert theil_sen([*points, (9.0, 500.0)]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="two points"):
        theil_sen([(1.0, 1.0), (1.0, 2.0)])
