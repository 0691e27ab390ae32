# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a recovery will take, as the history knows from the last drill that passed and the last recovery."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened

_DRILL = (
    "SELECT drills.host, set_id, at, rto_seconds FROM drills JOIN runs ON runs.id = run_id "
    "WHERE site = ? AND result = 'passed' AND rto_seconds IS NOT NULL ORDER BY at DESC, drills.rowid DESC LIMIT 1"
)
_RECOVERY = (
    "SELECT metrics.name, value, observed_at FROM metrics JOIN runs ON runs.id = run_id "
    "WHERE site = ? AND metrics.name IN ('recovery_rto_seconds', 'recovery_downtime_seconds') "
    "ORDER BY observed_at DESC LIMIT 2"
)


def expectation(path: str, site: str) -> dict[str, Any]:
    """``drill`` with host, set, at and rto_seconds; ``recovery`` with at, rto_seconds and downtime_seconds; or None.

    A history that cannot be read keeps nobody from recovering: the ``problem`` is told in words.
    """
    nothing: dict[str, Any] = {"drill": None, "recovery": None, "problem": ""}
    if not path or not os.path.exists(path):
        return nothing
    try:
        with opened(path, write=False) as history:
            return {**nothing, **_known(history.connection, site)}
    except HistoryError as error:
        return {**nothing, "problem": str(error)}


def _known(database: sqlite3.Connection, site: str) -> dict[str, Any]:
    drill = database.execute(_DRILL, (site,)).fetchone()
    figures = database.execute(_RECOVERY, (site,)).fetchall()
    told: dict[str, Any] = {}
    if drill is not None:
        told["drill"] = {**{key: drill[key] for key in ("host", "at", "rto_seconds")}, "set": drill["set_id"]}
    if figures:
        last = [row for row in figures if row["observed_at"] == figures[0]["observed_at"]]
        values = {str(row["name"])[len("recovery_") :]: row["value"] for row in last}
        told["recovery"] = {"at": figures[0]["observed_at"], "rto_seconds": None, "downtime_seconds": None, **values}
    return told
