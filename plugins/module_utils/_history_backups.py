# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the history that says whether backups can be restored: verifications and drills of backup sets.

They come from an outcome's artifacts: ``verifications: [{set, level, result, at, reason}]`` and
``drills: [{set, at, result, rto_seconds, rpo_seconds, rpo_bytes, parts, ...}]``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._runs import DRILL_FIGURES, Outcome
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time


def add_proofs(database: sqlite3.Connection, run_id: str, outcome: Outcome) -> None:
    """Write the verifications and drills of an outcome, which is sound (see _runs.outcome_from)."""
    for entry in outcome.artifacts.get("verifications") or []:
        database.execute(
            "INSERT INTO verifications VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                run_id, outcome.host, str(entry["set"]), int(entry["level"]), entry["result"], _moment(entry),
                str(entry.get("reason") or ""),
            ),
        )  # fmt: skip
    for entry in outcome.artifacts.get("drills") or []:
        details = {key: value for key, value in entry.items() if key not in ("set", "at", "result", *DRILL_FIGURES)}
        figures = [None if entry.get(name) in (None, "") else float(entry[name]) for name in DRILL_FIGURES]
        database.execute(
            "INSERT INTO drills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run_id, outcome.host, str(entry["set"]), _moment(entry), entry["result"], *figures, json.dumps(details)),
        )


def last_verifications(database: sqlite3.Connection, site: str, until: str) -> list[dict[str, Any]]:
    """The last verification of each host and level before a moment; a pass of a higher level counts for lower ones."""
    rows = database.execute(
        "WITH told AS (SELECT verifications.*, verifications.rowid AS number FROM verifications "
        "JOIN runs ON runs.id = run_id WHERE site = ? AND at < ?), "
        "levels AS (SELECT DISTINCT level AS n, host AS h FROM told), "
        "ranked AS (SELECT told.*, n, ROW_NUMBER() OVER (PARTITION BY h, n ORDER BY at DESC, number DESC) AS place "
        "FROM levels JOIN told ON host = h AND (level = n OR level > n AND result = 'passed')) "
        "SELECT * FROM ranked WHERE place = 1 ORDER BY host, n",
        (site, until),
    )
    return [
        {
            "host": row["host"],
            "set": row["set_id"],
            "level": row["n"],
            "result": row["result"],
            "at": row["at"],
            "reason": row["reason"],
        }
        for row in rows
    ]


def last_drills(database: sqlite3.Connection, site: str, most: int, until: str) -> list[dict[str, Any]]:
    """The last drills before a moment, newest first, with ``details`` as they were given."""
    rows = database.execute(
        "SELECT drills.* FROM drills JOIN runs ON runs.id = run_id WHERE site = ? AND at < ? "
        "ORDER BY at DESC, drills.rowid DESC LIMIT ?",
        (site, until, most),
    )
    return [
        {
            "host": row["host"],
            "set": row["set_id"],
            "at": row["at"],
            "result": row["result"],
            **{name: row[name] for name in DRILL_FIGURES},
            "details": json.loads(row["details"]),
        }
        for row in rows
    ]


def _moment(entry: Mapping[str, Any]) -> str:
    return isoformat(parse_time(str(entry["at"])))
