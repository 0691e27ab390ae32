# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the history about checklists: sign-offs, and when procedures last came to what."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ansible_collections.upkeep.ops.plugins.module_utils._checklists import Known
from ansible_collections.upkeep.ops.plugins.module_utils._history_windows import read_windows
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

_LOOK_BACK = timedelta(days=400)


def known_of(database: sqlite3.Connection, site: str, now: datetime) -> Known:
    """What the history knows of checklists."""
    signed = {
        (row["checklist"], row["item"], row["period"]): dict(row)
        for row in database.execute("SELECT * FROM signoffs WHERE site = ?", (site,))
    }
    first = database.execute("SELECT MIN(started_at) AS at FROM runs WHERE site = ?", (site,)).fetchone()["at"]
    outcomes: dict[str, list[dict[str, str]]] = {}
    rows = database.execute(
        "SELECT procedure, outcomes.status, outcomes.started_at AS at, failed "
        "FROM outcomes JOIN runs ON runs.id = run_id WHERE site = ? AND outcomes.started_at >= ? "
        "ORDER BY outcomes.started_at",
        (site, isoformat(now - _LOOK_BACK)),
    )
    for row in rows:
        status = "critical" if row["failed"] else row["status"]
        outcomes.setdefault(row["procedure"], []).append({"status": status, "at": row["at"]})
    return Known(signed, outcomes, read_windows(database, site), parse_time(first) if first else now)


def sign(
    database: sqlite3.Connection,
    site: str,
    key: tuple[str, str, str],
    by: str,
    evidence: str,
    outcome: str,
    at: datetime,
) -> bool:
    """Write a sign-off of (list, item, period); returns whether it says anything new."""
    row = database.execute(
        "SELECT signed_by, evidence, outcome FROM signoffs "
        "WHERE site = ? AND checklist = ? AND item = ? AND period = ?",
        (site, *key),
    ).fetchone()
    if row is not None and tuple(row) == (by, evidence, outcome):
        return False
    database.execute(
        "INSERT OR REPLACE INTO signoffs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (site, *key, isoformat(at), by, evidence, outcome),
    )
    return True
