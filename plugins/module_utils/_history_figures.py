# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the history offers to compute the figures of a period from: observations, windows and patches."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta

from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_metrics import Patch, Period, Record, Window
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time
from ansible_collections.upkeep.ops.plugins.module_utils._uptime import Observation


def record_of(database: sqlite3.Connection, site: str, period: Period, max_gap: float) -> Record:
    """What is needed to compute the figures of a period; ``max_gap`` is for how long an observation vouches."""
    return Record(
        _observations(database, site, period, max_gap), _windows(database, site, period), _patches(database, site)
    )


def subjects(database: sqlite3.Connection, site: str) -> list[str]:
    """Everything of which the history has an observation."""
    rows = database.execute(
        "SELECT DISTINCT subject FROM observations JOIN runs ON runs.id = run_id WHERE site = ? ORDER BY subject",
        (site,),
    )
    return [str(row["subject"]) for row in rows]


def _observations(
    database: sqlite3.Connection, site: str, period: Period, max_gap: float
) -> dict[str, list[Observation]]:
    first = isoformat(_before(period, max_gap))
    rows = database.execute(
        "SELECT subject, state, observed_at FROM observations JOIN runs ON runs.id = run_id "
        "WHERE site = ? AND observed_at >= ? AND observed_at < ? ORDER BY subject, observed_at",
        (site, first, isoformat(period.end)),
    )
    seen: dict[str, list[Observation]] = {}
    for row in rows:
        at = parse_time(row["observed_at"]).timestamp()
        seen.setdefault(row["subject"], []).append(Observation(at, row["state"]))
    return seen


def _before(period: Period, max_gap: float) -> datetime:
    """The earliest moment whose observation can still vouch for the beginning of the period."""
    return period.begin - timedelta(seconds=max_gap)


def _windows(database: sqlite3.Connection, site: str, period: Period) -> list[Window]:
    """Planned windows as they were; one that is open still lasts until its planned end or that of the period.

    One that nobody ends must not turn all later downtime into planned time; once it is ended it is what it was.
    """
    rows = database.execute(
        "SELECT services, started_at, COALESCE(ended_at, MIN(ends_at, ?)) AS ended_at FROM windows "
        "WHERE site = ? AND planned AND started_at < ? AND COALESCE(ended_at, MIN(ends_at, ?)) > ?",
        (isoformat(period.end), site, isoformat(period.end), isoformat(period.end), isoformat(period.begin)),
    )
    return [
        Window(
            parse_time(row["started_at"]).timestamp(),
            parse_time(row["ended_at"]).timestamp(),
            tuple(json.loads(row["services"])),
        )
        for row in rows
    ]


def _patches(database: sqlite3.Connection, site: str) -> list[Patch]:
    rows = database.execute("SELECT host, package, first_seen_at, installed_at FROM patches WHERE site = ?", (site,))
    return [Patch(row["host"], row["package"], row["first_seen_at"], row["installed_at"]) for row in rows]
