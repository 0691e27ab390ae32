# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a database from the options of the module to its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import FirestoreAccessError, Target
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import Documents
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_indexes import (
    Schema,
    against_deployed,
    against_used,
    deployed,
    read_indexes_file,
    used,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_usage import (
    Growth,
    Orphans,
    Usage,
    add_sample,
    count_groups,
    find_orphans,
    growth,
    read_samples,
    write_samples,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_usage_findings import Limits, UsageJudge
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress

_PAGE = 5000


@dataclass
class Look:
    """One look at a database, at a moment; each step adds to ``answer`` what the module returns."""

    target: Target
    options: Mapping[str, Any]
    now: datetime
    found: FindingsBuilder
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def judge(self) -> UsageJudge:
        return UsageJudge(self.found, self.subject)

    @property
    def name(self) -> str:
        return str(self.options["name"] or self.target.database)

    @property
    def subject(self) -> str:
        return f"firestore:{self.name}"

    def indexes(self) -> set[str]:
        """Hold indexes and TTL policies against the file; the collection groups that were heard of.

        What cannot be asked is unknown, so that the counts are told nevertheless. Raises OSError and IndexesFileError
        for the file.
        """
        timeout = self.options["timeout"]
        path = self.options["indexes_file"]
        declared = read_indexes_file(path) if path else None
        there, queries = Schema(), {}
        try:
            there = deployed(self.target, timeout)
            queries = used(self.target, timeout) if self.target.is_stand_in else {}
        except (FirestoreAccessError, OSError) as error:
            hint = "The account needs datastore.indexes.list, as roles/datastore.viewer has it"
            self.found.add(
                "firestore_indexes_built", self.subject, "unknown", f"indexes not listed: {error}", hint=hint
            )
        else:
            self.judge.states(there)
            if declared is not None:
                self._hold_against(declared, there, queries)
        self.answer["indexes"] = [
            {"index": str(index), "state": state, "queries": queries.get(index) if self.target.is_stand_in else None}
            for index, state in there.indexes.items()
        ]
        self.answer["ttl_policies"] = [
            {"collection_group": policy.group, "field": policy.field, "state": state}
            for policy, state in there.policies.items()
        ]
        return there.groups | (declared.groups if declared else set())

    def _hold_against(self, declared: Schema, there: Schema, queries: Mapping[Any, int]) -> None:
        self.judge.indexes("", against_deployed(declared, there), "those of the database against the file")
        if self.target.is_stand_in:
            self.judge.indexes(
                "_by_queries", against_used(declared, queries), "the emulator's queries against the file"
            )

    def count(self, live: LiveCounts, heard_of: set[str]) -> Usage:
        """Count documents, and say how the groups grew. Raises FirestoreAccessError and OSError."""
        samples_file = self.options["samples_file"]
        samples = read_samples(samples_file) if samples_file else []
        ours = [sample for sample in samples if sample.database == self.target.name]
        named = set(self.options["collections"]) or {*live.root_collections(), *heard_of}
        usage = count_groups(live, named)
        grown = {group: growth(ours, group, count, self.now) for group, count in usage.groups.items()}
        limits = Limits(self.options["growth_warning_percent"], self.options["growth_min_documents"])
        self.judge.size(usage)
        self.judge.growth(grown, usage, limits)
        kept = add_sample(samples, self.target.name, usage.groups, self.now)
        self.answer["changed"] = bool(samples_file) and kept != samples
        self.answer["groups"] = [
            {"collection_group": group, "documents": count, **_told(grown[group])}
            for group, count in sorted(usage.groups.items(), key=lambda entry: (-entry[1], entry[0]))
        ]
        self.answer["documents"] = usage.documents
        self.answer["uncounted"] = usage.uncounted
        self.answer["metrics"] = {
            f"firestore_documents:{self.name}": usage.documents,
            **{f"firestore_documents:{self.name}/{group}": count for group, count in usage.groups.items()},
        }
        if self.answer["changed"] and not self.options["check_mode"]:
            write_samples(samples_file, kept)
        return usage

    def orphans(self, usage: Usage, documents: Documents, progress: Progress, log: Callable[[str], None]) -> None:
        """Search orphans if that was asked for and costs no more than allowed.

        The system log and the progress hear the price first. Raises FirestoreAccessError.
        """
        orphans = Orphans(usage.documents)
        if not self.options["orphans"]:
            orphans.reason = "not asked for"
        elif orphans.estimate > self.options["orphans_max_reads"]:
            orphans.reason = (
                f"orphans were not searched: that costs {orphans.estimate} reads, "
                f"allowed are {self.options['orphans_max_reads']}"
            )
        elif self.options["check_mode"]:
            orphans.reason = f"the search for orphans would cost {orphans.estimate} reads; check mode makes none"
        else:
            log(f"the search for orphans in {self.target.name} costs about {orphans.estimate} reads")
            progress(0, orphans.estimate)
            find_orphans(orphans, self._counted(documents, orphans.estimate, progress))
        if self.options["orphans"]:
            self.judge.orphans(orphans)
        self.answer["orphans"] = orphans.as_dict()

    def _counted(self, documents: Documents, expected: int, progress: Progress) -> Iterator[str]:
        for number, stamp in enumerate(documents.everything(_PAGE), 1):
            if number % _PAGE == 0:
                progress(number, max(number, expected))
            yield stamp.name


def _told(change: Growth | None) -> dict[str, Any]:
    return {
        "before": change.before if change else None,
        "before_at": change.since if change else None,
        "per_day": round(change.per_day, 1) if change else None,
    }
