# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role disaster_recovery_test against a real Redis, Firestore emulator and bucket, and its faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.firestore import BUCKET, PROJECT, FirestoreStandIn
from tests.platform.parts.firestore import digest
from tests.platform.parts.redis import RedisServer, seed
from tests.runs.test_backup_roles import PASSWORD, Site, _family, _redis_catalogue, _wait_until, finding

pytestmark = pytest.mark.slow

ROLE = "disaster_recovery_test"
PARTS = ["redis:cache", "firestore:main"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), password=PASSWORD) as started:
        seed(started.client(), 500)
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: RedisServer, firestore_platform: FirestoreStandIn) -> Site:
    """A site with one verified set of Redis and Firestore."""
    folder = tmp_path_factory.mktemp("made")
    site = Site(folder, _redis_catalogue(folder, server.port))
    database = {**firestore_platform.connection, "name": "main", "bucket": f"gs://{BUCKET}/{folder.name}"}
    site.catalogue["upkeep_firestore"] = [database]
    site.run("database_backup")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path, firestore: FirestoreStandIn) -> Iterator[Site]:
    """The site with a copy of its set, in which no test finds the traces of another. Nothing may be left at its end."""
    shutil.copytree(made.root, tmp_path / "backups")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    backup = {**made.catalogue["upkeep_backup"], "root": str(tmp_path / "backups")}
    variables = {"upkeep_backup": backup, "disaster_recovery_test_scratch_dir": str(scratch)}
    yield Site(tmp_path, {**json.loads(json.dumps(made.catalogue)), **variables})
    assert not any(name.startswith("upkeep-drill-") for name in firestore.databases())
    assert servers_below(scratch) == [] and not list((tmp_path / "backups").glob("*lock*"))


def servers_below(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            if entry.name.isdigit() and "redis-server" in words and str(folder) in str((entry / "cwd").readlink()):
                found.append(words)
    return found


def judgements(site: Site) -> list[tuple[int, str]]:
    (folder,) = site.sets()
    told = json.loads((folder / "verification.json").read_text())["judgements"]
    return [(entry["level"], entry["result"]) for entry in told]


def test_a_set_is_restored_measured_and_marked(site: Site, server: RedisServer, firestore: FirestoreStandIn) -> None:
    before = digest(firestore.emulator.host, PROJECT), server.client().execute_command("DEBUG", "DIGEST")
    foretold = site.run(ROLE, "--check")
    assert "would be restored" in finding(foretold, "drill_passed", "drill")["summary"]
    assert judgements(site) == [(2, "passed")] and foretold["artifacts"]["drills"] == []

    server.client().set("written", "since" * 100)
    outcome = site.run(ROLE)
    (folder,) = site.sets()
    assert {entry["status"] for entry in outcome["findings"]} == {"ok"}, outcome["findings"]
    assert outcome["changes"] == [f"set {folder.name}: drill passed was recorded"]
    (drill,) = outcome["artifacts"]["drills"]
    assert (drill["set"], drill["result"], list(drill["parts"])) == (folder.name, "passed", PARTS)
    redis, main = (drill["parts"][name] for name in PARTS)
    taken = json.loads((folder / "redis" / "cache.rdb.zst.json").read_text())
    assert redis["keys"] == sum(held["keys"] for held in taken["databases"].values())
    assert main["documents"] == main["compared"] == firestore.documents
    assert drill["rto_seconds"] == pytest.approx(redis["rto_seconds"] + main["rto_seconds"])
    assert drill["rpo_seconds"] == max(redis["rpo_seconds"], main["rpo_seconds"]) > 0
    assert drill["rpo_bytes"] == redis["rpo_bytes"] > 500, "what was written since"
    told = finding(outcome, "drill_passed", "drill")["summary"]
    assert told.startswith(f"set {folder.name} was restored and compared in ") and "redis:cache" in told
    metrics = outcome["artifacts"]["metrics"]
    assert metrics == {f"drill_{name}": drill[name] for name in ("rto_seconds", "rpo_seconds", "rpo_bytes")}
    assert judgements(site) == [(2, "passed"), (5, "passed")]
    server.client().delete("written")
    after = digest(firestore.emulator.host, PROJECT), server.client().execute_command("DEBUG", "DIGEST")
    assert after == before, "live data is what it was"


def test_parts_can_be_chosen_and_sets_named(site: Site) -> None:
    (folder,) = site.sets()
    outcome = site.run(ROLE, disaster_recovery_test_parts=PARTS[:1], disaster_recovery_test_set=folder.name)
    assert (
        "of redis:cache, firestore:main only these were drilled" in finding(outcome, "drill_passed", "drill")["summary"]
    )
    assert list(outcome["artifacts"]["drills"][0]["parts"]) == PARTS[:1] and outcome["artifacts"]["metrics"] == {}
    assert judgements(site) == [(2, "passed"), (5, "unknown")], "a part of a set is no set"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"disaster_recovery_test_parts": ["redis:sessions"]}, "it has no part redis:sessions, it holds redis:cache"),
        ({"disaster_recovery_test_set": "20200101T000000Z"}, "there is no complete set 20200101T000000Z below"),
        ({"disaster_recovery_test_root": "/nowhere"}, "there is no verified set below /nowhere"),
        ({"upkeep_firestore": [], "disaster_recovery_test_parts": PARTS[1:]}, "name it in upkeep_firestore"),
    ],
)
def test_what_cannot_be_drilled_is_named(site: Site, variables: dict[str, Any], told: str) -> None:
    critical(site, site.run(ROLE, rc=2, **variables), told)


