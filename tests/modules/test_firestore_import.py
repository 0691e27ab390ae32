# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_import against the emulator, a stand-in for the Admin API and a bucket; Google's client is the witness."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import BUCKET, DATABASE, PROJECT, FirestoreStandIn
from tests.harness import run_module, start_module
from tests.platform.parts.firestore import client, digest
from tests.platform.parts.gcloud import Gcloud


@pytest.fixture(scope="module")
def exported(firestore_platform: FirestoreStandIn) -> str:
    """An export of the whole default database by Google's client."""
    return _export(firestore_platform, [])


@pytest.fixture(scope="module")
def in_groups(firestore_platform: FirestoreStandIn) -> str:
    """An export of two collection groups, made with their ids."""
    return _export(firestore_platform, ["users", "orders"])


def _export(firestore: FirestoreStandIn, groups: list[str]) -> str:
    request = {"name": DATABASE, "output_uri_prefix": firestore.new_folder(), "collection_ids": groups}
    return str(firestore.admin().export_documents(request=request).result(timeout=60).output_uri_prefix)


@pytest.fixture
def target(firestore: FirestoreStandIn) -> Iterator[str]:
    """A database of this test alone, empty, deleted afterwards."""
    name = firestore.create(firestore.new_database())
    yield name
    firestore.bridge.configure()
    firestore.admin().delete_database(request={"name": full(name)}).result(timeout=30)


def full(database: str) -> str:
    return f"projects/{PROJECT}/databases/{database}"


def load(firestore: FirestoreStandIn, uri: str, database: str, *, check: bool = False, **options: Any) -> Any:
    return run_module("firestore_import", arguments(firestore, uri, database, **options), check=check)


def arguments(firestore: FirestoreStandIn, uri: str, database: str, **options: Any) -> dict[str, Any]:
    given = {"input_uri_prefix": uri, "database": database, "poll_interval": "0.2s"}
    return {**firestore.connection, **given, **options}


def groups(answer: dict[str, Any], field: str) -> dict[str, int]:
    return {group["collection"]: group[field] for group in answer["counts"] if group[field]}


def put(firestore: FirestoreStandIn, database: str, *paths: str) -> None:
    documents = client(firestore.emulator.host, PROJECT, database)
    for path in paths:
        documents.document(path).set({"changed": True})


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_into_a_fresh_database_everything_comes_back(
    firestore: FirestoreStandIn, exported: str, tmp_path: Path
) -> None:
    name, progress = firestore.new_database(), tmp_path / "progress"
    options = {"exact": "fresh_database", "location": "eur3"}
    assert "set location" in load(firestore, exported, name, exact="fresh_database")["msg"]
    foretold = load(firestore, exported, name, check=True, **options)
    assert f"would create {full(name)} in eur3, then import {firestore.documents} documents" in foretold["msg"]
    assert name not in firestore.databases()

    answer = load(firestore, exported, name, progress_file=str(progress), **options)
    assert answer["changed"] and answer["action"] == "started"
    assert "no documents stayed that the export does not hold" in answer["msg"]
    assert answer["import"]["documents"] == firestore.documents and answer["import"]["state"] == "SUCCESSFUL"
    assert answer["import"]["operation"].startswith(full(name)) and answer["import"]["seconds"] is not None
    there, live = (digest(firestore.emulator.host, PROJECT, database) for database in (name, "(default)"))
    assert there.collections == live.collections == groups(answer, "after") == groups(answer, "exported")
    assert json.loads(progress.read_text().splitlines()[-1])["bytes"] == answer["import"]["bytes"] > 0

    again = load(firestore, exported, name, **options)
    assert not again["changed"] and again["action"] == "found"
    put(firestore, name, "visitors/one")
    filled = load(firestore, exported, name, **options)
    assert filled["failed"] and "is not empty, it holds items 75, orders 76" in filled["msg"]
    assert digest(firestore.emulator.host, PROJECT) == live, "the source is as it was"
    firestore.admin().delete_database(request={"name": full(name)}).result(timeout=30)


def test_a_database_with_nothing_but_documents_below_missing_ones_is_not_fresh(
    firestore: FirestoreStandIn, exported: str, target: str
) -> None:
    put(firestore, target, "visitors/nobody/visits/first")
    refused = load(firestore, exported, target, exact="fresh_database")
    assert refused["failed"] and "is not empty" in refused["msg"] and "visitors" in refused["msg"]
    assert digest(firestore.emulator.host, PROJECT, target).documents == 1


