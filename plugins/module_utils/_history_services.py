# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the history about services and hosts over time: what was up, and which security updates waited."""

from __future__ import annotations

import sqlite3

from ansible_collections.upkeep.ops.plugins.module_utils._runs import Outcome
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time


def add_observations(database: sqlite3.Connection, run_id: str, outcome: Outcome) -> None:
    """Write whether services were up, from ``observations: [{subject, state, at}]`` of an outcome, which is sound."""
    database.executemany(
        "INSERT INTO observations VALUES (?, ?, ?, ?)",
        [
            (run_id, str(seen["subject"]), str(seen["state"]), isoformat(parse_time(str(seen["at"]))))
            for seen in outcome.artifacts.get("observations") or []
        ],
    )


def add_updates(database: sqlite3.Connection, run_id: str, outcome: Outcome) -> None:
    """Note which security updates wait on the host of an outcome: ``security_updates: [{package, available}]``.

    New ones are seen now, and those that wait no more were installed. A newer version of a package that waits already
    does not begin its waiting anew. An outcome without the list says nothing.
    """
    updates = outcome.artifacts.get("security_updates")
    if updates is None:
        return
    site = database.execute("SELECT site FROM runs WHERE id = ?", (run_id,)).fetchone()["site"]
    here = (site, outcome.host)
    waiting = {str(update["package"]): str(update["available"]) for update in updates}
    known = {
        str(row["package"])
        for row in database.execute(
            "SELECT package FROM patches WHERE site = ? AND host = ? AND installed_at IS NULL", here
        )
    }
    database.executemany(
        "UPDATE patches SET installed_at = ? WHERE site = ? AND host = ? AND package = ? AND installed_at IS NULL",
        [(outcome.started_at, *here, package) for package in known - set(waiting)],
    )
    database.executemany(
        "INSERT INTO patches VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE SET installed_at = NULL",
        [(*here, package, waiting[package], outcome.started_at) for package in sorted(set(waiting) - known)],
    )
