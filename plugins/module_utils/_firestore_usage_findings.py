# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the figures of a database mean: findings about its size, growth, orphans, indexes and TTL policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_indexes import Difference, Schema, broken
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_usage import Growth, Orphans, Usage

_LARGEST = 5
_NAMED = 10


@dataclass(frozen=True)
class Limits:
    """From when growth is a warning: percent a day, of at least so many documents a day."""

    percent_per_day: float
    documents_per_day: float


class UsageJudge:
    """Adds findings about one database, whose ``subject`` is such as ``firestore:main``."""

    def __init__(self, found: FindingsBuilder, subject: str) -> None:
        self._found, self._subject = found, subject

    def size(self, usage: Usage) -> None:
        largest = sorted(usage.groups.items(), key=lambda entry: (-entry[1], entry[0]))[:_LARGEST]
        told = f"{usage.documents} documents; the largest of {len(usage.groups)} collection groups: "
        told += ", ".join(f"{name} {count}" for name, count in largest) or "none"
        status, hint = "ok", ""
        if usage.uncounted:
            told += f"; {usage.uncounted} are in groups that were not named"
            status, hint = "warning", "Name their collection groups in collections: only root collections are listed"
        self._found.add(
            "firestore_documents", self._subject, status, told, value=usage.documents, unit="documents", hint=hint
        )

    def growth(self, grown: Mapping[str, Growth | None], usage: Usage, limits: Limits) -> None:
        for group, change in grown.items():
            if change is not None:
                self._growth(group, usage.groups[group], change, limits)

    def _growth(self, group: str, count: int, change: Growth, limits: Limits) -> None:
        percent = change.percent_per_day
        much = change.per_day >= limits.documents_per_day
        # From nothing to something has no percentage: the number alone decides.
        fast = much and (percent is None or percent >= limits.percent_per_day)
        of = f", {percent:.1f} %" if percent is not None else ""
        told = f"{group} has {count} documents, {change.before} on {change.since}: {change.per_day:+.0f} a day{of}"
        self._found.add(
            "firestore_growth",
            f"{self._subject}/{group}",
            "warning" if fast else "ok",
            told,
            value=round(percent, 2) if percent is not None else None,
            unit="% per day",
            threshold=limits.percent_per_day,
            hint="See which service writes them, and whether they should be cleaned up by age" if fast else "",
        )

    def orphans(self, orphans: Orphans) -> None:
        if not orphans.searched:
            hint = "Raise orphans_max_reads if it is worth that"
            self._found.add("firestore_orphans", self._subject, "unknown", orphans.reason, hint=hint)
            return
        told, status, hint = f"no orphans among {orphans.estimate} documents", "ok", ""
        if orphans.count:
            groups = ", ".join(f"{count} of {group}" for group, count in orphans.groups.most_common(_LARGEST))
            told = f"{orphans.count} documents lie below one that is not there: {groups}; such as {orphans.examples[0]}"
            status = "warning"
            hint = "Applications that go from the top never find them: bring their parents back or delete them"
        self._found.add("firestore_orphans", self._subject, status, told, value=orphans.count, hint=hint)

    def indexes(self, where: str, difference: Difference, source: str) -> None:
        """``where`` is the check's ending, ``source`` says against what the file was held."""
        for check, names, what, hint in (
            ("missing", difference.missing, "lacking", "Queries fail without them: deploy firestore.indexes.json"),
            ("unused", difference.unused, "too many", "Each costs writes and storage: remove what serves no query"),
        ):
            status = "warning" if names else "ok"
            told = f"{len(names)} indexes or TTL policies {what} by {source}" + _listed(names)
            self._found.add(
                f"firestore_indexes_{check}{where}",
                self._subject,
                status,
                told,
                value=len(names),
                hint=hint if names else "",
            )

    def states(self, there: Schema) -> None:
        bad = broken(there)
        told = f"{len(there.indexes)} indexes and {len(there.policies)} TTL policies"
        policies = sorted(f"{policy} {state.lower()}" for policy, state in there.policies.items())
        self._found.add(
            "firestore_indexes_built",
            self._subject,
            "critical" if bad else "ok",
            (f"Firestore could not build{_listed(bad)}" if bad else told + " are there" + _listed(policies)),
            value=len(bad),
            hint="Delete and create them again" if bad else "",
        )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ": " + "; ".join(names[:_NAMED]) + more