def test_a_merge_brings_back_and_leaves_the_rest(firestore: FirestoreStandIn, exported: str, target: str) -> None:
    put(firestore, target, "users/user000000", "users/newcomer", "visitors/one", "visitors/two")
    foretold = load(firestore, exported, target, check=True)
    assert "at least 2 documents that the export does not hold would stay (visitors 2)" in foretold["msg"]
    assert groups(foretold, "before") == {"users": 2, "visitors": 2}
    assert digest(firestore.emulator.host, PROJECT, target).documents == 4, "check mode wrote"

    answer = load(firestore, exported, target)
    assert "an import merges, it removes nothing" in answer["msg"]
    assert "at least 3 documents that the export does not hold stayed (users 1, visitors 2)" in answer["msg"]
    assert groups(answer, "beyond") == {"users": 1, "visitors": 2}
    documents = client(firestore.emulator.host, PROJECT, target)
    assert documents.document("users/user000000").get(["email"]).get("email") == "user0@example.org"
    assert documents.document("users/newcomer").get().exists


def test_named_groups_are_deleted_first_and_no_others(firestore: FirestoreStandIn, in_groups: str, target: str) -> None:
    put(firestore, target, "users/newcomer", "users/newcomer/orders/late", "visitors/one")
    options = {
        "exact": "delete_first",
        "delete_collections": ["users", "orders"],
        "collection_ids": ["users", "orders"],
    }
    for confirm in ("", "(default)"):
        assert "set confirm to the name" in load(firestore, in_groups, target, confirm=confirm, **options)["msg"]
    nothing = load(firestore, in_groups, target, confirm=target, exact="delete_first")
    assert nothing["failed"] and "there is no way to name all of them" in nothing["msg"]
    unnamed = load(firestore, in_groups, target, confirm=target, exact="delete_first", delete_collections=[""])
    assert unnamed["failed"] and "one is empty" in unnamed["msg"]
    foretold = load(firestore, in_groups, target, check=True, confirm=target, **options)
    assert "would delete 2 documents (orders 1, users 1), then import" in foretold["msg"]
    assert "at least 1 documents that the export does not hold would stay (visitors 1)" in foretold["msg"]
    assert digest(firestore.emulator.host, PROJECT, target).documents == 3, "check mode deleted"

    answer = load(firestore, in_groups, target, confirm=target, **options)
    wanted = {name: firestore.collections[name] for name in ("users", "orders")}
    assert digest(firestore.emulator.host, PROJECT, target).collections == {**wanted, "visitors": 1}
    assert groups(answer, "beyond") == {"visitors": 1}


def test_parts_only_of_an_export_made_with_collection_ids(
    firestore: FirestoreStandIn, exported: str, in_groups: str, target: str
) -> None:
    refused = load(firestore, exported, target, collection_ids=["users"])
    assert refused["failed"] and "was made without collection_ids" in refused["msg"]
    missing = load(firestore, in_groups, target, collection_ids=["users", "sessions"])
    assert missing["failed"] and "does not hold sessions, it holds orders, users" in missing["msg"]
    assert digest(firestore.emulator.host, PROJECT, target).documents == 0
    load(firestore, in_groups, target, collection_ids=["orders"])
    there = digest(firestore.emulator.host, PROJECT, target).collections
    assert there == {"orders": firestore.collections["orders"]}


