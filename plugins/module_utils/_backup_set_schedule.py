# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which level of verification is due for a backup set, by what is recorded in it and in the other sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    LEVELS,
    VERIFIED_LEVEL,
    BackupSet,
    BackupSetError,
    proves,
    standing,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, parse_time

#: A level is due a tenth of its period early: a daily run that begins a minute earlier than yesterday's must not
#: put it off by a whole day.
_EARLY = 0.1


def parse_periods(periods: Mapping[Any, Any]) -> dict[int, float]:
    """Seconds for each level of ``{1: 1d, 3: 7d}``. Raises BackupSetError for what is no level, and ValueError."""
    parsed = {}
    for level, period in periods.items():
        if str(level) not in map(str, LEVELS):
            raise BackupSetError(f"{level!r} is no level of verification: the levels are {', '.join(map(str, LEVELS))}")
        parsed[int(level)] = parse_duration(period)
    return parsed


def due_level(chosen: BackupSet, sets: Sequence[BackupSet], periods: Mapping[int, float], now: datetime) -> int:
    """The highest level that is due for a set; 0 when none is.

    Up to the level that makes a set verified, what counts is recorded in this very set. Above it counts what any of
    the sets has passed, or each new set of a daily backup would be loaded at once, whatever the period. A level at
    which the set failed stays due until it passes: a lower one proves nothing against that failure.
    """
    due = max((level for level, period in periods.items() if _is_due(chosen, sets, level, period, now)), default=0)
    failed = standing(chosen.judgements)[1]
    return max(due, failed["level"]) if failed is not None and failed["level"] in LEVELS else due


def _is_due(chosen: BackupSet, sets: Iterable[BackupSet], level: int, period: float, now: datetime) -> bool:
    witnesses = [chosen] if level <= VERIFIED_LEVEL else [chosen, *sets]
    passes = [parse_time(entry["at"]) for each in witnesses for entry in each.judgements if proves(entry, level)]
    # A pass of the future comes from a clock that was wrong: it must not put anything off.
    ages = [(now - moment).total_seconds() for moment in passes if moment <= now]
    return not ages or min(ages) >= period * (1 - _EARLY)
