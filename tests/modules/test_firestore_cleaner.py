# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to a clean-up between two of its requests: others write, the emulator dies, answers get lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _firestore_cleanup as cleanup
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup import Cleaner, Rule, Tally, take_census
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup_findings import Result, judge
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreUnreachableError,
    Target,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import (
    Age,
    AgeCounts,
    Documents,
    RefusedError,
    Stamp,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_safety import SafetySet

from tests.platform.parts.firestore import FirestoreEmulator, client, contents
from tests.platform.parts.process import free_port

NOW = datetime.now(timezone.utc)
AGED = NOW - timedelta(days=800)
GROUPS = dict.fromkeys(("users", "orders", "items", "sessions"), 1)


class Disturbed(Documents):
    """Documents, of which a test does something just before the delete of a number."""

    def __init__(self, target: Target, number: int, act: Callable[[], None], timeout: float) -> None:
        super().__init__(target, timeout)
        self._number, self._act = number, act

    def delete(self, stamps: Sequence[Stamp]) -> None:
        self._number -= 1
        if self._number == 0:
            self._act()
        super().delete(stamps)


@dataclass
class Database:
    """A project of the emulator, and one clean-up of it."""

    emulator: FirestoreEmulator
    project: str = field(default_factory=lambda: f"cleaner-{uuid.uuid4().hex[:8]}")

    #: Seconds that one request may take.
    timeout: float = 20

    @property
    def target(self) -> Target:
        return Target(self.project, "(default)", self.emulator.host, "127.0.0.1:1", "http://127.0.0.1:1")

    def write(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        database = client(self.emulator.host, self.project)
        paths = list(documents)
        for first in range(0, len(paths), 400):
            batch = database.batch()
            for path in paths[first : first + 400]:
                batch.set(database.document(path), documents[path])
            batch.commit()
        database.close()

    def remove(self, path: str) -> None:
        client(self.emulator.host, self.project).document(path).delete()

    def paths(self) -> set[str]:
        return set(contents(self.emulator.host, self.project))

    def clean(
        self, rule: Rule, act: Callable[[], None] = lambda: None, *, before: int = 1
    ) -> tuple[Result, FindingsBuilder]:
        """The result of a clean-up, of which ``act`` happens before the delete of a number, and the findings."""
        live = LiveCounts(self.target, 10)
        counts = AgeCounts(live, self.target.name)
        census = take_census(rule, counts, live.count, live.root_collections())
        safety = SafetySet("20260131T235959Z", 0, datetime.now(timezone.utc) + timedelta(seconds=1), GROUPS)
        cleaner = Cleaner(rule, Disturbed(self.target, before, act, self.timeout), safety, 1, lambda _done: None)
        cleaner.clean(census)
        after = take_census(rule, counts, live.count, ())
        result, found = Result(rule, census, cleaner.tally, after), FindingsBuilder(NOW)
        judge(found, "firestore:main", result)
        return result, found


def rule(group: str, **options: Any) -> Rule:
    return Rule(Age(group, "at", NOW - timedelta(days=365)), 10_000, **options)


def done(result: Result) -> Tally:
    assert result.done is not None
    return result.done


@pytest.fixture
def database(firestore_emulator: FirestoreEmulator) -> Iterator[Database]:
    made = Database(firestore_emulator)
    yield made
    firestore_emulator.wipe(made.project)


def test_who_changes_between_page_and_commit_stays_and_no_other(database: Database) -> None:
    database.write({f"sessions/s{number}": {"at": AGED} for number in range(10)})

    def meanwhile() -> None:
        database.write({"sessions/s3": {"at": AGED, "note": "changed"}, "sessions/new": {"at": AGED}})
        database.remove("sessions/s5")

    result, found = database.clean(rule("sessions"), meanwhile)
    assert database.paths() == {"/sessions/s3", "/sessions/new"}
    assert (done(result).deleted, done(result).gone, done(result).kept["changed"]) == (8, 1, 1)
    told = next(finding for finding in found.findings if finding.check == "firestore_cleanup")
    assert (
        told.status == "warning" and "1 changed meanwhile" in told.summary and "more than by the count" in told.summary
    )


FAMILIES = {
    **{f"users/u{number}": {"at": AGED} for number in range(4)},
    **{f"users/u{number}/orders/1": {"at": AGED} for number in range(3)},
    **{f"users/u{number}/orders/1/items/1": {"sku": number} for number in range(3)},
}


@pytest.mark.parametrize("read_all", [True, False])
def test_a_change_below_keeps_the_whole_family(
    database: Database, monkeypatch: pytest.MonkeyPatch, read_all: bool
) -> None:
    if not read_all:
        monkeypatch.setattr(cleanup, "_READ_ALL", 0)
    database.write(FAMILIES)

    def meanwhile() -> None:
        database.write({"users/u0/orders/1/items/1": {"sku": "changed"}, "users/u1": {"at": AGED, "seen": True}})
        database.remove("users/u2/orders/1/items/1")

    result, _ = database.clean(rule("users", subcollections=True), meanwhile)
    kept = {path for path in (f"/{path}" for path in FAMILIES) if path.startswith(("/users/u0", "/users/u1"))}
    assert database.paths() == kept and len(kept) == 6
    assert (done(result).deleted, done(result).deleted_below, done(result).kept["changed"]) == (2, 1, 2)


@pytest.mark.parametrize("read_all", [True, False])
def test_families_larger_than_the_limit_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch, read_all: bool
) -> None:
    if not read_all:
        monkeypatch.setattr(cleanup, "_READ_ALL", 0)
    database.write({"users/a": {"at": AGED}, "users/b": {"at": AGED}, **{f"users/a/orders/{n}": {} for n in range(9)}})
    result, found = database.clean(Rule(rule("users").age, 9, subcollections=True))
    assert done(result).kept["too_large"] == 1 and done(result).deleted == 1 and len(database.paths()) == 10
    assert {finding.status for finding in found.findings} == {"ok", "warning"}


def test_a_family_that_firestore_takes_in_no_commit_stays_and_stops_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator knows no limit of a commit; production has one by size."""
    delete = Documents.delete

    def limited(documents: Documents, stamps: Sequence[Stamp]) -> None:
        if len(stamps) > 2:
            raise RefusedError("firestore.googleapis.com: 400 Transaction too big. Decrease transaction size.")
        delete(documents, stamps)

    monkeypatch.setattr(Documents, "delete", limited)
    database.write(FAMILIES)
    result, found = database.clean(rule("users", subcollections=True))
    assert (done(result).deleted, done(result).kept["too_large"]) == (1, 3)
    assert database.paths() == {f"/{path}" for path in FAMILIES} - {"/users/u3"}
    assert any("3 with more documents below them than one commit" in finding.summary for finding in found.findings)


def test_a_commit_whose_answer_was_lost_is_no_conflict(database: Database) -> None:
    """Sent once more it meets what it has done itself: gone is gone, and nothing is counted twice."""
    database.write({f"sessions/s{number}": {"at": AGED} for number in range(10)})
    documents = Documents(database.target, 10)

    def lost() -> None:
        for page in documents.older(rule("sessions").age, 100):
            documents.delete(page)

    result, _ = database.clean(rule("sessions"), lost)
    assert not database.paths() and done(result).gone == 10 and done(result).deleted == 0


@pytest.fixture
def own_emulator(tmp_path: Any, firestore_emulator: FirestoreEmulator) -> Iterator[FirestoreEmulator]:
    """One that a test may kill; the shared one says whether there is any."""
    assert firestore_emulator.ready()
    emulator = FirestoreEmulator(tmp_path, free_port())
    emulator.start()
    yield emulator
    emulator.stop()


def test_a_database_that_dies_midway_and_loses_its_data_is_told(own_emulator: FirestoreEmulator) -> None:
    database = Database(own_emulator)
    database.write({f"sessions/s{number}": {"at": AGED} for number in range(2000)})
    database.write({f"sessions/young{number}": {"at": NOW} for number in range(100)})

    def restart() -> None:
        own_emulator.stop()
        own_emulator.start()

    result, found = database.clean(rule("sessions"), restart, before=3)
    told = next(finding for finding in found.findings if finding.check == "firestore_cleanup_loss")
    assert told.status == "critical" and "lost data" in told.hint
    assert "100 younger documents of sessions before, 0 after" in told.summary
    assert done(result).deleted == 800 and done(result).gone == 1200


def test_a_database_that_dies_midway_for_good_is_told(own_emulator: FirestoreEmulator) -> None:
    database = Database(own_emulator, timeout=2)
    database.write({f"sessions/s{number}": {"at": AGED} for number in range(1200)})
    with pytest.raises(FirestoreUnreachableError, match=f"{own_emulator.host}.*Connection refused"):
        database.clean(rule("sessions"), own_emulator.stop, before=2)


def test_a_missing_index_is_told_as_the_file_wants_it() -> None:
    from base64 import urlsafe_b64encode

    from google.api_core.exceptions import FailedPrecondition
    from google.cloud.firestore_admin_v1.types import Index

    field_type = Index.IndexField
    index = Index(
        name="projects/p/databases/(default)/collectionGroups/orders/indexes/_",
        query_scope=Index.QueryScope.COLLECTION,
        fields=[field_type(field_path="a", order=1), field_type(field_path="b", order=2)],
    )
    console = "https://console.firebase.google.com/v1/r/project/p/firestore/indexes?"
    link = f"{console}create_composite={urlsafe_b64encode(Index.serialize(index)).decode().rstrip('=')}"
    with pytest.raises(Exception, match='"fieldPath": "b", "order": "DESCENDING"') as told, explained("Google"):
        raise FailedPrecondition(f"The query requires an index. You can create it here: {link}")
    assert '"collectionGroup": "orders", "queryScope": "COLLECTION"' in str(told.value)
    with pytest.raises(Exception, match="queryScope COLLECTION_GROUP"), explained("firestore.googleapis.com"):
        raise FailedPrecondition(f"The query requires a COLLECTION_GROUP_ASC index: {console}create_exemption=Cg")
    with pytest.raises(Exception, match="index of this link"), explained("firestore.googleapis.com"):
        raise FailedPrecondition(f"The query requires an index: {console}create_composite=AAAA")
