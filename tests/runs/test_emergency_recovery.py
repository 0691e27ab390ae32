# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped playbooks recover the platform in miniature, under faults: restored whole, or as it was before.

Data is compared by DEBUG DIGEST and by Google's client. docs/recovery-faults.md lists the faults and what becomes of
them; it is written by running the whole table:

    pytest tests/runs/test_emergency_recovery.py --every-fault

Without that option some faults stand for their kind. The document takes a row anew when its fault was tried.
"""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fixtures.recovery import CONFIRMED, RecoverySite
from tests.harness import ROOT
from tests.recovery_faults import (
    COPIES,
    DONE,
    FAILED,
    KILLED,
    OWN_SAFETY,
    PROMOTED,
    SAFETY,
    WRITTEN,
    Blow,
    Going,
    Noted,
    Stage,
)

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "recovery-faults.md"
RESTORED, BEFORE = "recovered", "rolled_back"
TOLD = {RESTORED: "the data of the set", BEFORE: "the data from before"}
#: A service that dies at its first start, and lives once it is started again: that is the way back.
BROKEN = """import pathlib, sys
once = pathlib.Path(__file__).with_name("died")
if not once.exists():
    once.touch()
    sys.exit("bad release")
once.unlink()
"""
FORWARD = {"emergency_recovery_resume": "forward"}
#: For faults under which nothing answers: it is not waited for that long.
HASTY = {"emergency_recovery_timeout": 10, "emergency_recovery_firestore_timeout": "5s"}


@dataclass(frozen=True)
class Run:
    """A run after the blows: how it ends and what it says. ``first`` is done before: a method of the stage."""

    end: int = DONE
    given: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    broken: str = ""
    said: str = ""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: blows at one run after the other, and the runs that follow."""

    name: str
    outcome: str
    blows: tuple[Blow, ...] = ()
    runs: tuple[Run, ...] = ()
    #: No recovery was begun that the journal could know.
    refused: bool = False
    quick: bool = False

    @property
    def row(self) -> str:
        """What the document says of it."""
        further = len(self.blows) + len(self.runs) - 1
        return f"| {self.name} | {further or 'none'} | {TOLD[self.outcome]} |"


