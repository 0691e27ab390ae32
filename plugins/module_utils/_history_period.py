# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened in a period, as its report tells it: runs, troubles, incidents, windows, checklists, proofs, trends."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from statistics import median
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import STATUSES, worst
from ansible_collections.upkeep.ops.plugins.module_utils._history import History
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_metrics import Period
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: How many troubles and drills are told, and of how many points a trend is made.
_MOST_TROUBLES = 50
_MOST_DRILLS = 20
_MOST_POINTS = 120


def happened(history: History, site: str, period: Period) -> dict[str, Any]:
    """Everything that the report of a period tells beside its figures."""
    database = history.connection
    between = (isoformat(period.begin), isoformat(period.end))
    return {
        "runs": _runs(database, site, between),
        "troubles": _troubles(database, site, between),
        "incidents": _incidents(database, site, between),
        "windows": _windows(database, site, between),
        "checklists": _checklists(database, site, between),
        "trends": history.trends(site, between[0], _MOST_POINTS, until=between[1]),
        **history.proofs(site, _MOST_DRILLS, until=between[1]),
    }


def _runs(database: sqlite3.Connection, site: str, between: tuple[str, str]) -> list[dict[str, Any]]:
    """For each name of a run how many there were, how many of each verdict, and their usual duration in seconds."""
    rows = database.execute(
        "SELECT name, status, started_at, ended_at FROM runs "
        "WHERE site = ? AND started_at >= ? AND started_at < ? AND status != 'running' ORDER BY name, started_at",
        (site, *between),
    ).fetchall()
    told = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        seconds = [_seconds(row) for row in own if row["ended_at"]]
        verdicts = [row["status"] for row in own]
        told.append(
            {
                "name": name,
                "count": len(own),
                "verdicts": {status: verdicts.count(status) for status in (*STATUSES, "aborted") if status in verdicts},
                "median_seconds": median(seconds) if seconds else None,
            }
        )
    return told


def _seconds(row: sqlite3.Row) -> float:
    return (parse_time(row["ended_at"]) - parse_time(row["started_at"])).total_seconds()


def _troubles(database: sqlite3.Connection, site: str, between: tuple[str, str]) -> list[dict[str, Any]]:
    """What was not ok in the period, each check once: how bad at worst, how often seen, since when, and whether still.

    Worst first, then most often. What failed because of something else is told under that in the runs' own reports.
    """
    rows = database.execute(
        "SELECT procedure, check_name, subject, host, group_concat(DISTINCT findings.status) AS statuses, "
        "COUNT(*) AS times, MIN(observed_at) AS first_at, MAX(observed_at) AS last_at, summary "
        "FROM findings JOIN runs ON runs.id = run_id "
        "WHERE site = ? AND findings.status != 'ok' AND parent = '' AND observed_at >= ? AND observed_at < ? "
        "GROUP BY procedure, check_name, subject, host",
        (site, *between),
    ).fetchall()
    standing = _standing(database, site)
    troubles = [
        {
            "procedure": row["procedure"],
            "check": row["check_name"],
            "subject": row["subject"],
            "host": row["host"],
            "status": worst(row["statuses"].split(",")),
            "times": row["times"],
            "first_at": row["first_at"],
            "last_at": row["last_at"],
            "summary": row["summary"],
            "still": standing.get((row["procedure"], row["check_name"], row["subject"], row["host"]), "ok") != "ok",
        }
        for row in rows
    ]
    troubles.sort(key=lambda item: (-STATUSES.index(item["status"]), not item["still"], -item["times"]))
    return troubles[:_MOST_TROUBLES]


def _standing(database: sqlite3.Connection, site: str) -> dict[tuple[str, ...], str]:
    rows = database.execute("SELECT procedure, check_name, subject, host, status FROM states WHERE site = ?", (site,))
    return {(row["procedure"], row["check_name"], row["subject"], row["host"]): row["status"] for row in rows}


def _incidents(database: sqlite3.Connection, site: str, between: tuple[str, str]) -> list[dict[str, Any]]:
    """Incidents that were open at some time of the period, oldest first."""
    rows = database.execute(
        "SELECT * FROM incidents WHERE site = ? AND began_at < ? AND COALESCE(closed_at, ?) >= ? ORDER BY began_at",
        (site, between[1], between[1], between[0]),
    )
    return [_told(row, lists=("services",)) for row in rows]


def _windows(database: sqlite3.Connection, site: str, between: tuple[str, str]) -> list[dict[str, Any]]:
    """Maintenance windows that were meant for the period or went on in it, oldest first."""
    rows = database.execute(
        "SELECT id, title, planned, services, starts_at, ends_at, started_at, ended_at, status FROM windows "
        "WHERE site = ? AND COALESCE(started_at, starts_at) < ? AND COALESCE(ended_at, ends_at) >= ? "
        "ORDER BY COALESCE(started_at, starts_at)",
        (site, between[1], between[0]),
    )
    return [{**_told(row, lists=("services",)), "planned": bool(row["planned"])} for row in rows]


def _checklists(database: sqlite3.Connection, site: str, between: tuple[str, str]) -> list[dict[str, Any]]:
    """Where each item of the checklists stood when they were last gone through in the period."""
    row = database.execute(
        "SELECT artifacts FROM outcomes JOIN runs ON runs.id = run_id "
        "WHERE site = ? AND procedure = 'checklist' AND outcomes.started_at >= ? AND outcomes.started_at < ? "
        "ORDER BY outcomes.started_at DESC LIMIT 1",
        (site, *between),
    ).fetchone()
    return list(json.loads(row["artifacts"]).get("checklists") or []) if row else []


def _told(row: sqlite3.Row, lists: Sequence[str]) -> dict[str, Any]:
    """A row as results carry it, with its lists read and without what is not there."""
    told = {key: row[key] for key in row.keys() if key != "site"}  # noqa: SIM118
    return {key: json.loads(value) if key in lists else ("" if value is None else value) for key, value in told.items()}
