# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a clean-up: its figures, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup import KEPT, Census, Rule, Tally
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

#: Applications delete too. Beyond this share of what was there somebody should look.
_UNEXPLAINED_PERCENT = 10
#: What stays for these reasons stays next time as well, unless somebody decides.
_TO_DECIDE = ("with_subcollections", "not_in_backup", "too_large")


@dataclass(frozen=True)
class Result:
    """One rule: counted before, and once it was carried out what was done, with the counts after it."""

    rule: Rule
    before: Census
    done: Tally | None = None
    after: Census | None = None
    seconds: float = 0.0
    #: Documents that were written below roots without any: their parents may have been deleted a moment before.
    appeared: int = 0

    @property
    def to_delete(self) -> int:
        """How many documents of the group would be deleted, at most."""
        return min(self.before.old, self.rule.limit)

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        before, age, done = self.before, self.rule.age, self.done or Tally()
        known = [count for count in before.below.values() if count is not None]
        return {
            "collection_group": age.group,
            "time_field": age.field,
            "cutoff": isoformat(age.cutoff),
            "total": before.total,
            "old": before.old,
            "young": before.young,
            "without_field": before.without_field,
            "other_type": before.other_type,
            "below_at_most": sum(known) if len(known) == len(before.below) else None,
            "reads_estimated": self._reads(),
            "deleted": done.deleted,
            "deleted_below": done.deleted_below,
            "gone": done.gone,
            "kept": {reason: done.kept[reason] for reason in KEPT},
            "limited": done.limited,
            "left": self.after.old if self.after else before.old,
            "seconds": round(self.seconds, 3),
        }

    def _reads(self) -> int | None:
        """Reads that the clean-up costs beside counts: for each document, and for looking what lies below it."""
        below = self.before.below.values()
        if (self.rule.allow_orphans and not self.rule.subcollections) or not any(count != 0 for count in below):
            return self.to_delete
        if self.before.read_all is not None:
            return self.to_delete + self.before.read_all
        known = [count for count in below if count is not None]
        if not self.rule.subcollections:
            return 2 * self.to_delete
        return 2 * self.to_delete + sum(known) if len(known) == len(below) else None


def judge(found: FindingsBuilder, subject: str, result: Result) -> None:
    """Add the findings about one rule."""
    group, age = f"{subject}/{result.rule.age.group}", result.rule.age
    before = result.before
    if before.total and not before.old + before.young:
        found.add(
            "firestore_cleanup",
            group,
            "warning",
            f"none of {before.total} documents of {age.group} has a time in {age.field} "
            f"({before.without_field} lack the field, {before.other_type} hold another type): none is ever cleaned up",
            hint="Correct time_field, or take the rule out of cleanup in upkeep_firestore",
        )
    elif result.done is None or result.after is None:
        _judge_plan(found, group, result)
    else:
        _judge_done(found, group, result, result.done, result.after)
        _judge_loss(found, group, result, result.done, result.after)


def _judge_plan(found: FindingsBuilder, group: str, result: Result) -> None:
    before, rule = result.before, result.rule
    told = f"{before.old} of {before.total} documents of {rule.age.group} are older than {_cutoff(rule)}"
    told += _unmatched(before)
    if before.old > rule.limit:
        told += f"; the limit lets a clean-up delete {rule.limit} of them"
    if before.old:
        told += _below(result)
    found.add("firestore_cleanup", group, "ok", told, value=before.old, unit="documents")


def _below(result: Result) -> str:
    counts = list(result.before.below.values())
    if not any(count != 0 for count in counts):
        return "; no documents lie below them"
    known = [count for count in counts if count is not None]
    what = f"up to {sum(known)} documents" if len(known) == len(counts) else "documents, which could not be counted,"
    if result.rule.subcollections:
        return f"; {what} may lie below them and would be deleted with them"
    if result.rule.allow_orphans:
        return f"; {what} may lie below them and would be left as orphans"
    return f"; {what} may lie below them: those that have any would stay, unless subcollections or allow_orphans is set"


def _judge_done(found: FindingsBuilder, group: str, result: Result, done: Tally, after: Census) -> None:
    told = f"{done.deleted} documents of {result.rule.age.group} older than {_cutoff(result.rule)} were deleted"
    if done.deleted_below:
        told += f" with {done.deleted_below} below them"
    kept = [f"{done.kept[reason]} {phrase}" for reason, phrase in KEPT.items() if done.kept[reason]]
    told += f"; kept: {', '.join(kept)}" if kept else ""
    told += f"; the limit of {result.rule.limit} was reached" if done.limited else ""
    told += f"; {after.old} are left" + _unmatched(after)
    status, hint = "ok", ""
    unexplained = after.old - max(0, result.before.old - done.deleted - done.gone)
    if any(done.kept[reason] for reason in _TO_DECIDE):
        status, hint = "warning", "Decide on them: see subcollections, allow_orphans and limit of firestore_cleanup"
    elif unexplained > 0:
        told += f", {unexplained} more than by the count before"
        status, hint = "warning", "See who writes documents that are old already, then run it again"
    found.add("firestore_cleanup", group, status, told, value=after.old, unit="documents", hint=hint)


def _judge_loss(found: FindingsBuilder, group: str, result: Result, done: Tally, after: Census) -> None:
    """Nobody should lose documents by this: what is missing beyond what was deleted is told."""
    before = result.before
    young = max(0, before.young - after.young)
    missing = young + done.gone
    told = f"{before.young} younger documents of {result.rule.age.group} before, {after.young} after"
    told += f"; {done.gone} old ones were gone before they could be deleted" if done.gone else ""
    told += f"; {result.appeared} documents were written below meanwhile" if result.appeared else ""
    status, hint = "ok", ""
    if result.appeared:
        status, hint = "warning", "They may be orphans now: see firestore_usage with orphans"
    if missing * 100 > _UNEXPLAINED_PERCENT * before.total:
        status = "critical"
        hint = "Another program deletes them, or the database lost data: compare with the newest backup set"
    found.add("firestore_cleanup_loss", group, status, told, value=missing, unit="documents", hint=hint)


def _unmatched(census: Census) -> str:
    told = ""
    if census.without_field:
        told += f"; {census.without_field} lack the field and are never matched"
    if census.other_type:
        told += f"; {census.other_type} hold no time in it and are never matched"
    return told


def _cutoff(rule: Rule) -> str:
    return f"{isoformat(rule.age.cutoff)} by {rule.age.field}"


def summary(results: Mapping[str, Result]) -> str:
    """One sentence about all rules, by their groups."""
    if any(result.done for result in results.values()):
        deleted = sum(result.done.all_deleted for result in results.values() if result.done)
        return f"deleted {deleted} documents of {', '.join(results)}"
    return f"would delete {sum(result.to_delete for result in results.values())} documents of {', '.join(results)}"
