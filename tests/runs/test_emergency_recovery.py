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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fixtures.recovery import CONFIRMED, RecoverySite
from tests.harness import ROOT

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "recovery-faults.md"
RESTORED, BEFORE = "the data of the set", "the data from before"
#: A service that dies at its first start, and lives once it is started again: that is the way back.
BROKEN = """import pathlib, sys
once = pathlib.Path(__file__).with_name("died")
if not once.exists():
    once.touch()
    sys.exit("bad release")
once.unlink()
"""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: ``killed`` is the step whose beginning (or end) sees ansible-playbook killed."""

    name: str
    outcome: str
    killed: str = ""
    phase: str = "begun"
    again: dict[str, Any] = field(default_factory=dict)
    broken: str = ""
    said: str = ""
    quick: bool = False


_STEPS = (
    *("maintenance on", "services stopped", "safety set", "restore redis:cache", "restore firestore:main"),
    *("services started", "services checked", "maintenance off"),
)
_QUICK = ("restore redis:cache", "restore firestore:main")
FAULTS = (
    *(Fault(f"killed as {name!r} began", BEFORE, killed=name, quick=name in _QUICK[:1]) for name in _STEPS),
    *(
        Fault(
            f"killed as {name!r} began, told to go on", RESTORED,
            killed=name, again={"emergency_recovery_resume": "forward"}, quick=name in _QUICK[1:],
        )
        for name in _STEPS
    ),
    Fault("killed after the last step", RESTORED, killed="maintenance off", phase="ended"),
    Fault("a service that does not come back", BEFORE, broken="service", said="everything is as it was", quick=True),
    Fault("Redis has too little memory for the set", BEFORE, broken="memory", said="nothing was changed"),
    Fault("the snapshot of the set has a flipped byte", BEFORE, broken="byte", said="nothing was changed", quick=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(recovery_site: RecoverySite) -> RecoverySite:
    return recovery_site


_HEAD = """# Faults of a recovery, and what becomes of them

Written by `pytest tests/runs/test_emergency_recovery.py --every-fault`, which recovers the platform in miniature
(Redis, Firestore emulator, nginx, seven services) once for each fault. What is killed is `ansible-playbook`, with
SIGKILL; then the playbook is run again. At the end services answered through the gateway, and Redis' own digest and all
documents were equal to what is said.

| fault | at the end there was |
|---|---|
"""


def record(name: str) -> None:
    """Put what was just seen of a fault into the document, which tells of those that nobody tried, too."""
    told = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    seen = {fault.name for fault in FAULTS if f"| {fault.name} | {fault.outcome} |" in told} | {name}
    rows = [f"| {fault.name} | {fault.outcome if fault.name in seen else 'not tried yet'} |" for fault in FAULTS]
    DOCUMENT.write_text(_HEAD + "\n".join(rows) + "\n")


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

    assert site.run("emergency_recovery", **CONFIRMED) == 0, site.output
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


def test_a_second_recovery_is_refused_by_name_of_the_first(site: RecoverySite) -> None:
    site.spoil()
    known = set(site.journals())
    first = site.begin(site.command("emergency_recovery", emergency_recovery_set=site.set.name, **CONFIRMED))
    while not set(site.journals()) - known:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    assert site.run("emergency_recovery", **CONFIRMED) == 2
    name = (set(site.journals()) - known).pop().stem
    assert f"recovery {name} is under way already" in site.output
    output = first.communicate(timeout=120)[0]
    assert first.returncode == 0 and site.live() == site.kept, output


@contextmanager
def broken(site: RecoverySite, what: str) -> Iterator[None]:
    """Something of the platform does not work meanwhile."""
    snapshot = site.set / "redis" / "cache.rdb.zst"
    content, program = snapshot.read_bytes(), site.platform.services["chat-service"].folder / "server.py"
    text, client = program.read_text(), site.platform.redis.client()
    try:
        if what == "byte":
            middle = len(content) // 2
            snapshot.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif what == "service":
            first = "from __future__ import annotations\n"
            assert first in text
            program.write_text(text.replace(first, first + BROKEN))
        else:
            client.execute_command("CONFIG", "SET", "maxmemory", "1mb")
        yield
    finally:
        snapshot.write_bytes(content)
        program.write_text(text)
        client.execute_command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_ends_with_the_set_or_as_it_was(
    site: RecoverySite, fault: Fault, request: pytest.FixtureRequest
) -> None:
    if not fault.quick and not request.config.getoption("every_fault"):
        pytest.skip("one of its kind is tested; --every-fault tests all")
    site.spoil()
    before = site.live()
    chosen = {"emergency_recovery_set": site.set.name, **CONFIRMED}
    if fault.killed:
        site.killed(fault.killed, fault.phase)
        assert site.run("emergency_recovery", **chosen, **fault.again) == 0, site.output
    else:
        with broken(site, fault.broken):
            assert site.run("emergency_recovery", **chosen) == 2, site.output
        assert fault.said in site.output, site.output
    site.serves()
    assert site.live() == (site.kept if fault.outcome == RESTORED else before), site.output
    if request.config.getoption("every_fault"):
        record(fault.name)
