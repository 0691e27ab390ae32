# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Firestore's operations mean, the wait for them, counts, addresses and credentials; nothing is asked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import google.auth.exceptions
import pytest
import requests
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import ExportOperation, ExportRequest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    FirestoreUnreachableError,
    Target,
    credentials,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_counts import Counts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import ExportMetadata, ExportPart
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import (
    FOUND,
    RESUMED,
    STARTED,
    ExportFailedError,
    Patience,
    fault_of,
    make_plan,
    must_be_snapshot_time,
    wait,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri
from google.api_core import exceptions as api
from google.oauth2 import service_account
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 23, 59, tzinfo=timezone.utc)
URI = "gs://backups/nightly/main"
GOING = ExportOperation("operations/1", False, "PROCESSING", "", output_uri_prefix=URI, started_at=NOW)
DONE = replace(GOING, done=True, state="SUCCESSFUL", documents=5)
METADATA = ExportMetadata("nightly/main/main.overall_export_metadata", (ExportPart("part", (), 5, 100),))


@pytest.mark.parametrize(
    "operation, told",
    [
        (GOING, "still PROCESSING"),
        (replace(DONE, state="FAILED", error="disk full (code 13)"), "FAILED with the error: disk full"),
        (replace(DONE, error="cancelled (code 1)"), "with the error: cancelled"),
        (replace(DONE, state="PROCESSING"), "in the state PROCESSING and not SUCCESSFUL"),
        (replace(DONE, state="CANCELLED"), "in the state CANCELLED and not SUCCESSFUL"),
        (replace(DONE, state="OPERATION_STATE_UNSPECIFIED"), "not SUCCESSFUL"),
    ],
)
def test_only_one_end_is_a_success(operation: ExportOperation, told: str) -> None:
    assert told in fault_of(operation)
    assert fault_of(DONE) == ""


def test_the_plan_for_a_folder() -> None:
    request = ExportRequest(URI)
    elsewhere = replace(GOING, output_uri_prefix="gs://backups/nightly/other")
    failed = replace(DONE, state="FAILED", error="x", started_at=NOW - timedelta(hours=1))
    assert make_plan(request, [elsewhere], None).action == STARTED
    assert make_plan(request, [failed], None).action == STARTED
    assert make_plan(request, [DONE], None).action == STARTED, "its files were removed"
    assert make_plan(request, [failed, replace(GOING, output_uri_prefix=URI + "/")], None).action == RESUMED
    assert make_plan(request, [GOING], METADATA).action == RESUMED
    assert make_plan(request, [failed, DONE], METADATA).operation == DONE
    forgotten = make_plan(request, [elsewhere], METADATA)
    assert (forgotten.action, forgotten.operation) == (FOUND, None)


@pytest.mark.parametrize("metadata", [None, METADATA])
def test_what_is_going_or_there_must_be_what_is_wanted(metadata: ExportMetadata | None) -> None:
    there = [DONE if metadata else GOING]
    for wanted, told in (
        (ExportRequest(URI, ["users"]), "all collections, wanted is one of users"),
        (ExportRequest(URI, namespace_ids=["a"]), "other namespaces"),
        (ExportRequest(URI, snapshot_time=NOW), "another snapshot_time"),
    ):
        with pytest.raises(ExportFailedError, match=told):
            make_plan(wanted, there, metadata)
    if metadata:
        with pytest.raises(ExportFailedError, match="wanted is one of users"):
            make_plan(ExportRequest(URI, ["users"]), [], metadata)
        with pytest.raises(ExportFailedError, match="do not use it"):
            make_plan(ExportRequest(URI), [replace(DONE, state="CANCELLED")], metadata)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, timeout: float, interval: float) -> Patience:
        return Patience(timeout, interval, lambda: self.now, self.sleep)


def answers(*told: ExportOperation | Exception) -> Callable[[str], ExportOperation]:
    """A service that gives these answers one after the other, the last one for ever."""
    left = list(told)

    def poll(name: str) -> ExportOperation:
        assert name == GOING.name
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return poll


