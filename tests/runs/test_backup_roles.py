"""The roles database_backup and backup_verification against a real Redis, Firestore emulator and bucket."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.firestore import BUCKET, FirestoreStandIn
from tests.fixtures.http import HttpServer
from tests.harness import ROOT
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import RedisServer, seed
from tests.platform.parts.sshd import SshServer

pytestmark = pytest.mark.slow

ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
PASSWORD = "correct horse battery"


@dataclass
class Site:
    """A catalogue, and a folder in which its playbooks run."""

    folder: Path
    catalogue: dict[str, Any]
    output: str = ""
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "backups"

    def start(self, role: str, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
        (self.folder / "outcome.json").unlink(missing_ok=True)
        outcome = {
            "dest": str(self.folder / "outcome.json"),
            "content": "{{ upkeep_outcome | to_json }}",
            "mode": "0600",
        }
        keep = {"ansible.builtin.copy": outcome, "check_mode": False}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable, **self.catalogue, **variables},
            "tasks": [
                {
                    "block": [{"ansible.builtin.include_role": {"name": f"upkeep.ops.{role}"}}],
                    "always": [{**keep, "when": "upkeep_outcome is defined"}],
                }
            ],
        }
        playbook = self.folder / "play.yml"
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        return subprocess.Popen(
            [ANSIBLE_PLAYBOOK, "-i", "localhost,", *arguments, playbook],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, role: str, *arguments: str, rc: int = 0, **variables: Any) -> dict[str, Any]:
        """The outcome of a role that ended with ``rc``."""
        run = self.start(role, *arguments, **variables)
        self.output = run.communicate(timeout=120)[0]
        assert run.returncode == rc, self.output
        assert PASSWORD not in self.output
        return dict(json.loads((self.folder / "outcome.json").read_text()))

    def sets(self) -> list[Path]:
        return sorted(path for path in self.root.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z", path.name))


def finding(outcome: dict[str, Any], check: str, subject: str = "backup") -> dict[str, Any]:
    (found,) = [entry for entry in outcome["findings"] if (entry["check"], entry["subject"]) == (check, subject)]
    return dict(found)


@pytest.fixture(scope="module")
def redis_of_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), password=PASSWORD) as server:
        seed(server.client(), 500)
        yield server


def _redis_catalogue(folder: Path, port: int) -> dict[str, Any]:
    server = {"name": "cache", "use": "cache", "host": "127.0.0.1", "port": port, "password": PASSWORD}
    backup = {"root": str(folder / "backups"), "max_age": "26h", "compression": "zstd"}
    return {"upkeep_site": "test", "upkeep_backup": backup, "upkeep_redis": [server]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, redis_of_site: RedisServer) -> tuple[dict[str, Any], Path]:
    """What the role said of a set of Redis alone, and the root with that set."""
    folder = tmp_path_factory.mktemp("made")
    site = Site(folder, _redis_catalogue(folder, redis_of_site.port))
    return site.run("database_backup"), site.root


@pytest.fixture
def redis_only(tmp_path: Path, redis_of_site: RedisServer) -> Site:
    return Site(tmp_path, _redis_catalogue(tmp_path, redis_of_site.port))


@pytest.fixture
def with_set(redis_only: Site, made: tuple[dict[str, Any], Path]) -> Site:
    """A site of Redis alone that has one verified set."""
    shutil.copytree(made[1], redis_only.root)
    return redis_only


@pytest.fixture
def site(redis_only: Site, firestore: FirestoreStandIn) -> Site:
    database = {**firestore.connection, "name": "main", "database": "(default)", "collections": []}
    database["bucket"] = f"gs://{BUCKET}/{redis_only.folder.name}"
    redis_only.catalogue["upkeep_firestore"] = [database]
    return redis_only


def test_the_life_of_a_set_made_verified_spoiled_marked_and_replaced(
    site: Site, firestore: FirestoreStandIn, redis_of_site: RedisServer
) -> None:
    foretold = site.run("database_backup", "--check")
    assert foretold["changes"] == ["a new set would be made of redis:cache, firestore:main"]
    assert not site.root.exists()

    folder = _make(site, firestore)
    again = site.run("database_backup")
    assert again["changes"] == [] and "no new one is due" in finding(again, "backup_made")["summary"]
    assert again["artifacts"]["backup_set"] == folder.name and site.sets() == [folder]

    _verify(site, firestore, folder)
    _compare(site, redis_of_site, folder)
    _spoil(firestore, folder)
    found = site.run("backup_verification", rc=2, backup_verification_level=3)
    assert finding(found, "backup_bytes", "redis:cache")["status"] == "critical"
    told = [each for each in found["findings"] if each["status"] == "critical" and not each["parent"]]
    assert [each["check"] for each in told] == ["backup_verified"], "each cause once, the parts under the set"
    assert told[0]["summary"].count("redis:cache") == 1 and "more)" in told[0]["summary"]
    assert finding(found, "export_content", "firestore:main")["status"] == "critical"
    assert "Recovery will not choose this set" in finding(found, "backup_verified")["hint"]
    assert "another sha256" in site.output

    site.run("database_backup")
    assert len(site.sets()) == 2, "a failed set makes no new one needless, and is kept"


def _make(site: Site, firestore: FirestoreStandIn) -> Path:
    """Make a set, and hold it against redis-check-rdb and the emulator."""
    made = site.run("database_backup")
    (folder,) = site.sets()
    assert made["changes"] == [f"set {folder.name} was made of redis:cache, firestore:main"]
    assert made["artifacts"]["backup_set"] == folder.name and made["artifacts"]["backup_bytes"] > 1000
    assert {entry["status"] for entry in made["findings"]} == {"ok"}, made
    assert finding(made, "snapshot_format", "redis:cache") and finding(made, "backup_verified")["status"] == "ok"
    redis_part, firestore_part = json.loads((folder / "manifest.json").read_text())["parts"]
    assert redis_part["details"]["databases"]["0"]["keys"] == 501
    assert firestore_part["details"]["documents"] == firestore.documents
    assert firestore_part["details"]["output_uri_prefix"].endswith(f"/{folder.name}/main")
    assert not [path for path in folder.rglob("*") if path.stat().st_mode & 0o077]
    rdb = site.folder / "witness.rdb"
    with rdb.open("wb") as stream:
        subprocess.run(["zstd", "-dc", folder / "redis/cache.rdb.zst"], stdout=stream, check=True)
    witness = subprocess.run(["redis-check-rdb", rdb], capture_output=True, text=True, check=True)
    assert "Checksum OK" in witness.stdout
    return folder


def _verify(site: Site, firestore: FirestoreStandIn, folder: Path) -> None:
    verified = site.run("backup_verification")
    assert {entry["status"] for entry in verified["findings"]} == {"ok"}, verified
    assert finding(verified, "snapshot_load", "redis:cache")["subject"] == "redis:cache"
    assert finding(verified, "export_content", "firestore:main")["value"] == firestore.documents
    judgements = json.loads((folder / "verification.json").read_text())["judgements"]
    proofs = [
        {"set": folder.name, "level": entry["level"], "result": "passed", "at": entry["at"], "reason": ""}
        for entry in judgements[1:]
    ]
    assert verified["artifacts"] == {
        "backup_set": folder.name, "backup_level": 4, "backup_result": "passed", "verifications": proofs,
    }  # fmt: skip
    assert [(entry["level"], entry["result"]) for entry in judgements] == [(level, "passed") for level in (2, 3, 4)]


def _compare(site: Site, live: RedisServer, folder: Path) -> None:
    compared = site.run("backup_verification", backup_verification_level=4)
    assert {entry["status"] for entry in compared["findings"]} == {"ok"}, compared
    assert "equal, 0 changed, 0 gone, 0 new" in finding(compared, "snapshot_live", "redis:cache")["summary"]
    assert finding(compared, "export_live", "firestore:main")["unit"] == "documents"
    assert "with the digest of earlier loads" in finding(compared, "snapshot_load", "redis:cache")["summary"]
    *_, loaded, last = json.loads((folder / "verification.json").read_text())["judgements"]
    assert (last["level"], last["result"]) == (4, "passed")
    assert loaded["digests"] == last["digests"] == {"redis:cache": live.cli("debug", "digest")}


def _spoil(firestore: FirestoreStandIn, folder: Path) -> None:
    path = folder / "redis/cache.rdb.zst"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    uri = json.loads((folder / "firestore/main.json").read_text())["output_uri_prefix"]
    output = next(name for name in firestore.objects(uri) if "/output-" in name)
    firestore.put(uri, output, firestore.objects(uri)[output][:-20])


def test_without_firestore_in_the_catalogue_the_finding_says_so(made: tuple[dict[str, Any], Path]) -> None:
    assert "Firestore is not in the catalogue and was left out" in finding(made[0], "backup_made")["summary"]


def test_no_set_is_critical(redis_only: Site) -> None:
    found = redis_only.run("backup_verification", rc=2)
    assert finding(found, "backup_present")["status"] == "critical" and found["changes"] == []


def test_an_old_set_is_critical_and_fails_as_told(with_set: Site) -> None:
    old = with_set.run("backup_verification", "--check", backup_verification_max_age="1s", upkeep_fail_on="never")
    assert finding(old, "backup_age")["status"] == "critical"
    assert old["changes"][0].endswith("level 4 passed would be recorded")


def test_the_level_that_is_due_is_taken_and_an_asked_one_wins(with_set: Site) -> None:
    """The set passed level 2 when it was made; no set has passed a higher one yet."""
    direct = dict(with_set.catalogue["upkeep_redis"][0])
    with_set.catalogue["upkeep_redis"][0]["sentinel"] = {"hosts": ["127.0.0.1:1"], "master": "cache"}
    hidden = with_set.run("backup_verification", "--check")
    assert hidden["artifacts"]["backup_level"] == 3, "a server that only Sentinel knows is compared with nothing"
    with_set.catalogue["upkeep_redis"] = [direct]
    first = with_set.run("backup_verification")
    assert first["artifacts"]["backup_level"] == 4 and finding(first, "snapshot_live", "redis:cache")
    assert [(entry["level"], entry["result"]) for entry in first["artifacts"]["verifications"]] == [
        (3, "passed"), (4, "passed"),
    ]  # fmt: skip
    rested = with_set.run("backup_verification")
    assert (rested["artifacts"]["backup_level"], rested["artifacts"]["verifications"]) == (0, [])
    assert finding(rested, "backup_verified")["status"] == "ok"
    assert "level 4 passed at" in finding(rested, "backup_verified")["summary"]
    assert {each["check"] for each in rested["findings"]} & {"snapshot_load", "backup_bytes"} == set()
    asked = with_set.run("backup_verification", backup_verification_level=1)
    assert asked["artifacts"]["backup_level"] == 1 and finding(asked, "backup_bytes", "redis:cache")
    with_set.catalogue["upkeep_backup"]["verification"] = {3: "0s"}
    assert with_set.run("backup_verification")["artifacts"]["backup_level"] == 3, "the catalogue says how often"


def test_a_live_server_that_is_away_leaves_a_verified_set_as_it_was(with_set: Site) -> None:
    with_set.catalogue["upkeep_redis"][0]["port"] = free_port()
    away = with_set.run("backup_verification", backup_verification_level=4)
    assert finding(away, "snapshot_load", "redis:cache")["status"] == "ok"
    assert "nothing listens there" in finding(away, "snapshot_live", "redis:cache")["summary"]
    assert finding(away, "backup_verified")["status"] == away["artifacts"]["backup_result"] == "unknown"
    judgements = json.loads((with_set.sets()[0] / "verification.json").read_text())["judgements"]
    told = [(entry["level"], entry["result"]) for entry in judgements]
    assert told == [(2, "passed"), (3, "passed"), (4, "unknown")], "the load is proved all the same"


def test_a_snapshot_that_the_server_to_come_cannot_load_is_critical(with_set: Site) -> None:
    with_set.catalogue["upkeep_redis"][0]["version"] = "6.2.16"
    refused = with_set.run("backup_verification", rc=2)
    told = finding(refused, "snapshot_format", "redis:cache")["summary"]
    assert told == "Redis 6.2.16 cannot load RDB version 10 (Redis 7.0.15)"


def test_a_load_that_gives_another_digest_is_critical(with_set: Site) -> None:
    path = with_set.sets()[0] / "verification.json"
    content = json.loads(path.read_text())
    content["judgements"][-1]["digests"] = {"redis:cache": "0" * 40}
    path.write_text(json.dumps(content))
    other = with_set.run("backup_verification", rc=2, backup_verification_level=3)
    assert f"and was {'0' * 40} when it was loaded before" in finding(other, "snapshot_load", "redis:cache")["summary"]


def test_a_wrong_password_leaves_nothing_and_is_named(with_set: Site) -> None:
    with_set.catalogue["upkeep_redis"][0]["password"] = "wrong"
    failed = with_set.run("database_backup", rc=2, database_backup_max_age="0s")
    made = finding(failed, "backup_made")
    assert made["status"] == "critical" and "Take the Redis snapshots" in made["summary"]
    assert "password" in made["summary"].lower()
    assert len(with_set.sets()) == 1 and not list(with_set.root.glob("*.partial"))
    assert not (with_set.root / ".lock").exists()


def test_a_folder_that_cannot_be_worked_in_is_told_and_the_switch_hears_of_the_failure(
    redis_only: Site, http_server: HttpServer
) -> None:
    redis_only.root.write_text("no folder")
    http_server.seen.clear()
    failed = redis_only.run(
        "database_backup",
        rc=2,
        database_backup_root=f"{redis_only.root}/sets",
        database_backup_pings={"url": f"{http_server.url}/up/switch"},
    )
    told = finding(failed, "backup_made")
    assert told["status"] == "critical" and told["summary"].startswith("Open a backup set: ")
    assert "Not a directory" in told["summary"] and "nor was an unfinished set cleared away" in told["summary"]
    assert [path for _method, path, _headers in http_server.seen] == ["/up/switch/fail"]


def test_check_mode_asks_the_server_and_tells_that_it_would_fail(redis_only: Site) -> None:
    redis_only.catalogue["upkeep_redis"][0]["password"] = "wrong"
    told = redis_only.run("database_backup", "--check", rc=2)
    assert "password" in finding(told, "backup_made")["summary"].lower() and not redis_only.root.exists()


def test_a_failing_export_leaves_no_set(site: Site, firestore: FirestoreStandIn) -> None:
    firestore.bridge.configure(outcome="failure")
    failed = site.run("database_backup", rc=2)
    assert "Export the Firestore databases" in finding(failed, "backup_made")["summary"]
    assert site.sets() == [] and not list(site.root.glob(".lock")) and not list(site.root.glob("*.partial"))


def test_a_new_proved_set_lets_the_old_one_go_with_its_export(site: Site, firestore: FirestoreStandIn) -> None:
    site.run("database_backup")
    (old,) = site.sets()
    uri = json.loads((old / "firestore/main.json").read_text())["output_uri_prefix"]
    site.catalogue["upkeep_backup"]["retention"] = {"last": 1}
    idle = site.run("database_backup")
    assert idle["changes"] == [] and "Remove the sets that no rule keeps" not in site.output, "it pays nothing for it"
    renewed = site.run("database_backup", database_backup_max_age="0s")
    (new,) = site.sets()
    assert new != old and firestore.objects(uri) == {}
    assert f"set {old.name} (verified, " in renewed["changes"][1] and "no rule keeps it" in renewed["changes"][1]
    assert renewed["changes"][2] == f"{uri} was removed"
    assert finding(renewed, "backup_retention")["summary"] == "1 backup set is kept, 1 removed"
    assert finding(renewed, "backup_orphans", "firestore:main")["status"] == "ok"
    assert sorted(path.name for path in site.root.iterdir()) == [".mutex", new.name, "progress.jsonl"]


def test_retention_tells_beforehand_what_goes_and_goes_on_after_an_outage(
    site: Site, firestore: FirestoreStandIn
) -> None:
    for _ in range(2):
        site.run("database_backup", database_backup_max_age="0s")
    old, new = site.sets()
    uri = json.loads((old / "firestore/main.json").read_text())["output_uri_prefix"]
    orphan = f"{uri.rsplit('/', 2)[0]}/20250101T030000Z/main"
    firestore.put(orphan, "main.overall_export_metadata", b"left by a run that was killed")
    rules = {"backup_retention_keep": {"daily": 1}, "backup_retention_orphan_age": "0s"}

    foretold = site.run("backup_retention", "--check", **rules)
    assert [entry["id"] for entry in foretold["artifacts"]["backups_removed"]] == [old.name]
    assert f"set {new.name} (verified, " in site.output and "stays: the newest verified one; daily" in site.output
    assert f"{uri} would be removed" in foretold["changes"] and len(site.sets()) == 2 and firestore.objects(uri)
    left = finding(foretold, "backup_orphans", "firestore:main")
    assert left["status"] == "warning" and orphan in left["summary"], "it is listed, and not removed unless asked"
    assert not [change for change in foretold["changes"] if orphan in change]

    database = site.catalogue["upkeep_firestore"][0]
    site.catalogue["upkeep_firestore"] = [{**database, "storage_endpoint": f"http://127.0.0.1:{free_port()}"}]
    cut = site.run("backup_retention", backup_retention_timeout=1, **rules)
    assert "Connection refused" in finding(cut, "backup_retention")["summary"]
    assert uri in finding(cut, "backup_exports")["summary"] and site.sets() == [new] and firestore.objects(uri)

    site.catalogue["upkeep_firestore"] = [database]
    resumed = site.run("backup_retention", backup_retention_orphans="removed", **rules)
    assert resumed["changes"] == [f"{uri} was removed", f"{orphan} was removed"]
    assert firestore.objects(uri) == {} and firestore.objects(orphan) == {}
    assert not list(site.root.glob(".*.expired")) and site.sets() == [new]


def test_an_empty_catalogue_is_no_backup(tmp_path: Path) -> None:
    site = Site(tmp_path, {"upkeep_backup": {"root": str(tmp_path / "backups")}})
    assert "nothing to back up" in finding(site.run("database_backup", rc=2), "backup_made")["summary"]


def test_what_cannot_be_looked_at_or_is_not_there_is_told(with_set: Site) -> None:
    with_set.catalogue["upkeep_redis"].append({"name": "sessions", "host": "127.0.0.1", "port": 1})
    found = with_set.run("backup_verification", rc=2, backup_verification_server_binary="/nowhere/redis-server")
    assert finding(found, "backup_part", "redis:sessions")["status"] == "critical"
    assert finding(found, "backup_verified")["status"] == "unknown"
    assert finding(found, "snapshot_format", "redis:cache")["status"] == "ok"
    assert with_set.output.count("redis:sessions") > 0


def test_a_run_that_was_killed_is_told_and_does_not_stop_the_next(site: Site, firestore: FirestoreStandIn) -> None:
    firestore.bridge.configure(delay=120)
    run = site.start("database_backup")
    try:
        _wait_until(lambda: bool(list(site.root.glob("*.partial/redis/cache.rdb.zst"))), run)
        rival = Site(site.folder / "rival", site.catalogue)
        rival.folder.mkdir()
        told = rival.run("database_backup", rc=2)
        assert f"process {run.pid}" in finding(told, "backup_made")["summary"]
    finally:
        for pid in _family(run.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.communicate()
    firestore.bridge.configure()
    left = finding(site.run("backup_verification", rc=2), "backup_leftovers")
    assert left["status"] == "warning" and "dead runs" in left["summary"]
    made = site.run("database_backup", database_backup_leftover_age="0s")
    assert len(site.sets()) == 1 and made["changes"] and not list(site.root.glob("*.partial"))


def test_a_dead_mans_switch_hears_of_start_success_and_failure(with_set: Site, http_server: HttpServer) -> None:
    switch = f"{http_server.url}/up/the-secret-switch"
    with_set.catalogue["upkeep_backup"]["pings"] = {"url": switch}

    def heard() -> list[str]:
        paths = [path.removeprefix("/up/the-secret-switch") for _method, path, _headers in http_server.seen]
        http_server.seen.clear()
        return paths

    heard()
    with_set.run("database_backup", "--check")
    assert heard() == []
    made = with_set.run("database_backup", database_backup_max_age="0s")
    assert heard() == ["/start", ""] and finding(made, "heartbeat")["status"] == "ok"
    young = with_set.run("database_backup")
    assert heard() == ["/start", ""] and young["changes"] == []
    password = with_set.catalogue["upkeep_redis"][0].pop("password")
    with_set.run("database_backup", rc=2, database_backup_max_age="0s")
    assert heard() == ["/start", "/fail"] and "the-secret-switch" not in with_set.output
    with_set.catalogue["upkeep_redis"][0]["password"] = password
    with_set.catalogue["upkeep_backup"]["pings"] = {"start": f"{http_server.url}/status/404", "success": switch}
    deaf = with_set.run("database_backup", database_backup_max_age="0s")
    assert finding(deaf, "heartbeat")["status"] == "warning" and finding(deaf, "backup_made")["status"] == "ok"
    assert "sign for start" in finding(deaf, "heartbeat")["summary"] and deaf["changes"]


def test_of_two_runs_at_once_one_waits_or_stops_and_says_who_is_at_work(
    site: Site, firestore: FirestoreStandIn, http_server: HttpServer
) -> None:
    firestore.bridge.configure(delay=10)
    first = site.start("database_backup")
    try:
        _wait_until(lambda: bool(list(site.root.glob("*.partial/redis/cache.rdb.zst"))), first)
        patient, hasty = (Site(site.folder / name, site.catalogue) for name in ("patient", "hasty"))
        patient.folder.mkdir(), hasty.folder.mkdir()
        waiting = patient.start("database_backup", database_backup_lock_timeout="120s")
        http_server.seen.clear()
        switch = {"url": f"{http_server.url}/up/switch"}
        told = finding(hasty.run("database_backup", rc=2, database_backup_pings=switch), "backup_made")
        assert http_server.seen == [], "a switch hears of it from the run that is at work"
        assert first.poll() is None and waiting.poll() is None
        (working,) = site.root.glob("*.partial")
        said = rf"another run works on set {working.stem} .*\(owner localhost-\w+, process {first.pid}\) for .* s\."
        assert told["status"] == "critical" and re.search(said, told["summary"]), told
        assert working.is_dir(), "what the other works on is left alone"
        firestore.bridge.configure()
        output = waiting.communicate(timeout=120)[0]
        assert (first.wait(60), waiting.returncode) == (0, 0), output
    finally:
        first.communicate()
    made = json.loads((site.folder / "outcome.json").read_text())["artifacts"]["backup_set"]
    waited = json.loads((patient.folder / "outcome.json").read_text())["artifacts"]["backup_set"]
    assert made == working.stem and [path.name for path in site.sets()] == sorted({made, waited})
    for folder in site.sets():
        judgements = json.loads((folder / "verification.json").read_text())["judgements"]
        assert [entry["result"] for entry in judgements] == ["passed"], "each of them was proved"
    assert not (site.root / ".lock").exists()


@pytest.mark.parametrize(
    ("tags", "password"),
    [("database_backup,backup_verification", "wrong"), ("backup_verification", PASSWORD)],
    ids=["the backup fails", "the backup is skipped"],
)
def test_the_daily_run_looks_at_the_age_of_the_newest_good_set_apart_from_the_backup(
    with_set: Site, tags: str, password: str
) -> None:
    with_set.catalogue["upkeep_redis"][0]["password"] = password
    with_set.catalogue["upkeep_backup"].update(max_age="1s", due_after="0s")
    daily = Daily(with_set)
    daily.run("--tags", tags)
    (age,) = daily.history("SELECT status, summary FROM findings WHERE check_name = 'backup_age'")
    assert age[0] == "critical" and re.search(r"the newest good set \S+ is .* old, 1\.0 s are allowed", age[1])
    assert (daily.history("SELECT status FROM findings WHERE check_name = 'backup_made'") != []) == (
        password == "wrong"
    )
    assert "is older" in daily.alerts() or "old, 1.0 s are allowed" in daily.alerts()


def test_the_daily_run_records_verifications_says_so_and_alerts_of_a_set_that_fails(with_set: Site) -> None:
    daily = Daily(with_set)
    daily.run("--tags", "backup_verification", rc=0)
    (folder,) = with_set.sets()
    assert daily.history("SELECT set_id, level, result FROM verifications") == [
        (folder.name, level, "passed") for level in (3, 4)
    ]
    assert re.search(r"can be restored: proved \S+ \S+ UTC by level 4; no drill yet", daily.report())
    (folder / "redis/cache.rdb.zst").write_bytes(b"")
    daily.run("--tags", "backup_verification", "-e", "backup_verification_level=1")
    assert daily.history("SELECT result FROM verifications ORDER BY rowid DESC LIMIT 1") == [("failed",)]
    assert "redis/cache.rdb.zst has 0 bytes instead of" in daily.alerts()
    assert "Recovery will not choose this set" in daily.alerts()
    assert re.search(r"by level 4, but level 1 failed \S+ \S+ UTC; no drill yet", daily.report())


@dataclass
class Daily:
    """The shipped daily run on a site that is one host."""

    site: Site

    def run(self, *arguments: str, rc: int = 2) -> None:
        contacts = [{"name": "Ops", "urls": [f"file://{self.site.folder}/alerts.log"]}]
        local = {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        groups = {name: {"hosts": local} for name in ("recorder", "platform", "gateway", "backup")}
        catalogue = {"upkeep_state": str(self.site.folder / "state"), "upkeep_contacts": contacts}
        inventory = self.site.folder / "inventory.yml"
        content = {"all": {"vars": {**self.site.catalogue, **catalogue}, "children": groups}}
        inventory.write_text(yaml.safe_dump(content))
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "-i", inventory, "upkeep.ops.daily", *arguments],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
            cwd=self.site.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == rc, done.stdout + done.stderr

    def history(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.site.folder / "state/history.sqlite3")) as database:
            return database.execute(query).fetchall()

    def alerts(self) -> str:
        return (self.site.folder / "alerts.log").read_text()

    def report(self) -> str:
        return max((self.site.folder / "state/reports").glob("*.md")).read_text()


def test_copies_elsewhere_are_made_judged_and_mended(with_set: Site, sshd: SshServer) -> None:
    disk, far = with_set.folder / "disk", with_set.folder / "far"
    disk.mkdir()
    far.mkdir()
    key = subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout
    recipient = key.split("public key: ")[1].split()[0]
    access = {"ssh_key_file": str(sshd.key), "ssh_known_hosts_file": str(sshd.known_hosts)}
    with_set.catalogue["upkeep_backup"]["offsite"] = [
        {"name": "far", "url": sshd.url(far), **access, "recipients": [recipient]},
        {"name": "lost", "url": str(with_set.folder / "not-mounted")},
        {"name": "disk", "url": str(disk)},
    ]
    (folder,) = with_set.sets()
    foretold = with_set.run("backup_copy", "--check", upkeep_fail_on="never")
    assert len(foretold["changes"]) == 2 and not list(far.iterdir()) and not list(disk.iterdir())
    made = with_set.run("backup_copy", rc=2)
    assert finding(made, "backup_copied", "far")["status"] == finding(made, "backup_copied", "disk")["status"] == "ok"
    lost = finding(made, "backup_copied", "lost")
    assert lost["status"] == "critical" and "there is no such folder; mount it" in lost["summary"]
    assert finding(made, "backup_copy_age", "lost")["status"] == "unknown"
    assert finding(made, "backup_copy_age", "far")["status"] == "ok" and (far / folder.name / "copy.json").exists()
    assert (far / folder.name / "manifest.json.age").exists() and (disk / folder.name / "manifest.json").exists()
    del with_set.catalogue["upkeep_backup"]["offsite"][1]
    again = with_set.run("backup_copy")
    assert again["changes"] == [] and {each["status"] for each in again["findings"]} == {"ok"}
    spoilt = disk / folder.name / "redis/cache.rdb.zst"
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    mended = with_set.run("backup_copy")
    assert finding(mended, "backup_copied", "disk")["status"] == "warning" and len(mended["changes"]) == 1
    assert spoilt.read_bytes() == (folder / "redis/cache.rdb.zst").read_bytes()
    daily = Daily(with_set)
    daily.run("--tags", "backup_copy", rc=0)
    ages = "SELECT subject, status FROM findings WHERE procedure = 'backup_copy' AND check_name = 'backup_copy_age'"
    assert sorted(daily.history(ages)) == [("disk", "ok"), ("far", "ok")]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SshServer]:
    with SshServer(tmp_path / "sshd", free_port()) as server:
        yield server


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _wait_until(condition: Any, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
