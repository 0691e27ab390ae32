# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the history about incidents: opened by a check or by hand, with a timeline, closed when recovered.

While an incident is open, what fails beside it belongs to it: an incident is found again by any service that it names.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat, parse_time

#: How bad an incident can be, in the words of findings.
SEVERITIES = ("warning", "critical")

#: What an entry of the timeline tells of. ``public`` is for the status page, everything else for ourselves.
STAGES = ("opened", "assess", "contain", "recover", "communicate", "public", "recovered", "closed", "note")


class IncidentError(Exception):
    """What was asked of an incident cannot be done; the text says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """One line of a timeline."""

    at: str
    stage: str
    actor: str
    text: str
    run_id: str = ""


@dataclass(frozen=True)
class Call:
    """Who acts when, and in which run."""

    now: datetime
    actor: str
    run_id: str = ""

    def entry(self, stage: str, text: str) -> Entry:
        """A line of the timeline, of this moment."""
        return Entry(isoformat(self.now), stage, self.actor, text, self.run_id)


class Incidents:
    """The incidents of one site, inside the transaction of an opened history."""

    def __init__(self, database: sqlite3.Connection, site: str) -> None:
        self._db = database
        self._site = site

    # --- looking -----------------------------------------------------------------------------------------------------

    def get(self, incident_id: str) -> dict[str, Any]:
        """One incident with its timeline and figures. Raises IncidentError when there is none."""
        row = self._db.execute(
            "SELECT * FROM incidents WHERE site = ? AND id = ?", (self._site, incident_id)
        ).fetchone()
        if row is None:
            raise IncidentError(
                f"there is no incident {incident_id} of {self._site}; state: found lists those there are"
            )
        return self._told(row)

    def standing(self) -> list[dict[str, Any]]:
        """Those that are not closed, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM incidents WHERE site = ? AND closed_at IS NULL ORDER BY began_at, id", (self._site,)
        )
        return [self._told(row) for row in rows.fetchall()]

    def closed_since(self, moment: datetime) -> list[dict[str, Any]]:
        """Those that were closed since then, newest first."""
        rows = self._db.execute(
            "SELECT * FROM incidents WHERE site = ? AND closed_at >= ? ORDER BY began_at DESC, id DESC",
            (self._site, isoformat(moment)),
        )
        return [self._told(row) for row in rows.fetchall()]

    def about(self, services: Iterable[str]) -> dict[str, Any] | None:
        """The oldest open one that names any of the services, or without services one that names none."""
        wanted = set(services)
        for incident in self.standing():
            named = set(incident["services"])
            if wanted & named or (not wanted and not named):
                return incident
        return None

    def _told(self, row: sqlite3.Row) -> dict[str, Any]:
        events = self._db.execute(
            "SELECT at, stage, actor, text, run_id FROM incident_events WHERE incident_id = ? ORDER BY at, rowid",
            (row["id"],),
        ).fetchall()
        told = {key: "" if row[key] is None else row[key] for key in row.keys()}  # noqa: SIM118
        return {
            **told,
            "services": json.loads(row["services"]),
            "events": [dict(event) for event in events],
            "status": "closed" if row["closed_at"] else "recovered" if row["recovered_at"] else "open",
            "seconds_to_recovery": _seconds(row["began_at"], row["recovered_at"]),
            "seconds_to_notice": _seconds(row["began_at"], row["opened_at"]),
        }

    # --- writing -----------------------------------------------------------------------------------------------------

    def open(
        self, services: Sequence[str], title: str, severity: str, began_at: datetime, call: Call, text: str = ""
    ) -> tuple[str, list[str]]:
        """Id of the incident about these services, made when there is none, and what was changed.

        An open one is widened by what it does not name yet; one that had recovered has failed again.
        """
        known = self.about(services)
        if known is not None:
            return str(known["id"]), self._widen(known, services, severity, call)
        incident_id = self._new_id(call.now)
        began = min(isoformat(began_at), isoformat(call.now))
        named = title or (f"{', '.join(services)} failed" if services else f"{self._site} is not available")
        self._db.execute(
            "INSERT INTO incidents VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, '', '')",
            (incident_id, self._site, named, severity, json.dumps(sorted(services)), began, isoformat(call.now),
             call.actor),
        )  # fmt: skip
        self._add(incident_id, call.entry("opened", text or named))
        return incident_id, [f"opened {incident_id}: {named}"]

    def _widen(self, known: Mapping[str, Any], services: Sequence[str], severity: str, call: Call) -> list[str]:
        incident_id, changes = str(known["id"]), []
        added = [name for name in services if name not in known["services"]]
        if added:
            named = json.dumps(sorted([*known["services"], *added]))
            self._db.execute("UPDATE incidents SET services = ? WHERE id = ?", (named, incident_id))
            changes.append(f"also affected: {', '.join(added)}")
        if rank(severity) > rank(known["severity"]):
            self._db.execute("UPDATE incidents SET severity = ? WHERE id = ?", (severity, incident_id))
            changes.append(f"it is {severity} now")
        if known["recovered_at"]:
            self._db.execute("UPDATE incidents SET recovered_at = NULL WHERE id = ?", (incident_id,))
            changes.append("failed again")
        for change in changes:
            self._add(incident_id, call.entry("note", change))
        return [f"{incident_id}: {change}" for change in changes]

    def note(self, incident_id: str, entries: Iterable[Entry]) -> list[str]:
        """Add lines to the timeline; those that are there already are left out. Returns the texts of the new ones."""
        self.get(incident_id)
        return [entry.text for entry in entries if self._add(incident_id, entry)]

    def recover(self, incident_id: str, call: Call, text: str = "") -> list[str]:
        """Note that it is over for users. Nothing happens when that is known."""
        known = self.get(incident_id)
        if known["recovered_at"]:
            return []
        at = max(isoformat(call.now), known["began_at"])
        self._db.execute("UPDATE incidents SET recovered_at = ? WHERE id = ?", (at, incident_id))
        lasted = format_duration((parse_time(at) - parse_time(known["began_at"])).total_seconds())
        self._add(incident_id, call.entry("recovered", text or f"recovered after {lasted}"))
        return [f"{incident_id}: recovered after {lasted}"]

    def close(self, incident_id: str, call: Call, cause: str, summary: str, text: str = "") -> list[str]:
        """Close what has recovered, or write down cause and summary of what is closed. Raises IncidentError."""
        known = self.get(incident_id)
        if not known["recovered_at"]:
            raise IncidentError(
                f"{incident_id} has not recovered: {known['title']}. Verify that it has, and note that first by "
                "state: recovered"
            )
        changes = []
        for column, value in (("cause", cause), ("summary", summary)):
            if value and value != known[column]:
                self._db.execute(f"UPDATE incidents SET {column} = ? WHERE id = ?", (value, incident_id))
                changes.append(f"{incident_id}: {column} written down")
        if not known["closed_at"]:
            self._db.execute("UPDATE incidents SET closed_at = ? WHERE id = ?", (isoformat(call.now), incident_id))
            self._add(incident_id, call.entry("closed", text or "closed"))
            changes.append(f"{incident_id}: closed")
        return changes

    def _add(self, incident_id: str, entry: Entry) -> bool:
        """Add a line, unless its run has said the same before (without a run: unless it was the last thing said)."""
        same = self._db.execute(
            "SELECT stage, actor, text, run_id FROM incident_events WHERE incident_id = ? AND (run_id = ? OR ? = '') "
            "ORDER BY rowid DESC",
            (incident_id, entry.run_id, entry.run_id),
        ).fetchall()
        looked_at = same if entry.run_id else same[:1]
        if any(tuple(row) == (entry.stage, entry.actor, entry.text, entry.run_id) for row in looked_at):
            return False
        self._db.execute(
            "INSERT INTO incident_events VALUES (?, ?, ?, ?, ?, ?)",
            (incident_id, entry.at, entry.stage, entry.actor, entry.text, entry.run_id),
        )
        return True

    def _new_id(self, now: datetime) -> str:
        """INC-20260131-1 and on; several sites may share a history, so that the number counts over all of them."""
        prefix = f"INC-{isoformat(now)[:10].replace('-', '')}-"
        rows = self._db.execute("SELECT id FROM incidents WHERE id LIKE ?", (f"{prefix}%",)).fetchall()
        numbers = [int(row["id"][len(prefix) :]) for row in rows if row["id"][len(prefix) :].isdigit()]
        return f"{prefix}{max(numbers, default=0) + 1}"


