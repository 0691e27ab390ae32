# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_drill against the emulator, a stand-in for the Admin API and a bucket; Google's client is the witness."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_compare import (
    Comparison,
    Documents,
    compare_documents,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import Target
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_drill import Names
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import folder_opener, metadata_name

from tests.examples import run_examples
from tests.fixtures.firestore import PROJECT, FirestoreStandIn
from tests.harness import run_module, start_module
from tests.modules.test_firestore_export import Recorder, recorder, service_account  # noqa: F401
from tests.platform.parts.firestore import client, digest, seed

SET = "20260131T235959Z"


@pytest.fixture(scope="module")
def record(firestore_platform: FirestoreStandIn) -> dict[str, Any]:
    """What firestore_export says of an export of the default database."""
    arguments = {"output_uri_prefix": firestore_platform.new_folder(), "poll_interval": "0.2s"}
    return dict(run_module("firestore_export", {**firestore_platform.connection, **arguments})["export"])


@pytest.fixture
def root(tmp_path: Path, record: dict[str, Any], firestore: FirestoreStandIn) -> Iterator[Path]:
    """A folder with a set that holds the record; at the end no scratch database may be left."""
    place = tmp_path / SET / "firestore" / "main.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(record))
    before = scratch(firestore)
    yield tmp_path
    assert scratch(firestore) == before


def scratch(firestore: FirestoreStandIn) -> set[str]:
    return {name for name in firestore.databases() if name.startswith("upkeep-drill-")}


def arguments(firestore: FirestoreStandIn, root: Path, **options: Any) -> dict[str, Any]:
    given = {"root": str(root), "id": SET, "path": "firestore/main.json", "name": "firestore:main"}
    return {**firestore.connection, **given, "poll_interval": "0.1s", "fail_on": "never", **options}


