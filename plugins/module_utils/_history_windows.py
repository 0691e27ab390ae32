# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the history about maintenance windows, and what runs noted while one was open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import Window
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat


def read_windows(database: sqlite3.Connection, site: str, statuses: Sequence[str] = ()) -> list[Window]:
    """The windows of a site, oldest first; of those statuses when some are given."""
    rows = database.execute("SELECT * FROM windows WHERE site = ? ORDER BY starts_at, id", (site,))
    return [_window(row) for row in rows if not statuses or row["status"] in statuses]


def held_services(database: sqlite3.Connection, site: str, now: datetime) -> list[Window]:
    """The windows whose services' alerts are held now: those that began and are not overdue."""
    return [window for window in read_windows(database, site, ("started",)) if not window.is_overdue(now)]


def write_window(database: sqlite3.Connection, window: Window) -> None:
    """Write a window, new or known."""
    database.execute(
        "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            window.id, window.site, window.title, int(window.planned), json.dumps(list(window.services)),
            window.starts_at, window.ends_at, window.started_at or None, window.ended_at or None, window.status,
            json.dumps(dict(window.record), sort_keys=True),
        ),
    )  # fmt: skip


def _window(row: sqlite3.Row) -> Window:
    return Window(
        id=row["id"],
        site=row["site"],
        title=row["title"],
        planned=bool(row["planned"]),
        services=tuple(json.loads(row["services"])),
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        started_at=row["started_at"] or "",
        ended_at=row["ended_at"] or "",
        status=row["status"],
        record=json.loads(row["record"]),
    )


def last_run(database: sqlite3.Connection, site: str, name: str) -> dict[str, Any] | None:
    """The newest ended run of that name, of any site when ``site`` is empty: id, status, ended_at."""
    row = database.execute(
        "SELECT id, status, ended_at FROM runs WHERE (site = ? OR ? = '') AND name = ? AND ended_at IS NOT NULL "
        "ORDER BY ended_at DESC LIMIT 1",
        (site, site, name),
    ).fetchone()
    return dict(row) if row else None


def changes_between(database: sqlite3.Connection, site: str, begin: str, end: str) -> list[dict[str, str]]:
    """Each change that a run noted in that time, but those of windows themselves: at, run, procedure, host, text."""
    rows = database.execute(
        "SELECT outcomes.*, runs.name AS run FROM outcomes JOIN runs ON runs.id = run_id WHERE site = ? "
        "AND outcomes.started_at >= ? AND outcomes.started_at <= ? AND procedure != 'maintenance_window' "
        "ORDER BY outcomes.started_at, outcomes.rowid",
        (site, begin, end),
    )
    return [
        {"at": row["started_at"], "run": row["run"], "procedure": row["procedure"], "host": row["host"], "text": text}
        for row in rows
        for text in json.loads(row["changes"])
    ]


def watched(database: sqlite3.Connection, window: Window, end: str) -> dict[str, dict[str, int]]:
    """How often each service of a window was observed since it began, and how often it was seen down."""
    rows = database.execute(
        "SELECT subject, COUNT(*) AS seen, SUM(state = 'down') AS down FROM observations JOIN runs ON runs.id = run_id "
        "WHERE site = ? AND observed_at >= ? AND observed_at <= ? GROUP BY subject ORDER BY subject",
        (window.site, window.started_at, end),
    )
    return {row["subject"]: {"seen": row["seen"], "down": row["down"]} for row in rows if window.covers(row["subject"])}


def figures_between(
    database: sqlite3.Connection, site: str, begin: datetime, end: datetime
) -> dict[str, dict[str, list[float]]]:
    """The points of response time and errors in that time, by host and name."""
    rows = database.execute(
        "SELECT metrics.host, metrics.name, value FROM metrics JOIN runs ON runs.id = run_id WHERE site = ? "
        "AND metrics.name IN ('p95_ms', 'error_percent') AND observed_at >= ? AND observed_at < ? ORDER BY observed_at",
        (site, isoformat(begin), isoformat(end)),
    )
    figures: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        figures.setdefault(row["host"], {}).setdefault(row["name"], []).append(float(row["value"]))
    return figures
