# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every branch of an export and what goes wrong, on real servers; many cases, so without a process for each."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import AdminApi, ExportRequest, LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export import Exporter, Rules
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import ExportFormatError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import ExportFailedError, Patience
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener

from tests.fixtures.firestore import BUCKET, DATABASE, PROJECT, FirestoreStandIn
from tests.platform.parts.firestore import client
from tests.platform.parts.process import free_port

#: Two of the collection groups.
CHOSEN = ("orders", "users")


def export(
    firestore: FirestoreStandIn,
    uri: str,
    *,
    collection_ids: Sequence[str] = (),
    wait: bool = True,
    timeout: float = 20,
    target: Target | None = None,
    **rules: Any,
) -> dict[str, Any]:
    """Plan and carry out an export as the module does."""
    target = target or Target.of(firestore.connection, {})
    exporter = Exporter(
        ExportRequest(uri, collection_ids),
        Rules(**rules),
        AdminApi(target, timeout),
        LiveCounts(target, timeout),
        bucket_opener(storage_client(target), BUCKET, target.storage_url, timeout),
        Patience(timeout, 0.2, time.monotonic, time.sleep),
        lambda _: None,
    )
    return exporter.carry_out(exporter.plan(), wait)


def test_an_export_whose_operation_is_forgotten_is_found_by_its_metadata(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    first = export(firestore, uri)
    firestore.bridge.stop()
    firestore.bridge.start()
    again = export(firestore, uri)
    assert not again["changed"]
    forgotten = {"operation": "", "started_at": again["export"]["started_at"], "ended_at": again["export"]["ended_at"]}
    assert again["export"] == {**first["export"], **forgotten, "seconds": again["export"]["seconds"]}
    assert first["export"]["started_at"] <= again["export"]["started_at"]


def test_chosen_collections(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    answer = export(firestore, uri, collection_ids=CHOSEN, verify=False, count_tolerance=0)
    assert answer["export"]["collections"] == {name: firestore.collections[name] for name in CHOSEN}
    assert not answer["export"]["verified"] and answer["counts"]["compared"]
    with pytest.raises(ExportFailedError, match="export of orders, users, wanted is one of sessions"):
        export(firestore, uri, collection_ids=["sessions"])


def test_counts_are_skipped_with_the_reason(firestore: FirestoreStandIn) -> None:
    answer = export(firestore, firestore.new_folder(), verify=False)
    assert not answer["counts"]["compared"] and "neither collection_ids nor verify" in answer["counts"]["reason"]
    assert answer["export"]["collections"] == {} and answer["export"]["documents"] == firestore.documents


@pytest.mark.parametrize(
    "outcome, state, told",
    [
        ("failure", "FAILED", "as it was told to"),
        ("cancelled", "CANCELLED", "was cancelled"),
        ("unfinished", "PROCESSING", "not SUCCESSFUL"),
        ("no_metadata", "SUCCESSFUL", "overall metadata is not there"),
    ],
)
def test_an_export_that_only_looks_done(firestore: FirestoreStandIn, outcome: str, state: str, told: str) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(outcome=outcome)
    with pytest.raises(ExportFailedError, match=told) as failure:
        export(firestore, uri)
    assert failure.value.export is not None and failure.value.export["state"] == state
    assert "again" in str(failure.value)
    assert any("/output-" in name for name in firestore.objects(uri)), "the fault left no partial files"


@pytest.mark.parametrize("outcome", ["failure", "cancelled", "no_metadata"])
def test_after_a_failed_export_a_new_one_is_started(firestore: FirestoreStandIn, outcome: str) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(outcome=outcome)
    with pytest.raises(ExportFailedError):
        export(firestore, uri)
    failed = firestore.operations()
    firestore.bridge.configure()
    good = export(firestore, uri)
    assert good["changed"] and good["export"]["verified"]
    assert good["export"]["operation"] not in failed


def test_an_export_whose_operation_was_no_success_is_not_found_good(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(outcome="unfinished")
    for told in ("not SUCCESSFUL", "do not use it"):
        with pytest.raises(ExportFailedError, match=told):
            export(firestore, uri)


def test_cancelled_by_somebody_while_it_is_waited_for(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=30)
    name = export(firestore, uri, wait=False)["export"]["operation"]
    cancel = threading.Timer(0.5, lambda: firestore.admin().cancel_operation({"name": name}))
    cancel.start()
    with pytest.raises(ExportFailedError, match=r"CANCELLED.*cannot be imported"):
        export(firestore, uri)
    cancel.join()


def test_an_export_of_nothing_is_an_error(firestore: FirestoreStandIn) -> None:
    with pytest.raises(ExportFailedError, match=r"no documents.*allow_empty"):
        export(firestore, firestore.new_folder(), collection_ids=["user"])
    allowed = export(firestore, firestore.new_folder(), collection_ids=["user"], allow_empty=True)
    assert allowed["export"]["documents"] == 0


def test_a_database_that_runs_away_from_its_export(firestore: FirestoreStandIn) -> None:
    """The stand-in reads the documents at once and takes its time afterwards."""
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=60)
    export(firestore, uri, wait=False)
    while not firestore.objects(uri):
        time.sleep(0.05)
    database = client(firestore.emulator.host, PROJECT)
    late = [database.collection("late").document(str(number)) for number in range(3)]
    for document in late:
        document.set({"late": True})
    firestore.bridge.configure()
    try:
        with pytest.raises(ExportFailedError, match="late has 3 documents, 0 of them exported") as failure:
            export(firestore, uri)
        assert failure.value.export is not None and failure.value.export["verified"], "the export itself is whole"
    finally:
        for document in late:
            document.delete()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_service_that_does_not_answer_is_named_in_time(firestore: FirestoreStandIn) -> None:
    """Each of the three services once down and once hanging, all at the same time."""
    target = Target.of(firestore.connection, {})

    def attempt(part: str, port: int) -> None:
        address = f"127.0.0.1:{port}"
        with pytest.raises(FirestoreAccessError) as failure:
            export(firestore, firestore.new_folder(), target=replace(target, **{part: address}), timeout=2)
        assert address in str(failure.value)
        assert any(told in str(failure.value) for told in ("did not answer in time", "nothing answers there"))

    parts = ("admin_endpoint", "storage_endpoint", "emulator_host")
    with silent_server() as silent, ThreadPoolExecutor(6) as pool:
        started = time.monotonic()
        attempts = [pool.submit(attempt, part, port) for part in parts for port in (silent, free_port())]
        for running in attempts:
            running.result()
    assert time.monotonic() - started < 12, "did not end within its time"


def test_the_admin_api_goes_away_and_comes_back(firestore: FirestoreStandIn) -> None:
    """It forgets its operations when it comes back, as the real one does not; that it was asked again is the point."""
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=20)
    name = export(firestore, uri, wait=False)["export"]["operation"]

    def away() -> None:
        firestore.bridge.stop()
        time.sleep(0.5)
        firestore.bridge.start()

    absence = threading.Timer(0.3, away)
    absence.start()
    with pytest.raises(FirestoreAccessError, match=re.escape(name) + ".* not found"):
        export(firestore, uri)
    absence.join()


def test_the_admin_api_goes_away_for_good(firestore: FirestoreStandIn) -> None:
    """The operation is named, so that it can be looked for."""
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=20)
    name = export(firestore, uri, wait=False)["export"]["operation"]
    stop = threading.Timer(0.5, firestore.bridge.stop)
    stop.start()
    try:
        with pytest.raises(ExportFailedError) as failure:
            export(firestore, uri, timeout=2)
    finally:
        stop.join()
        firestore.bridge.start()
    for told in (firestore.bridge.endpoint, name, DATABASE, "resumed"):
        assert told in str(failure.value)


def test_a_damaged_export_is_found(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    export(firestore, uri, collection_ids=["users", "items"])
    stored = firestore.objects(uri)
    part = "all_namespaces/kind_users"
    name = f"{part}/output-0"
    content = stored[name]
    middle = len(content) // 2
    damages: list[tuple[str, bytes | None, str]] = [
        (name, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], "CRC32C"),
        (name, content[:middle], "cut off"),
        (name, None, "output-0 is missing"),
        (name, b"", "documents of users, its output files hold"),
        (name, stored[f"{part}/output-1"], "is in the export twice"),
        (f"{part}/all_namespaces_kind_users.export_metadata", None, "metadata is missing"),
        ("main.overall_export_metadata", stored["main.overall_export_metadata"][:-1], "cut off"),
    ]
    for damaged, replacement, told in damages:
        firestore.put(uri, damaged, replacement)
        with pytest.raises(ExportFormatError, match=told) as failure:
            export(firestore, uri, collection_ids=["users", "items"])
        assert damaged.rpartition("/")[0] in str(failure.value)
        firestore.put(uri, damaged, stored[damaged])
    assert not export(firestore, uri, collection_ids=["users", "items"])["changed"]
