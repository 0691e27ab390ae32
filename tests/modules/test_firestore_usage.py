# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_usage against the emulator and the stand-in for the Admin API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import DATABASE, PROJECT, FirestoreStandIn
from tests.harness import run_module
from tests.platform.parts.firestore import client, digest

COMPOSITE = [
    {"fieldPath": "active", "order": "ASCENDING"},
    {"fieldPath": "created_at", "order": "DESCENDING"},
]
BY_TAG = [{"fieldPath": "tags", "arrayConfig": "CONTAINS"}, {"fieldPath": "created_at", "order": "ASCENDING"}]


def usage(firestore: FirestoreStandIn, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("firestore_usage", {**firestore.connection, "name": "main", **options}, check=check)


def finding(answer: Mapping[str, Any], check: str, subject: str = "firestore:main") -> dict[str, Any]:
    (found,) = [entry for entry in answer["findings"] if (entry["check"], entry["subject"]) == (check, subject)]
    return dict(found)


def declared(path: Path, indexes: Iterable[Mapping[str, Any]], overrides: Iterable[Mapping[str, Any]] = ()) -> str:
    path.write_text(json.dumps({"indexes": list(indexes), "fieldOverrides": list(overrides)}))
    return str(path)


def listed(group: str, fields: list[dict[str, Any]], state: str = "READY") -> dict[str, Any]:
    """An index as the Admin API lists it: the name at the end, which files leave out."""
    order = fields[-1].get("order", "ASCENDING")
    name = f"{DATABASE}/collectionGroups/{group}/indexes/{uuid.uuid4().hex}"
    named = [*fields, {"fieldPath": "__name__", "order": order}]
    return {"name": name, "queryScope": "COLLECTION", "fields": named, "state": state}


def ttl(group: str, field: str, state: str = "ACTIVE") -> dict[str, Any]:
    name = f"{DATABASE}/collectionGroups/{group}/fields/{field}"
    return {"name": name, "indexConfig": {"usesAncestorConfig": True}, "ttlConfig": {"state": state}}


@pytest.fixture
def project(firestore: FirestoreStandIn) -> Iterator[str]:
    """A project of the emulator for one test."""
    name = f"usage-{uuid.uuid4().hex[:8]}"
    yield name
    firestore.emulator.wipe(name)


def write(firestore: FirestoreStandIn, project: str, paths: Iterable[str]) -> None:
    database = client(firestore.emulator.host, project)
    batch = database.batch()
    for path in paths:
        batch.set(database.document(path), {"a": 1})
    batch.commit()
    database.close()


def test_the_counts_are_those_of_google_s_client(firestore: FirestoreStandIn) -> None:
    truth = digest(firestore.emulator.host, PROJECT).collections
    answer = usage(firestore, collections=[*truth, "nothing"])
    assert {group["collection_group"]: group["documents"] for group in answer["groups"]} == {**truth, "nothing": 0}
    assert [group["documents"] for group in answer["groups"]] == sorted([*truth.values(), 0], reverse=True)
    assert answer["documents"] == sum(truth.values()) and answer["uncounted"] == 0
    assert answer["metrics"]["firestore_documents:main/users"] == truth["users"]
    assert answer["status"] == "ok" and not answer["changed"]

    roots = usage(firestore)
    assert {group["collection_group"] for group in roots["groups"]} == {"users", "sessions"}
    hidden = finding(roots, "firestore_documents")
    assert roots["uncounted"] == truth["orders"] + truth["items"] and hidden["status"] == "warning"
    assert f"{roots['uncounted']} are in groups that were not named" in hidden["summary"]


def test_growth_is_told_against_the_sample_of_yesterday(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    truth = digest(firestore.emulator.host, PROJECT).collections
    options = {"collections": list(truth), "samples_file": str(samples)}
    assert usage(firestore, check=True, **options)["changed"] and not samples.exists()
    first = usage(firestore, **options)
    assert first["changed"] and not [entry for entry in first["findings"] if entry["check"] == "firestore_growth"]
    assert first["groups"][0]["before"] is None and samples.stat().st_mode & 0o777 == 0o600
    assert not usage(firestore, **options)["changed"], "one sample an hour is enough"

    def sample(hours: float, users: int, database: str = DATABASE) -> str:
        at = (datetime.now(timezone.utc) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps({"at": at, "database": database, "groups": {"users": users, "sessions": truth["sessions"]}})

    half = truth["users"] // 2
    lines = ["damaged", sample(80, 1), sample(48, half), sample(30, 1, "another"), sample(2, truth["users"])]
    samples.write_text("\n".join(lines) + "\n")
    grown = usage(firestore, **options, growth_min_documents=5)
    told = finding(grown, "firestore_growth", "firestore:main/users")
    assert told["status"] == "warning" and told["value"] == pytest.approx(50, abs=1) and str(half) in told["summary"]
    assert finding(grown, "firestore_growth", "firestore:main/sessions")["status"] == "ok"
    assert finding(usage(firestore, **options), "firestore_growth", "firestore:main/users")["status"] == "ok", (
        "few a day"
    )
    kept = [json.loads(line)["database"] for line in samples.read_text().splitlines()]
    assert kept == [DATABASE, DATABASE, "another", DATABASE, DATABASE], "those of other databases stay"


def test_orphans_are_searched_when_asked_and_the_price_is_told_first(
    firestore: FirestoreStandIn, project: str, tmp_path: Path
) -> None:
    there = [
        "users/a",
        "users/a-b/orders/1",
        "users/a-b/orders/1/items/1",
        "users/a/orders/1",
        "users/c",
        "x/y/z/w/q/1",
    ]
    write(firestore, project, there)
    options = {"project": project, "collections": ["users", "orders", "items", "q", "w", "x"]}
    unasked = usage(firestore, **options)["orphans"]
    assert (unasked["searched"], unasked["reads_estimated"], unasked["reason"]) == (False, 6, "not asked for")
    dear = usage(firestore, **options, orphans=True, orphans_max_reads=5)
    assert not dear["orphans"]["searched"] and "costs 6 reads, allowed are 5" in dear["orphans"]["reason"]
    assert finding(dear, "firestore_orphans")["status"] == "unknown"
    foretold = usage(firestore, check=True, **options, orphans=True)
    assert "would cost 6 reads" in foretold["orphans"]["reason"]

    found = usage(firestore, **options, orphans=True, progress_file=str(tmp_path / "progress"))
    price, *_rest = (tmp_path / "progress").read_text().splitlines()
    assert json.loads(price)["documents"] == 0 and json.loads(price)["total"] == 6
    assert found["orphans"]["groups"] == {"orders": 1, "q": 1} and found["orphans"]["count"] == 2
    assert set(found["orphans"]["examples"]) == {"users/a-b/orders/1", "x/y/z/w/q/1"}
    assert finding(found, "firestore_orphans")["status"] == "warning"
    assert usage(firestore, orphans=True)["orphans"]["count"] == 0


def test_indexes_and_policies_are_held_against_the_file(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    users = {"collectionGroup": "users", "queryScope": "COLLECTION", "fields": COMPOSITE}
    orders = {"collectionGroup": "orders", "queryScope": "COLLECTION_GROUP", "fields": BY_TAG}
    expires = {"collectionGroup": "sessions", "fieldPath": "expires_at", "ttl": True, "indexes": []}
    path = declared(tmp_path / "firestore.indexes.json", [users, orders], [expires])
    firestore.bridge.list_schema(
        [listed("users", COMPOSITE), listed("users", BY_TAG)], [ttl("sessions", "expires_at"), ttl("tokens", "until")]
    )
    answer = usage(firestore, indexes_file=path)
    missing = finding(answer, "firestore_indexes_missing")
    assert missing["status"] == "warning" and missing["value"] == 1
    assert "orders (tags contains, created_at ascending) over the collection group" in missing["summary"]
    surplus = finding(answer, "firestore_indexes_unused")
    assert surplus["value"] == 2 and "users (tags contains, created_at ascending)" in surplus["summary"]
    assert "tokens.until" in surplus["summary"]
    assert {(entry["collection_group"], entry["field"], entry["state"]) for entry in answer["ttl_policies"]} == {
        ("sessions", "expires_at", "ACTIVE"),
        ("tokens", "until", "ACTIVE"),
    }
    assert finding(answer, "firestore_indexes_built")["status"] == "ok"
    groups = {group["collection_group"] for group in answer["groups"]}
    assert groups == {"users", "sessions", "orders", "tokens"}, "those of indexes and policies are counted too"

    firestore.bridge.list_schema([listed("users", COMPOSITE, "NEEDS_REPAIR")], [])
    broken = usage(firestore, indexes_file=path)
    assert broken["failed"] and finding(broken, "firestore_indexes_built")["status"] == "critical"
    assert "users (active ascending, created_at descending)" in broken["msg"]
    assert "sessions.expires_at" in finding(broken, "firestore_indexes_missing")["summary"]


def test_queries_of_the_emulator_tell_which_indexes_they_need(
    firestore: FirestoreStandIn, project: str, tmp_path: Path
) -> None:
    from google.cloud.firestore import Client
    from google.cloud.firestore_v1.base_query import FieldFilter

    write(firestore, project, ["users/a", "users/a/orders/1"])
    database: Client = client(firestore.emulator.host, project)
    users = database.collection("users")
    list(users.where(filter=FieldFilter("a", "==", 1)).order_by("b", direction="DESCENDING").stream())
    list(users.where(filter=FieldFilter("tags", "array_contains", "x")).order_by("created_at").stream())
    list(database.collection_group("orders").where(filter=FieldFilter("a", ">", 0)).stream())
    database.close()
    tagged = {"collectionGroup": "users", "queryScope": "COLLECTION", "fields": BY_TAG}
    idle = {"collectionGroup": "users", "queryScope": "COLLECTION", "fields": COMPOSITE}
    path = declared(tmp_path / "firestore.indexes.json", [tagged, idle])
    answer = usage(firestore, project=project, collections=["users", "orders"], indexes_file=path)
    missing = finding(answer, "firestore_indexes_missing_by_queries")
    assert missing["value"] == 2 and "orders (a ascending) over the collection group" in missing["summary"]
    unused = finding(answer, "firestore_indexes_unused_by_queries")
    assert unused["value"] == 1 and "users (active ascending, created_at descending)" in unused["summary"]


@pytest.mark.parametrize("content", ["{", "[]", '{"indexes": [{"fields": []}]}', '{"indexes": [{}]}'])
def test_a_file_that_declares_no_indexes_is_named(firestore: FirestoreStandIn, tmp_path: Path, content: str) -> None:
    path = tmp_path / "indexes.json"
    path.write_text(content)
    answer = usage(firestore, indexes_file=str(path))
    assert answer["failed"] and f"{path} is no firestore.indexes.json" in answer["msg"]


def test_what_cannot_be_asked_is_told(firestore: FirestoreStandIn) -> None:
    deaf = usage(firestore, admin_endpoint="127.0.0.1:1", timeout=1)
    assert finding(deaf, "firestore_indexes_built")["status"] == "unknown" and deaf["documents"] > 0
    answer = usage(firestore, emulator_host="127.0.0.1:1", timeout=1)
    assert answer["failed"] and "127.0.0.1:1" in answer["msg"]
    half = run_module("firestore_usage", {"project": PROJECT, "emulator_host": firestore.emulator.host})
    assert half["failed"] and "nothing may reach Google" in half["msg"]


def test_with_stand_ins_nothing_goes_by_a_proxy_or_with_credentials(
    firestore: FirestoreStandIn, tmp_path: Path
) -> None:
    """The proxies and credentials of the environment lead nowhere: who used them would fail."""
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    nowhere = dict.fromkeys([*names, *(name.upper() for name in names)], "http://127.0.0.1:1")
    environment = {**nowhere, "no_proxy": "", "NO_PROXY": "", "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}
    path = declared(tmp_path / "firestore.indexes.json", [])
    looked = {**firestore.connection, "indexes_file": path, "orphans": True}
    answer = run_module("firestore_usage", looked, env=environment)
    assert answer["orphans"]["searched"] and answer["documents"] == firestore.documents
    assert {entry["status"] for entry in answer["findings"] if entry["check"] != "firestore_documents"} == {"ok"}
    rule = {"collection_group": "sessions", "time_field": "created_at", "older_than": "365d"}
    planned = {**firestore.connection, "cleanup": [rule], "backup_root": str(tmp_path)}
    assert run_module("firestore_cleanup", planned, env=environment)["groups"][0]["total"] > 0


def test_the_examples(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    run_examples(
        "firestore_usage",
        {
            "project: example-project": "\n    ".join(
                f"{name}: {json.dumps(value)}" for name, value in firestore.connection.items()
            ),
            "/var/lib/upkeep": str(tmp_path),
            "/srv/platform/firestore.indexes.json": declared(tmp_path / "firestore.indexes.json", []),
        },
    )
