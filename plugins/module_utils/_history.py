# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History: one SQLite database on the recorder, from which every figure of a report can be computed again.

Its tables are in ``_history_schema``. Points in time are text in UTC as ``_time.isoformat`` writes them, so that they
sort; durations are seconds.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import STATUSES, Finding, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._history_backups import (
    add_proofs,
    last_drills,
    last_verifications,
)
from ansible_collections.upkeep.ops.plugins.module_utils._history_schema import MIGRATIONS, migrate
from ansible_collections.upkeep.ops.plugins.module_utils._history_services import add_observations, add_updates
from ansible_collections.upkeep.ops.plugins.module_utils._runs import Outcome, count_statuses, worst_first
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: A run that was opened this long ago and never closed was killed.
_ABANDONED_AFTER = timedelta(hours=12)

#: Sorts after every point in time.
_FOREVER = "9999"

Identity = tuple[str, str, str, str]


def identity(finding: Finding) -> Identity:
    """What makes two findings of different runs the same check: procedure, check, subject, host."""
    return finding.procedure, finding.check, finding.subject, finding.host


class HistoryError(Exception):
    """The database cannot serve; the text says why and what to do."""


@dataclass(frozen=True)
class State:
    """Where a check stands: its status, since when, the last sentence said of it, and when that was seen."""

    status: str
    since: str
    summary: str
    observed_at: str = ""

    def is_newer_than(self, moment: str, now: str) -> bool:
        """Whether this was seen after ``moment``, which an earlier run took down and wrote later.

        What was seen after ``now`` comes from a clock that is wrong, and holds nothing up.
        """
        return moment < self.observed_at <= now


