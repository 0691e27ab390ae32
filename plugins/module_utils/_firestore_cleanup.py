# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deletes documents older than an age, so that nothing else is lost and it can be killed at any moment.

A document is deleted on the condition that it is still what was looked at, in the same commit as all that lies below
it. So a run that is killed leaves no half deleted document, and the next one goes on where it ended: the rest is what
is still older than the age.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from threading import Event
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    FirestoreUnreachableError,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import (
    Age,
    AgeCounts,
    ChangedError,
    Documents,
    RefusedError,
    Stamp,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_safety import SafetySet

_PAGE = 2000
_BATCH = 400
#: Batches that wait for a thread, so that pages are not read far ahead of the deletes.
_AHEAD = 12
#: So many documents are rather read all than asked for below one document after the other, which takes a call each.
_READ_ALL = 100_000
_READ_PAGE = 5000
#: The most documents that are deleted in one commit with the one above them.
_FAMILY = 5000

#: Why a document stays, with a phrase for people.
KEPT = {
    "changed": "changed meanwhile",
    "changed_since_backup": "changed since the backup",
    "with_subcollections": "with subcollections that would be orphaned",
    "not_in_backup": "with subcollections that the backup does not hold",
    "too_large": "with more documents below them than one commit or the limit takes",
}


@dataclass(frozen=True)
class Rule:
    """What is cleaned up: documents of an age, at most ``limit`` of them, and what becomes of those below them."""

    age: Age
    limit: int
    subcollections: bool = False
    allow_orphans: bool = False


@dataclass(frozen=True)
class Census:
    """Documents of a collection group before anything is deleted, by their age.

    ``below`` counts the documents of other groups below the same roots, by the root: whatever lies below an old
    document is among them. None means that it could not be counted.
    """

    total: int
    old: int
    young: int
    without_field: int
    other_type: int
    below: Mapping[str, int | None]

    @property
    def read_all(self) -> int | None:
        """How many documents are to be read to know what lies below each; None when they are too many for that."""
        known = [count for count in self.below.values() if count is not None]
        most = self.total + sum(known)
        return most if len(known) == len(self.below) and most <= _READ_ALL else None


@dataclass
class Tally:
    """What was done. ``deleted`` counts documents of the group, ``deleted_below`` those that lay below them."""

    deleted: int = 0
    deleted_below: int = 0
    gone: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    limited: bool = False

    @property
    def all_deleted(self) -> int:
        return self.deleted + self.deleted_below


@dataclass(frozen=True)
class Family:
    """A document with all that lies below it: deleted together or not at all."""

    head: Stamp
    below: tuple[Stamp, ...] = ()

    @property
    def members(self) -> tuple[Stamp, ...]:
        return (self.head, *self.below)


def take_census(rule: Rule, counts: AgeCounts, group_total: Callable[[str], int], roots: Sequence[str]) -> Census:
    """Count what there is. Costs a read for each thousand documents. Raises FirestoreAccessError."""
    age = rule.age
    total, old, young = group_total(age.group), counts.older(age), counts.younger(age)
    present = counts.with_field(age)
    below = _below_roots(counts, roots, age.group) if old else {}
    # What is written between two counts must not make a figure negative.
    return Census(total, old, young, max(0, total - present), max(0, present - old - young), below)


def _below_roots(counts: AgeCounts, roots: Sequence[str], group: str) -> dict[str, int | None]:
    """Documents of other groups below each root that has some of the group."""
    below: dict[str, int | None] = {}
    for root in roots:
        try:
            ours, others = counts.within(root, group)
        except FirestoreUnreachableError:
            raise
        except FirestoreAccessError:
            below[root] = None
        else:
            below.update({root: max(0, others)} if ours else {})
    return below


class Cleaner:
    """Carries one rule out. ``tell`` hears how many documents are done."""

    def __init__(
        self, rule: Rule, documents: Documents, safety: SafetySet, threads: int, tell: Callable[[int], None]
    ) -> None:
        self._rule, self._documents, self._safety, self._tell = rule, documents, safety, tell
        self._threads = threads
        self._most_below = min(_FAMILY, rule.limit)
        self._failed = Event()
        self._claimed: set[str] = set()
        self._all_below: Mapping[str, tuple[Stamp, ...]] | None = None
        self.tally = Tally()

    def clean(self, census: Census) -> None:
        """Delete; what was done is in ``tally``, also after an exception. Raises FirestoreAccessError."""
        pending: deque[Future[Tally]] = deque()
        self._read_below(census)
        workers = ThreadPoolExecutor(self._threads)
        try:
            for batch in _batches(self._families(census, workers)):
                pending.append(workers.submit(self._delete, batch))
                while len(pending) > _AHEAD:
                    self._collect(pending)
            while pending:
                self._collect(pending)
        finally:
            # A commit that was sent is waited for: what it did belongs to what is told.
            workers.shutdown(cancel_futures=True)
            for left in pending:
                if not left.cancelled() and left.exception() is None:
                    self._add(left.result())

    def _collect(self, pending: deque[Future[Tally]]) -> None:
        done = pending[0].result()
        pending.popleft()
        self._add(done)
        self._tell(self.tally.all_deleted)

    def _add(self, done: Tally) -> None:
        self.tally.deleted += done.deleted
        self.tally.deleted_below += done.deleted_below
        self.tally.gone += done.gone
        self.tally.kept.update(done.kept)

    def _families(self, census: Census, workers: ThreadPoolExecutor) -> Iterator[Family]:
        """What is to be deleted, at most as much as the limit allows."""
        left = self._rule.limit
        for page in self._documents.older(self._rule.age, _PAGE):
            for head, below in zip(page, self._below(page, census, workers)):
                if head.name in self._claimed:
                    continue
                reason = self._reason_to_keep(head, below)
                if reason:
                    self.tally.kept[reason] += 1
                    continue
                if 1 + len(below) > left:
                    self.tally.limited = True
                    return
                left -= 1 + len(below)
                self._claimed.update(stamp.name for stamp in below if stamp.group == self._rule.age.group)
                yield Family(head, below)

    @property
    def _must_look_below(self) -> bool:
        return self._rule.subcollections or not self._rule.allow_orphans

    def _read_below(self, census: Census) -> None:
        """Read what lies below all documents of the group, where that is better than to ask for each of them."""
        if not self._must_look_below or census.read_all is None:
            return
        found: dict[str, list[Stamp]] = {}
        for root, count in census.below.items():
            if count:
                gather_below(self._rule.age.group, self._documents.everything(_READ_PAGE, root), found)
        self._all_below = {name: tuple(below) for name, below in found.items()}

    def _below(self, page: Sequence[Stamp], census: Census, workers: ThreadPoolExecutor) -> Iterator[tuple[Stamp, ...]]:
        """For each document what lies below it, as far as it must be known: one of them, or all."""
        if not self._must_look_below or all(census.below.get(head.root) == 0 for head in page):
            return iter([()] * len(page))
        if self._all_below is not None:
            return (self._all_below.get(head.name, ())[: self._most_below] for head in page)
        limit = self._most_below if self._rule.subcollections else 1
        return workers.map(lambda head: tuple(self._documents.below(head.name, limit)), page)

    def _reason_to_keep(self, head: Stamp, below: Sequence[Stamp]) -> str:
        if below and not self._rule.subcollections:
            return "with_subcollections"
        if len(below) >= self._most_below:
            return "too_large"
        if any(_moment(stamp.updated_at) >= self._safety.taken_at for stamp in (head, *below)):
            return "changed_since_backup"
        if any(stamp.group not in self._safety.collections for stamp in below):
            return "not_in_backup"
        return ""

    def _delete(self, batch: Sequence[Family]) -> Tally:
        """Delete a batch, unless an earlier one failed: to fail again takes as long again."""
        if self._failed.is_set():
            return Tally()
        try:
            return self._delete_batch(batch)
        except FirestoreAccessError:
            self._failed.set()
            raise

    def _delete_batch(self, batch: Sequence[Family]) -> Tally:
        """Delete the families of a batch together, or when one has changed one by one."""
        try:
            self._documents.delete([stamp for family in batch for stamp in family.members])
        except (ChangedError, RefusedError):
            done = Tally()
            for family in batch:
                self._delete_one(family, done)
            return done
        below = sum(len(family.below) for family in batch)
        return Tally(len(batch), below)

    def _delete_one(self, family: Family, done: Tally) -> None:
        """One more trial without those below that are gone, because they may be old themselves."""
        members: Sequence[Stamp] = family.members
        for _trial in range(2):
            try:
                self._documents.delete(members)
            except ChangedError:
                now = self._documents.current([stamp.name for stamp in members])
                if family.head.name not in now:
                    done.gone += 1
                    return
                members = [stamp for stamp in members if stamp.name in now]
            except RefusedError:
                if not family.below:
                    raise
                done.kept["too_large"] += 1
                return
            else:
                done.deleted += 1
                done.deleted_below += len(members) - 1
                return
        done.kept["changed"] += 1


def gather_below(group: str, stamps: Iterable[Stamp], found: dict[str, list[Stamp]]) -> None:
    """Note what lies below each document of a group; parents must come before what is below them."""
    heads: list[str] = []
    for stamp in stamps:
        while heads and not stamp.name.startswith(heads[-1] + "/"):
            heads.pop()
        for head in heads:
            found.setdefault(head, []).append(stamp)
        if stamp.group == group:
            heads.append(stamp.name)


def _batches(families: Iterator[Family]) -> Iterator[list[Family]]:
    """Families in commits of a good size; one that is larger has its own."""
    batch: list[Family] = []
    size = 0
    for family in families:
        if batch and size + len(family.members) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(family)
        size += len(family.members)
    if batch:
        yield batch


def _moment(timestamp: Any) -> datetime:
    """The whole second of a timestamp, in UTC."""
    return datetime.fromtimestamp(timestamp.seconds, timezone.utc)
