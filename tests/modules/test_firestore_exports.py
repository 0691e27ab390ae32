# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_exports against exports that were really made, in the stand-in for Cloud Storage."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_exports import Export, Exports

from tests.examples import run_examples
from tests.fixtures.firestore import BUCKET, PROJECT, FirestoreStandIn
from tests.harness import run_module
from tests.platform.parts.bucket import storage
from tests.platform.parts.process import free_port

OLD, NEW, LOST = "20260129T030000Z", "20260131T030000Z", "20260130T030000Z"


@dataclass
class Folder:
    """A folder of exports that no other test uses."""

    firestore: FirestoreStandIn
    uri: str

    def export(self, identifier: str, name: str = "main") -> dict[str, str]:
        uri = f"{self.uri}/{identifier}/{name}"
        made = run_module("firestore_export", {**self.firestore.connection, "output_uri_prefix": uri})
        assert not made["failed"], made
        return {"set": identifier, "uri": uri}

    def run(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {**self.firestore.connection, "folder": self.uri, "name": "main", "orphan_age": "0s", **options}
        return run_module("firestore_exports", arguments, check=check)

    def objects(self, export: dict[str, str]) -> list[str]:
        return sorted(self.firestore.objects(export["uri"]))


@pytest.fixture
def folder(firestore: FirestoreStandIn) -> Folder:
    return Folder(firestore, f"gs://{BUCKET}/{uuid.uuid4().hex}")


def test_the_export_of_a_set_that_is_gone_is_removed_and_no_other(folder: Folder) -> None:
    old, new, other = folder.export(OLD), folder.export(NEW), folder.export(OLD, "other")
    would = folder.run(check=True, absent=[old], orphans="ignored")
    assert would["changed"] and would["removed"][0]["objects"] == len(folder.objects(old)) > 1
    did = folder.run(absent=[old], orphans="ignored")
    assert did["removed"] == would["removed"] and folder.objects(old) == []
    assert folder.objects(new) and folder.objects(other)
    again = folder.run(absent=[old], orphans="ignored")
    assert (again["changed"], again["removed"]) == (False, [])


def test_orphans_are_listed_and_removed_only_when_asked(folder: Folder) -> None:
    lost, known, foreign = folder.export(LOST), folder.export(NEW), folder.export("notes")
    listed = folder.run(known=[NEW])
    assert [(entry["set"], entry["uri"]) for entry in listed["orphans"]] == [(LOST, lost["uri"])]
    assert not listed["changed"] and listed["orphans"][0]["bytes"] > 0 and folder.objects(lost)
    assert folder.run(known=[NEW], orphan_age="1h")["orphans"] == [], "it may still be in the making"
    assert folder.run(known=[NEW], orphans="removed", check=True)["changed"] and folder.objects(lost)
    assert folder.run(known=[NEW], orphans="removed")["removed"] == listed["orphans"]
    assert folder.objects(lost) == [] and folder.objects(known) and folder.objects(foreign)


def test_an_export_that_others_may_use_is_refused(folder: Folder) -> None:
    shared = folder.export("shared")
    answer = folder.run(absent=[{**shared, "set": OLD}])
    assert answer["failed"] and f"lies in no folder of set {OLD}" in answer["msg"] and folder.objects(shared)


def test_a_removal_that_is_cut_off_leaves_nothing_that_could_be_imported(folder: Folder) -> None:
    """The bucket refuses after the first object: that was the one without which there is no import."""
    old = folder.export(OLD)
    before = folder.objects(old)
    entry = [name for name in before if name.endswith(".overall_export_metadata")]
    with storage(folder.firestore.bucket.url) as cloud:
        removed: list[str] = []

        def listed(*_: Any, **__: Any) -> list[Any]:
            return [_Object(blob, removed) for blob in cloud.list_blobs(BUCKET, prefix=old["uri"].split("/", 3)[3])]

        exports = Exports(lambda: type("Client", (), {"list_blobs": staticmethod(listed)})(), "bucket", 5)
        with pytest.raises(ConnectionAbortedError):
            exports.remove(Export(OLD, old["uri"], 0, 0, ""))
    assert sorted(set(before) - set(folder.objects(old))) == entry
    assert folder.run(absent=[old])["changed"] and folder.objects(old) == []


class _Object:
    """An object of the bucket of which only the first can be removed."""

    def __init__(self, blob: Any, removed: list[str]) -> None:
        self._blob, self._removed, self.name, self.bucket = blob, removed, blob.name, blob.bucket

    def delete(self, **_: Any) -> None:
        if self._removed:
            raise ConnectionAbortedError
        self._removed.append(self.name)
        self._blob.delete()


def test_a_bucket_that_does_not_answer_is_named_and_ends_in_time(folder: Folder) -> None:
    started = time.monotonic()
    answer = folder.run(storage_endpoint=f"http://127.0.0.1:{free_port()}", timeout=2)
    assert answer["failed"] and "Connection refused" in answer["msg"]
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "/local"}, "'/local' is no address such as gs://bucket/folder"),
        ({"absent": [{"set": "x", "uri": "gs://b/x/main"}]}, "is no id of a backup set"),
        ({"orphan_age": "old"}, "'old' is no duration"),
    ],
)
def test_errors_name_the_cause(folder: Folder, options: dict[str, Any], message: str) -> None:
    answer = folder.run(**options)
    assert answer["failed"] and message in answer["msg"]


def test_the_examples_run(folder: Folder) -> None:
    connection = "".join(
        f"\n    {name}: '{value}'" for name, value in folder.firestore.connection.items() if name != "project"
    )
    replacements = {
        "project: example-project": f"project: {PROJECT}{connection}",
        "gs://example-backups/firestore": folder.uri,
    }
    run_examples("firestore_exports", replacements)
