# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recoveries of less than everything, and into a fresh database; who is told; what is refused beforehand."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.fixtures.recovery import CONFIRMED, RecoverySite
from tests.platform.miniature import PROJECT
from tests.platform.parts import firestore

pytestmark = pytest.mark.slow

FRESH = "restored-since"
_UNREADY = "map('dict2items') | map('rejectattr', 'key', 'equalto', 'ready') | map('items2dict') | list"
#: The services as a site has them that asks each through the gateway alone.
THROUGH_THE_GATEWAY = {"emergency_recovery_services": f"{{{{ upkeep_services | {_UNREADY} }}}}"}
#: One service that stops is enough here.
FEW = {"emergency_recovery_service_names": ["news-service"], **CONFIRMED}
_FRESH = f"{{'exact': 'fresh_database', 'database': '{FRESH}', 'location': 'eur3'}}"
INTO_FRESH = {
    "emergency_recovery_firestore": f"{{{{ [demo_firestore | combine({{'recovery': {_FRESH}}})] }}}}",
    "emergency_recovery_parts": ["firestore:main"],
    **FEW,
    # What the other tests look at is left out.
    "emergency_recovery_redis": [],
    "emergency_recovery_gateways": [],
    "emergency_recovery_contacts": [],
}


#: Retention that keeps nothing but the newest verified set.
BACKUP = {"compression": "zstd", "verification": {"3": "0s"}, "retention": {"last": 1}}
#: Each stage, and how often contacts are told of it where nothing fails.
FORWARD = dict.fromkeys(
    ("begins", "is closed", "are stopped", "of Firestore is replaced", "are started", "is opened again", "has ended"), 1
)


@pytest.fixture(scope="module")
def site(recovery_site: RecoverySite) -> RecoverySite:
    return recovery_site


@pytest.fixture(scope="module")
def kept(site: RecoverySite) -> dict[str, bytes]:
    """The documents of the set, which are those of the database before the first test."""
    return documents(site)


def documents(site: RecoverySite, database: str = firestore.DEFAULT_DATABASE) -> dict[str, bytes]:
    return firestore.contents(site.platform.emulator.host, PROJECT, database, firestore.DEFAULT_DATABASE)


