# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_cleanup against the emulator; the oracle is Google's client, which reads everything before and after."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import PROJECT, SPARE, FirestoreStandIn
from tests.fixtures.firestore_sets import make_set
from tests.harness import run_module, start_module
from tests.platform.parts.firestore import client, contents

NOW = datetime.now(timezone.utc)
YEAR = "365d"
SESSIONS = {"collection_group": "sessions", "time_field": "created_at", "older_than": YEAR}
USERS = {**SESSIONS, "collection_group": "users"}


def days(count: float) -> datetime:
    return NOW - timedelta(days=count)


@dataclass
class Platform:
    """The spare database with its backup sets."""

    firestore: FirestoreStandIn
    root: Path

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.firestore.connection, "database": SPARE, "backup_root": str(self.root), "timeout": 5}

    def write(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        database = client(self.firestore.emulator.host, PROJECT, SPARE)
        paths = list(documents)
        for first in range(0, len(paths), 400):
            batch = database.batch()
            for path in paths[first : first + 400]:
                batch.set(database.document(path), documents[path])
            batch.commit()
        database.close()

    def contents(self) -> dict[str, bytes]:
        return contents(self.firestore.emulator.host, PROJECT, SPARE)

    def back_up(self, **options: Any) -> str:
        return make_set(self.firestore, SPARE, self.root, **options)

    def clean(self, *rules: Mapping[str, Any], check: bool = False, diff: bool = False, **options: Any) -> Any:
        arguments = {**self.arguments, "state": "cleaned", "cleanup": list(rules or [SESSIONS]), **options}
        return run_module("firestore_cleanup", arguments, check=check, diff=diff)


@pytest.fixture
def spare(firestore: FirestoreStandIn, tmp_path: Path) -> Iterator[Platform]:
    firestore.emulator.wipe(PROJECT, SPARE)
    yield Platform(firestore, tmp_path / "backups")
    firestore.emulator.wipe(PROJECT, SPARE)


def sessions(old: int, young: int) -> dict[str, dict[str, Any]]:
    """Sessions from before and after a year ago, those that are nearest to it an hour off."""
    offsets = [365 + 1 / 24 + number for number in range(old)] + [
        365 - 1 / 24 - number % 300 for number in range(young)
    ]
    return {f"sessions/s{number:05d}": {"created_at": days(offset)} for number, offset in enumerate(offsets)}


ODD: dict[str, dict[str, Any]] = {
    "sessions/none": {"user": "x"},
    "sessions/null": {"created_at": None},
    "sessions/text": {"created_at": "2001-01-01"},
    "sessions/number": {"created_at": 1},
    "sessions-old/a": {"created_at": days(999)},
    "users/a": {"created_at": days(999)},
}


def finding(answer: Mapping[str, Any], check: str, subject: str = f"firestore:{SPARE}/sessions") -> dict[str, Any]:
    (found,) = [entry for entry in answer["findings"] if (entry["check"], entry["subject"]) == (check, subject)]
    return dict(found)


def test_exactly_the_old_documents_are_deleted_and_nothing_else(spare: Platform) -> None:
    spare.write({**sessions(30, 20), **ODD})
    before = spare.contents()
    identifier = spare.back_up()
    old = {f"/sessions/s{number:05d}" for number in range(30)}

    planned = spare.clean(state="planned")
    foretold = spare.clean(check=True, diff=True)
    assert not planned["changed"] and foretold["changed"] and spare.contents() == before
    assert foretold["diff"] == {"before": {"sessions": 54}, "after": {"sessions": 24}}
    assert foretold["backup_set"]["id"] == identifier
    (group,) = foretold["groups"]
    counted = {name: group[name] for name in ("total", "old", "young", "without_field", "other_type", "below_at_most")}
    assert counted == {
        "total": 54,
        "old": 30,
        "young": 20,
        "without_field": 1,
        "other_type": 3,
        "below_at_most": 0,
    }
    assert group["reads_estimated"] == 30 and "1 lack the field" in finding(foretold, "firestore_cleanup")["summary"]

    answer = spare.clean(diff=True)
    assert answer["changed"] and answer["diff"] == foretold["diff"], answer
    assert spare.contents() == {path: content for path, content in before.items() if path not in old}
    (group,) = answer["groups"]
    assert (group["deleted"], group["left"], group["gone"], group["limited"]) == (30, 0, 0, False)
    assert set(group["kept"].values()) == {0} and answer["status"] == "ok"

    again = spare.clean()
    assert not again["changed"] and again["groups"][0]["old"] == 0


def test_without_a_set_to_fall_back_to_nothing_is_deleted(spare: Platform) -> None:
    spare.write(sessions(3, 1))
    before = spare.contents()

    def refused(*told: str, **options: Any) -> None:
        for check in (False, True):
            answer = spare.clean(check=check, **options)
            assert answer["failed"] and all(phrase in answer["msg"] for phrase in ("nothing", *told)), answer["msg"]
            assert not answer.get("changed")
        assert spare.contents() == before

    refused("no verified backup set", "(0 sets in all)", "playbooks/backup.yml")
    unproved = spare.back_up(verified=False)
    refused("no verified backup set", f"{unproved} holds it, and is complete")
    shutil.rmtree(spare.root)
    aged = spare.back_up(age=timedelta(hours=30))
    refused(aged, "1 d 6 h old", "allowed are 1 d 2 h")
    planned = spare.clean(state="planned")
    assert (
        aged in finding(planned, "firestore_cleanup_backup", f"firestore:{SPARE}")["summary"]
        and planned["status"] == "warning"
    )
    assert not spare.clean(check=True, backup_max_age="40h")["failed"]
    refused("no verified backup set", "databases/spare", backup_part="firestore:other", backup_max_age="40h")
    refused("no verified backup set", "databases/(default)", database="(default)", backup_max_age="40h")


def test_a_set_whose_export_is_gone_or_lacks_the_group_is_none(spare: Platform) -> None:
    spare.write({**sessions(3, 1), "users/a": {"created_at": days(900)}})
    partial = spare.back_up(collection_ids=["users"])
    answer = spare.clean(USERS, SESSIONS)
    assert answer["failed"] and partial in answer["msg"] and "holds no document of the collection" in answer["msg"]
    assert answer["changed"] and "1 documents of users were deleted for certain" in answer["msg"]
    before = spare.contents()
    assert len(before) == 4, "what was allowed was done before"

    time.sleep(1.1)
    whole = spare.back_up()
    record = json.loads((spare.root / whole / "firestore/main.json").read_text())
    spare.firestore.put(record["output_uri_prefix"], "main.overall_export_metadata", None)
    answer = spare.clean()
    assert answer["failed"] and whole in answer["msg"] and "was removed from the bucket" in answer["msg"]
    elsewhere = spare.clean(storage_endpoint="http://127.0.0.1:1")
    assert elsewhere["failed"] and "could not be read" in elsewhere["msg"]
    assert spare.contents() == before


def test_a_document_that_changed_after_the_backup_stays(spare: Platform) -> None:
    spare.write(sessions(5, 0))
    spare.back_up()
    time.sleep(2.1)
    changed = {"sessions/s00002": {"created_at": days(900), "note": "not in the backup"}}
    spare.write(changed)
    before = spare.contents()
    answer = spare.clean()
    assert spare.contents() == {"/sessions/s00002": before["/sessions/s00002"]}
    assert answer["groups"][0]["kept"]["changed_since_backup"] == 1 and answer["groups"][0]["left"] == 1
    assert "1 changed since the backup" in finding(answer, "firestore_cleanup")["summary"]


FAMILY: dict[str, dict[str, Any]] = {
    "users/old": {"created_at": days(900)},
    "users/old/orders/1": {"created_at": days(900)},
    "users/old/orders/1/items/1": {"sku": 1},
    "users/old/lost/x/deep/1": {"sku": 2},
    "users/alone": {"created_at": days(900)},
    "users/young": {"created_at": days(1)},
    "users/young/orders/1": {"created_at": days(900)},
}


def test_what_lies_below_a_document_goes_with_it_only_when_asked(spare: Platform) -> None:
    spare.write(FAMILY)
    before = spare.contents()
    spare.back_up()
    planned = spare.clean(USERS, state="planned")
    assert planned["groups"][0]["below_at_most"] == 4 and planned["groups"][0]["reads_estimated"] == 9
    assert (
        "up to 4 documents may lie below them"
        in finding(planned, "firestore_cleanup", f"firestore:{SPARE}/users")["summary"]
    )

    kept = spare.clean(USERS)
    assert spare.contents() == {path: content for path, content in before.items() if path != "/users/alone"}
    assert kept["groups"][0]["kept"]["with_subcollections"] == 1 and kept["status"] == "warning"

    gone = spare.clean({**USERS, "subcollections": True})
    assert set(spare.contents()) == {"/users/young", "/users/young/orders/1"}
    assert (gone["groups"][0]["deleted"], gone["groups"][0]["deleted_below"]) == (1, 3)
    assert gone["status"] == "ok"


def test_orphans_are_left_only_when_allowed(spare: Platform) -> None:
    spare.write(FAMILY)
    spare.back_up()
    answer = spare.clean({**USERS, "allow_orphans": True})
    assert set(spare.contents()) == {f"/{path}" for path in FAMILY} - {"/users/old", "/users/alone"}
    assert answer["groups"][0]["deleted"] == 2


def test_documents_below_that_are_old_themselves_are_no_conflict(spare: Platform) -> None:
    """A group within itself: the reply is older than the comment above it, and both are deleted."""
    tree: dict[str, dict[str, Any]] = {}
    for number in range(40):
        tree[f"comments/c{number}"] = {"created_at": days(800 + number)}
        tree[f"comments/c{number}/comments/r"] = {"created_at": days(900 - number)}
        tree[f"comments/c{number}/comments/r/votes/v"] = {"up": True}
    spare.write({**tree, "comments/young": {"created_at": days(1)}})
    spare.back_up()
    answer = spare.clean({**SESSIONS, "collection_group": "comments", "subcollections": True})
    assert set(spare.contents()) == {"/comments/young"} and answer["status"] == "ok", answer
    assert answer["groups"][0]["deleted"] + answer["groups"][0]["deleted_below"] + answer["groups"][0]["gone"] >= 120


def test_a_family_with_documents_that_no_backup_holds_stays(spare: Platform) -> None:
    spare.write(FAMILY)
    spare.back_up(collection_ids=["users", "orders", "items"])
    before = spare.contents()
    answer = spare.clean({**USERS, "subcollections": True})
    assert set(before) - set(spare.contents()) == {"/users/alone"}
    assert answer["groups"][0]["kept"]["not_in_backup"] == 1 and answer["status"] == "warning"


def test_the_limit_stops_it_and_the_next_run_goes_on(spare: Platform) -> None:
    spare.write(sessions(30, 5))
    spare.back_up()
    answer = spare.clean({**SESSIONS, "limit": 12})
    assert (answer["groups"][0]["deleted"], answer["groups"][0]["left"]) == (12, 18)
    told = finding(answer, "firestore_cleanup")["summary"]
    assert "the limit of 12 was reached" in told and "18 are left" in told
    oldest = {f"/sessions/s{number:05d}" for number in range(18, 30)}
    assert not oldest & set(spare.contents()), "the oldest go first"
    assert spare.clean()["groups"][0]["deleted"] == 18
    assert len(spare.contents()) == 5


def test_a_wrong_field_is_told_and_deletes_nothing(spare: Platform) -> None:
    spare.write(sessions(5, 5))
    spare.back_up()
    answer = spare.clean({**SESSIONS, "time_field": "createdAt"})
    assert len(spare.contents()) == 10 and not answer["changed"] and answer["status"] == "warning"
    assert "none of 10 documents of sessions has a time in createdAt" in answer["findings"][0]["summary"]


def test_times_in_maps_are_found(spare: Platform) -> None:
    spare.write({f"sessions/s{number}": {"meta": {"at": days(300 + number)}} for number in range(100)})
    spare.back_up()
    answer = spare.clean({**SESSIONS, "time_field": "meta.at"})
    assert answer["groups"][0]["deleted"] == len(range(65, 100)) == 100 - len(spare.contents())


@pytest.mark.parametrize(
    "rule, told",
    [
        ({"older_than": "365"}, "less than a day"),
        ({"older_than": "soon"}, "no duration"),
        ({"limit": 0}, "at least 1"),
        ({"collection_group": "users"}, "users more than once"),
        ({"time_field": "a`b"}, "no path of plain field names"),
    ],
)
def test_mistakes_are_named(spare: Platform, rule: dict[str, Any], told: str) -> None:
    answer = spare.clean({**SESSIONS, **rule}, USERS)
    assert answer["failed"] and told in answer["msg"]


def test_a_database_that_cannot_be_asked_is_told(spare: Platform) -> None:
    spare.write(sessions(1, 0))
    spare.back_up()
    answer = spare.clean(emulator_host="127.0.0.1:1", timeout=1)
    assert answer["failed"] and "nothing was deleted" in answer["msg"] and "127.0.0.1:1" in answer["msg"]


def until(happened: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_ended_midway_and_run_again(spare: Platform, ending: signal.Signals) -> None:
    spare.write(sessions(6000, 50))
    before = spare.contents()
    spare.back_up()
    progress = spare.root / "progress.jsonl"
    rule = {**SESSIONS, "limit": 100_000}
    arguments = {**spare.arguments, "state": "cleaned", "cleanup": [rule], "progress_file": str(progress)}
    running = start_module("firestore_cleanup", arguments)
    until(lambda: progress.exists() and progress.stat().st_size > 0)
    running.send_signal(ending)
    output = running.communicate(timeout=30)[0]
    young = {path: content for path, content in before.items() if path >= "/sessions/s06000"}
    midway = spare.contents()
    assert len(young) < len(midway) < 6050, "it was ended before it began or after it was done"
    assert young.items() <= midway.items() <= before.items()
    if ending is signal.SIGTERM:
        answer = json.loads(output)
        assert answer["failed"] and answer["changed"] and "stopped by SIGTERM" in answer["msg"]
        assert answer["groups"][0]["deleted"] == 6050 - len(midway)
    assert spare.clean(rule)["groups"][0]["deleted"] == len(midway) - 50
    assert spare.contents() == young


def test_the_examples(spare: Platform) -> None:
    spare.write({**sessions(5, 5), "orders/a": {"created_at": days(900)}})
    spare.back_up()
    connection = {**spare.firestore.connection, "database": SPARE}
    run_examples(
        "firestore_cleanup",
        {
            "project: example-project": "\n    ".join(
                f"{name}: {json.dumps(value)}" for name, value in connection.items()
            ),
            "/var/backups/upkeep": str(spare.root),
        },
    )
    assert len(spare.contents()) == 5