def test_a_spoiled_export_touches_nothing(firestore: FirestoreStandIn, target: str) -> None:
    uri = _export(firestore, ["users"])
    put(firestore, target, "users/newcomer")
    output = next(name for name in firestore.objects(uri) if name.endswith("/output-0"))
    content = bytearray(firestore.objects(uri)[output])
    content[len(content) // 2] ^= 1
    firestore.put(uri, output, bytes(content))
    options = {"exact": "delete_first", "delete_collections": ["users"], "confirm": target}
    damaged = load(firestore, uri, target, **options)
    assert damaged["failed"] and "CRC32C" in damaged["msg"]
    assert "its overall metadata" in load(firestore, f"gs://{BUCKET}/nowhere/main", target, **options)["msg"]
    assert digest(firestore.emulator.host, PROJECT, target).collections == {"users": 1}


def test_killed_midway_and_run_again_resumes_the_same_import(
    firestore: FirestoreStandIn, exported: str, target: str, tmp_path: Path
) -> None:
    def imports() -> set[str]:
        return {operation.name for operation in firestore.admin().list_operations({"name": full(target)}).operations}

    before = imports()
    firestore.bridge.configure(delay=60, method="import")
    killed = start_module("firestore_import", arguments(firestore, exported, target))
    until(lambda: imports() != before)
    killed.kill()
    killed.communicate()
    going = imports() - before
    assert len(going) == 1
    foretold = load(firestore, exported, target, check=True)
    assert foretold["action"] == "resumed" and "would wait for the import" in foretold["msg"]
    other = load(firestore, _export(firestore, ["users"]), target)
    assert other["failed"] and "another import into" in other["msg"] and going.copy().pop() in other["msg"]
    late = load(firestore, exported, target, timeout="1s")
    assert late["failed"] and "still PROCESSING after 1.0 s" in late["msg"] and "it is resumed" in late["msg"]

    progress = tmp_path / "progress"
    resumed = start_module("firestore_import", arguments(firestore, exported, target, progress_file=str(progress)))
    until(lambda: progress.exists() and progress.stat().st_size > 0)
    firestore.bridge.configure()
    answer = json.loads(resumed.communicate(timeout=60)[0])
    assert answer["action"] == "resumed" and {answer["import"]["operation"]} == going == imports() - before
    assert digest(firestore.emulator.host, PROJECT, target).documents == firestore.documents


def test_killed_between_deletion_and_import_and_run_again(
    firestore: FirestoreStandIn, in_groups: str, target: str
) -> None:
    put(firestore, target, "users/newcomer", "visitors/one")
    options = {"exact": "delete_first", "delete_collections": ["users"], "confirm": target}
    firestore.bridge.configure(delay=60, method="bulk_delete")
    known = firestore.admin().list_operations({"name": full(target)}).operations
    killed = start_module("firestore_import", arguments(firestore, in_groups, target, **options))
    until(lambda: len(firestore.admin().list_operations({"name": full(target)}).operations) > len(known))
    killed.kill()
    killed.communicate()
    wider = load(firestore, in_groups, target, **{**options, "delete_collections": ["users", "visitors"]})
    assert wider["failed"] and "another deletion" in wider["msg"]
    firestore.bridge.configure()
    answer = load(firestore, in_groups, target, **options)
    wanted = {name: firestore.collections[name] for name in ("users", "orders")}
    assert not answer["failed"]
    assert digest(firestore.emulator.host, PROJECT, target).collections == {**wanted, "visitors": 1}


def test_what_a_killed_run_left_going_is_cancelled_first(
    firestore: FirestoreStandIn, exported: str, in_groups: str, target: str
) -> None:
    """Run again with another export: the way back of a recovery that was killed while it imported."""
    firestore.bridge.configure(delay=60, method="import")
    killed = start_module("firestore_import", arguments(firestore, exported, target))
    until(lambda: len(unfinished(firestore, target)) == 1)
    killed.kill()
    killed.communicate()
    (left,) = unfinished(firestore, target)
    late = load(firestore, in_groups, target, running_operations="wait", timeout="1s")
    assert late["failed"] and f"the import {left} still goes on after 1.0 s" in late["msg"]
    foretold = load(firestore, in_groups, target, running_operations="cancel", check=True)
    assert f"would cancel the import {left}, then import" in foretold["msg"]
    assert unfinished(firestore, target) == {left}, "check mode cancelled"

    other = start_module("firestore_import", arguments(firestore, in_groups, target, running_operations="cancel"))
    until(lambda: len(unfinished(firestore, target) - {left}) == 1)
    firestore.bridge.configure()
    answer = json.loads(other.communicate(timeout=60)[0])
    assert answer["msg"].startswith(f"cancelled the import {left}; imported ")
    wanted = {name: firestore.collections[name] for name in ("users", "orders")}
    assert digest(firestore.emulator.host, PROJECT, target).collections == wanted


def test_a_module_that_outlived_its_run_begins_nothing_beside_ours(
    firestore: FirestoreStandIn, exported: str, in_groups: str, target: str, tmp_path: Path
) -> None:
    """It works through its operations, each of which is cancelled, and ours begins when it has let go of the file."""
    put(firestore, target, "users/newcomer")
    options = {"exact": "delete_first", "confirm": target, "delete_collections": ["users", "orders"]}
    options.update(lock_file=str(tmp_path / "locks" / "firestore"), running_operations="cancel")
    firestore.bridge.configure(delay=60)
    (tmp_path / "locks").mkdir(mode=0o700)
    with (tmp_path / "locks" / "firestore").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ours = start_module("firestore_import", arguments(firestore, in_groups, target, **options))
        request = {"name": full(target), "collection_ids": ["users", "sessions"]}
        firestore.admin().bulk_delete_documents(request=request)
        until(lambda: not unfinished(firestore, target))
        time.sleep(2)
        assert not unfinished(firestore, target), "ours began while the other was still at work"
        firestore.admin().import_documents(request={"name": full(target), "input_uri_prefix": exported})
        until(lambda: not unfinished(firestore, target))
        firestore.bridge.configure()
    answer = json.loads(ours.communicate(timeout=60)[0])
    assert answer["action"] == "started" and not answer.get("failed"), answer
    wanted = {name: firestore.collections[name] for name in ("users", "orders")}
    assert digest(firestore.emulator.host, PROJECT, target).collections == wanted


def unfinished(firestore: FirestoreStandIn, database: str) -> set[str]:
    listed = firestore.admin().list_operations({"name": full(database)}).operations
    return {operation.name for operation in listed if not operation.done}


@pytest.mark.parametrize("outcome", ["failure", "cancelled", "unfinished"])
def test_only_a_successful_import_is_good(
    firestore: FirestoreStandIn, exported: str, target: str, outcome: str
) -> None:
    firestore.bridge.configure(outcome=outcome, method="import")
    answer = load(firestore, exported, target)
    assert answer["failed"] and "the import of" in answer["msg"] and "failed, its operation" in answer["msg"]


def test_a_record_of_a_set_names_the_export(
    firestore: FirestoreStandIn, exported: str, target: str, tmp_path: Path
) -> None:
    record = {"output_uri_prefix": exported, "documents": 300, "bytes": 1, "collections": {}}
    (tmp_path / "main.json").write_text(json.dumps(record))
    options = {"path": str(tmp_path / "main.json"), "database": target, "poll_interval": "0.2s"}
    answer = run_module("firestore_import", {**firestore.connection, **options})
    assert answer["import"]["input_uri_prefix"] == exported
    (tmp_path / "main.json").write_text("{}")
    assert "no record of an export" in run_module("firestore_import", {**firestore.connection, **options})["msg"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"database": "nobodys"}, "does not exist: check its name, or have it created with exact=fresh_database"),
        ({"input_uri_prefix": "gs://nobodys-bucket/a/main"}, "there is no export to import"),
        ({"input_uri_prefix": f"gs://{BUCKET}"}, "no address such as gs://bucket/folder"),
        ({"delete_collections": ["users"]}, "belong together"),
        ({"storage_endpoint": "http://127.0.0.1:1", "timeout": "2s"}, "Connection refused"),
        ({"emulator_host": ""}, "nothing may reach Google"),
    ],
)
def test_mistakes_are_named(firestore: FirestoreStandIn, exported: str, change: dict[str, Any], told: str) -> None:
    answer = run_module("firestore_import", {**arguments(firestore, exported, "(default)"), **change})
    assert answer["failed"] and told in answer["msg"], answer["msg"]


