# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blows at a recovery: what goes wrong at which moment, and what must be in order when all is over.

A moment is one that nothing can miss: a step in the journal, words on the link to Redis, or an operation of Firestore
that goes on until it is let go.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.upkeep.ops.plugins.module_utils._lock import here, owner_gone, read_lock
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_steps import figures
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

from tests.fixtures.recovery import CONFIRMED, RecoverySite
from tests.harness import ROOT
from tests.platform.miniature import PROJECT
from tests.platform.parts.link import Link

KILLED, FAILED, DONE = -signal.SIGKILL, 2, 0
_ENDS = {"recovered": "the platform runs on set", "rolled_back": "everything is as it was before, which was proved"}
_OPERATIONS = f"v1/projects/{PROJECT}/databases/(default)/operations"
_KINDS = {"import": "ImportDocumentsMetadata", "bulk_delete": "BulkDeleteDocumentsMetadata"}
_LONG = 300.0  # seconds that an operation of Firestore would take; none is waited for that long
_PATIENCE = 240.0  # seconds; what is waited for takes a fraction of it


@dataclass(frozen=True)
class Noted:
    """The journal of the recovery tells of a step."""

    step: str
    phase: str = "begun"


@dataclass(frozen=True)
class Said:
    """Words on the link to Redis, one after the other; before the last one is passed on, or before it is answered."""

    words: tuple[bytes, ...]
    answered: bool = True


@dataclass(frozen=True)
class Going:
    """An operation of Firestore goes on: ``import`` or ``bulk_delete``."""

    method: str


SAFETY = Said((rb"PSYNC",), answered=False)
OWN_SAFETY = Said((rb"PSYNC", rb"PSYNC"), answered=False)
COPIES = Said((rb"REPLICAOF\r\n\$\d+\r\n127\.0\.0\.1\r\n\$\d+\r\n\d+\r\n",))
PROMOTED = Said((*COPIES.words, rb"REPLICAOF\r\n\$2\r\nNO\r\n"))
WRITTEN = Said((*PROMOTED.words, rb"INFO\r\n\$11\r\npersistence"))


@dataclass(frozen=True)
class Blow:
    """What falls on one run: ``what`` is a method of :class:`Stage`, ``end`` the code with which the run ends."""

    what: str
    moment: Noted | Said | Going
    end: int
    #: Variables of the run.
    given: dict[str, Any] = field(default_factory=dict)


