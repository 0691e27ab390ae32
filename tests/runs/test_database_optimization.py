"""The role database_optimization against a real Redis, Firestore emulator and bucket."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.firestore import BUCKET, PROJECT, SPARE, FirestoreStandIn
from tests.fixtures.firestore_sets import make_set
from tests.harness import ROOT
from tests.platform.parts.firestore import client, contents
from tests.platform.parts.redis import RedisServer, seed

pytestmark = pytest.mark.slow

ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
PASSWORD = "correct horse battery"
NOW = datetime.now(timezone.utc)
OLD = {f"sessions/old{number}": NOW - timedelta(days=400 + number) for number in range(20)}
YOUNG = {f"sessions/young{number}": NOW - timedelta(days=number) for number in range(30)}


@dataclass
class Site:
    """A catalogue with one Redis server and the spare database."""

    folder: Path
    catalogue: dict[str, Any]
    output: str = ""

    def run(self, *arguments: str, rc: int = 0, **variables: Any) -> dict[str, Any]:
        """The outcome of the role, which ended with ``rc``."""
        outcome = self.folder / "outcome.json"
        outcome.unlink(missing_ok=True)
        keep = {"content": "{{ upkeep_outcome | to_json }}", "dest": str(outcome), "mode": "0600"}
        role = {"ansible.builtin.include_role": {"name": "upkeep.ops.database_optimization"}}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable, **self.catalogue, **variables},
            "tasks": [{"block": [role], "always": [{"ansible.builtin.copy": keep, "check_mode": False}]}],
        }
        playbook = self.folder / "play.yml"
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        self._ansible("-i", "localhost,", *arguments, str(playbook), rc=rc)
        return dict(json.loads(outcome.read_text()))

    def run_playbook(self, *arguments: str) -> Path:
        """The history after the shipped playbook, with this host as recorder and host of the backup sets."""
        here = {"hosts": {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
        groups = {name: {"hosts": {"localhost": {}}} for name in ("recorder", "backup")}
        site = {"upkeep_site": "test", "upkeep_recorder": "localhost", **self.catalogue}
        inventory = self.folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {**here, "children": groups, "vars": site}}))
        self._ansible("-i", str(inventory), *arguments, str(ROOT / "playbooks" / "database_optimization.yml"), rc=0)
        return Path(self.catalogue["upkeep_state"]) / "history.sqlite3"

    def _ansible(self, *arguments: str, rc: int) -> None:
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, *arguments],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        self.output = done.stdout
        assert done.returncode == rc, self.output
        assert PASSWORD not in self.output


def finding(outcome: Mapping[str, Any], check: str, subject: str) -> dict[str, Any]:
    (found,) = [entry for entry in outcome["findings"] if (entry["check"], entry["subject"]) == (check, subject)]
    return dict(found)


@pytest.fixture
def site(firestore: FirestoreStandIn, tmp_path: Path) -> Iterator[Site]:
    firestore.emulator.wipe(PROJECT, SPARE)
    database = client(firestore.emulator.host, PROJECT, SPARE)
    batch = database.batch()
    for path, created_at in {**OLD, **YOUNG}.items():
        batch.set(database.document(path), {"created_at": created_at})
    batch.commit()
    database.close()
    entry = {
        **firestore.connection,
        "name": "main",
        "database": SPARE,
        "bucket": f"gs://{BUCKET}/{tmp_path.name}",
        "cleanup": [{"collection_group": "sessions", "time_field": "created_at", "older_than": "365d"}],
    }
    with RedisServer(tmp_path / "redis", password=PASSWORD) as server:
        seed(server.client(), 300)
        redis = {"name": "cache", "use": "cache", "host": "127.0.0.1", "port": server.port, "password": PASSWORD}
        catalogue = {
            "upkeep_backup": {"root": str(tmp_path / "backups")},
            "upkeep_firestore": [entry],
            "upkeep_redis": [redis],
            "upkeep_state": str(tmp_path / "state"),
        }
        before = server.client().dbsize()
        yield Site(tmp_path, catalogue)
        assert server.client().dbsize() == before, "a key was lost"
    firestore.emulator.wipe(PROJECT, SPARE)


def test_a_week_of_optimization_loses_nothing_but_what_was_asked_for(site: Site, firestore: FirestoreStandIn) -> None:
    def everything() -> dict[str, bytes]:
        return contents(firestore.emulator.host, PROJECT, SPARE)

    before = everything()
    looked = site.run()
    assert everything() == before
    assert not [change for change in looked["changes"] if not change.startswith("redis:cache")]
    assert finding(looked, "firestore_cleanup", "firestore:main/sessions")["value"] == 20
    assert finding(looked, "firestore_cleanup_backup", "firestore:main")["status"] == "warning"
    assert finding(looked, "firestore_documents", "firestore:main")["value"] == 50
    assert finding(looked, "memory_purge", "redis:cache")["status"] == "ok"
    assert finding(looked, "memory_fragmentation", "redis:cache")["status"] == "ok"
    metrics = looked["artifacts"]["metrics"]
    assert metrics["firestore_documents:main/sessions"] == 50
    assert metrics["firestore_old_documents:main/sessions"] == 20
    assert "redis_given_back_bytes:cache" in metrics
    assert (site.folder / "state" / "firestore-samples.jsonl").exists()

    refused = site.run(rc=2, database_optimization_apply=True)
    told = finding(refused, "firestore_cleanup_run", "firestore:main")
    assert told["status"] == "critical" and "no verified backup set" in told["summary"] and everything() == before

    identifier = make_set(firestore, SPARE, Path(site.catalogue["upkeep_backup"]["root"]))
    foretold = site.run("--check", database_optimization_apply=True)
    assert "firestore:main: would delete 20 documents of sessions" in foretold["changes"] and everything() == before

    cleaned = site.run(database_optimization_apply=True)
    assert "firestore:main: deleted 20 documents of sessions" in cleaned["changes"]
    assert identifier in finding(cleaned, "firestore_cleanup_backup", "firestore:main")["summary"]
    assert everything() == {path: content for path, content in before.items() if path[1:] in YOUNG}
    assert cleaned["artifacts"]["metrics"]["firestore_old_documents:main/sessions"] == 0
    _the_shipped_playbook_records_the_trend(site)
    assert len(everything()) == len(YOUNG)


def _the_shipped_playbook_records_the_trend(site: Site) -> None:
    history = site.run_playbook("-e", "database_optimization_apply=true")
    with sqlite3.connect(history) as recorded:
        series = dict(recorded.execute("SELECT name, value FROM metrics").fetchall())
    assert series["firestore_documents:main/sessions"] == len(YOUNG)
    assert series["firestore_old_documents:main/sessions"] == 0


def test_what_cannot_be_asked_is_told_and_the_others_are_looked_after(site: Site) -> None:
    site.catalogue["upkeep_firestore"].insert(0, {**site.catalogue["upkeep_firestore"][0], "name": "away"})
    site.catalogue["upkeep_firestore"][0]["emulator_host"] = "127.0.0.1:1"
    site.catalogue["upkeep_redis"].append({"name": "gone", "host": "127.0.0.1", "port": 1})
    outcome = site.run(database_optimization_timeout=2)
    assert finding(outcome, "firestore_look", "firestore:away")["status"] == "unknown"
    assert "127.0.0.1:1" in finding(outcome, "firestore_cleanup_run", "firestore:away")["summary"]
    assert finding(outcome, "redis_look", "redis:gone")["status"] == "unknown"
    assert finding(outcome, "firestore_documents", "firestore:main")["value"] == 50
    assert finding(outcome, "memory_purge", "redis:cache")["status"] == "ok"


def test_an_empty_catalogue_is_nothing_to_do(tmp_path: Path) -> None:
    assert Site(tmp_path, {"upkeep_state": str(tmp_path)}).run()["findings"] == []