def test_examples_work(firestore: FirestoreStandIn, exported: str, in_groups: str, tmp_path: Path) -> None:
    stand_in = {name: value for name, value in firestore.connection.items() if name != "project"}
    connection = "".join(f"\n    {name}: {value}" for name, value in stand_in.items())
    record = tmp_path / "main.json"
    record.write_text(json.dumps({"output_uri_prefix": exported, "documents": 300, "bytes": 1, "collections": {}}))
    before = digest(firestore.emulator.host, PROJECT)
    output = run_examples(
        "firestore_import",
        {
            "project: example-project": f"project: {PROJECT}{connection}\n    poll_interval: 0.2s",
            "/var/backups/upkeep/20260131T235959Z/firestore/main.json": str(record),
            "gs://example-backups/firestore/20260131T235959Z/main": exported,
            "gs://example-backups/firestore/users-20260131": in_groups,
            "restored-20260131": firestore.new_database(),
        },
    )
    assert output.count("changed: [localhost]") == 3
    assert digest(firestore.emulator.host, PROJECT) == before


@pytest.mark.slow
def test_gcloud_sees_the_same(firestore: FirestoreStandIn, exported: str, target: str, tmp_path: Path) -> None:
    if missing := Gcloud.missing():
        pytest.skip(missing)
    run = Gcloud(firestore.bridge.url, PROJECT, tmp_path).firestore

    operation = load(firestore, exported, target)["import"]["operation"]
    told = run("operations", "describe", operation)
    assert told["done"] and told["metadata"]["operationState"] == "SUCCESSFUL"
    assert told["metadata"]["inputUriPrefix"] == exported
    run("bulk-delete", f"--database={target}", "--collection-ids=users")
    until(lambda: "users" not in digest(firestore.emulator.host, PROJECT, target).collections)
    rest = {name: count for name, count in firestore.collections.items() if name != "users"}
    assert digest(firestore.emulator.host, PROJECT, target).collections == rest
