# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small plots as SVG text, for reports that are one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

_PAD = 3.0


def sparkline(points: Sequence[tuple[datetime, float]], width: int = 220, height: int = 44) -> str:
    """A line through (time, value) pairs, spaced by time, with its last point marked.

    The scale runs from the least to the greatest value; a constant series is drawn in the middle. An empty series is
    an empty text. Colors come from the page: the line has the class ``spark``.
    """
    if not points:
        return ""
    times = [moment.timestamp() for moment, _value in points]
    values = [value for _moment, value in points]
    places = [
        (_scaled(moment, min(times), max(times), width), height - _scaled(value, min(values), max(values), height))
        for moment, value in zip(times, values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    last_x, last_y = places[-1]
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{len(points)} values from {min(values):g} to {max(values):g}, last {values[-1]:g}">'
        f'<polyline fill="none" points="{line}"/><circle cx="{last_x:.1f}" cy="{last_y:.1f}" r="2.5"/></svg>'
    )


def _scaled(value: float, least: float, greatest: float, size: int) -> float:
    if greatest == least:
        return size / 2
    return _PAD + (value - least) / (greatest - least) * (size - 2 * _PAD)
