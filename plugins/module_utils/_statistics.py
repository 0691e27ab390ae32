# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures from samples: percentiles of counted values, and the growth of something that jumps and saws."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DAY = 86400

#: Days of samples below which no growth is told: two points always lie on a line.
DAYS_NEEDED = 3

#: Pairs of days one week apart that the better method needs.
_WEEK_PAIRS_NEEDED = 3


def percentile(counts: Mapping[int, int], percent: float) -> int | None:
    """The nearest-rank percentile of values given as ``{value: how often}``; None when there is none."""
    wanted = max(1, math.ceil(sum(counts.values()) * percent / 100))
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return None


def daily_maxima(samples: Iterable[tuple[float, float]]) -> dict[int, float]:
    """Highest value of each UTC day that has one; samples are (seconds since the epoch, value)."""
    days: dict[int, float] = {}
    for at, value in samples:
        day = int(at // DAY)
        days[day] = max(days.get(day, value), value)
    return days


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """Median of the slopes between all pairs of points: one clean-up or one runaway day does not turn it.

    Raises ValueError with fewer than two different abscissas.
    """
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x1 != x2]
    if not slopes:
        raise ValueError("a slope needs two points")
    return statistics.median(slopes)


@dataclass(frozen=True)
class Growth:
    """How fast something grows. ``per_day`` is None when ``days`` of history are not enough to say."""

    per_day: float | None
    method: str
    days: int


def growth(samples: Iterable[tuple[float, float]]) -> Growth:
    """Growth per day from (seconds since the epoch, value).

    Weekly rotation makes disk use a saw, and a clean-up makes it jump; least squares over either is wrong by its
    sign. The median difference between the maxima of days one week apart sees through both. Until there is enough
    history for that, the Theil-Sen slope of the daily maxima stands in.
    """
    days = daily_maxima(samples)
    weekly = [(days[day] - days[day - 7]) / 7 for day in days if day - 7 in days]
    if len(weekly) >= _WEEK_PAIRS_NEEDED:
        return Growth(statistics.median(weekly), "weekly differences", len(days))
    if len(days) >= DAYS_NEEDED:
        return Growth(theil_sen(sorted(days.items())), "theil-sen", len(days))
    return Growth(None, "none", len(days))
