# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the history. Its version is in ``PRAGMA user_version``: the number of migrations that were made."""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, site TEXT NOT NULL, started_at TEXT NOT NULL,
            ended_at TEXT, status TEXT NOT NULL)""",
        "CREATE INDEX runs_by_name ON runs (site, name, started_at)",
        """CREATE TABLE outcomes (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, procedure TEXT NOT NULL, host TEXT NOT NULL,
            status TEXT NOT NULL, started_at TEXT NOT NULL, seconds REAL NOT NULL, failed INTEGER NOT NULL,
            error TEXT NOT NULL, changes TEXT NOT NULL, artifacts TEXT NOT NULL,
            PRIMARY KEY (run_id, procedure, host))""",
        """CREATE TABLE findings (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, procedure TEXT NOT NULL,
            check_name TEXT NOT NULL, subject TEXT NOT NULL, host TEXT NOT NULL, status TEXT NOT NULL,
            summary TEXT NOT NULL, value, unit TEXT NOT NULL, threshold, observed_at TEXT NOT NULL,
            hint TEXT NOT NULL, parent TEXT NOT NULL)""",
        "CREATE INDEX findings_by_run ON findings (run_id)",
        "CREATE INDEX findings_by_identity ON findings (procedure, check_name, subject, host, observed_at)",
        """CREATE TABLE metrics (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, host TEXT NOT NULL, name TEXT NOT NULL,
            value REAL NOT NULL, observed_at TEXT NOT NULL, PRIMARY KEY (run_id, host, name))""",
        """CREATE TABLE states (
            site TEXT NOT NULL, procedure TEXT NOT NULL, check_name TEXT NOT NULL, subject TEXT NOT NULL,
            host TEXT NOT NULL, status TEXT NOT NULL, since TEXT NOT NULL, summary TEXT NOT NULL,
            PRIMARY KEY (site, procedure, check_name, subject, host))""",
        """CREATE TABLE notifications (
            site TEXT NOT NULL, contact TEXT NOT NULL, procedure TEXT NOT NULL, check_name TEXT NOT NULL,
            subject TEXT NOT NULL, host TEXT NOT NULL, status TEXT NOT NULL, since TEXT NOT NULL,
            sent_at TEXT NOT NULL, summary TEXT NOT NULL,
            PRIMARY KEY (site, contact, procedure, check_name, subject, host))""",
        """CREATE TABLE deliveries (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, contact TEXT NOT NULL, target TEXT NOT NULL,
            sent_at TEXT NOT NULL, delivered INTEGER NOT NULL, error TEXT NOT NULL, subject TEXT NOT NULL)""",
    ),
    ("ALTER TABLE states ADD COLUMN observed_at TEXT NOT NULL DEFAULT ''",),
    (
        """CREATE TABLE verifications (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, host TEXT NOT NULL, set_id TEXT NOT NULL,
            level INTEGER NOT NULL, result TEXT NOT NULL, at TEXT NOT NULL, reason TEXT NOT NULL)""",
        "CREATE INDEX verifications_by_run ON verifications (run_id)",
        """CREATE TABLE drills (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, host TEXT NOT NULL, set_id TEXT NOT NULL,
            at TEXT NOT NULL, result TEXT NOT NULL, rto_seconds REAL, rpo_seconds REAL, rpo_bytes REAL,
            details TEXT NOT NULL)""",
        "CREATE INDEX drills_by_run ON drills (run_id)",
    ),
    (
        """CREATE TABLE observations (
            run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, subject TEXT NOT NULL, state TEXT NOT NULL,
            observed_at TEXT NOT NULL)""",
        "CREATE INDEX observations_by_subject ON observations (subject, observed_at)",
        """CREATE TABLE patches (
            site TEXT NOT NULL, host TEXT NOT NULL, package TEXT NOT NULL, version TEXT NOT NULL,
            first_seen_at TEXT NOT NULL, installed_at TEXT, PRIMARY KEY (site, host, package, version))""",
        """CREATE TABLE windows (
            id TEXT PRIMARY KEY, site TEXT NOT NULL, title TEXT NOT NULL, planned INTEGER NOT NULL,
            services TEXT NOT NULL, starts_at TEXT NOT NULL, ends_at TEXT NOT NULL, started_at TEXT, ended_at TEXT,
            status TEXT NOT NULL, record TEXT NOT NULL)""",
        """CREATE TABLE incidents (
            id TEXT PRIMARY KEY, site TEXT NOT NULL, title TEXT NOT NULL, severity TEXT NOT NULL,
            services TEXT NOT NULL, began_at TEXT NOT NULL, opened_at TEXT NOT NULL, recovered_at TEXT,
            closed_at TEXT, opened_by TEXT NOT NULL, cause TEXT NOT NULL, summary TEXT NOT NULL)""",
        """CREATE TABLE incident_events (
            incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE, at TEXT NOT NULL,
            stage TEXT NOT NULL, actor TEXT NOT NULL, text TEXT NOT NULL, run_id TEXT NOT NULL)""",
        "CREATE INDEX incident_events_by_incident ON incident_events (incident_id, at)",
        """CREATE TABLE signoffs (
            site TEXT NOT NULL, checklist TEXT NOT NULL, item TEXT NOT NULL, period TEXT NOT NULL,
            signed_at TEXT NOT NULL, signed_by TEXT NOT NULL, evidence TEXT NOT NULL, outcome TEXT NOT NULL,
            PRIMARY KEY (site, checklist, item, period))""",
    ),
)


def migrate(database: sqlite3.Connection) -> int:
    """Bring the tables forward and return 0, or the version of a database that a newer release wrote."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        return version
    if version < len(MIGRATIONS):
        for steps in MIGRATIONS[version:]:
            for statement in steps:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    return 0
