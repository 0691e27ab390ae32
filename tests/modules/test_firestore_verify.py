# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_verify against exports that were really made, spoiled in the bucket in every manner."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import PROJECT, FirestoreStandIn
from tests.harness import run_module
from tests.platform.parts.firestore import client as data
from tests.platform.parts.process import free_port


@pytest.fixture
def record(firestore: FirestoreStandIn, tmp_path: Path) -> Path:
    """The record of a fresh export."""
    made = run_module("firestore_export", {**firestore.connection, "output_uri_prefix": firestore.new_folder()})
    path = tmp_path / "main.json"
    path.write_text(json.dumps(made["export"]))
    return path


def verify(firestore: FirestoreStandIn, path: Path, **options: Any) -> dict[str, Any]:
    return run_module(
        "firestore_verify",
        {**firestore.connection, "path": str(path), "name": "firestore:main", "fail_on": "never", **options},
    )


def test_a_whole_export_is_read_back(firestore: FirestoreStandIn, record: Path) -> None:
    first = verify(firestore, record, level=1)
    assert first["status"] == "ok" and first["verification"]["documents"] is None
    second = verify(firestore, record)
    assert [entry["check"] for entry in second["findings"]] == ["export_content", "export_metadata"]
    assert {entry["subject"] for entry in second["findings"]} == {"firestore:main"}
    assert (second["status"], second["changed"]) == ("ok", False)
    assert second["verification"]["level"] == 2 and second["verification"]["collections"] == firestore.collections


def _uri(record: Path) -> str:
    return str(json.loads(record.read_text())["output_uri_prefix"])


def _output(firestore: FirestoreStandIn, uri: str) -> str:
    return next(name for name in firestore.objects(uri) if "/output-" in name)


def _flip(firestore: FirestoreStandIn, uri: str) -> None:
    name = _output(firestore, uri)
    content = bytearray(firestore.objects(uri)[name])
    content[len(content) // 2] ^= 1
    firestore.put(uri, name, bytes(content))


def _cut(firestore: FirestoreStandIn, uri: str) -> None:
    name = _output(firestore, uri)
    firestore.put(uri, name, firestore.objects(uri)[name][:-30])


def _cut_on_a_block(firestore: FirestoreStandIn, uri: str) -> None:
    name = _output(firestore, uri)
    content = firestore.objects(uri)[name]
    assert len(content) > 32768, "the export is too small to be cut there"
    firestore.put(uri, name, content[: len(content) // 32768 * 32768])


def _foreign(firestore: FirestoreStandIn, uri: str) -> None:
    firestore.put(uri, _output(firestore, uri), b"<html>not found</html>")


def _empty(firestore: FirestoreStandIn, uri: str) -> None:
    firestore.put(uri, _output(firestore, uri), b"")


@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
        (_cut_on_a_block, "export_content", "cut off"),
        (_foreign, "export_content", "output-0: "),
        (_empty, "export_content", "its output files hold 0"),
        (_flip, "export_content", "CRC32C"),
        (_cut, "export_content", "cut off"),
        (lambda firestore, uri: firestore.put(uri, _output(firestore, uri), None), "export_content", "missing"),
        (
            lambda firestore, uri: firestore.put(uri, "main.overall_export_metadata", None),
            "export_metadata",
            "was removed from the bucket",
        ),
    ],
)
def test_what_was_spoiled_in_the_bucket_is_named(
    firestore: FirestoreStandIn, record: Path, spoil: Callable[..., None], check: str, words: str
) -> None:
    spoil(firestore, _uri(record))
    answer = verify(firestore, record)
    worst = answer["findings"][0]
    assert (worst["status"], worst["check"]) == ("critical", check) and words in worst["summary"], worst
    assert "take a new backup set" in worst["hint"]
    assert answer["verification"]["level"] == (1 if check == "export_content" else 0)
    assert verify(firestore, record, fail_on="critical")["failed"]


def test_a_record_of_another_export_is_found_out(firestore: FirestoreStandIn, record: Path) -> None:
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "documents": content["documents"] + 1}))
    assert "it is another export, or spoiled" in verify(firestore, record)["findings"][0]["summary"]
    record.write_text(json.dumps({**content, "collections": {"users": content["documents"]}}))
    assert "recorded are {'users'" in verify(firestore, record)["findings"][0]["summary"]


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"output_uri_prefix": "/local"}'])
def test_a_record_that_is_none_is_critical(firestore: FirestoreStandIn, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    answer = verify(firestore, path)
    assert answer["status"] == "critical" and str(path) in answer["findings"][0]["summary"]


def test_a_bucket_that_does_not_answer_is_unknown_and_ends_in_time(firestore: FirestoreStandIn, record: Path) -> None:
    started = time.monotonic()
    answer = verify(firestore, record, storage_endpoint=f"http://127.0.0.1:{free_port()}", timeout=2)
    assert answer["status"] == "unknown" and "Connection refused" in answer["findings"][0]["summary"]
    assert time.monotonic() - started < 15


def test_half_configured_stand_ins_never_reach_production(firestore: FirestoreStandIn, record: Path) -> None:
    answer = verify(firestore, record, emulator_host="", admin_endpoint="")
    assert answer["failed"] and "nothing may reach Google" in answer["msg"]


# --- level 4 ---


@pytest.fixture
def another_database(firestore: FirestoreStandIn) -> Iterator[Any]:
    """Adds documents to the live database, and takes them away again."""
    added = data(firestore.emulator.host, PROJECT).collection("users")

    def add(count: int) -> None:
        for number in range(count):
            added.document(f"came-later-{number}").set({"n": number})

    yield add
    for document in added.stream():
        if document.id.startswith("came-later-"):
            document.reference.delete()


def _live(answer: dict[str, Any]) -> tuple[str, str]:
    found = next(finding for finding in answer["findings"] if finding["check"] == "export_live")
    return found["status"], found["summary"]


def test_the_export_is_compared_with_the_live_database(
    firestore: FirestoreStandIn, record: Path, another_database: Callable[[int], None]
) -> None:
    answer = verify(firestore, record, level=4)
    assert _live(answer)[0] == answer["status"] == "ok"
    found = answer["verification"]
    assert (found["level"], found["live"], found["live_at"]) == (4, firestore.collections, None)
    users = firestore.collections["users"]
    another_database(11)
    assert verify(firestore, record, level=4, live_tolerance=1100 / users)["status"] == "ok"
    other = verify(firestore, record, level=4, live_tolerance=0)
    assert _live(other)[0] == other["status"] == "warning"
    assert f"users {users + 11} instead of {users}" in _live(other)[1]
    assert "documents may have been lost there" in other["findings"][0]["hint"]
    assert other["verification"]["level"] == 2
    assert verify(firestore, record, level=2)["verification"]["live"] is None


def test_a_snapshot_is_compared_with_the_very_time_it_is_of(
    firestore: FirestoreStandIn, record: Path, another_database: Callable[[int], None]
) -> None:
    """The stand-in exports what is there now and keeps the time; the emulator remembers what it held."""
    moment = datetime.now(timezone.utc)
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "snapshot_time": moment.isoformat()}))
    time.sleep(0.1)
    another_database(50)
    answer = verify(firestore, record, level=4, live_tolerance=0)
    assert _live(answer)[0] == "ok" and "at the time of the export" in _live(answer)[1]
    assert answer["verification"]["live_at"] is not None
    record.write_text(json.dumps({**content, "snapshot_time": datetime.now(timezone.utc).isoformat()}))
    lacking = verify(firestore, record, level=4)
    assert _live(lacking)[0] == "critical" and "other documents than the export: users" in _live(lacking)[1]


