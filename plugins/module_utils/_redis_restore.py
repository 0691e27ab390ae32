# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces the data of a live Redis server by a snapshot, as a transaction: all of it, or what was there before.

Nothing is touched before the snapshot was proved and everything that speaks against it was looked for. From the first
change on a journal tells how to take it back: by this run when a check fails, by the next one when this one is killed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._compression import CompressionError
from ansible_collections.upkeep.ops.plugins.module_utils._files import sha256_of
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._lock import MUTEX_PATIENCE, mutex
from ansible_collections.upkeep.ops.plugins.module_utils._rdb import RdbError, server_version_of
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    Login,
    RedisAccessError,
    explain,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_contents import keyspace
from ansible_collections.upkeep.ops.plugins.module_utils._redis_data_files import CommandError, DataFiles
from ansible_collections.upkeep.ops.plugins.module_utils._redis_failover import Failover
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import Progress, ReplicationError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_journal import (
    BACK,
    DONE,
    Journal,
    begin,
    newest,
    remove_all,
    state_folder,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_preflight import Way, Wishes, judge
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_ways import (
    Service,
    copy_online,
    replace_offline,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_safety import SafetyError, safety_order, secure
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import Sentinels, find_master
from ansible_collections.upkeep.ops.plugins.module_utils._redis_snapshot import SnapshotError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_source import Source, open_source
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import (
    Facts,
    Hold,
    Target,
    TargetError,
    changes_for_copying,
    local_address,
    position,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Order
from ansible_collections.upkeep.ops.plugins.module_utils._redis_way_back import WayBack
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import (
    Patience,
    Reach,
    ScratchError,
    reach,
    remove_abandoned_scratch,
)
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, format_duration, parse_time

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TAKEN_AS_THEY_ARE = (
    "mode",
    "digest",
    "unverified",
    "sample_size",
    "hold_timeout",
    "scratch_port",
    "sentinel_master",
    "state_dir",
)
_SAVING = "repl-diskless-sync-delay"


class RestoreError(Exception):
    """The restore did not come to its end; the text says why, what holds now, and what to do."""


class _CheckFailedError(Exception):
    """The data is not what it should be after a step."""


#: What may go wrong while a server is being restored, and is answered by going back.
_FAILURES: tuple[type[BaseException], ...] = (
    _CheckFailedError,
    CommandError,
    CompressionError,
    OSError,
    RdbError,
    RedisAccessError,
    ReplicationError,
    SafetyError,
    ScratchError,
    SnapshotError,
    TargetError,
    StoppedError,
)


@dataclass(frozen=True)
class Request:
    """What was asked for. ``check`` is to look and not to touch; empty addresses are found out."""

    order: Order
    login: Login
    mode: str
    digest: bool
    unverified: bool
    sample_size: int
    hold_timeout: float
    scratch_address: str
    scratch_port: int
    sentinels: Sequence[Login]
    sentinel_master: str
    stop_command: Sequence[str]
    start_command: Sequence[str]
    state_dir: str
    check: bool

    @property
    def name(self) -> str:
        """By which journals know the server. Where Sentinel is, any of the servers may be the master the next time."""
        return f"sentinel {self.sentinel_master}" if self.sentinels else self.login.url


def order_of(options: Mapping[str, Any]) -> Order:
    """What is to be verified before it is restored, from the options of the module redis_restore."""
    path = options["path"] or ""
    return Order(
        path=path,
        manifest=options["manifest"] or path + ".json",
        subject=options["name"] or os.path.basename(path) or "redis",
        level=3,
        target_version="",
        server_binary=options["server_binary"],
        scratch_dir=options["scratch_dir"] or tempfile.gettempdir(),
        tolerance=1,
        digest=False,
        expected_digest=options["expected_digest"],
    )


def request_of(options: Mapping[str, Any], order: Order, check: bool, library: ModuleType) -> Request:
    """From the options of the module redis_restore; the server is the one that Sentinels name, where there are any.

    Raises ValueError when the options make no sense, and SentinelError when no Sentinel answers.
    """
    login = Login.of({**options, "timeout": options["answer_timeout"]})
    sentinels = Sentinels.of(options, login)
    if sentinels:
        login = find_master(library, sentinels, login)
    elif not options["login_host"] and not options["login_unix_socket"]:
        raise ValueError("which server? Name it in login_host, login_unix_socket or sentinel_hosts")
    service, stop, start = options["service"], options["stop_command"], options["start_command"]
    return Request(
        order=order,
        login=login,
        sentinels=sentinels.logins if sentinels else (),
        scratch_address=options["scratch_address"] or "",
        stop_command=stop or (["systemctl", "stop", service] if service else []),
        start_command=start or (["systemctl", "start", service] if service else []),
        check=check,
        **{name: options[name] for name in _TAKEN_AS_THEY_ARE},
    )


@dataclass
class Outcome:
    """What became of it, as results carry it; None is what is not known."""

    message: str = ""
    mode: str | None = None
    why: str | None = None
    snapshot: str = ""
    taken_at: str | None = None
    age_seconds: float | None = None
    before: dict[str, dict[str, int]] | None = None
    after: dict[str, dict[str, int]] | None = None
    refusals: list[str] = field(default_factory=list)
    safety: str | None = None
    continued: str | None = None
    held_seconds: float | None = None
    seconds: float | None = None
    rolled_back: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The outcome as results carry it."""
        return asdict(self)


class Restoration:
    """One call. ``changed`` and ``outcome`` tell what was done, the builder's findings what was found."""

    def __init__(
        self,
        request: Request,
        library: ModuleType,
        builder: FindingsBuilder,
        patience: Patience,
        clock: Clock,
        log: Callable[[str], object],
        progress: Progress,
    ) -> None:
        self._request = request
        self._library = library
        self._builder = builder
        self._patience = patience
        self._clock = clock
        self._log = log
        self._progress = progress
        self._target = Target(library, request.login, patience)
        self._hold = Hold(self._target, request.hold_timeout)
        self._service = Service(self._target, self._hold, request.stop_command, request.start_command)
        self._failover = Failover(library, request.sentinels, request.sentinel_master)
        self._back = WayBack(
            target=self._target,
            hold=self._hold,
            service=self._service,
            failover=self._failover,
            order=request.order,
            sample_size=request.sample_size,
            contact=request.login.timeout,
            clock=clock,
            progress=progress,
        )
        self._folder = ""
        self.outcome = Outcome(snapshot=request.order.path)
        self.changed = False

    def run(self, state: str) -> None:
        """Carry it out. Raises RestoreError, and OSError when the state folder cannot be used."""
        act = {"restored": self._restored, "rolled_back": self._rolled_back, "confirmed": self._confirmed}[state]
        self._folder = state_folder(self._request.state_dir, self._request.name)
        remove_abandoned_scratch(self._request.order.scratch_dir)
        with ExitStack() as stack:
            if not self._request.check:
                os.makedirs(self._folder, mode=0o700, exist_ok=True)
                # The module of a run that was killed may be at work still, and comes to its end.
                lock = os.path.join(self._folder, ".lock")
                stack.enter_context(mutex(lock, time.sleep, max(MUTEX_PATIENCE, self._patience.seconds)))
            stack.enter_context(explained(self._library, self._request.login))
            act()

    # What is asked for

    def _restored(self) -> None:
        earlier = self._newest()
        if earlier is not None and earlier.open:
            if self._request.check:
                self._would_settle(earlier)
                return
            # What the server held before a restore that was killed is still what going back leads to.
            restored = self._settle(earlier) and earlier["goal"] == DONE
            self._replace_by(self._request.order, earlier, back_to=earlier["back_to"] if restored else "")
            return
        self._replace_by(self._request.order, earlier)

    def _rolled_back(self) -> None:
        journal = self._newest()
        if journal is None:
            raise RestoreError(f"no restore into {self._request.login.url} is known below {self._request.state_dir}")
        if journal.open and self._request.check:
            self._would_settle(journal)
            return
        path = self._path_back(journal)
        if not path:
            self._fine(self.outcome.continued or "the last restore was taken back already")
            self.outcome.rolled_back = self.changed
            return
        self.outcome.snapshot = path
        self._replace_by(safety_order(self._request.order, path), journal, end=BACK)
        self.outcome.rolled_back = self.changed and not self._request.check

    def _newest(self) -> Journal | None:
        """The journal of the last restore. One that was killed can be brought into order in its own server only."""
        journal, url = newest(self._folder, self._log), self._request.login.url
        if journal is not None and journal.open and journal["target"] != url:
            safety = journal.get("safety") or "that server itself, which was not touched"
            raise RestoreError(
                f"the restore into {journal['target']} was killed during {journal['step']!r}, and the Sentinels name "
                f"{url} as the master now. Fail over to {journal['target']} again and run this again. If that server "
                f"is lost, look what {url} holds; the data from before is in {safety}, and {journal.folder} is in the "
                "way of further restores"
            )
        return journal

    def _path_back(self, journal: Journal) -> str:
        """The safety snapshot that the server is to be given; empty when it holds what it held before."""
        if journal.open:
            replaced = self._settle(journal)
            if journal["goal"] == BACK:  # going back was killed itself
                return str(journal["path"])
            return str(journal["back_to"]) if replaced else ""
        return str(journal["back_to"]) if journal["state"] == DONE else ""

    def _confirmed(self) -> None:
        journal = newest(self._folder, self._log)
        if journal is not None and journal.open:
            raise RestoreError(f"the restore of {journal['begun_at']} has not come to its end: run that again first")
        self.changed = journal is not None
        if journal is None:
            self._fine("nothing of earlier restores is kept")
        elif self._request.check:
            self._fine("would remove the safety snapshots and old files of earlier restores")
        else:
            count = remove_all(self._folder, with_files=self._target.facts().local)
            self._fine(f"removed the safety snapshots and old files of {count} restores")

    def _settle(self, journal: Journal) -> bool:
        """Bring the server into order after a run that was killed; whether only its safety snapshot leads back."""
        step = journal["step"]
        replaced = self._back.after_death(journal)
        now = "the server holds what it restored" if replaced else "the server holds what it held before"
        if journal.get("lost"):
            now = (
                f"with its files from before the server lacks data of the safety snapshot: {', '.join(journal['lost'])}"
            )
        self.outcome.continued = f"the run of {journal['begun_at']} was killed during {step!r}; {now}"
        self.changed = True
        return replaced

    def _would_settle(self, journal: Journal) -> None:
        self.changed = True
        told = f"the run of {journal['begun_at']} was killed during {journal['step']!r}"
        self.outcome.continued = told
        self._fine(f"{told}; would bring the server into order first")

    # One restore

    def _replace_by(self, order: Order, earlier: Journal | None, *, back_to: str = "", end: str = DONE) -> None:
        started = self._patience.monotonic()
        with ExitStack() as stack:
            reachable = reach(self._address(), self._request.scratch_port)
            info = self._target.client.info("server")
            order = replace(order, target_version=server_version_of(info), digest=self._request.digest)
            size = self._request.sample_size
            source = open_source(order, self._library, self._builder, self._patience, stack, reachable, size)
            if source is None:
                self._refuse(["the snapshot was not proved, see the other findings"])
                return
            facts = self._target.facts()
            way = judge(facts, source.facts, self._wishes(reachable))
            refusals = [*way.refusals, *self._failover.objections(self._request.login)]
            self._tell_plan(source, facts, way)
            if refusals:
                self._refuse(refusals)
            elif self._is_there_already(order, source, facts, earlier):
                self._leave_it(earlier, end)
            elif self._request.check:
                self.changed = True
                self._fine(self._intention())
            else:
                self._transaction(order, source, facts, back_to, end)
        self.outcome.seconds = round(self._patience.monotonic() - started, 3)

    def _transaction(self, order: Order, source: Source, facts: Facts, back_to: str, end: str) -> None:
        journal = self._begin(order, source, facts, end)
        try:
            self._failover.hold_off()
            self._target.change({_SAVING: "0"}, facts.config)
            secure(self._target, order, journal, self._hold, self._clock, self._progress)
            journal.note(back_to=back_to or journal["safety"])
            self._replace(source, journal)
            self._back.let_go(journal)
            self._see_that_it_lasts(journal)
        except (*_FAILURES, self._library.RedisError) as error:
            self._go_back(journal, error)
            if isinstance(error, StoppedError):
                raise
        else:
            self._done(source, journal, end)
        finally:
            with suppress(self._library.RedisError, OSError):
                self._hold.release()

    def _begin(self, order: Order, source: Source, facts: Facts, goal: str) -> Journal:
        files = DataFiles.of(facts.config)
        moment = self._clock().strftime("%Y%m%dT%H%M%S%fZ")
        return begin(
            self._folder,
            self._request.login.url,
            self._clock,
            self._log,
            goal=goal,
            path=order.path,
            mode=self.outcome.mode,
            snapshot=_identity(order, source),
            settings=changes_for_copying(facts.config, source.reachable),
            sentinels=self._failover.settings(),
            address=source.reachable.address,
            run_id=facts.info["run_id"],
            pid=facts.info["process_id"],
            files=asdict(files),
            aside=os.path.join(files.folder, f"upkeep-before-{moment}"),
            persistent=files.aof or bool(facts.config.get("save")),
        )

    def _replace(self, source: Source, journal: Journal) -> None:
        self.outcome.safety = journal["safety"]
        if self.outcome.mode == "online":
            contact, run_id = self._request.login.timeout, journal["run_id"]
            copy_online(self._target, source, journal, contact, self._progress, run_id)
            differences = source.differences(self._target)
        else:
            differences = replace_offline(self._service, source, journal)
        if differences:
            raise _CheckFailedError(f"what the server holds differs from the snapshot: {', '.join(differences)}")
        info = self._target.client.info()
        journal.step("compared", run_id=info["run_id"], end=position(info))

    def _see_that_it_lasts(self, journal: Journal) -> None:
        journal.step("waiting for the append-only file")
        self._target.wait_for_aof()
        if self._target.client.info("server")["run_id"] != journal["run_id"]:
            raise TargetError("the server was restarted before its new data was on disk")

    def _go_back(self, journal: Journal, error: BaseException) -> None:
        why, step = self._told(error), journal["step"]
        try:
            self._back.after_failure(journal)
        except (*_FAILURES, self._library.RedisError) as second:
            kept = journal.get("safety") or "the server itself, which was not touched"
            raise RestoreError(
                f"the restore failed during {step!r}: {why}. Going back failed too, during {journal['step']!r}: "
                f"{self._told(second)}. The data from before is in {kept}. Remove the cause, and run this again with "
                "state rolled_back or restored"
            ) from second
        self.outcome.rolled_back = True
        self.outcome.after = keyspace(self._target.client.info("keyspace"))
        hint = "The server holds what it held before. Remove the cause and restore again"
        told = f"the restore failed during {step!r} and was taken back: {why}"
        self.outcome.message = told
        self._builder.add("restore", self._request.order.subject, "critical", told, hint=hint)

    def _done(self, source: Source, journal: Journal, end: str) -> None:
        self.changed = True
        try:
            self._failover.put_back(journal["sentinels"], self._patience)
            journal.note(state=end, step="done")
        except RedisAccessError as error:  # no reason to go back: the data is as it should be
            told = f"the data was restored, but a Sentinel still waits for a day before it fails over: {error}"
            self._builder.add(
                "restore", self._request.order.subject, "critical", told, hint="Run this again when it is reachable"
            )
        self.outcome.after = keyspace(self._target.client.info("keyspace"))
        self.outcome.held_seconds = self._hold.seconds
        held = format_duration(self._hold.seconds)
        self._fine(f"restored {source.expected.keys} keys {self.outcome.mode}; writers were held for {held}")

    def _is_there_already(self, order: Order, source: Source, facts: Facts, earlier: Journal | None) -> bool:
        """Whether nothing was written to the server since it held the data of the snapshot, and it looks so."""
        now, manifest = position(facts.info), source.manifest
        known = [[manifest.replication_id, manifest.replication_offset]] if manifest else []
        if earlier is not None and earlier["snapshot"] == _identity(order, source):
            known.append(earlier.get("end"))
        return now is not None and now in known and not source.differences(self._target)

    def _leave_it(self, earlier: Journal | None, end: str) -> None:
        if earlier is not None and earlier.open:
            self._target.wait_for_aof()
            earlier.note(state=end, step="done")
        self._fine("the server holds the data of the snapshot already, and nothing was written since")

    # Words and small parts

    def _tell_plan(self, source: Source, facts: Facts, way: Way) -> None:
        outcome = self.outcome
        outcome.mode, outcome.why = way.mode, way.why
        outcome.before = keyspace(facts.info)
        outcome.after = {number: dict(counts) for number, counts in source.expected.databases.items()}
        if source.manifest is not None:
            outcome.taken_at = source.manifest.taken_at
            age = (self._clock() - parse_time(source.manifest.taken_at)).total_seconds()
            outcome.age_seconds = round(age, 3)

    def _intention(self) -> str:
        outcome = self.outcome
        age = "of unknown age" if outcome.age_seconds is None else f"{format_duration(outcome.age_seconds)} old"
        return (
            f"would restore {outcome.snapshot}, {age}, {outcome.mode}, because {outcome.why}; "
            f"keys now {_keys(outcome.before)}, then {_keys(outcome.after)}"
        )

    def _refuse(self, refusals: list[str]) -> None:
        self.outcome.refusals = refusals
        self.outcome.after = self.outcome.before
        self.outcome.message = f"nothing was touched: {'; '.join(refusals)}"
        for told in refusals:
            self._builder.add("restore", self._request.order.subject, "critical", f"nothing was touched: {told}")

    def _fine(self, message: str) -> None:
        self.outcome.message = message
        self._builder.add("restore", self._request.order.subject, "ok", message)

    def _wishes(self, reachable: Reach) -> Wishes:
        request = self._request
        return Wishes(
            way=request.mode,
            digest=request.digest,
            unverified=request.unverified,
            sentinels=bool(request.sentinels),
            commands=bool(request.stop_command and request.start_command),
            scratch_address=reachable.address,
            state_dir=request.state_dir,
        )

    def _address(self) -> str:
        login = self._request.login
        if self._request.scratch_address:
            return self._request.scratch_address
        local = login.unix_socket or login.host in _LOOPBACK
        return _LOOPBACK[1] if local else local_address(login.host, login.port, login.timeout)

    def _told(self, error: BaseException) -> str:
        if isinstance(error, self._library.RedisError):
            return explain(self._library, self._request.login, error)
        return str(error) or type(error).__name__


def _identity(order: Order, source: Source) -> str:
    """The SHA-256 of a snapshot file: another file may get its name."""
    return source.manifest.sha256 if source.manifest else sha256_of(order.path)


def _keys(databases: dict[str, dict[str, int]] | None) -> str:
    told = ", ".join(f"{counts['keys']} in database {number}" for number, counts in (databases or {}).items())
    return told or "none"