AGAIN = (Run(),)
ONWARD = (Run(given=FORWARD),)
_STEPS = (
    *("maintenance on", "services stopped", "safety set", "restore redis:cache", "restore firestore:main"),
    *("services started", "services checked", "maintenance off"),
)
_MIDWAY = Blow("kill", Noted("restore firestore:main"), KILLED)
_OPEN = "the recovery is half way and could not go back"
FAULTS = (
    *(Fault(f"killed as {name!r} began", BEFORE, (Blow("kill", Noted(name), KILLED),), AGAIN) for name in _STEPS),
    *(
        Fault(f"killed as {name!r} began, told to go on", RESTORED, (Blow("kill", Noted(name), KILLED),), ONWARD)
        for name in _STEPS
    ),
    Fault("killed after the last step", RESTORED, (Blow("kill", Noted("maintenance off", "ended"), KILLED),), AGAIN),
    Fault("killed as Redis was promoted, its module works on", BEFORE, (Blow("kill", PROMOTED, KILLED),), AGAIN),
    Fault("killed while Firestore deletes, its module works on", BEFORE,
          (Blow("kill", Going("bulk_delete"), KILLED),), AGAIN),
    Fault("killed on its way back", BEFORE, (_MIDWAY, Blow("kill", Noted("take back redis:cache"), KILLED)), AGAIN),
    Fault("killed, and the two runs that took it over too", BEFORE,
          (_MIDWAY, Blow("kill", Noted("take back firestore:main"), KILLED),
           Blow("kill", Noted("start services again"), KILLED)), AGAIN),
    Fault("killed, told to go on, killed again, then not told", BEFORE,
          (_MIDWAY, Blow("kill", Noted("services started"), KILLED, FORWARD)), AGAIN),
    Fault("the control node gone during the safety set", BEFORE, (Blow("kill_all", SAFETY, KILLED),), AGAIN),
    Fault("the control node gone during the safety snapshot of Redis", BEFORE,
          (Blow("kill_all", OWN_SAFETY, KILLED),), AGAIN),
    Fault("the control node gone as Redis copies", BEFORE, (Blow("kill_all", COPIES, KILLED),), AGAIN),
    Fault("the control node gone as Redis copies, told to go on", RESTORED, (Blow("kill_all", COPIES, KILLED),),
          (Run(FAILED, {"upkeep_confirm": "another"}, said="is still half way (its last step: restore redis:cache"),
           *ONWARD), quick=True),
    Fault("the control node gone as Redis was promoted", BEFORE, (Blow("kill_all", PROMOTED, KILLED),), AGAIN),
    Fault("the control node gone as Redis was promoted, told to go on", RESTORED,
          (Blow("kill_all", PROMOTED, KILLED),), ONWARD),
    Fault("the control node gone while Firestore deletes", BEFORE,
          (Blow("kill_all", Going("bulk_delete"), KILLED),), AGAIN),
    Fault("the control node gone while Firestore imports", BEFORE,
          (Blow("kill_all", Going("import"), KILLED),), AGAIN, quick=True),
    Fault("the control node gone, and run from another one", BEFORE, (Blow("kill_all", COPIES, KILLED),),
          (Run(FAILED, first="move_lock", said="is under way already, by"),
           Run(given={"emergency_recovery_stale_after": "0s"}))),
    Fault("the control node and the recorder's state gone as Redis copies", RESTORED,
          (Blow("kill_all", COPIES, KILLED),),
          (Run(FAILED, first="forget", said="restart it, or promote it with REPLICAOF NO ONE"),
           Run(first="restart_redis"))),
    Fault("redis-server killed during the safety set", BEFORE, (Blow("crash_redis", SAFETY, FAILED),)),
    Fault("redis-server killed during its safety snapshot", BEFORE, (Blow("crash_redis", OWN_SAFETY, FAILED),)),
    Fault("redis-server killed as it copies", BEFORE, (Blow("crash_redis", COPIES, FAILED),)),
    Fault("redis-server killed as it was promoted", BEFORE, (Blow("crash_redis", PROMOTED, FAILED),)),
    Fault("redis-server killed as its append-only file is awaited", BEFORE,
          (Blow("crash_redis", WRITTEN, FAILED),)),
    Fault("redis-server killed before services started", RESTORED,
          (Blow("crash_redis", Noted("restore firestore:main"), DONE),)),
    Fault("the scratch server killed as Redis copies", BEFORE, (Blow("kill_scratch", COPIES, FAILED),)),
    Fault("the scratch server killed as Redis was promoted", RESTORED, (Blow("kill_scratch", PROMOTED, DONE),)),
    Fault("the link to Redis cut for a moment as it copies", BEFORE, (Blow("drop_redis", COPIES, FAILED),)),
    Fault("the link to Redis cut during the safety set", BEFORE, (Blow("cut_redis", SAFETY, FAILED, HASTY),)),
    Fault("the link to Redis cut as it copies", BEFORE, (Blow("cut_redis", COPIES, FAILED, HASTY),), AGAIN),
    Fault("the link to Redis cut as it was promoted", BEFORE, (Blow("cut_redis", PROMOTED, FAILED, HASTY),), AGAIN),
    Fault("the link to Firestore cut for seconds as it imports", RESTORED,
          (Blow("drop_firestore", Going("import"), DONE),)),
    Fault("the link to Firestore cut as it deletes", BEFORE,
          (Blow("cut_firestore", Going("bulk_delete"), FAILED, HASTY),), AGAIN),
    Fault("the link to Firestore cut as it imports", BEFORE,
          (Blow("cut_firestore", Going("import"), FAILED, HASTY),), AGAIN),
    Fault("a service that does not come back", BEFORE,
          runs=(Run(FAILED, broken="service", said="everything is as it was"),), quick=True),
    Fault("Redis has too little memory for the set", BEFORE,
          runs=(Run(FAILED, broken="memory", said="nothing was changed"),), refused=True),
    Fault("the snapshot of the set has a flipped byte", BEFORE,
          runs=(Run(FAILED, broken="byte", said="nothing was changed"),), refused=True, quick=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(recovery_site: RecoverySite) -> RecoverySite:
    return recovery_site


@pytest.fixture(scope="module")
def stage(site: RecoverySite) -> Iterator[Stage]:
    stage = Stage(site)
    yield stage
    stage.close()


_HEAD = """# Faults of a recovery, and what becomes of them

Written by `pytest tests/runs/test_emergency_recovery.py --every-fault`, which recovers the platform in miniature
(Redis, Firestore emulator, nginx, seven services) once for each fault.

- Killed is `ansible-playbook`, with SIGKILL, the module of its task working on. With the control node gone its workers
  and modules are killed at once. A redis-server that is killed is started again at once, with what it has on disk.
- Then the playbook is run again as often as the table says, without a word more than the first time unless the row
  tells one. None means that the run came to that end by itself.
- At the end services answered through the gateway, and Redis' own digest and all documents were equal to what is said.
  Redis was a master with the settings from before and took writes, no private server nor its folder was left, no lock
  was held and no operation of Firestore went on. Journal, incident and figures told what had come of it.

| fault | further runs | at the end there was |
|---|---|---|
"""


def record(name: str) -> None:
    """Put what was just seen of a fault into the document, which tells of those that nobody tried, too."""
    told = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    seen = {fault.name for fault in FAULTS if fault.row in told} | {name}
    rows = [fault.row if fault.name in seen else f"| {fault.name} | | not tried yet |" for fault in FAULTS]
    DOCUMENT.write_text(_HEAD + "\n".join(rows) + "\n")


def refuses_a_second_one(site: RecoverySite, first: subprocess.Popen[str]) -> None:
    """It is told by the name of the first, which goes on."""
    while not site.journals():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    assert site.run("emergency_recovery", **CONFIRMED) == 2
    assert f"recovery {site.journals()[0].stem} is under way already" in site.output


def test_the_recovery_from_plan_to_taking_it_back(site: RecoverySite) -> None:
    site.spoil()
    before = site.live()
    assert site.run("emergency_recovery", "--check", emergency_recovery_set=site.set.name) == 0, site.output
    for told in (site.set.name, "services that stop: auth-service", "300 in the set", "a merge would leave 1"):
        assert told in site.output
    assert site.run("emergency_recovery", upkeep_confirm="production") == 2
    assert "confirm it with -e upkeep_confirm=demo" in site.output and not site.journals()
    assert site.run("emergency_recovery", emergency_recovery_before="2026-01-01T00:00:00Z", **CONFIRMED) == 2
    assert "there is no verified set from before" in site.output
    assert site.live() == before, "nothing was touched"

    first = site.begin(site.command("emergency_recovery", **CONFIRMED))
    refuses_a_second_one(site, first)
    output = first.communicate(timeout=240)[0]
    assert first.returncode == 0, output
    assert site.live() == site.kept and site.recovery()["state"] == "recovered"
    site.serves()
    connection = sqlite3.connect(site.folder / "state" / "history.sqlite3")
    ((identifier, recovered),) = connection.execute("SELECT id, recovered_at FROM incidents").fetchall()
    texts = " ".join(text for (text,) in connection.execute("SELECT text FROM incident_events ORDER BY at, rowid"))
    names = {name for (name,) in connection.execute("SELECT name FROM metrics WHERE name LIKE 'recovery%'")}
    assert connection.execute("SELECT count(*) FROM drills").fetchone() == (0,), "a recovery is no drill"
    connection.close()
    assert identifier and recovered and "begins" in texts and "the platform runs on set" in texts
    assert names == {"recovery_rto_seconds", "recovery_downtime_seconds", "recovery_rpo_seconds"}
    told = (site.folder / "alerts" / "database-admin.log").read_text()
    assert "The platform is closed for maintenance." in told and "The data of Redis is replaced now." in told

    assert site.run("rollback_recovery", **CONFIRMED) == 0, site.output
    assert site.live() == before, "the safety set had it all"
    site.serves()


@contextmanager
def broken(site: RecoverySite, what: str) -> Iterator[None]:
    """Something of the platform does not work meanwhile."""
    snapshot = site.set / "redis" / "cache.rdb.zst"
    content, program = snapshot.read_bytes(), site.platform.services["chat-service"].folder / "server.py"
    text, client = program.read_text(), site.platform.redis.client(decode_responses=True)
    memory = client.config_get("maxmemory")["maxmemory"]
    try:
        if what == "byte":
            middle = len(content) // 2
            snapshot.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif what == "service":
            first = "from __future__ import annotations\n"
            assert first in text
            program.write_text(text.replace(first, first + BROKEN))
        elif what == "memory":
            client.execute_command("CONFIG", "SET", "maxmemory", "1mb")
        yield
    finally:
        snapshot.write_bytes(content)
        program.write_text(text)
        client.execute_command("CONFIG", "SET", "maxmemory", memory)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_ends_with_the_set_or_as_it_was(
    site: RecoverySite, stage: Stage, fault: Fault, request: pytest.FixtureRequest
) -> None:
    if not fault.quick and not request.config.getoption("every_fault"):
        pytest.skip("one of its kind is tested; --every-fault tests all")
    site.spoil()
    before = site.live()
    stage.begin()
    for blow in fault.blows:
        with stage.let_go():
            stage.strike(blow)
    for run in fault.runs:
        if run.first:
            getattr(stage, run.first)()
        with ExitStack() as stack:
            stack.enter_context(stage.let_go())
            stack.enter_context(broken(site, run.broken))
            given = {"emergency_recovery_set": site.set.name, **CONFIRMED, **run.given}
            assert site.run("emergency_recovery", **given) == run.end, site.output
        assert run.said in site.output, site.output
    assert site.live() == (site.kept if fault.outcome == RESTORED else before), site.output
    stage.in_order("" if fault.refused else fault.outcome)
    if request.config.getoption("every_fault"):
        record(fault.name)