def of_groups(found: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {path: content for path, content in found.items() if path.split("/")[-2] in names}


def said(site: RecoverySite) -> str:
    """The output, without line breaks."""
    return " ".join(site.output.split())


def history_of(site: RecoverySite) -> sqlite3.Connection:
    return sqlite3.connect(site.folder / "state" / "history.sqlite3")


def stages_of(told: str) -> dict[str, int]:
    """How often each stage was told."""
    return {stage: told.count(stage) for stage in (*FORWARD, "is put back")}


@contextmanager
def dies_once(site: RecoverySite, name: str) -> Iterator[None]:
    """A service dies at its first start, and lives once it is started again: that is the way back."""
    program = site.platform.services[name].folder / "server.py"
    text = program.read_text()
    first = "from __future__ import annotations\n"
    once = "import os, sys\nif not os.path.exists(__file__ + '.died'):\n"
    once += "    open(__file__ + '.died', 'w')\n    sys.exit(1)\n"
    program.write_text(text.replace(first, first + once))
    try:
        yield
    finally:
        program.write_text(text)


def remember_drills(site: RecoverySite) -> None:
    with closing(history_of(site)) as history, history:
        (run,) = history.execute("SELECT id FROM runs LIMIT 1").fetchone()
        for month, result, seconds in (("01", "passed", 11), ("02", "passed", 77), ("03", "failed", 3)):
            drill = (run, "demo", "20260101T000000Z", f"2026-{month}-01T00:00:00Z", result, seconds, None, None, "{}")
            history.execute("INSERT INTO drills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", drill)


def kill_as_it_begins(site: RecoverySite, step: str, **variables: Any) -> None:
    """Start a recovery and kill it (-9) as soon as its journal tells that it has begun a step."""
    known = set(site.journals())
    run = site.begin(site.command("emergency_recovery", **variables))
    while not any(f'"step": "{step}"' in path.read_text() for path in set(site.journals()) - known):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    run.kill()
    run.communicate(timeout=60)


def test_one_collection_group_goes_back_and_is_restored_and_each_stage_told(
    site: RecoverySite, kept: dict[str, bytes]
) -> None:
    site.spoil()
    spoilt = documents(site)
    remember_drills(site)
    told = site.folder / "alerts" / "database-admin.log"
    chosen = {"emergency_recovery_collections": ["sessions"], "emergency_recovery_redis": [], **FEW}
    chosen.update(THROUGH_THE_GATEWAY, upkeep_backup={**BACKUP, "root": str(site.folder / "backups")})
    with dies_once(site, "news-service"):
        assert site.run("emergency_recovery", **chosen) == 2
    assert documents(site) == spoilt and "everything is as it was before" in said(site)
    assert stages_of(told.read_text()) == {**FORWARD, "is put back": 1, "are stopped": 2, "are started": 2}

    told.write_text("")
    assert site.run("emergency_recovery", **chosen) == 0, site.output
    restored, others = documents(site), ("users", "orders", "items")
    assert of_groups(restored, "sessions") == of_groups(kept, "sessions") != of_groups(spoilt, "sessions")
    assert of_groups(restored, *others) == of_groups(spoilt, *others) != of_groups(kept, *others)
    drill = "77.0 s for the data alone, as in the last drill that passed, of set 20260101T000000Z on demo at 2026-02-01"
    assert drill in said(site) and "firestore:main (only sessions): " in said(site)
    assert stages_of(told.read_text()) == {**FORWARD, "is put back": 0}
    with closing(history_of(site)) as history:
        figures = dict(history.execute("SELECT name, value FROM metrics WHERE name LIKE 'recovery_%'"))
    assert figures["recovery_rto_seconds"] >= figures["recovery_downtime_seconds"] > 0
    assert figures["recovery_rpo_seconds"] > 0
    held = {path.parent.name: json.loads(path.read_text()) for path in (site.folder / "backups").glob("*/hold.json")}
    assert held[max(held)]["reason"] == f"safety set of recovery {site.recovery()['id']}"
    assert len(held) == 2 and all(hold["safety"] and hold["until"] for hold in held.values()), "for their time only"
    assert site.set.exists() and site.set.name not in held, "held while it was restored, though retention is strict"


def test_collections_that_could_not_be_given_back_are_refused(site: RecoverySite) -> None:
    refusals: dict[str, dict[str, Any]] = {
        "the catalogue lists no nothing in collections of firestore:main": {
            "emergency_recovery_collections": ["nothing"]
        },
        "name it alone in emergency_recovery_parts, in place of redis:cache": {
            "emergency_recovery_collections": ["users"],
            "emergency_recovery_parts": ["redis:cache"],
        },
        "recovery.delete_collections would empty extra, which the safety set could not give back": {
            "emergency_recovery_firestore": "{{ [demo_firestore | combine({'recovery': "
            "{'delete_collections': demo_firestore.collections + ['extra']}})] }}",
            "emergency_recovery_parts": ["firestore:main"],
        },
    }
    for reason, options in refusals.items():
        assert site.run("emergency_recovery", "--check", **options) == 2
        assert reason in said(site)


def test_into_a_fresh_database_killed_and_again_and_no_way_back_needed(
    site: RecoverySite, kept: dict[str, bytes]
) -> None:
    site.spoil()
    spoilt = documents(site)
    chosen = {"emergency_recovery_set": site.set.name, **INTO_FRESH}
    kill_as_it_begins(site, "restore firestore:main", **chosen)
    assert site.run("emergency_recovery", emergency_recovery_resume="forward", **chosen) == 0, site.output
    assert documents(site, FRESH) == kept and documents(site) == spoilt != kept
    told = f"firestore:main was restored as database {FRESH}, and (default), which was in use, was not touched"
    assert told in said(site) and "Point the services there" in said(site)
    site.serves()
    assert site.run("rollback_recovery", **CONFIRMED) == 2
    assert f"nothing is to be taken back of recovery {site.recovery()['id']}: {told}" in said(site)
    assert site.run("rollback_recovery", emergency_recovery_hold="0s", **CONFIRMED) == 2
    assert f"recovery {site.recovery()['id']} ended more than 0s ago" in said(site)


def test_again_it_finds_the_import_and_a_gateway_that_lets_no_check_pass_is_refused(site: RecoverySite) -> None:
    """Both are said by the plan, before anything is changed."""
    again = {"emergency_recovery_set": site.set.name, **INTO_FRESH, **THROUGH_THE_GATEWAY}
    again.update(emergency_recovery_gateways=["demo"], emergency_recovery_bypass_token="")
    assert site.run("emergency_recovery", "--check", **again) == 2
    assert f"into the fresh database {FRESH}; (default), which is in use, stays as it is" in said(site)
    assert "platform: nothing was changed: " in said(site)
    assert "news-service: the check goes through a gateway that will be closed" in said(site)
    assert "set upkeep_gateway.bypass_token" in said(site)


def test_what_is_long_over_is_forgotten_by_the_weekly_run(site: RecoverySite) -> None:
    last = site.recovery()["id"]
    snapshots = site.folder / "state" / "recovery" / "redis" / last
    snapshots.mkdir(parents=True)
    over = {"emergency_recovery_hold": "0s", "emergency_recovery_keep": "0s"}
    assert site.run("weekly", "--tags", "emergency_recovery", **over) == 0, site.output
    assert not snapshots.exists() and site.journals() == []
