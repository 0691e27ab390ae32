# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_export against the emulator, a stand-in for the Admin API and a bucket, all real servers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.firestore import BUCKET, DATABASE, PROJECT, FirestoreStandIn
from tests.harness import run_module, start_module
from tests.platform.parts.firestore import digest
from tests.platform.parts.gcloud import Gcloud

#: For tasks that never come as far as the bucket.
NOWHERE = f"gs://{BUCKET}/nowhere"


def export(firestore: FirestoreStandIn, uri: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {**firestore.connection, "output_uri_prefix": uri, "poll_interval": "0.2s", **options}
    return run_module("firestore_export", arguments, check=check)


def resume(firestore: FirestoreStandIn, uri: str, progress: Path) -> dict[str, Any]:
    """Run the module again, and let the export end only when the module is seen waiting for it."""
    options = {"output_uri_prefix": uri, "poll_interval": "0.2s", "progress_file": str(progress)}
    waiting = start_module("firestore_export", {**firestore.connection, **options})
    until(lambda: progress.exists() and progress.stat().st_size > 0)
    firestore.bridge.configure()
    answer: dict[str, Any] = json.loads(waiting.communicate(timeout=60)[0])
    return answer


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_an_export_restores_every_document(firestore: FirestoreStandIn) -> None:
    uri, before = firestore.new_folder(), digest(firestore.emulator.host, PROJECT)
    answer = export(firestore, uri)
    assert answer["changed"] and answer["action"] == "started"
    record = answer["export"]
    assert record["documents"] == before.documents == firestore.documents
    assert record["collections"] == before.collections
    assert record["state"] == "SUCCESSFUL" and record["verified"]
    assert record["output_uri_prefix"] == uri
    assert record["metadata_uri"] == f"{uri}/main.overall_export_metadata"
    assert record["operation"] in firestore.operations()
    outputs = [content for name, content in firestore.objects(uri).items() if "/output-" in name]
    assert record["bytes"] == sum(map(len, outputs))
    assert answer["counts"]["compared"]
    assert {group["collection"]: group["live"] for group in answer["counts"]["groups"]} == before.collections

    firestore.emulator.wipe(PROJECT)
    assert digest(firestore.emulator.host, PROJECT).documents == 0
    request = {"name": DATABASE, "input_uri_prefix": record["output_uri_prefix"]}
    firestore.admin().import_documents(request).result(timeout=30)
    assert digest(firestore.emulator.host, PROJECT) == before


def test_a_failed_export_is_told_with_what_is_known_of_it(firestore: FirestoreStandIn) -> None:
    firestore.bridge.configure(outcome="failure")
    answer = export(firestore, firestore.new_folder())
    assert answer["failed"] and "as it was told to" in answer["msg"] and "again" in answer["msg"]
    assert answer["export"]["state"] == "FAILED" and not answer["export"]["verified"]
    assert answer["export"]["operation"] in answer["msg"]


def test_the_same_folder_again_changes_nothing(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    uri = firestore.new_folder()
    foretold = export(firestore, uri, check=True, progress_file=str(tmp_path / "progress"))
    assert not (tmp_path / "progress").exists(), "check mode wrote"
    assert foretold["changed"] and "export" not in foretold
    assert f"users {firestore.collections['users']}" in foretold["msg"]
    assert not firestore.objects(uri), "check mode exported"

    first = export(firestore, uri)
    known = firestore.operations()
    for check in (False, True):
        again = export(firestore, uri, check=check)
        assert not again["changed"] and again["action"] == "found"
        assert again["export"] == first["export"]
        assert not again["counts"]["compared"] and "there already" in again["counts"]["reason"]
    assert firestore.operations() == known


def test_snapshot_time_and_namespaces_are_passed_on(firestore: FirestoreStandIn) -> None:
    minute = (datetime.now(timezone.utc) - timedelta(minutes=5)).replace(second=0, microsecond=0)
    told = minute.strftime("%Y-%m-%dT%H:%M:%SZ")
    uri = firestore.new_folder()
    answer = export(firestore, uri, snapshot_time=told, namespace_ids=[""])
    assert answer["export"]["snapshot_time"] == told
    assert answer["export"]["documents"] == firestore.documents
    assert "namespace_ids" in answer["counts"]["reason"]
    other = export(firestore, uri, namespace_ids=[""])
    assert other["failed"] and "another snapshot_time" in other["msg"]


def test_started_without_waiting_and_resumed(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=60)
    started = export(firestore, uri, wait=False)
    assert started["changed"] and started["export"]["state"] == "PROCESSING"
    assert started["export"]["ended_at"] is None
    waiting = export(firestore, uri, wait=False)
    assert not waiting["changed"] and waiting["action"] == "resumed"
    foretold = export(firestore, uri, check=True)
    assert foretold["action"] == "resumed" and "would wait" in foretold["msg"]
    done = resume(firestore, uri, tmp_path / "progress")
    assert done["changed"] and done["action"] == "resumed"
    assert done["export"]["operation"] == started["export"]["operation"]
    assert done["export"]["verified"]


def test_killed_midway_and_run_again_resumes_the_same_operation(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    uri, progress = firestore.new_folder(), tmp_path / "progress"
    firestore.bridge.configure(delay=60)
    known = firestore.operations()
    arguments = {**firestore.connection, "output_uri_prefix": uri, "progress_file": str(progress)}
    killed = start_module("firestore_export", arguments)
    until(lambda: firestore.operations() != known)
    killed.kill()
    killed.communicate()
    ours = firestore.operations() - known
    assert "main.overall_export_metadata" not in firestore.objects(uri), "killed after its export was done"

    progress = tmp_path / "progress again"
    again = resume(firestore, uri, progress)
    assert again["action"] == "resumed" and again["export"]["verified"]
    assert {again["export"]["operation"]} == firestore.operations() - known == ours
    last = json.loads(progress.read_text().splitlines()[-1])
    assert last["bytes"] == last["total"] == again["export"]["bytes"]


def test_time_runs_out_and_the_export_goes_on(firestore: FirestoreStandIn) -> None:
    uri = firestore.new_folder()
    firestore.bridge.configure(delay=60)
    late = export(firestore, uri, timeout="3s")
    assert late["failed"]
    for told in ("still PROCESSING after 3.0 s", late["export"]["operation"], "run the task again", "resumed"):
        assert told in late["msg"]
    assert late["export"]["state"] == "PROCESSING" and not late["export"]["verified"]
    firestore.bridge.configure()
    assert export(firestore, uri)["export"]["operation"] == late["export"]["operation"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"output_uri_prefix": "gs://nobodys-bucket/a/main"}, "bucket does not exist: nobodys-bucket"),
        ({"project": "another-project"}, "does not exist for project another-project"),
        ({"database": "another"}, "database another does not exist"),
        ({"output_uri_prefix": f"gs://{BUCKET}"}, "no address such as gs://bucket/folder"),
        ({"timeout": "soon"}, "'soon' is no duration"),
        ({"snapshot_time": "yesterday"}, "no point in time"),
        ({"snapshot_time": "2020-01-01T00:00:00Z"}, "not within the past seven days"),
    ],
)
def test_mistakes_are_named(firestore: FirestoreStandIn, change: dict[str, str], told: str) -> None:
    arguments = {**firestore.connection, "output_uri_prefix": firestore.new_folder(), **change}
    answer = run_module("firestore_export", arguments)
    assert answer["failed"] and told in answer["msg"]


