# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes a backup set: opening, completing, abandoning, holding, removing.

Every step is either done or not done when a process is killed within it, and can be run again. A set appears under
its final name by one rename, after all its data is on disk, and disappears by one rename, before its data is removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    CLOCK_TOLERANCE,
    FORMAT,
    HOLD,
    LOCK,
    MANIFEST,
    MANIFEST_DIGEST,
    MUTEX,
    PARTIAL,
    REMOVING,
    BackupSet,
    BackupSetError,
    BusyError,
    find_set,
    moment_of,
    newest,
    newest_change,
    read_set,
    read_sets,
    remove_temporaries,
    set_id,
    walk,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import IN_USE, removing
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, sha256_of, sync_folder
from ansible_collections.upkeep.ops.plugins.module_utils._lock import (
    Lock,
    free_lock,
    here,
    mutex,
    new_lock,
    owner_gone,
    read_lock,
    write_lock,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, format_duration, isoformat

#: Folders that an open set offers to those who fill it; empty ones are gone when it is complete.
FOLDERS = ("redis", "firestore")
_WAITING_POLL = 1.0
_LEFTOVER = re.compile(r"\.[0-9]{8}T[0-9]{6}Z(\.partial)?\.removing")


@dataclass(frozen=True)
class Store:
    """Where the sets are, and how time passes there. With ``check`` nothing is written, not even a lock."""

    root: str
    clock: Clock
    sleep: Callable[[float], None]
    stale_after: float
    check: bool = False

    @property
    def lock_path(self) -> str:
        return os.path.join(self.root, LOCK)

    def partial_path(self, identifier: str) -> str:
        return os.path.join(self.root, identifier + PARTIAL)

    def exclusive(self) -> AbstractContextManager[None]:
        """The mutex of the root; nothing to exclude when nothing is written or nothing is there."""
        if self.check or not os.path.isdir(self.root):
            return nullcontext()
        return mutex(os.path.join(self.root, MUTEX), self.sleep)

    def gone(self, lock: Lock) -> str:
        """Why the owner of a lock is gone; empty while it may be at work."""
        return owner_gone(lock, self.clock(), self.stale_after, here())


@dataclass(frozen=True)
class Hold:
    """Why a set is protected from removal, and for how many seconds; None is until somebody ends it.

    A ``safety`` set holds what a recovery was to replace. It fills no place of any rule of retention.
    """

    reason: str
    seconds: float | None = None
    safety: bool = False


@dataclass(frozen=True)
class Change:
    """What a step did, or would do in check mode. ``before`` and ``after`` are what diff mode shows."""

    changed: bool
    message: str
    backup_set: BackupSet | None = None
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    due: bool = True
    owner: str = ""
    result: str = ""
    warnings: list[str] = field(default_factory=list)


# --- open ----------------------------------------------------------------------------------------------------------


def open_set(store: Store, owner: str, max_age: float | None, accept: str, patience: float) -> Change:
    """Take the lock and make the folder of a new set, unless a set younger than ``max_age`` seconds makes it needless.

    ``accept`` is what such a set must be at least (complete, verified or drilled). Waits up to ``patience``
    seconds for another run's lock. The same owner gets back what it has open.
    Raises BusyError when the lock is held by another run, LockError and OSError.
    """
    if not store.check:
        os.makedirs(store.root, mode=0o700, exist_ok=True)
    deadline = store.clock().timestamp() + patience
    while True:
        with store.exclusive():
            change = _try_open(store, owner, max_age, accept)
        if change is not None:
            return change
        lock = read_lock(store.lock_path)
        if lock is not None and (store.check or store.clock().timestamp() >= deadline):
            raise BusyError(
                f"another run works on set {lock.subject} below {store.root}: {lock.describe(store.clock())}. "
                "Wait for it (lock_timeout), or end it; when it is known to be dead, abandon its set with force"
            )
        store.sleep(_WAITING_POLL)


def _try_open(store: Store, owner: str, max_age: float | None, accept: str) -> Change | None:
    """One attempt inside the mutex; None when another run holds the lock."""
    lock = read_lock(store.lock_path)
    if lock is not None and lock.owner == owner:
        return _begin(store, lock, [])
    fresh = _young_enough(store, max_age, accept)
    if fresh is not None:
        age = format_duration(fresh.age(store.clock()))
        return Change(
            False, f"set {fresh.id} is {fresh.state} and {age} old: no new one is due", fresh, due=False, owner=owner
        )
    warnings = []
    if lock is not None:
        reason = store.gone(lock)
        if not reason:
            return None
        warnings.append(f"took over the lock of {lock.describe(store.clock())} on set {lock.subject}: {reason}")
    return _begin(store, new_lock(owner, _free_id(store), store.clock()), warnings)


def _young_enough(store: Store, max_age: float | None, accept: str) -> BackupSet | None:
    if max_age is None:
        return None
    fresh = newest(read_sets(store.root), accept)
    # A set of the future comes from a clock that was wrong: it must not keep new ones from being made.
    return fresh if fresh is not None and -CLOCK_TOLERANCE <= fresh.age(store.clock()) < max_age else None


def _free_id(store: Store) -> str:
    """The id of this second; two sets are never opened in the same one."""
    while True:
        identifier = set_id(store.clock())
        taken = (os.path.join(store.root, identifier), store.partial_path(identifier))
        if store.check or not any(os.path.lexists(path) for path in taken):
            return identifier
        store.sleep(0.1)


def _begin(store: Store, lock: Lock, warnings: list[str]) -> Change:
    """Write the lock, then make the folders. A kill in between is mended by opening again, or by a take-over."""
    path = store.partial_path(lock.subject)
    wanted = [path] + [os.path.join(path, name) for name in FOLDERS]
    missing = [folder for folder in wanted if not os.path.isdir(folder)]
    if missing and not store.check:
        _sweep(store.root)
        write_lock(store.lock_path, lock)
        try:
            for folder in missing:
                os.mkdir(folder, 0o700)
        except OSError:
            free_lock(store.lock_path)
            raise
        sync_folder(store.root)
    opened = BackupSet(lock.subject, path, "partial")
    if os.path.isdir(path):
        opened = read_set(store.root, lock.subject + PARTIAL)
    return Change(
        bool(missing),
        f"set {lock.subject} is opened in {path}",
        opened,
        before={} if missing else {"id": lock.subject, "state": "partial"},
        after={"id": lock.subject, "state": "partial"},
        owner=lock.owner,
        warnings=warnings,
    )


# --- complete ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What a set must hold to be complete, and what its manifest says besides."""

    parts: Sequence[Mapping[str, Any]]
    site: str
    tools: Mapping[str, str]


def complete_set(store: Store, identifier: str, owner: str, contents: Contents, leftover_age: float) -> Change:
    """Check that every part is there, write the manifest last, put all on disk, rename, release the lock.

    Sets that dead runs left unfinished and untouched for ``leftover_age`` seconds are removed afterwards.
    Raises BackupSetError when the set is not open for this owner or a part is missing or empty, and OSError.
    """
    moment_of(identifier)
    path = store.partial_path(identifier)
    if not os.path.isdir(path):
        return _completed_before(store, identifier, owner)
    with store.exclusive():
        _require_lock(store, identifier, owner)
    _require_parts([str(part["name"]) for part in contents.parts])
    if not store.check:
        remove_temporaries(path, MANIFEST, MANIFEST_DIGEST)
        _write_records(path, contents.parts)
    parts = [_part(path, part) for part in contents.parts]
    manifest = {
        "format": FORMAT,
        "id": identifier,
        "site": contents.site,
        "created_at": isoformat(moment_of(identifier)),
        "completed_at": isoformat(store.clock()),
        "parts": parts,
        "files": _inventory(path, contents.parts, store.check),
        "tools": dict(contents.tools),
    }
    if not store.check:
        _seal(path, manifest)
        with store.exclusive():
            _require_lock(store, identifier, owner)
            _publish(store, identifier)
    removed = remove_leftovers(store, leftover_age)
    return _completed(store, identifier, manifest, removed)


def _completed(store: Store, identifier: str, manifest: dict[str, Any], removed: list[str]) -> Change:
    """The answer after a set was completed, or would be in check mode."""
    names = sorted(manifest["files"])
    total = sum(entry["bytes"] for entry in manifest["files"].values())
    done = BackupSet(
        identifier,
        os.path.join(store.root, identifier),
        "complete",
        files=manifest["files"],
        parts=manifest["parts"],
        bytes=total,
        site=manifest["site"],
        completed_at=manifest["completed_at"],
    )
    return Change(
        True,
        f"set {identifier} is complete: {len(names)} files, {total} bytes",
        done,
        before={"id": identifier, "state": "partial"},
        after={"id": identifier, "state": "complete", "files": names},
        warnings=[f"removed what a dead run had left of set {name}" for name in removed],
    )


def _completed_before(store: Store, identifier: str, owner: str) -> Change:
    """The set was completed by an earlier call; one that was killed after the rename left the lock behind."""
    done = find_set(store.root, identifier)
    if done is None:
        raise BackupSetError(f"set {identifier} is not open below {store.root}: open one first")
    lock = read_lock(store.lock_path)
    ours = lock is not None and (lock.subject, lock.owner) == (identifier, owner)
    if not store.check:
        with store.exclusive():
            _sweep(store.root)
            if ours:
                sync_folder(store.root)
                free_lock(store.lock_path)
    return Change(ours, f"set {identifier} was complete already", done)


def _require_lock(store: Store, identifier: str, owner: str) -> None:
    lock = read_lock(store.lock_path)
    if lock is None:
        raise BackupSetError(f"nobody holds the lock of set {identifier}: abandon the set and open a new one")
    if lock.subject != identifier:
        raise BackupSetError(
            f"the lock of set {identifier} was taken over by {lock.describe(store.clock())} for set {lock.subject}: "
            "this run was taken for dead; abandon the set and open a new one"
        )
    if lock.owner != owner:
        raise BackupSetError(
            f"set {identifier} was opened by another run, {lock.describe(store.clock())}; this one is owner {owner}"
        )


def _require_parts(names: Sequence[str]) -> None:
    if not names:
        raise BackupSetError("a set without parts is no backup: name at least one of parts")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BackupSetError(f"two parts have the same name: {', '.join(twice)}")


def _write_records(path: str, parts: Sequence[Mapping[str, Any]]) -> None:
    """Write the parts that are given as data instead of as files."""
    for part in parts:
        if part.get("record") is not None:
            file = _inside(path, str(part["path"]))
            os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
            remove_temporaries(os.path.dirname(file), os.path.basename(file))
            publish_text(file, json.dumps(part["record"], indent=2, sort_keys=True) + "\n")


def _part(path: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of one part in the manifest, with the manifest of its own that describes it."""
    name, relative = str(part["name"]), str(part["path"])
    record = part.get("record")
    if record is not None:
        return {"name": name, "path": relative, "manifest": relative, "details": record}
    _require_content(path, name, relative)
    described = part.get("manifest")
    details = _description(path, name, str(described)) if described else {}
    return {"name": name, "path": relative, "manifest": str(described or ""), "details": details}


def _description(path: str, name: str, relative: str) -> dict[str, Any]:
    """What the manifest of one part says, which must be a JSON object."""
    _require_content(path, name, relative)
    try:
        with open(_inside(path, relative), encoding="utf-8") as stream:
            details = json.load(stream)
    except ValueError as error:
        raise BackupSetError(f"the manifest {relative} of {name} is no JSON: {error}") from error
    if not isinstance(details, dict):
        raise BackupSetError(f"the manifest {relative} of {name} is no JSON object")
    return details


def _require_content(path: str, name: str, relative: str) -> None:
    file = _inside(path, relative)
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        raise BackupSetError(
            f"{name} is not in the set: {file} is missing; take it again, or abandon the set"
        ) from None
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        raise BackupSetError(f"{name} is not in the set: {file} is empty or no file; take it again, or abandon the set")


def _inside(path: str, relative: str) -> str:
    """The full path of a file of the set. Raises BackupSetError when it would lie outside."""
    file = os.path.normpath(os.path.join(path, relative))
    if not file.startswith(path + os.sep):
        raise BackupSetError(f"{relative!r} lies outside the set: parts have paths relative to it")
    return file


def _inventory(path: str, parts: Sequence[Mapping[str, Any]], check: bool) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file, each flushed to disk; check mode looks only at the sizes."""
    files: dict[str, dict[str, Any]] = {}
    for relative, file in walk(path):
        name = os.path.basename(relative)
        if relative in (MANIFEST, MANIFEST_DIGEST):
            continue  # of an attempt to complete that was killed: both are written anew
        if name.startswith(".") and name.endswith(PARTIAL):
            raise BackupSetError(f"{file} is unfinished: its writer was stopped, or still runs")
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise BackupSetError(f"{file} is no regular file: a set holds nothing else")
        files[relative] = {"bytes": os.lstat(file).st_size, "sha256": "" if check else _digest_on_disk(file)}
    if check:
        records = {str(part["path"]): part["record"] for part in parts if part.get("record") is not None}
        files.update({name: {"bytes": len(json.dumps(record)), "sha256": ""} for name, record in records.items()})
    return files


def _digest_on_disk(file: str) -> str:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return sha256_of(file)


def _seal(path: str, manifest: dict[str, Any]) -> None:
    """Write the manifest's digest, then the manifest itself: with it the set is whole but for its name."""
    for name in FOLDERS:
        with suppress(OSError):
            os.rmdir(os.path.join(path, name))
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    publish_text(os.path.join(path, MANIFEST_DIGEST), f"{sha256(text.encode()).hexdigest()}  {MANIFEST}\n")
    publish_text(os.path.join(path, MANIFEST), text)
    for folder, _folders, _files in os.walk(path):
        sync_folder(folder)


def _publish(store: Store, identifier: str) -> None:
    os.rename(store.partial_path(identifier), os.path.join(store.root, identifier))
    sync_folder(store.root)
    free_lock(store.lock_path)


# --- abandon, remove, hold -----------------------------------------------------------------------------------------


def abandon_set(store: Store, identifier: str, owner: str, force: bool) -> Change:
    """Remove an unfinished set and release its lock. Without an id it is the one that the owner has open.

    Raises BackupSetError when a run that may be at work holds it, unless forced.
    """
    with store.exclusive():
        lock = read_lock(store.lock_path)
        if not identifier and lock is not None and lock.owner == owner:
            identifier = lock.subject
        if not identifier:
            return Change(False, f"owner {owner} has no set open below {store.root}")
        moment_of(identifier)
        locked = lock is not None and lock.subject == identifier
        if lock is not None and locked and lock.owner != owner and not force and not store.gone(lock):
            raise BackupSetError(
                f"set {identifier} is worked on by {lock.describe(store.clock())}: end that run first, or use force"
            )
        there = os.path.isdir(store.partial_path(identifier))
        if not store.check:
            _sweep(store.root)
            if there:
                _remove_folder(store.root, identifier + PARTIAL)
            if locked:
                free_lock(store.lock_path)
    told = f"set {identifier} is abandoned" if there or locked else f"set {identifier} is not open"
    return Change(there or locked, told, before={"id": identifier, "state": "partial"} if there else {})


def remove_set(store: Store, identifier: str, force: bool) -> Change:
    """Remove one set. Raises BackupSetError for held, newest good and newest drilled ones, unless forced."""
    moment_of(identifier)
    with store.exclusive():
        if not store.check:
            _sweep(store.root)
        found = find_set(store.root, identifier)
        if found is None:
            if os.path.isdir(store.partial_path(identifier)):
                raise BackupSetError(f"set {identifier} is unfinished: abandon it instead")
            return Change(False, f"set {identifier} is not there")
        if not force:
            _require_removable(store, found)
        with removing(found.path) as unused:
            if not unused and not force:
                raise BackupSetError(f"set {identifier} is in use: {IN_USE}; wait for its end, or use force")
            if not store.check:
                _remove_folder(store.root, identifier)
    before = {"id": identifier, "state": found.state, "files": sorted(found.files)}
    return Change(True, f"set {identifier} ({found.state}, {found.bytes} bytes) is removed", found, before=before)


def _require_removable(store: Store, found: BackupSet) -> None:
    if found.held_at(store.clock()):
        raise BackupSetError(f"set {found.id} is held ({found.hold_reason or 'no reason given'}): unhold it first")
    sets = read_sets(store.root)
    best = newest(sets, "verified") or newest(sets, "complete")
    if best is not None and best.id == found.id:
        raise BackupSetError(
            f"set {found.id} is the newest {found.state} one: recovery would choose it; make a newer one first, "
            "or use force"
        )
    drilled = newest(sets, "drilled")
    if drilled is not None and drilled.id == found.id:
        raise BackupSetError(
            f"set {found.id} is the newest one that was restored in a drill: drill a newer one first, or use force"
        )


def hold_set(store: Store, identifier: str, hold: Hold | None) -> Change:
    """Protect a set from removal, or end its protection. Raises BackupSetError when there is no such set.

    A safety set stays known as one, also when its protection is ended.
    """
    with store.exclusive():
        found = find_set(store.root, identifier)
        if found is None:
            raise BackupSetError(f"there is no set {identifier} below {store.root}")
        wanted = _wanted_hold(store, found, hold)
        changed = wanted != (_held_as(found) if found.held else None)
        if changed and not store.check:
            remove_temporaries(found.path, HOLD)
            _write_hold(os.path.join(found.path, HOLD), wanted, isoformat(store.clock()))
    now = store.clock()
    told = wanted or {"reason": "", "until": "", "safety": False}
    then = replace(
        found,
        held=wanted is not None,
        hold_reason=told["reason"],
        hold_until=told["until"],
        safety=told["safety"],
    )
    return Change(
        changed,
        f"set {identifier} is {'held' if then.held_at(now) else 'not held'}",
        then,
        before={"id": identifier, "held": found.held_at(now), "reason": found.hold_reason, "until": found.hold_until},
        after={"id": identifier, "held": then.held_at(now), "reason": then.hold_reason, "until": then.hold_until},
    )


def _wanted_hold(store: Store, found: BackupSet, hold: Hold | None) -> dict[str, Any] | None:
    """What is to be known of the hold of a set, None when nothing."""
    now = store.clock()
    if hold is not None:
        until = isoformat(now + timedelta(seconds=hold.seconds)) if hold.seconds is not None else ""
        return {"reason": hold.reason, "until": until, "safety": hold.safety or found.safety}
    if not found.safety:
        return None
    return _held_as(found) if not found.held_at(now) else {**_held_as(found), "until": isoformat(now)}


def _held_as(found: BackupSet) -> dict[str, Any]:
    return {"reason": found.hold_reason, "until": found.hold_until, "safety": found.safety}


def _write_hold(path: str, content: dict[str, Any] | None, at: str) -> None:
    if content is not None:
        publish_text(path, json.dumps({**content, "at": at}) + "\n")
    else:
        os.unlink(path)
        sync_folder(os.path.dirname(path))


def leftovers(store: Store) -> list[BackupSet]:
    """Unfinished sets that no run holds the lock of, or whose run is gone."""
    lock = read_lock(store.lock_path)
    working = lock.subject if lock is not None and not store.gone(lock) else ""
    return [entry for entry in read_sets(store.root) if entry.state == "partial" and entry.id != working]


def remove_leftovers(store: Store, older_than: float) -> list[str]:
    """Remove leftovers in which nothing has changed for some seconds; ids of those that were (or would be)."""
    removed = []
    with store.exclusive():
        for entry in leftovers(store):
            if store.clock().timestamp() - newest_change(entry.path) > older_than:
                removed.append(entry.id)
                if not store.check:
                    _remove_folder(store.root, entry.id + PARTIAL)
        if not store.check:
            _sweep(store.root)
    return removed


def _remove_folder(root: str, name: str) -> None:
    """Take the name away first, so that a half-removed set is never seen as one."""
    doomed = os.path.join(root, f".{name}{REMOVING}")
    if os.path.lexists(doomed):
        shutil.rmtree(doomed)
    os.rename(os.path.join(root, name), doomed)
    sync_folder(root)
    shutil.rmtree(doomed)


def _sweep(root: str) -> None:
    """Finish the removals, and clear away the half-written locks, of processes that were killed midway."""
    remove_temporaries(root, LOCK)
    for name in os.listdir(root) if os.path.isdir(root) else []:
        if _LEFTOVER.fullmatch(name):
            shutil.rmtree(os.path.join(root, name))