def test_what_a_drill_showed_is_told_also_when_it_cannot_be_recorded(site: Site) -> None:
    mutex = site.root / ".mutex"
    mutex.unlink(missing_ok=True)
    mutex.mkdir()
    outcome = site.run(ROLE, rc=2, disaster_recovery_test_parts=PARTS[:1])
    assert "redis:cache" in finding(outcome, "drill_passed", "drill")["summary"]
    told = finding(outcome, "drill_recorded", "drill")
    assert told["status"] == "critical" and "is not recorded in the set: the backup sets below" in told["summary"]
    assert outcome["changes"] == [] and judgements(site) == [(2, "passed")]


def critical(site: Site, outcome: dict[str, Any], *told: str) -> None:
    """One critical finding that alerts, with the reason in its one line, which is the run's last word as well."""
    alerting = [each for each in outcome["findings"] if each["status"] != "ok" and not each["parent"]]
    assert [each["check"] for each in alerting] == ["drill_passed"] and alerting[0]["status"] == "critical"
    assert "\n" not in alerting[0]["summary"] and all(word in alerting[0]["summary"] for word in told), alerting
    assert all(word in site.output for word in told)


def test_a_spoiled_snapshot_fails_the_drill_and_the_set(site: Site) -> None:
    (folder,) = site.sets()
    path = folder / "redis" / "cache.rdb.zst"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    failed = site.run(ROLE, rc=2)
    critical(site, failed, f"the drill of set {folder.name} failed: redis:cache: ")
    assert judgements(site) == [(2, "passed"), (5, "failed")]
    (drill,) = failed["artifacts"]["drills"]
    assert drill["result"] == "failed" and failed["artifacts"]["metrics"] == {}
    assert drill["parts"]["firestore:main"]["rto_seconds"], "the other part was drilled"


def test_other_data_than_earlier_loads_gave_fails_the_drill(site: Site) -> None:
    record = site.sets()[0] / "verification.json"
    content = json.loads(record.read_text())
    content["judgements"][-1]["digests"] = {"redis:cache": "0" * 40}
    record.write_text(json.dumps(content))
    failed = site.run(ROLE, rc=2, disaster_recovery_test_parts=PARTS[:1])
    critical(site, failed, "the digest of the data is", f"instead of {'0' * 40}")


def test_a_bucket_that_is_away_fails_the_drill_and_not_the_set(site: Site) -> None:
    site.catalogue["upkeep_firestore"][0]["storage_endpoint"] = "http://127.0.0.1:1"
    options = {"disaster_recovery_test_firestore_timeout": "2s", "disaster_recovery_test_parts": PARTS[1:]}
    failed = site.run(ROLE, rc=2, **options)
    critical(site, failed, "failed: firestore:main: http://127.0.0.1:1")
    assert judgements(site) == [(2, "passed"), (5, "unknown")]
    assert failed["artifacts"]["drills"][0]["result"] == "unknown"


def test_wrong_credentials_are_named(site: Site) -> None:
    stand_ins = ("emulator_host", "admin_endpoint", "storage_endpoint")
    database = {key: value for key, value in site.catalogue["upkeep_firestore"][0].items() if key not in stand_ins}
    database["service_account_file"] = "/nowhere/key.json"
    site.catalogue["upkeep_firestore"] = [database]
    failed = site.run(ROLE, rc=2, disaster_recovery_test_parts=PARTS[1:])
    critical(site, failed, "firestore:main: no credentials for Google from /nowhere/key.json")


def test_a_live_server_that_lets_nobody_in_leaves_the_loss_unknown(site: Site) -> None:
    """It is only asked how much was written since: the restore itself needs no password."""
    site.catalogue["upkeep_redis"][0]["password"] = "wrong"
    told = site.run(ROLE, disaster_recovery_test_parts=PARTS[:1])
    verdict = finding(told, "drill_passed", "drill")
    assert verdict["status"] == "unknown" and "was restored and compared" in verdict["summary"]
    assert "how much was written since is not known" in verdict["summary"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_named(site: Site) -> None:
    scratch = site.folder / "scratch"
    mount = ["mount", "-t", "tmpfs", "-o", "size=20k,mode=700", "upkeep-test", str(scratch)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        failed = site.run(ROLE, rc=2, disaster_recovery_test_parts=PARTS[:1])
        assert list(scratch.iterdir()) == []
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
    critical(site, failed, "redis:cache: ", "unpacking needs")
    assert judgements(site) == [(2, "passed"), (5, "unknown")]


@pytest.mark.parametrize("step", ["redis", "import"])
def test_killed_at_any_step_the_next_drill_is_clean(site: Site, firestore: FirestoreStandIn, step: str) -> None:
    """The steps within the drill of an export have their test beside the module."""
    scratch = site.folder / "scratch"
    firestore.bridge.configure(delay=120, method="import")
    parts = PARTS[:1] if step == "redis" else PARTS[1:]
    run = site.start(ROLE, disaster_recovery_test_parts=parts)
    try:
        _wait_until(lambda: reached(step, scratch, firestore), run)
    finally:
        for pid in _family(run.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.communicate()
    firestore.bridge.configure()
    until_gone(scratch)
    again = site.run(ROLE, disaster_recovery_test_parts=parts)
    assert {entry["status"] for entry in again["findings"]} == {"ok"}, again["findings"]


def until_gone(scratch: Path) -> None:
    """Private servers die with their drill, a moment later."""
    deadline = time.monotonic() + 10
    while servers_below(scratch):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reached(step: str, scratch: Path, firestore: FirestoreStandIn) -> bool:
    if step == "redis":
        return servers_below(scratch) != []
    names = [name for name in firestore.databases() if name.startswith("upkeep-drill-")]
    return any(
        "ImportDocuments" in operation.metadata.type_url and not operation.done
        for name in names
        for operation in firestore.admin().list_operations({"name": f"projects/{PROJECT}/databases/{name}"}).operations
    )