@pytest.mark.slow
def test_gcloud_finds_the_same(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    """An independent client of the Admin API: what it exports, this module finds good, and the other way round."""
    theirs, ours = firestore.new_folder(), firestore.new_folder()
    if missing := Gcloud.missing():
        pytest.skip(missing)
    run = Gcloud(firestore.bridge.url, PROJECT, tmp_path).firestore

    run("export", theirs)
    found = export(firestore, theirs)
    assert found["action"] == "found" and found["export"]["documents"] == firestore.documents

    operation = export(firestore, ours)["export"]["operation"]
    told = run("operations", "describe", operation)
    assert told["done"] and told["metadata"]["operationState"] == "SUCCESSFUL"
    assert told["response"]["outputUriPrefix"] == ours
    before = digest(firestore.emulator.host, PROJECT)
    firestore.emulator.wipe(PROJECT)
    run("import", ours)
    assert digest(firestore.emulator.host, PROJECT) == before


@pytest.mark.parametrize("part", ["emulator_host", "admin_endpoint", "storage_endpoint"])
def test_a_half_named_stand_in_is_refused(part: str) -> None:
    answer = run_module(
        "firestore_export",
        {"project": PROJECT, part: "127.0.0.1:1", "output_uri_prefix": NOWHERE, "timeout": "1s"},
    )
    missing = {"emulator_host", "admin_endpoint", "storage_endpoint"} - {part}
    assert answer["failed"] and all(name in answer["msg"] for name in missing)
    assert "nothing may reach Google" in answer["msg"]


@pytest.mark.parametrize("variable", ["FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
def test_a_stand_in_of_the_environment_counts(variable: str) -> None:
    arguments = {"project": PROJECT, "output_uri_prefix": NOWHERE, "timeout": "1s"}
    answer = run_module("firestore_export", arguments, env={variable: "127.0.0.1:1"})
    assert answer["failed"] and "nothing may reach Google" in answer["msg"]


def test_stand_ins_of_the_environment_are_used(firestore: FirestoreStandIn) -> None:
    arguments = {
        "project": PROJECT,
        "admin_endpoint": firestore.bridge.endpoint,
        "output_uri_prefix": firestore.new_folder(),
    }
    environment = {
        "FIRESTORE_EMULATOR_HOST": firestore.emulator.host,
        "STORAGE_EMULATOR_HOST": firestore.bucket.url.removeprefix("http://"),
    }
    answer = run_module("firestore_export", arguments, env=environment)
    assert answer["export"]["documents"] == firestore.documents


@dataclass
class Recorder:
    """A server that stands for the world outside: it notes what is sent to it and hangs up."""

    port: int
    heard: list[bytes] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Makes everything that leads out lead here: proxies of all libraries, and Google's metadata server."""
        address = f"127.0.0.1:{self.port}"
        proxies = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
        names = [*proxies, *(name.upper() for name in proxies)]
        return {
            **dict.fromkeys(names, f"http://{address}"),
            "no_proxy": "",
            "NO_PROXY": "",
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_IP": address,
        }


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        recording = Recorder(server.getsockname()[1])

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(2)
                        recording.heard.append(connection.recv(1000))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        yield recording
        server.shutdown(socket.SHUT_RDWR)
        listener.join(5)


def service_account(path: Path, token_uri: str) -> Path:
    """A key file of a service account that nobody has."""
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], capture_output=True, text=True
    ).stdout
    content = {"type": "service_account", "client_email": "nobody@upkeep-test.iam.gserviceaccount.com"}
    path.write_text(json.dumps({**content, "project_id": PROJECT, "private_key": key, "token_uri": token_uri}))
    path.chmod(0o600)
    return path


def test_with_stand_ins_nothing_leaves_the_machine(
    firestore: FirestoreStandIn, recorder: Recorder, tmp_path: Path
) -> None:
    key = service_account(tmp_path / "key.json", f"http://127.0.0.1:{recorder.port}/token")
    environment = {**recorder.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    arguments = {**firestore.connection, "output_uri_prefix": firestore.new_folder()}
    answer = run_module("firestore_export", arguments, env=environment)
    assert answer["export"]["verified"] and answer["counts"]["compared"]
    assert recorder.heard == []


def test_without_stand_ins_the_recorder_would_have_heard(recorder: Recorder, tmp_path: Path) -> None:
    """The counterpart of the test above: it shows that its recorder is not deaf."""
    key = service_account(tmp_path / "key.json", f"http://127.0.0.1:{recorder.port}/token")
    arguments = {
        "project": PROJECT,
        "output_uri_prefix": NOWHERE,
        "timeout": "3s",
        "service_account_file": str(key),
    }
    answer = run_module("firestore_export", arguments, env=recorder.environment)
    assert answer["failed"] and "firestore.googleapis.com" in answer["msg"], answer["msg"]
    assert recorder.heard


def test_unusable_credentials_are_named(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text("{}")
    arguments = {"project": PROJECT, "output_uri_prefix": NOWHERE, "service_account_file": str(key)}
    answer = run_module("firestore_export", arguments)
    assert answer["failed"] and str(key) in answer["msg"] and "no credentials" in answer["msg"]


def test_the_examples(firestore: FirestoreStandIn) -> None:
    run_examples(
        "firestore_export",
        {
            "project: example-project": "\n    ".join(
                f"{name}: {json.dumps(value)}" for name, value in firestore.connection.items()
            ),
            "gs://example-backups/firestore": firestore.new_folder().removesuffix("/main"),
        },
    )