def test_the_wait_ends_with_the_operation() -> None:
    clock, heard = Clock(), list[ExportOperation]()
    assert wait(GOING, answers(GOING, GOING, DONE), clock.patience(60, 10), heard.append) == DONE
    assert heard == [GOING, GOING, GOING, DONE]
    assert clock.pauses == [0.5, 0.75, 1.125]


def test_one_that_is_done_is_not_asked_for() -> None:
    clock = Clock()
    assert wait(DONE, answers(AssertionError()), clock.patience(60, 10), lambda _: None) == DONE
    assert clock.pauses == []


@settings(deadline=None)
@given(timeout=st.floats(0, 500), interval=st.floats(0.1, 600))
def test_the_wait_is_bounded(timeout: float, interval: float) -> None:
    clock = Clock()
    assert wait(GOING, answers(GOING), clock.patience(timeout, interval), lambda _: None) == GOING
    assert clock.now - 1000 == pytest.approx(timeout)
    assert max(clock.pauses, default=0) <= interval
    assert len(clock.pauses) <= timeout / min(interval, 0.5) + 2


def test_a_service_that_cannot_be_reached_for_a_while_is_asked_again() -> None:
    away = FirestoreUnreachableError("nobody there")
    clock = Clock()
    assert wait(GOING, answers(away, GOING, away, DONE), clock.patience(60, 10), lambda _: None) == DONE
    with pytest.raises(FirestoreUnreachableError):
        wait(GOING, answers(away), clock.patience(60, 10), lambda _: None)
    assert clock.now >= 1060
    clock = Clock()
    with pytest.raises(FirestoreAccessError, match="forbidden"):
        wait(GOING, answers(FirestoreAccessError("forbidden")), clock.patience(60, 10), lambda _: None)
    assert len(clock.pauses) == 1, "what will not pass is told at once"


@pytest.mark.parametrize(
    "live, exported, tolerance, differs",
    [
        (100, 100, 0, False),
        (100, 95, 5, False),
        (95, 100, 5, False),
        (100, 94, 5, True),
        (94, 100, 5, True),
        (0, 0, 0, False),
        (1, 0, 99, True),
        (0, 1, 99, True),
        (1_000_000, 999_999, 0, True),
    ],
)
def test_counts_within_the_tolerance(live: int, exported: int, tolerance: float, differs: bool) -> None:
    assert bool(Counts(tolerance, "", {"users": live}, {"users": exported}).differences()) == differs


def test_a_group_that_is_missing_in_the_export_is_a_difference() -> None:
    counts = Counts(5, "", {"users": 3, "orders": 4}, {"orders": 4})
    assert counts.differences() == ["users has 3 documents, 0 of them exported"]
    assert counts.as_dict()["groups"][1] == {"collection": "users", "live": 3, "exported": None}


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=-1), timedelta(days=7), timedelta(seconds=90)])
def test_impossible_snapshot_times(age: timedelta) -> None:
    must_be_snapshot_time(NOW - timedelta(minutes=1), NOW)
    with pytest.raises(ValueError, match="snapshot_time 2026-0"):
        must_be_snapshot_time(NOW - age, NOW)


def test_addresses_of_folders() -> None:
    assert split_uri("gs://bucket/a/b/") == ("bucket", "a/b")
    assert split_uri(" gs://bucket/a ") == ("bucket", "a")
    for wrong in ("", "bucket/a", "gs://bucket", "gs://bucket/", "gs:///a", "https://bucket/a"):
        with pytest.raises(ValueError, match="no address such as gs://bucket/folder"):
            split_uri(wrong)


ENDPOINTS = {"emulator_host": "h:1", "admin_endpoint": "h:2", "storage_endpoint": "h:3"}


@pytest.mark.parametrize("chosen", range(1, 7))
def test_some_stand_ins_are_an_error(chosen: int) -> None:
    some = {name: value for bit, (name, value) in enumerate(ENDPOINTS.items()) if chosen >> bit & 1}
    with pytest.raises(ValueError, match="nothing may reach Google") as failure:
        Target.of({"project": "p", **some}, {})
    assert all(name in str(failure.value) for name in ENDPOINTS)