def follow_health(database: sqlite3.Connection, site: str, run: Mapping[str, Any], now: datetime) -> list[str]:
    """Open incidents for critical services that a health check found failing, and note those that have recovered.

    ``run`` is a closed run as ``History.run`` tells it. What fails because of something else belongs to the incident
    of that. A service in a planned maintenance window that has begun opens none. Returns what was done.
    """
    seen = [item for item in run["findings"] if item["procedure"] == "health_check" and item["check"] != "procedure"]
    incidents, call, changes = Incidents(database, site), Call(now, run["name"], run["id"]), []
    planned = _under_maintenance(database, site)
    for services, findings in _by_root(seen):
        if planned is not None and (not planned or planned.issuperset(services)):
            continue
        began = min(parse_time(item.get("since") or item["observed_at"]) for item in findings)
        root = findings[0]
        title = f"{root['subject']} does not work"
        _id, done = incidents.open(services, title, "critical", began, call, f"{root['subject']}: {root['summary']}")
        changes += done
    statuses: dict[str, list[str]] = {}
    for item in seen:
        statuses.setdefault(item["subject"], []).append(item["status"])
    for incident in incidents.standing():
        named = [worst(statuses.get(name, ["unknown"])) for name in incident["services"]]
        if named and not incident["recovered_at"] and not {"critical", "unknown"} & set(named):
            changes += incidents.recover(incident["id"], call)
    return changes


def _by_root(findings: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[Mapping[str, Any]]]]:
    """What is critical, in groups with one root each, as names and findings; the root is first."""
    critical = [item for item in findings if item["status"] == "critical"]
    subjects = {item["subject"] for item in critical}
    parents = {item["subject"]: item["parent"] for item in critical if item["parent"] in subjects}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(critical, key=lambda item: item["subject"] in parents):
        root, passed = item["subject"], set()
        while root in parents and root not in passed:
            passed.add(root)
            root = parents[root]
        groups.setdefault(root, []).append(item)
    return [(list(dict.fromkeys(item["subject"] for item in group)), group) for group in groups.values()]


def _under_maintenance(database: sqlite3.Connection, site: str) -> set[str] | None:
    """Services in planned windows that go on; an empty set means all of them, None that there is no such window."""
    rows = database.execute(
        "SELECT services FROM windows WHERE site = ? AND planned AND started_at IS NOT NULL AND ended_at IS NULL",
        (site,),
    ).fetchall()
    lists = [json.loads(row["services"]) for row in rows]
    if not lists:
        return None
    return set() if [] in lists else {name for names in lists for name in names}


def _seconds(begin: str, end: str | None) -> float | None:
    return (parse_time(end) - parse_time(begin)).total_seconds() if end else None
