# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup set without which no document is deleted: verified, young, of this database, and still in its bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSet, moment_of, read_sets
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import Target
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import Opener
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_verify import read_record, verify_record
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time


class NoSafetyError(Exception):
    """There is no set to fall back to; the text names the newest one, what it lacks and what to do."""


@dataclass(frozen=True)
class SafetySet:
    """The set to fall back to. What was changed after ``taken_at`` may not be in it."""

    id: str
    age: float
    taken_at: datetime
    collections: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        return {"id": self.id, "age": int(self.age)}


@dataclass(frozen=True)
class Demand:
    """Which set is demanded: below which root, how young in seconds, and the name of the part if it is known."""

    root: str
    max_age: float
    part: str = ""


def safety_set(target: Target, demand: Demand, now: datetime, open_bucket: Callable[[str], Opener]) -> SafetySet:
    """The newest verified set that holds the database, if it satisfies the demand.

    Raises NoSafetyError, OSError, and RecordError when the record of the export is damaged.
    """
    sets = read_sets(demand.root)
    ours = [(entry, part) for entry in sets for part in [_part(entry, target, demand.part)] if part]
    found = next(((entry, part) for entry, part in ours if entry.state == "verified"), None)
    if found is None:
        unproved = f"; {ours[0][0].id} holds it, and is {ours[0][0].state}" if ours else ""
        raise NoSafetyError(
            f"below {demand.root} is no verified backup set that holds {target.name} "
            f"({len(sets)} sets in all{unproved}): make one with playbooks/backup.yml"
        )
    entry, part = found
    age = entry.age(now)
    if age > demand.max_age:
        raise NoSafetyError(
            f"the newest verified backup set of {target.name}, {entry.id} below {demand.root}, is "
            f"{format_duration(age)} old, allowed are {format_duration(demand.max_age)}: make one with "
            "playbooks/backup.yml"
        )
    _must_be_in_bucket(entry, part, open_bucket, now)
    return SafetySet(entry.id, age, _taken_at(entry, part), dict(part["details"].get("collections") or {}))


def _part(entry: BackupSet, target: Target, name: str) -> Mapping[str, Any] | None:
    """The part of a set that is an export of the database. One of that name without its operation is believed."""
    for part in entry.parts:
        operation = part["details"].get("operation", "")
        ours = operation.startswith(f"{target.name}/operations/")
        if (ours and name in ("", part["name"])) or (name == part["name"] and not operation):
            return part
    return None


def _taken_at(entry: BackupSet, part: Mapping[str, Any]) -> datetime:
    """The moment from which on changes may not be in the set: it was opened before its export began."""
    snapshot = part["details"].get("snapshot_time")
    opened = moment_of(entry.id)
    return min(opened, parse_time(snapshot)) if snapshot else opened


def _must_be_in_bucket(
    entry: BackupSet, part: Mapping[str, Any], open_bucket: Callable[[str], Opener], now: datetime
) -> None:
    found = FindingsBuilder(now)
    verify_record(read_record(os.path.join(entry.path, part["path"])), part["name"], 1, open_bucket, found)
    bad = [finding.summary for finding in found.findings if finding.status != "ok"]
    if bad:
        raise NoSafetyError(f"backup set {entry.id} cannot be fallen back to: {bad[0]}")
