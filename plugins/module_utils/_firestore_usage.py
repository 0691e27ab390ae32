# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many documents a database holds in which collection groups, how these grow, and which documents are orphans."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    FirestoreUnreachableError,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: How long samples are kept.
_KEPT = timedelta(days=400)
#: A newer sample makes another one needless.
_INTERVAL = timedelta(hours=1)
#: Growth is told against the newest sample that is as old as this, so that a day's ups and downs do not count.
_BASELINE_AGE = timedelta(hours=20)
_DAY = 86400.0
#: Orphans that are told by name.
_EXAMPLES = 10


@dataclass(frozen=True)
class Usage:
    """Documents per collection group, and of the whole database; None when that could not be counted."""

    groups: Mapping[str, int]
    total: int | None

    @property
    def uncounted(self) -> int | None:
        """Documents in collection groups that nobody named."""
        return None if self.total is None else max(0, self.total - sum(self.groups.values()))

    @property
    def documents(self) -> int:
        return self.total if self.total is not None else sum(self.groups.values())


def count_groups(live: LiveCounts, names: Iterable[str]) -> Usage:
    """Count the groups and everything. Costs a read for each thousand documents. Raises FirestoreAccessError."""
    groups = {name: live.count(name) for name in sorted(set(names))}
    try:
        total: int | None = live.count_query({"from_": [{"all_descendants": True}]}, "all documents")
    except FirestoreUnreachableError:
        raise
    except FirestoreAccessError:
        total = None
    return Usage(groups, total)


@dataclass(frozen=True)
class Sample:
    """The documents per collection group of one database at one moment."""

    at: str
    database: str
    groups: Mapping[str, int]

    @property
    def moment(self) -> datetime:
        return parse_time(self.at)


def read_samples(path: str) -> list[Sample]:
    """The samples in a file, of all databases, oldest first; damaged lines are passed over. A missing file has none.

    Raises OSError when it is there and cannot be read.
    """
    samples = []
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                sample = _sample_from(line)
                if sample is not None:
                    samples.append(sample)
    except FileNotFoundError:
        return []
    return sorted(samples, key=lambda sample: sample.at)


def _sample_from(line: str) -> Sample | None:
    try:
        values = json.loads(line)
        groups = {str(name): int(count) for name, count in values["groups"].items()}
        return Sample(isoformat(parse_time(values["at"])), str(values["database"]), groups)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def add_sample(samples: Sequence[Sample], database: str, groups: Mapping[str, int], now: datetime) -> list[Sample]:
    """The samples with that of now, without those that are too old; the same when there is a recent one."""
    if any(sample.database == database and sample.moment > now - _INTERVAL for sample in samples):
        return list(samples)
    return [*(sample for sample in samples if sample.moment > now - _KEPT), Sample(isoformat(now), database, groups)]


def write_samples(path: str, samples: Iterable[Sample]) -> None:
    """Publish the file as a whole, in a folder that is made when it is not there. Raises OSError."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    publish_text(path, "".join(json.dumps(vars(sample), sort_keys=True) + "\n" for sample in samples))


@dataclass(frozen=True)
class Growth:
    """How a group grew since an earlier sample, per day."""

    since: str
    before: int
    per_day: float
    percent_per_day: float | None


def growth(samples: Sequence[Sample], group: str, count: int, now: datetime) -> Growth | None:
    """Growth of a group against the newest sample that is about a day old; None without one."""
    known = [sample for sample in samples if group in sample.groups and sample.moment <= now - _BASELINE_AGE]
    if not known:
        return None
    days = (now - known[-1].moment).total_seconds() / _DAY
    before = known[-1].groups[group]
    per_day = (count - before) / days
    return Growth(known[-1].at, before, per_day, 100 * per_day / before if before else None)


@dataclass
class Orphans:
    """Documents that have a parent which is not there. ``estimate`` is what the search costs in reads."""

    estimate: int
    searched: bool = False
    reason: str = ""
    groups: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.groups.values())

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "searched": self.searched,
            "reason": self.reason,
            "reads_estimated": self.estimate,
            "count": self.count,
            "groups": dict(self.groups.most_common()),
            "examples": self.examples,
        }


def find_orphans(found: Orphans, names: Iterable[str]) -> None:
    """Search all names, which must come parents first. Remembers no more of them than one path has parts."""
    there: list[str] = []
    for name in names:
        path = name.split("/documents/", 1)[1]
        while there and not path.startswith(there[-1] + "/"):
            there.pop()
        parent = path.rsplit("/", 2)[0] if path.count("/") > 1 else ""
        lacks_parent = bool(parent) and (not there or there[-1] != parent)
        there.append(path)
        if lacks_parent:
            found.groups[path.rsplit("/", 2)[-2]] += 1
            if len(found.examples) < _EXAMPLES:
                found.examples.append(path)
    found.searched = True
