# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a site stands, in words for its users: read from the history, with nothing in it that is not meant for them.

No summary of a check, no name of a host and no inner entry of a timeline leaves this file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import worst
from ansible_collections.upkeep.ops.plugins.module_utils._history_incidents import Incidents
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: What a service can be, best first.
SERVICE_STATES = ("operational", "maintenance", "unknown", "degraded", "outage")

_HEADLINES = {
    "operational": "All services work",
    "maintenance": "Maintenance is going on",
    "unknown": "We cannot tell how all services are",
    "degraded": "Some services work with restrictions",
    "partial_outage": "Some services do not work",
    "outage": "Services do not work",
}
_HEALTH = ("health_check", "service_health")


def site_status(
    database: sqlite3.Connection,
    site: str,
    services: Sequence[Mapping[str, Any]],
    now: datetime,
    past: timedelta,
    max_age: timedelta,
) -> dict[str, Any]:
    """The whole page as data. A service that was not looked at for ``max_age`` is unknown."""
    windows = _windows(database, site, now)
    under_way = [window for window in windows if window["status"] == "under_way"]
    told = [_service(database, site, service, under_way, now, max_age) for service in services]
    incidents = Incidents(database, site)
    status = _overall(told, under_way)
    return {
        "site": site,
        "updated_at": isoformat(now),
        "status": status,
        "headline": _HEADLINES[status],
        "services": [{key: item[key] for key in ("name", "status", "since")} for item in told],
        "incidents": [_incident(item) for item in incidents.standing()],
        "past": [_incident(item) for item in incidents.closed_since(now - past)],
        "windows": windows,
    }


def _service(
    database: sqlite3.Connection,
    site: str,
    service: Mapping[str, Any],
    windows: Sequence[Mapping[str, Any]],
    now: datetime,
    max_age: timedelta,
) -> dict[str, Any]:
    name = str(service["name"])
    critical = service.get("critical") is not False
    rows = database.execute(
        "SELECT status, since, observed_at FROM states WHERE site = ? AND procedure = ? AND check_name = ? "
        "AND subject = ?",
        (site, *_HEALTH, name),
    ).fetchall()
    fresh = [row for row in rows if row["observed_at"] and now - parse_time(row["observed_at"]) <= max_age]
    status = worst(row["status"] for row in fresh) if fresh else "unknown"
    since = max((row["since"] for row in fresh if row["status"] == status), default="")
    if any(not window["services"] or name in window["services"] for window in windows):
        state = "maintenance"
    elif status == "warning" and not critical and _last_seen(database, site, name) == "down":
        state = "outage"
    else:
        state = {"ok": "operational", "warning": "degraded", "unknown": "unknown", "critical": "outage"}[status]
    return {"name": name, "status": state, "since": since, "critical": critical}


def _last_seen(database: sqlite3.Connection, site: str, name: str) -> str:
    """What was last observed of a service: the failure of one that is not critical is a warning like slowness."""
    row = database.execute(
        "SELECT state FROM observations JOIN runs ON runs.id = run_id WHERE subject = ? AND site = ? "
        "ORDER BY observed_at DESC LIMIT 1",
        (name, site),
    ).fetchone()
    return "" if row is None else str(row["state"])


def _overall(services: Sequence[Mapping[str, Any]], windows: Sequence[Mapping[str, Any]]) -> str:
    states = {item["status"] for item in services}
    critical = [item["status"] for item in services if item["critical"]]
    if "outage" in critical:
        return "outage" if set(critical) == {"outage"} else "partial_outage"
    if "outage" in states or "degraded" in states:
        return "partial_outage" if "outage" in states else "degraded"
    if "unknown" in states or not services:
        return "unknown"
    return "maintenance" if windows else "operational"


def _incident(item: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("id", "title", "severity", "status", "services", "began_at", "recovered_at", "closed_at")
    updates = [{"at": event["at"], "text": event["text"]} for event in item["events"] if event["stage"] == "public"]
    return {**{key: item[key] for key in kept}, "updates": updates[::-1]}


def _windows(database: sqlite3.Connection, site: str, now: datetime) -> list[dict[str, Any]]:
    """Planned maintenance that goes on or is still to come, in order."""
    rows = database.execute(
        "SELECT title, services, starts_at, ends_at, started_at FROM windows "
        "WHERE site = ? AND ended_at IS NULL AND (started_at IS NOT NULL OR ends_at > ?) ORDER BY starts_at",
        (site, isoformat(now)),
    )
    return [
        {
            "title": row["title"],
            "services": json.loads(row["services"]),
            "starts_at": row["started_at"] or row["starts_at"],
            "ends_at": row["ends_at"],
            "status": "under_way" if row["started_at"] else "planned",
        }
        for row in rows.fetchall()
    ]