@contextmanager
def opened(path: str, *, write: bool) -> Iterator[History]:
    """The history at ``path``, in one transaction that is kept when ``write`` is set and undone when not.

    Undone means that check mode computes just what would be stored. A database that does not exist yet is made
    (mode 0600, folders 0700), or kept in memory when nothing may be written. Raises HistoryError.
    """
    in_memory = not write and not os.path.exists(path)
    try:
        if write:
            _make_private(path)
        connection = sqlite3.connect(":memory:" if in_memory else path, timeout=30, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise HistoryError(f"the history {path} cannot be opened: {error}; {_remedy(error)}") from error
    try:
        connection.row_factory = sqlite3.Row
        if write:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE" if write or in_memory else "BEGIN")
        _migrate(connection, path)
        yield History(connection)
        connection.execute("COMMIT" if write else "ROLLBACK")
    except sqlite3.Error as error:
        raise HistoryError(f"the history {path} cannot be used: {error}; {_remedy(error)}") from error
    finally:
        connection.close()


def _remedy(error: Exception) -> str:
    """What to do about an error of the operating system or of SQLite."""
    told = str(error)
    remedies = (
        ("locked", "another run has been writing for half a minute: see what holds it, then run again"),
        ("full", "make room on its file system"),
        ("Permission denied", "run as the user who owns the folder, or correct upkeep_state"),
        ("readonly", "run as the user who owns it, or correct upkeep_state"),
        ("FOREIGN KEY", "the run is not in this history: use the database in which it was closed"),
        ("not a database", "move it away, and the next run makes a new one"),
        ("malformed", "restore it from a copy, or move it away, and the next run makes a new one"),
    )
    return next((remedy for words, remedy in remedies if words in told), "look at the folder and its file system")


def _make_private(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    newer = migrate(connection)
    if newer:
        raise HistoryError(
            f"the history {path} has schema version {newer}, this release knows {len(MIGRATIONS)}: "
            "install the newer release of upkeep.ops that wrote it"
        )


class History:
    """Reads and writes of one open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """For the parts of the history that have a file of their own; it is in the transaction of :func:`opened`."""
        return self._db

    # -- runs ------------------------------------------------------------------------------------------------------

    def open_run(self, run_id: str, name: str, site: str, now: datetime) -> list[str]:
        """Note that a run has begun; returns the ids of runs of that name that were never closed, now ``aborted``."""
        limit = isoformat(now - _ABANDONED_AFTER)
        killed = [
            str(row["id"])
            for row in self._db.execute(
                "SELECT id FROM runs WHERE site = ? AND name = ? AND status = 'running' AND started_at < ?",
                (site, name, limit),
            )
        ]
        self._db.executemany("UPDATE runs SET status = 'aborted' WHERE id = ?", [(item,) for item in killed])
        self._db.execute(
            "INSERT INTO runs (id, name, site, started_at, status) VALUES (?, ?, ?, ?, 'running')",
            (run_id, name, site, isoformat(now)),
        )
        return killed

    def is_closed(self, run_id: str) -> bool:
        """Whether the run has its verdict already."""
        row = self._db.execute("SELECT ended_at FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row is not None and row["ended_at"] is not None

    def close_run(
        self,
        run_id: str,
        name: str,
        site: str,
        now: datetime,
        status: str,
        outcomes: Sequence[Outcome],
        findings: Sequence[Finding],
    ) -> None:
        """Write a run's whole result. A run that was opened in check mode or elsewhere is written all the same."""
        started_at = min((outcome.started_at for outcome in outcomes), default=isoformat(now))
        self._db.execute(
            "INSERT INTO runs (id, name, site, started_at, status) VALUES (?, ?, ?, ?, 'running') "
            "ON CONFLICT (id) DO NOTHING",
            (run_id, name, site, started_at),
        )
        self._db.execute("UPDATE runs SET ended_at = ?, status = ? WHERE id = ?", (isoformat(now), status, run_id))
        self._insert_outcomes(run_id, outcomes)
        self.add_findings(run_id, findings)
        self._update_states(site, isoformat(now), outcomes, findings)

    def _insert_outcomes(self, run_id: str, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._db.execute(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id, outcome.procedure, outcome.host, outcome.status, outcome.started_at, outcome.seconds,
                    outcome.failed, outcome.error, json.dumps(outcome.changes), json.dumps(dict(outcome.artifacts)),
                ),
            )  # fmt: skip
            for name, value in (outcome.artifacts.get("metrics") or {}).items():
                self._db.execute(
                    "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)",
                    (run_id, outcome.host, name, float(value), outcome.started_at),
                )
            add_proofs(self._db, run_id, outcome)
            add_observations(self._db, run_id, outcome)
            add_updates(self._db, run_id, outcome)

    def add_findings(self, run_id: str, findings: Iterable[Finding]) -> None:
        """Add findings to a run."""
        self._db.executemany(
            "INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    run_id, item.procedure, item.check, item.subject, item.host, item.status, item.summary, item.value,
                    item.unit, item.threshold, item.observed_at, item.hint, item.parent,
                )
                for item in findings
            ],
        )  # fmt: skip

    def add_alert_findings(self, run_id: str, findings: Sequence[Finding]) -> None:
        """Add what is wrong with the alerting itself to a closed run; it may make the run's verdict worse."""
        self.add_findings(run_id, [replace(item, procedure="alert") for item in findings])
        row = self._db.execute("SELECT status FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is not None and row["status"] in STATUSES:
            status = worst([row["status"], *(item.status for item in findings)])
            self._db.execute("UPDATE runs SET status = ? WHERE id = ?", (status, run_id))

    # -- states ----------------------------------------------------------------------------------------------------

    def _update_states(self, site: str, now: str, outcomes: Iterable[Outcome], findings: Sequence[Finding]) -> None:
        """Bring the states forward. A long run that ends after a shorter one takes nothing of that one back."""
        known = self.states(site)
        current = {identity(item) for item in findings}
        began = {(item.procedure, item.host): item.started_at for item in outcomes if not item.failed}
        for key, state in known.items():
            # A procedure that ran to its end and no longer names a subject has found nothing wrong with it any more.
            started_at = began.get((key[0], key[3]))
            if key not in current and started_at is not None and not state.is_newer_than(started_at, now):
                self._db.execute(
                    "DELETE FROM states WHERE site = ? AND procedure = ? AND check_name = ? AND subject = ? "
                    "AND host = ?",
                    (site, *key),
                )
        # The worst one last: it is what stands when a procedure names a check twice.
        for item in sorted(findings, key=lambda item: rank(item.status)):
            before = known.get(identity(item))
            if before and before.is_newer_than(item.observed_at, now):
                continue
            since = before.since if before and before.status == item.status else item.observed_at
            self._db.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (site, *identity(item), item.status, since, item.summary, item.observed_at),
            )

    def states(self, site: str) -> dict[Identity, State]:
        """Where every check of the site stands after its last run."""
        rows = self._db.execute("SELECT * FROM states WHERE site = ?", (site,))
        return {_key(row): State(row["status"], row["since"], row["summary"], row["observed_at"]) for row in rows}

    # -- notifications ---------------------------------------------------------------------------------------------

    def notifications(self, site: str, contact: str) -> dict[Identity, tuple[State, str]]:
        """What a contact was last told of each check that was not well, and when."""
        rows = self._db.execute("SELECT * FROM notifications WHERE site = ? AND contact = ?", (site, contact))
        return {_key(row): (State(row["status"], row["since"], row["summary"]), row["sent_at"]) for row in rows}

    def note_told(self, site: str, contact: str, key: Identity, state: State, now: datetime) -> None:
        """The contact knows of this state now."""
        self._db.execute(
            "INSERT OR REPLACE INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (site, contact, *key, state.status, state.since, isoformat(now), state.summary),
        )

    def note_recovered(self, site: str, contact: str, key: Identity) -> None:
        """The contact knows that it is over."""
        self._db.execute(
            "DELETE FROM notifications WHERE site = ? AND contact = ? AND procedure = ? AND check_name = ? "
            "AND subject = ? AND host = ?",
            (site, contact, *key),
        )

    def add_delivery(self, run_id: str, contact: str, target: str, now: datetime, error: str, subject: str) -> None:
        """One attempt to reach a contact; an empty ``error`` means that it was delivered."""
        self._db.execute(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run_id, contact, target, isoformat(now), not error, error, subject),
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def latest_run(self, site: str, name: str | None = None) -> str | None:
        """Id of the newest closed run of the site, of that name if one is given."""
        row = self._db.execute(
            "SELECT id FROM runs WHERE site = ? AND (? IS NULL OR name = ?) AND ended_at IS NOT NULL "
            "ORDER BY started_at DESC, id DESC LIMIT 1",
            (site, name, name),
        ).fetchone()
        return None if row is None else str(row["id"])

    def latest_runs(self, site: str) -> list[str]:
        """Ids of the newest closed run of each name, in the order of the names."""
        rows = self._db.execute(
            "SELECT id, MAX(started_at) FROM runs WHERE site = ? AND ended_at IS NOT NULL GROUP BY name ORDER BY name",
            (site,),
        )
        return [str(row["id"]) for row in rows]

    def run(self, run_id: str) -> dict[str, Any]:
        """A run with its outcomes, findings (worst first, with ``since``) and deliveries. Raises HistoryError."""
        row = self._db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            raise HistoryError(f"there is no run {run_id} in this history")
        findings = self._findings(run_id)
        states = self.states(row["site"])
        ended = row["ended_at"] or row["started_at"]
        return {
            "id": row["id"],
            "name": row["name"],
            "site": row["site"],
            "status": row["status"],
            "started_at": row["started_at"],
            "ended_at": ended,
            "seconds": (parse_time(ended) - parse_time(row["started_at"])).total_seconds(),
            "counts": count_statuses(findings),
            "outcomes": self._outcomes(run_id),
            "findings": [
                {**item.as_dict(), "since": self._since(row["site"], item, states)} for item in worst_first(findings)
            ],
            "deliveries": self._deliveries(run_id),
        }

    def _since(self, site: str, item: Finding, states: Mapping[Identity, State]) -> str:
        """Since when a finding had its status, also when later runs found another one."""
        state = states.get(identity(item))
        if state and state.status == item.status and state.since <= item.observed_at:
            return state.since
        row = self._db.execute(
            "WITH seen AS (SELECT findings.status, findings.observed_at FROM findings JOIN runs ON runs.id = run_id "
            "WHERE procedure = ? AND check_name = ? AND subject = ? AND host = ? AND observed_at <= ? AND site = ?) "
            "SELECT MIN(observed_at) FROM seen WHERE status = ? AND observed_at > "
            "COALESCE((SELECT MAX(observed_at) FROM seen WHERE status != ?), '')",
            (*identity(item), item.observed_at, site, item.status, item.status),
        ).fetchone()
        return str(row[0] or item.observed_at)

    def _findings(self, run_id: str) -> list[Finding]:
        rows = self._db.execute("SELECT * FROM findings WHERE run_id = ?", (run_id,))
        return [
            Finding(
                check=row["check_name"],
                **{key: row[key] for key in row.keys() if key not in ("run_id", "check_name")},  # noqa: SIM118
            )
            for row in rows
        ]

    def _outcomes(self, run_id: str) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT * FROM outcomes WHERE run_id = ? ORDER BY rowid", (run_id,))
        return [
            {
                "procedure": row["procedure"],
                "host": row["host"],
                "status": row["status"],
                "started_at": row["started_at"],
                "seconds": row["seconds"],
                "failed": bool(row["failed"]),
                "error": row["error"],
                "changed": row["changes"] != "[]",
                "changes": json.loads(row["changes"]),
                "artifacts": json.loads(row["artifacts"]),
            }
            for row in rows
        ]

    def _deliveries(self, run_id: str) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT * FROM deliveries WHERE run_id = ? ORDER BY rowid", (run_id,))
        return [
            {
                "contact": row["contact"],
                "target": row["target"],
                "sent_at": row["sent_at"],
                "delivered": bool(row["delivered"]),
                "error": row["error"],
                "subject": row["subject"],
            }
            for row in rows
        ]

    def recent_runs(self, site: str, name: str, limit: int) -> list[dict[str, Any]]:
        """The last runs of that name, oldest first: id, started_at, status and seconds."""
        rows = self._db.execute(
            "SELECT id, started_at, ended_at, status FROM runs WHERE site = ? AND name = ? AND status != 'running' "
            "ORDER BY started_at DESC, id DESC LIMIT ?",
            (site, name, limit),
        ).fetchall()
        return [
            {
                "id": row["id"],
                "started_at": row["started_at"],
                "status": row["status"],
                "seconds": (
                    (parse_time(row["ended_at"]) - parse_time(row["started_at"])).total_seconds()
                    if row["ended_at"]
                    else None
                ),
            }
            for row in reversed(rows)
        ]

    def proofs(self, site: str, drills: int, until: str = _FOREVER) -> dict[str, list[dict[str, Any]]]:
        """What was known of backups: ``verifications``, the last of each host and level, and the last ``drills``."""
        return {
            "verifications": last_verifications(self._db, site, until),
            "drills": last_drills(self._db, site, drills, until),
        }

    def trends(self, site: str, since: str, most: int, until: str = _FOREVER) -> list[dict[str, Any]]:
        """Series of figures between two moments, one a host and metric: ``{host, name, points: [[time, value], ...]}``.

        A series with more than ``most`` points keeps so many, spread evenly, the first and the newest among them;
        series with fewer than two are left out, they show no trend.
        """
        rows = self._db.execute(
            "SELECT metrics.* FROM metrics JOIN runs ON runs.id = metrics.run_id "
            "WHERE runs.site = ? AND metrics.observed_at >= ? AND metrics.observed_at < ? "
            "ORDER BY host, metrics.name, observed_at",
            (site, since, until),
        )
        series: dict[tuple[str, str], list[list[Any]]] = {}
        for row in rows:
            series.setdefault((row["host"], row["name"]), []).append([row["observed_at"], row["value"]])
        return [
            {"host": host, "name": name, "points": _thinned(points, most)}
            for (host, name), points in series.items()
            if len(points) > 1
        ]


def _key(row: sqlite3.Row) -> Identity:
    return row["procedure"], row["check_name"], row["subject"], row["host"]


def _thinned(points: list[list[Any]], most: int) -> list[list[Any]]:
    if len(points) <= most:
        return points
    return [points[index * (len(points) - 1) // (most - 1)] for index in range(most)]