def test_all_stand_ins_or_none() -> None:
    target = Target.of({"project": "p", **ENDPOINTS}, {"FIRESTORE_EMULATOR_HOST": "other:1"})
    assert target.is_stand_in and target.data_address == "h:1" and target.storage_url == "http://h:3"
    assert credentials(target).token is None, "stand-ins are asked without credentials"
    google = Target.of({"project": "p", "database": "d", "emulator_host": "", "admin_endpoint": None}, {})
    assert not google.is_stand_in and google.name == "projects/p/databases/d"
    assert google.storage_url == "https://storage.googleapis.com"
    environment = {"FIRESTORE_EMULATOR_HOST": "h:1", "STORAGE_EMULATOR_HOST": "http://h:3"}
    assert Target.of({"project": "p", "admin_endpoint": "h:2"}, environment).storage_url == "http://h:3"


@pytest.mark.parametrize("name", ["service_account_file", "impersonate_service_account"])
def test_credentials_beside_stand_ins_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is for Google"):
        Target.of({"project": "p", name: "x", **ENDPOINTS}, {})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The key of a service account that nobody has."""
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    key = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    account = {"type": "service_account", "client_email": "robot@p.iam.gserviceaccount.com", "private_key": key}
    path = tmp_path / "key.json"
    path.write_text(json.dumps({**account, "token_uri": "http://127.0.0.1:1/token"}))
    return path


def test_the_three_kinds_of_credentials(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file = credentials(Target("p", service_account_file=str(key_file)))
    assert isinstance(of_file, service_account.Credentials)
    assert of_file.service_account_email == "robot@p.iam.gserviceaccount.com"
    assert of_file.scopes == ("https://www.googleapis.com/auth/cloud-platform",)

    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    assert credentials(Target("p")).service_account_email == of_file.service_account_email

    acting = credentials(Target("p", impersonate_service_account="other@p.iam.gserviceaccount.com"))
    assert acting.service_account_email == "other@p.iam.gserviceaccount.com"
    assert acting._source_credentials.service_account_email == of_file.service_account_email


def test_missing_credentials_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
    for target in (Target("p"), Target("p", service_account_file=str(tmp_path / "none"))):
        with pytest.raises(FirestoreAccessError, match=r"no credentials for Google from .*none.*service_account_file"):
            credentials(target)


@pytest.mark.parametrize(
    "error, kind, told",
    [
        (api.ServiceUnavailable("refused"), FirestoreUnreachableError, "is it running"),
        (api.DeadlineExceeded("late"), FirestoreUnreachableError, "did not answer in time"),
        (api.RetryError("late", None), FirestoreUnreachableError, "did not answer in time"),
        (api.TooManyRequests("slow down"), FirestoreUnreachableError, "fewer requests"),
        (requests.ConnectionError("refused"), FirestoreUnreachableError, "is it running"),
        (requests.ReadTimeout("late"), FirestoreUnreachableError, "did not answer in time"),
        (google.auth.exceptions.TransportError("refused"), FirestoreUnreachableError, "cannot be reached"),
        (google.auth.exceptions.RefreshError("revoked"), FirestoreAccessError, "credentials cannot be used"),
        (api.PermissionDenied("no"), FirestoreAccessError, "importExportAdmin"),
        (api.Unauthenticated("no"), FirestoreAccessError, "credentials are not accepted"),
        (api.NotFound("no such bucket"), FirestoreAccessError, "names of project, database and bucket"),
        (api.InvalidArgument("bad prefix"), FirestoreAccessError, "correct what it names"),
        (api.Aborted("conflict"), FirestoreAccessError, "conflict"),
    ],
)
def test_errors_name_the_place_and_the_remedy(error: Any, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind) as failure, explained("place:1"):
        raise error
    assert type(failure.value) is kind
    assert str(failure.value).startswith("place:1: ") and told in str(failure.value)
