# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_verify against exports that were really made, spoiled in the bucket in every manner."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import PROJECT, FirestoreStandIn
from tests.harness import run_module
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


@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
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