def test_a_time_that_the_database_has_forgotten(firestore: FirestoreStandIn, record: Path) -> None:
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "snapshot_time": "2020-01-01T00:00:00Z"}))
    answer = verify(firestore, record, level=4)
    assert _live(answer)[0] == "ok" and answer["verification"]["live_at"] is None


def test_an_export_of_some_collections_is_compared_in_these(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    options = {"output_uri_prefix": firestore.new_folder(), "collection_ids": ["users"]}
    made = run_module("firestore_export", {**firestore.connection, **options})
    path = tmp_path / "main.json"
    path.write_text(json.dumps(made["export"]))
    answer = verify(firestore, path, level=4, live_tolerance=0)
    assert answer["status"] == "ok" and list(answer["verification"]["live"]) == ["users"]


def test_a_database_that_is_away_is_unknown(firestore: FirestoreStandIn, record: Path) -> None:
    answer = verify(firestore, record, level=4, emulator_host=f"127.0.0.1:{free_port()}", timeout=1)
    assert _live(answer)[0] == answer["status"] == "unknown"
    assert "the documents could not be counted" in _live(answer)[1]
    assert answer["verification"]["level"] == 2


def test_a_database_that_hangs_is_unknown_and_ends_in_time(firestore: FirestoreStandIn, record: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        answer = verify(firestore, record, level=4, emulator_host=address, timeout=1)
        assert time.monotonic() - started < 15
    assert _live(answer)[0] == "unknown"


def test_the_examples_run(firestore: FirestoreStandIn, record: Path) -> None:
    connection = "".join(
        f"\n    {name}: '{value}'" for name, value in firestore.connection.items() if name != "project"
    )
    run_examples(
        "firestore_verify",
        {
            "project: example-project": f"project: {PROJECT}{connection}",
            "/var/backups/upkeep/20260131T235959Z/firestore/main.json": str(record),
        },
    )
