# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean-up from the options of the module to its answer: the backup set first, then one rule after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup import Cleaner, Rule, take_census
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup_findings import Result, judge, summary
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import Age, AgeCounts, Documents
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import Opener
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_safety import (
    Demand,
    NoSafetyError,
    SafetySet,
    safety_set,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_verify import RecordError
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, format_duration, parse_duration

_SHORTEST_AGE = 86400.0  # seconds; less is a mistake, such as a number without its unit


class CleanupError(Exception):
    """The clean-up ended early; the text says why and how far it came. ``groups`` is what the module returns of it."""

    def __init__(self, text: str, results: Sequence[Result] = ()) -> None:
        super().__init__(text)
        self.groups = [result.as_dict() for result in results]
        self.changed = any(result.done is not None and result.done.all_deleted for result in results)


@dataclass(frozen=True)
class Services:
    """What a clean-up works with; connections are made when they are used."""

    live: LiveCounts
    documents: Documents
    open_bucket: Callable[[str], Opener]
    clock: Clock
    monotonic: Callable[[], float]
    progress: Progress

    @classmethod
    def of(
        cls, target: Target, timeout: float, clock: Clock, monotonic: Callable[[], float], progress: Progress
    ) -> Services:
        cloud = storage_client(target)

        def open_bucket(bucket: str) -> Opener:
            return bucket_opener(cloud, bucket, target.storage_url, timeout)

        live = LiveCounts(target, timeout)
        return cls(live, Documents(target, timeout), open_bucket, clock, monotonic, progress)


@dataclass(frozen=True)
class Request:
    """What is asked for. ``demand`` is None when no backup set was named; ``check`` deletes nothing."""

    target: Target
    subject: str
    rules: Sequence[Rule]
    demand: Demand | None
    cleaning: bool
    check: bool
    threads: int

    @classmethod
    def of(cls, options: Mapping[str, Any], target: Target, check: bool, now: datetime) -> Request:
        """Raises ValueError when an option is not what it should be."""
        root = options["backup_root"]
        demand = Demand(root, parse_duration(options["backup_max_age"]), options["backup_part"]) if root else None
        if options["threads"] < 1:
            raise ValueError("threads must be at least 1")
        rules = [_rule(entry, now) for entry in options["cleanup"]]
        twice = [group for group, times in Counter(rule.age.group for rule in rules).items() if times > 1]
        if twice:
            raise ValueError(f"cleanup names {', '.join(twice)} more than once")
        cleaning = options["state"] == "cleaned"
        return cls(
            target,
            f"firestore:{options['name'] or target.database}",
            rules,
            demand,
            cleaning,
            check,
            options["threads"],
        )

    def carry_out(self, services: Services) -> tuple[list[Finding], dict[str, Any]]:
        """The findings and the rest of the module's answer. Raises CleanupError and FirestoreAccessError."""
        found = FindingsBuilder(services.clock())
        safety, refusal = self._safety(services)
        if self.cleaning and safety is None:
            raise CleanupError(f"nothing was deleted: {refusal}")
        if self.demand:
            self._tell_safety(found, safety, refusal)
        results: list[Result] = []
        try:
            self._apply_rules(services, safety, results, found)
        except (FirestoreAccessError, StoppedError, OSError) as error:
            raise CleanupError(f"{_so_far(results)}: {error}", results) from error
        return found.findings, self._answer(results, safety)

    def _apply_rules(
        self, services: Services, safety: SafetySet | None, results: list[Result], found: FindingsBuilder
    ) -> None:
        """One rule after another; ``results`` has what was done when an exception ends it."""
        roots = services.live.root_collections()
        for rule in self.rules:
            before = take_census(rule, AgeCounts(services.live, self.target.name), services.live.count, roots)
            results.append(Result(rule, before))
            if self.cleaning and not self.check and safety is not None:
                self._clean(services, results, safety)
            judge(found, self.subject, results[-1])

    def _answer(self, results: Sequence[Result], safety: SafetySet | None) -> dict[str, Any]:
        would_change = self.check and any(result.to_delete for result in results)
        changed = any(result.done is not None and result.done.all_deleted for result in results)
        return {
            "changed": self.cleaning and (changed or would_change),
            "msg": summary({result.rule.age.group: result for result in results}),
            "groups": [result.as_dict() for result in results],
            "backup_set": safety.as_dict() if safety else None,
            "diff": {
                "before": _diff(results, lambda result: result.before.total),
                "after": _diff(results, self._expected),
            },
        }

    def _expected(self, result: Result) -> int:
        if result.done is not None:
            return result.before.total - result.done.deleted
        return result.before.total - (result.to_delete if self.cleaning else 0)

    def _clean(self, services: Services, results: list[Result], safety: SafetySet) -> None:
        """Carry out the rule of the last result, and put in its place the result with what was done."""
        rule, before = results[-1].rule, results[-1].before
        _must_be_held(results, safety)
        expected = min(rule.limit, before.old)
        cleaner = Cleaner(
            rule, services.documents, safety, self.threads, lambda done: services.progress(done, max(done, expected))
        )
        counts = AgeCounts(services.live, self.target.name)
        started = services.monotonic()
        try:
            cleaner.clean(before)
        finally:
            seconds = services.monotonic() - started
            results[-1] = Result(rule, before, cleaner.tally, None, seconds)
        after = take_census(rule, counts, services.live.count, ())
        childless = [root for root, count in before.below.items() if count == 0]
        appeared = sum(counts.within(root, rule.age.group)[1] for root in childless)
        results[-1] = Result(rule, before, cleaner.tally, after, seconds, appeared)
        services.progress.finish(cleaner.tally.all_deleted)

    def _safety(self, services: Services) -> tuple[SafetySet | None, str]:
        """The set, or why there is none."""
        if self.demand is None:
            return None, ""
        try:
            return safety_set(self.target, self.demand, services.clock(), services.open_bucket), ""
        except (NoSafetyError, RecordError, OSError) as error:
            return None, str(error)

    def _tell_safety(self, found: FindingsBuilder, safety: SafetySet | None, refusal: str) -> None:
        check = "firestore_cleanup_backup"
        if safety is None:
            hint = "A clean-up is refused until then"
            found.add(check, self.subject, "warning", f"no clean-up could be done: {refusal}", hint=hint)
        else:
            told = f"backup set {safety.id}, {format_duration(safety.age)} old, is there to fall back to"
            found.add(check, self.subject, "ok", told, value=int(safety.age), unit="s")


def _rule(entry: Mapping[str, Any], now: datetime) -> Rule:
    older_than = parse_duration(entry["older_than"])
    if older_than < _SHORTEST_AGE:
        raise ValueError(
            f"older_than {entry['older_than']!r} of {entry['collection_group']} is less than a day: give it with its "
            "unit, such as 365d"
        )
    if entry["limit"] < 1:
        raise ValueError(f"limit of {entry['collection_group']} must be at least 1")
    age = Age(entry["collection_group"], entry["time_field"], now - timedelta(seconds=older_than))
    return Rule(age, entry["limit"], entry["subcollections"], entry["allow_orphans"])


def _must_be_held(results: Sequence[Result], safety: SafetySet) -> None:
    """A set that knows nothing of the group is none to fall back to."""
    group = results[-1].rule.age.group
    if results[-1].before.old and not safety.collections.get(group):
        raise CleanupError(
            f"{_so_far(results)}: backup set {safety.id} holds no document of the collection group {group}. Is it "
            "among the collections of the database in upkeep_firestore?",
            results,
        )


def _so_far(results: Sequence[Result]) -> str:
    """The beginning of a sentence on why it ended early."""
    done = [result for result in results if result.done is not None and result.done.all_deleted]
    if not done:
        return "nothing was deleted"
    told = ", ".join(
        f"{result.done.all_deleted} documents of {result.rule.age.group}" for result in done if result.done
    )
    return f"the clean-up ended early and goes on when it is run again, {told} were deleted for certain"


def _diff(results: Sequence[Result], figure: Callable[[Result], int]) -> dict[str, int]:
    return {result.rule.age.group: figure(result) for result in results}