def drill(firestore: FirestoreStandIn, root: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("firestore_drill", arguments(firestore, root, **options), check=check)


def finding(answer: dict[str, Any], check: str = "export_restore") -> dict[str, Any]:
    (found,) = [each for each in answer["findings"] if each["check"] == check]
    assert found["subject"] == "firestore:main"
    return dict(found)


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_what_was_restored_is_what_was_exported(firestore: FirestoreStandIn, root: Path, tmp_path: Path) -> None:
    """Looked at while the module waits for the deletion: Google's client reads the scratch database."""
    live = digest(firestore.emulator.host, PROJECT)
    firestore.bridge.configure(delay=60, method="delete_database")
    progress = tmp_path / "progress"
    running = start_module("firestore_drill", arguments(firestore, root, progress_file=str(progress)))
    deleting = lambda: [  # noqa: E731
        operation
        for name in scratch(firestore)
        for operation in firestore.admin().list_operations({"name": f"projects/{PROJECT}/databases/{name}"}).operations
        if "DeleteDatabase" in operation.metadata.type_url
    ]
    until(lambda: bool(deleting()))
    (name,) = scratch(firestore)
    assert re.fullmatch(r"upkeep-drill-20260131t235959z-[0-9a-f]{6}-[0-9a-f]{6}", name)
    assert digest(firestore.emulator.host, PROJECT, name, named="(default)") == live
    rival = finding(drill(firestore, root))
    assert rival["status"] == "unknown" and "another drill of the sets in" in rival["summary"]
    firestore.bridge.configure()
    answer = json.loads(running.communicate(timeout=60)[0])

    assert answer["status"] == "ok" and not answer["changed"]
    told = answer["drill"]
    assert told["database"] == name
    assert told["documents"] == told["compared"] == live.documents and told["collections"] == live.collections
    parts = [told[f"{step}_seconds"] for step in ("create", "restore", "compare")]
    assert told["rto_seconds"] == pytest.approx(sum(parts), abs=0.01) and min(parts) > 0
    assert finding(answer)["value"] == told["rto_seconds"] and "all documents compared" in finding(answer)["summary"]
    assert progress.read_text()
    assert digest(firestore.emulator.host, PROJECT) == live


def test_each_drill_is_made_anew(firestore: FirestoreStandIn, root: Path, record: dict[str, Any]) -> None:
    first, second = drill(firestore, root), drill(firestore, root)
    assert first["drill"]["digest"] == second["drill"]["digest"]
    assert first["drill"]["database"] != second["drill"]["database"]
    exported = datetime.fromisoformat(record["started_at"].replace("Z", "+00:00"))
    age = (datetime.now(timezone.utc) - exported).total_seconds()
    assert 0 <= first["drill"]["rpo_seconds"] <= age
    assert finding(first, "recovery_point")["value"] == first["drill"]["rpo_seconds"]
    some = drill(firestore, root, compare_documents=40)
    assert some["drill"]["compared"] == 40 and "40 documents compared" in finding(some)["summary"]


def test_check_mode_proves_the_export_and_creates_nothing(firestore: FirestoreStandIn, root: Path) -> None:
    known = firestore.databases()
    answer = drill(firestore, root, check=True)
    assert "would create" in finding(answer)["summary"] and answer["drill"]["rto_seconds"] is None
    assert firestore.databases() == known


@pytest.mark.parametrize("method", ["create_database", "import", "delete_database"])
def test_killed_at_any_step_the_next_drill_clears_up(
    firestore: FirestoreStandIn, theirs: list[str], root: Path, method: str
) -> None:
    firestore.bridge.configure(delay=60, method=method)
    killed = start_module("firestore_drill", arguments(firestore, root))
    until(lambda: going(firestore, method, theirs))
    killed.kill()
    killed.communicate()
    left = scratch(firestore) - set(theirs)
    assert len(left) == 1
    foretold = drill(firestore, root, check=True)
    assert "would be deleted" in finding(foretold, "drill_leftovers")["summary"]
    firestore.bridge.configure()
    again = drill(firestore, root)
    assert again["status"] == "ok" and again["drill"]["rto_seconds"]
    if method != "delete_database":  # else it may be gone by itself
        told = finding(again, "drill_leftovers")
        assert left.copy().pop() in told["summary"] and "was deleted" in told["summary"]
    assert scratch(firestore) - set(theirs) == set()
    assert set(theirs) <= firestore.databases(), "databases of others stay"


@pytest.fixture
def theirs(firestore: FirestoreStandIn) -> Iterator[list[str]]:
    """Databases of others: the scratch database of another host's drill, and one that is no drill's."""
    names = [firestore.create(name) for name in (f"upkeep-drill-{SET.lower()}-ffffff-3d4e5f", firestore.new_database())]
    yield names
    firestore.bridge.configure()
    for name in names:
        firestore.admin().delete_database(request={"name": f"projects/{PROJECT}/databases/{name}"}).result(timeout=30)


def going(firestore: FirestoreStandIn, method: str, theirs: list[str]) -> bool:
    kind = {"create_database": "CreateDatabase", "import": "ImportDocuments", "delete_database": "DeleteDatabase"}
    for name in scratch(firestore) - set(theirs):
        listed = firestore.admin().list_operations({"name": f"projects/{PROJECT}/databases/{name}"}).operations
        if any(kind[method] in operation.metadata.type_url and not operation.done for operation in listed):
            return True
    return False


@pytest.mark.parametrize("method", ["create_database", "import", "delete_database"])
def test_stopped_at_any_step_it_clears_up_itself(firestore: FirestoreStandIn, root: Path, method: str) -> None:
    firestore.bridge.configure(delay=60, method=method)
    stopped = start_module("firestore_drill", arguments(firestore, root))
    until(lambda: going(firestore, method, []))
    os.kill(stopped.pid, signal.SIGTERM)
    firestore.bridge.configure(delay=1 if method == "create_database" else 0)
    answer = json.loads(stopped.communicate(timeout=60)[0].splitlines()[-1])
    if method == "delete_database":
        assert answer["status"] == "ok", "what is being taken back is not interrupted"
    else:
        assert "not practised: stopped by SIGTERM; the scratch database was deleted" in answer["msg"]


def test_what_goes_wrong_is_told_and_nothing_is_left(firestore: FirestoreStandIn, root: Path) -> None:
    for method, told in (("create_database", "the creation of"), ("import", "the import of")):
        firestore.bridge.configure(outcome="failure", method=method)
        failed = finding(drill(firestore, root))
        assert failed["status"] == "unknown" and told in failed["summary"] and "as it was told to" in failed["summary"]
        assert scratch(firestore) == set()
    firestore.bridge.configure(outcome="failure", method="delete_database")
    answer = drill(firestore, root)
    assert answer["drill"]["rto_seconds"] and finding(answer, "drill_cleanup")["status"] == "warning"
    assert answer["drill"]["database"] in finding(answer, "drill_cleanup")["summary"]
    again = drill(firestore, root)
    assert len([each for each in again["findings"] if each["status"] == "warning"]) == 2
    firestore.bridge.configure()
    assert drill(firestore, root)["status"] == "ok"


def test_with_stand_ins_nothing_leaves_the_machine(
    firestore: FirestoreStandIn,
    root: Path,
    recorder: Recorder,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Databases are created, filled, read and deleted, while good credentials for Google lie at hand."""
    key = service_account(tmp_path / "key.json", f"http://127.0.0.1:{recorder.port}/token")
    environment = {**recorder.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    answer = run_module("firestore_drill", arguments(firestore, root), env=environment)
    assert answer["status"] == "ok" and answer["drill"]["rto_seconds"]
    assert recorder.heard == []


def test_a_full_disk_leaves_no_database(firestore: FirestoreStandIn, root: Path) -> None:
    answer = drill(firestore, root, progress_file="/dev/full")
    assert "No space left on device" in json.dumps(answer)
    assert scratch(firestore) == set()


def test_a_spoiled_or_missing_export_is_critical(
    firestore: FirestoreStandIn, root: Path, record: dict[str, Any]
) -> None:
    uri = record["output_uri_prefix"]
    output = next(name for name in firestore.objects(uri) if "/output-" in name)
    content = firestore.objects(uri)[output]
    try:
        firestore.put(uri, output, content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :])
        spoiled = finding(drill(firestore, root))
        assert spoiled["status"] == "critical" and "CRC32C" in spoiled["summary"] and "take a new" in spoiled["hint"]
    finally:
        firestore.put(uri, output, content)
    place = root / SET / "firestore" / "main.json"
    place.write_text(json.dumps({**record, "output_uri_prefix": uri + "x"}))
    missing = finding(drill(firestore, root))
    assert missing["status"] == "critical" and "there is no export to import" in missing["summary"]
    place.write_text("{}")
    assert finding(drill(firestore, root))["status"] == "critical"


@pytest.mark.parametrize(
    "change, told",
    [
        ({"storage_endpoint": "http://127.0.0.1:1", "timeout": "2s"}, "127.0.0.1:1"),
        ({"admin_endpoint": "127.0.0.1:1", "timeout": "2s"}, "127.0.0.1:1"),
        ({"database": "nobodys"}, "does not exist, so that its location is not known"),
        ({"path": "firestore/other.json"}, "No such file"),
        ({"root": "/nowhere"}, "No such file"),
        (
            {"emulator_host": None, "admin_endpoint": None, "storage_endpoint": None}
            | {"service_account_file": "/nowhere/key.json"},
            "no credentials for Google from /nowhere/key.json",
        ),
    ],
)
def test_what_keeps_it_from_being_made_is_unknown(
    firestore: FirestoreStandIn, root: Path, change: dict[str, Any], told: str
) -> None:
    given = {name: value for name, value in {**arguments(firestore, root), **change}.items() if value is not None}
    found = finding(run_module("firestore_drill", given))
    assert found["status"] == "unknown" and told in found["summary"], found["summary"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"id": "../../etc"}, "is no id of a backup set"),
        ({"compare_documents": 0}, "proves nothing"),
        ({"emulator_host": ""}, "nothing may reach Google"),
    ],
)
def test_wrong_options_are_named(firestore: FirestoreStandIn, root: Path, change: dict[str, Any], told: str) -> None:
    answer = drill(firestore, root, **change)
    assert answer["failed"] and told in answer["msg"]


def test_only_what_this_place_left_is_a_leftover(tmp_path: Path) -> None:
    ours, others = Names.of("host1", str(tmp_path), "3d4e5f"), Names.of("host2", str(tmp_path), "3d4e5f")
    name = ours.scratch(SET)
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,61}[a-z0-9]", name) and ours.is_leftover(name)
    assert not others.is_leftover(name)
    for foreign in ("(default)", "upkeep-drill-", f"x{name}", f"{name}-x", name.upper(), name.replace("z-", "-")):
        assert not ours.is_leftover(foreign)


@pytest.fixture(scope="module")
def compared(firestore_platform: FirestoreStandIn, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compares the documents of a project of its own with an export that was made of it at first."""
    emulator, folder = firestore_platform.emulator, tmp_path_factory.mktemp("export")
    documents = client(emulator.host, "upkeep-compared")
    every = every_type(documents)
    documents.document("types/all").set(every)
    for name, value in every.items():
        documents.document(f"types/{name}").set({name: value})
    documents.document("types/empty/below/one").set({})
    seed(emulator.host, "upkeep-compared", 400)
    emulator.export("upkeep-compared", folder, "main")
    target = Target.of({**firestore_platform.connection, "project": "upkeep-compared"}, {})

    def compare(limit: int = 10**6, start: int = 0) -> Comparison:
        fetch = Documents(target, 30).fields
        return compare_documents(folder_opener(str(folder)), metadata_name("main"), limit, start, fetch)

    return documents, every, compare


def every_type(documents: Any) -> dict[str, Any]:
    """A value of each kind that Firestore has, and those at their edges."""
    from google.cloud.firestore import GeoPoint
    from google.cloud.firestore_v1.vector import Vector

    moment = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=timezone.utc)
    return {
        "null": None,
        "true": True,
        "false": False,
        "zero": 0,
        "large": 2**63 - 1,
        "small": -(2**63),
        "half": 0.5,
        "float_zero": 0.0,
        "nan": float("nan"),
        "infinite": float("-inf"),
        "text": "Grüße",
        "no_text": "",
        "long_text": "x" * 3000,
        "bytes": b"\x00\xff",
        "no_bytes": b"",
        "time": moment,
        "old": datetime(1901, 1, 1, tzinfo=timezone.utc),
        "place": GeoPoint(50.5, -6.25),
        "nowhere": GeoPoint(0, 0),
        "reference": documents.document("users/user000000/orders/order0"),
        "list": [None, 1, "1", 1.0, b"1", True, moment, GeoPoint(1, 2), documents.document("a/b"), {"a": [1]}, {}],
        "one": [7],
        "nothing": [],
        "map": {"a": {"b": [{"c": None, "d": []}]}},
        "no_map": {},
        "vector": Vector([1.0, 2.5]),
        "in_map": {"v": Vector([0.5])},
        "a.b `c": 1,
    }


def test_every_type_of_value_is_read_from_the_export_as_firestore_has_it(compared: Any) -> None:
    _documents, every, compare = compared
    result = compare()
    assert result.is_equal, result.told
    assert result.compared == 400 + len(every) + 2 and int(result.digest, 16)


@pytest.mark.parametrize("field", sorted(every_type(type("", (), {"document": staticmethod(lambda _: None)}))))
def test_a_value_that_changed_its_type_is_seen(compared: Any, field: str) -> None:
    documents, every, compare = compared
    wrong = {"zero": 0.0, "float_zero": 0, "no_text": b"", "no_bytes": "", "nothing": {}, "no_map": []}
    document = documents.document(f"types/{field}")
    try:
        document.set({field: wrong.get(field, "other")})
        result = compare()
        assert (result.different, result.missing) == (1, 0) and result.told == [f"types/{field} differs in {field}"]
    finally:
        document.set({field: every[field]})


def test_missing_and_changed_documents_are_counted_and_named(compared: Any) -> None:
    documents, _every, compare = compared
    whole = compare().digest
    kept = {path: documents.document(path).get().to_dict() for path in ("users/user000001", "sessions/session000003-1")}
    documents.document("users/user000001").update({"email": "other@example.org"})
    documents.document("sessions/session000003-1").delete()
    result = compare()
    assert (result.different, result.missing, result.is_equal) == (1, 1, False)
    assert sorted(result.told) == ["sessions/session000003-1 is missing", "users/user000001 differs in email"]
    for path, fields in kept.items():
        documents.document(path).set(fields)
    assert compare().digest == whole != result.digest


@pytest.mark.parametrize("start", [0, 1, 123456789])
def test_a_sample_is_as_large_as_told_and_spread(compared: Any, start: int) -> None:
    _documents, _every, compare = compared
    assert compare(limit=50, start=start).compared == 50
    assert compare(limit=1, start=start).compared == 1


def test_another_start_takes_other_documents(compared: Any) -> None:
    _documents, _every, compare = compared
    assert len({compare(limit=20, start=start).digest for start in range(0, 60, 7)}) > 1


def test_examples_work(firestore: FirestoreStandIn, root: Path) -> None:
    stand_in = {name: value for name, value in firestore.connection.items() if name != "project"}
    connection = "".join(f"\n    {name}: {value}" for name, value in stand_in.items())
    output = run_examples(
        "firestore_drill",
        {"project: example-project": f"project: {PROJECT}{connection}", "/var/backups/upkeep": str(root)},
    )
    assert "ok: [localhost]" in output
    assert subprocess.run(["ls", root], capture_output=True, text=True).stdout.split() == [SET], "nothing was written"