class Stage:
    """A site whose links to Redis and Firestore can be cut, and whose scratch servers have a folder of their own."""

    def __init__(self, site: RecoverySite) -> None:
        self.site, self.platform = site, site.platform
        self._known: dict[str, Any] = {}
        self.redis = Link(self.platform.redis.port)
        self.firestore = Link(self.platform.bridge.grpc_port)
        self.scratch = site.folder / "t"
        self.scratch.mkdir()
        self._settings = self._redis_settings()
        site.environment["TMPDIR"] = str(self.scratch)
        site.variables.update(self._catalogue())

    def close(self) -> None:
        self.redis.close()
        self.firestore.close()

    def _catalogue(self) -> dict[str, Any]:
        """The demo's, but for the addresses."""
        text = (ROOT / "inventories" / "demo" / "group_vars" / "all" / "data.yml").read_text()
        catalogue = yaml.safe_load(text)
        catalogue["upkeep_redis"][0]["port"] = self.redis.port
        catalogue["demo_firestore"]["admin_endpoint"] = f"127.0.0.1:{self.firestore.port}"
        return {name: catalogue[name] for name in ("upkeep_redis", "demo_firestore")}

    # What falls on a run

    def strike(self, blow: Blow) -> None:
        """Run a recovery, let the blow fall on it, and see it end as it should."""
        fallen = threading.Event()
        variables = {"emergency_recovery_set": self.site.set.name, **CONFIRMED, **blow.given}
        if isinstance(blow.moment, Going):
            self.platform.bridge.configure(delay=_LONG, method=blow.moment.method)
        with (self.site.folder / "run.log").open("w+") as output:
            run = self.site.begin(self.site.command("emergency_recovery", **variables), output)

            def fall() -> None:
                getattr(self, blow.what)(run)
                fallen.set()

            if isinstance(blow.moment, Said):
                self.redis.when(blow.moment.words, blow.moment.answered, fall)
            try:
                self._wait(run, blow, fallen, fall)
            finally:
                self.redis.mend()
                self.firestore.mend()
                if run.poll() is None:
                    self.kill_all(run)
                    run.wait()
            self.site.output = _read(output)
            assert run.returncode == blow.end, f"{blow}: ended with {run.returncode}: {self.site.output}"

    def _wait(
        self, run: subprocess.Popen[Any], blow: Blow, fallen: threading.Event, fall: Callable[[], object]
    ) -> None:
        """Until the blow has fallen and the run has ended."""
        known, going = self._entries(), self._going()
        deadline = time.monotonic() + _PATIENCE
        while not fallen.is_set():
            if not isinstance(blow.moment, Said) and self._has_come(blow.moment, known, going):
                fall()
                break
            over = run.poll() is not None and not fallen.wait(1)
            assert not over and time.monotonic() < deadline, f"{blow} did not fall"
            time.sleep(0.02)
        run.wait(timeout=_PATIENCE)

    def _has_come(self, moment: Noted | Going, known: list[Any], going: list[str]) -> bool:
        if isinstance(moment, Noted):
            new = self._entries()[len(known) :]
            return any((entry["step"], entry["phase"]) == (moment.step, moment.phase) for entry in new)
        return bool(set(self._going(moment.method)) - set(going))

    def kill(self, run: subprocess.Popen[Any]) -> None:
        """ansible-playbook alone; the module of its task works on."""
        run.kill()

    def kill_all(self, run: subprocess.Popen[Any]) -> None:
        """ansible-playbook, its workers and the modules, as when the machine is gone."""
        os.kill(run.pid, signal.SIGSTOP)
        while children := _descendants(run.pid):
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        run.kill()

    def crash_redis(self, _run: subprocess.Popen[Any]) -> None:
        """The live server is killed, and started again as a service manager would."""
        self.platform.redis.kill()
        self.platform.redis.start()

    def kill_scratch(self, _run: subprocess.Popen[Any]) -> None:
        """Every private server is killed."""
        servers = self._scratch_servers()
        assert servers, "there is none"
        for pid in servers:
            os.kill(pid, signal.SIGKILL)

    def drop_redis(self, _run: subprocess.Popen[Any]) -> None:
        """The link to Redis is cut, and back at once."""
        self.redis.cut()
        self.redis.mend()

    def cut_redis(self, _run: subprocess.Popen[Any]) -> None:
        """The link to Redis is cut until the run has ended."""
        self.redis.cut()

    def drop_firestore(self, _run: subprocess.Popen[Any]) -> None:
        """The link to Firestore is cut for two seconds, while the operation comes to its end."""
        self.firestore.cut()
        self.platform.bridge.configure()
        threading.Timer(2, self.firestore.mend).start()

    def cut_firestore(self, _run: subprocess.Popen[Any]) -> None:
        """The link to Firestore is cut until the run has ended; the operation goes on."""
        self.firestore.cut()

    # How things stand

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Operations of Firestore that an earlier run left going are not waited for, those that begin now are short."""
        left, over = set(self._going()), threading.Event()
        if not left:
            yield
            return

        def watch() -> None:
            while left & set(self._going()) and not over.wait(0.05):
                if set(self._going("bulk_delete")) and self._entries()[-1]["step"] == "take back firestore:main":
                    break  # the same deletion is wanted again, and waited for
            self.platform.bridge.configure()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
            assert not left & set(self._going()), "what the killed run left going goes on beside the new run"
        finally:
            over.set()
            watcher.join()
            self.platform.bridge.configure()

    def begin(self) -> None:
        """What is told from now on belongs to the next fault."""
        self._known = self._told()

    def in_order(self, outcome: str) -> None:
        """Nothing of the recovery is left, users are served, and what is told is true. No outcome: none was begun."""
        self.site.serves()
        client = self.platform.redis.client(socket_timeout=2, decode_responses=True)
        assert client.info("replication")["role"] == "master"
        client.set("probe", 1)
        client.delete("probe")
        assert self._redis_settings() == self._settings
        deadline = time.monotonic() + 20
        while self._scratch_servers():
            assert time.monotonic() < deadline, "a private server lives"
            time.sleep(0.05)
        assert list(self.scratch.glob("upkeep-scratch-*")) == []
        assert not (self.site.folder / "state" / "recovery" / ".lock").exists()
        lock = read_lock(str(self.site.folder / "backups" / ".lock"))
        assert lock is None or owner_gone(lock, utc_now(), 0, here()), "the next backup would have to wait"
        assert self._going() == []
        self._told_truly(outcome)

    def _told_truly(self, outcome: str) -> None:
        before, now = self._known, self._told()
        if not outcome:
            assert now == before
            return
        recovery, events = self.site.recovery(), now["events"][len(before["events"]) :]
        new = dict(now["metrics"][len(before["metrics"]) :])
        wanted = {f"recovery_{name}": value for name, value in figures(recovery).items()}
        ended = [text for text in events if text.startswith(f"recovery {recovery['id']} has ended: ")]
        assert recovery["state"] == outcome
        assert any(text.startswith(f"recovery {recovery['id']} begins: ") for text in events), events
        assert ended and _ENDS[outcome] in ended[-1], events
        assert new == (wanted if outcome == "recovered" else {})

    def _told(self) -> dict[str, Any]:
        """What the history knows of incidents and of recoveries' figures."""
        path = self.site.folder / "state" / "history.sqlite3"
        if not path.exists():
            return {"events": [], "metrics": []}
        with contextlib.closing(sqlite3.connect(path)) as connection:
            events = connection.execute("SELECT text FROM incident_events ORDER BY rowid").fetchall()
            metrics = connection.execute("SELECT name, value FROM metrics WHERE name LIKE 'recovery%' ORDER BY rowid")
            return {"events": [text for (text,) in events], "metrics": metrics.fetchall()}

    def forget(self) -> None:
        """The state folder is lost, as with a recorder that is built anew."""
        shutil.rmtree(self.site.folder / "state")
        self.begin()

    def restart_redis(self) -> None:
        """Its service manager stops it and starts it again."""
        self.platform.redis.stop()
        self.platform.redis.start()

    def move_lock(self) -> None:
        """The lock names another control node, whose processes nobody sees from here."""
        path = self.site.folder / "state" / "recovery" / ".lock"
        lock = json.loads(path.read_text())
        lock["place"]["host"], lock["place"]["machine"] = "control-2", "another"
        path.write_text(json.dumps(lock))

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for path in self.site.journals() for entry in json.loads(path.read_text())["entries"]]

    def _going(self, method: str = "") -> list[str]:
        """Operations of Firestore that have not come to their end."""
        with urllib.request.urlopen(f"{self.platform.bridge.url}/{_OPERATIONS}", timeout=30) as answer:
            listed = json.load(answer).get("operations", [])
        kind = _KINDS.get(method, "")
        return [each["name"] for each in listed if not each.get("done") and kind in each["metadata"]["@type"]]

    def _redis_settings(self) -> dict[str, Any]:
        return dict(self.platform.redis.client(decode_responses=True).config_get("*"))

    def _scratch_servers(self) -> list[int]:
        """Those that have their working folder below ours."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(path.joinpath("cwd").readlink()).startswith(f"{self.scratch}/upkeep-scratch-"):
                    found.append(int(path.name))
        return found


def _descendants(pid: int) -> list[int]:
    """Children and children's children, but for those that have ended."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def _read(output: Any) -> str:
    output.seek(0)
    return re.sub(r"\x1b\[[0-9;]*m", "", str(output.read()))
