# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making and removing copies of backup sets.

A copy that is not whole is never taken for one: it becomes whole by its last step, after every byte of it was read
back. Nothing is changed in the set. A run can be killed at any point and run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._age import SUFFIX, EncryptionError, OwnKey
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy import (
    BEGUN,
    RECORD,
    Copy,
    CopyRecord,
    Survey,
    digest_of,
    survey,
    unlike,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import Place
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    MANIFEST,
    MANIFEST_DIGEST,
    PARTIAL,
    VERIFICATION,
    BackupSet,
    read_sets,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._files import sha256_of
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError, mutex
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, isoformat


class BackupCopyError(Exception):
    """A copy cannot be made or removed as asked; the text says why and what to do."""


@dataclass(frozen=True)
class Order:
    """What is to be done. ``age`` limits in seconds; ``tell`` hears how many bytes more were read back."""

    root: str
    place: Place
    recipients: tuple[str, ...]
    read_back: bool
    prune_after: float | None
    clock: Clock
    tell: Callable[[int], None]
    check: bool


@dataclass(frozen=True)
class Change:
    """What came of it. ``copy`` is None when there is none; ``before`` and ``after`` are ids of whole copies."""

    changed: bool
    message: str
    copy: Copy | None
    before: list[str]
    after: list[str]
    reason: str = ""
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """A file to copy, and what it must be."""

    name: str
    root: str
    sha256: str


def choose_set(root: str, identifier: str | None) -> BackupSet:
    """The verified set of an id, or the newest verified one. Raises BackupCopyError: others are not worth a copy."""
    sets = read_sets(root)
    wanted = [entry for entry in sets if entry.id == identifier or (identifier is None and not entry.safety)]
    chosen = next((entry for entry in wanted if entry.state == "verified"), None)
    if chosen is not None:
        return chosen
    found = next((entry for entry in sets if entry.id == identifier), None)
    if identifier and found:
        raise BackupCopyError(
            f"set {identifier} is {found.state} and not verified: verify it first (backup_verification)"
        )
    what = f"no set {identifier}" if identifier else "no verified set"
    raise BackupCopyError(f"there is {what} below {root}: make one with database_backup")


@contextmanager
def alone(order: Order) -> Iterator[str]:
    """One run at a time copies from a root; it gets an empty folder for what it prepares.

    The kernel frees the lock with the process. Raises BackupCopyError when another run has it.
    """
    staging = os.path.join(order.root, ".copy")
    try:
        with mutex(f"{staging}.lock", lambda _seconds: None, 0):
            shutil.rmtree(staging, ignore_errors=True)
            os.mkdir(staging, 0o700)
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except LockError as error:
        raise BackupCopyError(f"another run copies sets of {order.root} now: wait until it has ended") from error


def copy_set(order: Order, chosen: BackupSet) -> Change:
    """Bring a set to the place unless a good copy of it is there, and remove what is not whole or not wanted any more.

    Raises BackupCopyError, PlaceError, EncryptionError and OSError.
    """
    with ExitStack() as held:
        held.enter_context(reading(chosen.path))
        staging = "" if order.check else held.enter_context(alone(order))
        held.enter_context(order.place.session())
        seen = survey(order.place)
        reason = _why_needed(order, chosen, seen)
        pruned = _prunable(order, seen, chosen.id)
        leftovers = [copy for copy in seen.copies if copy.state == "incomplete" and copy.id != chosen.id]
        changed = bool(reason or pruned or leftovers)
        after = seen
        if changed and not order.check:
            if reason:
                _make(order, chosen, seen, staging)
            for copy in (*leftovers, *pruned):
                order.place.remove(copy.names)
            after = survey(order.place)
    before = [copy.id for copy in seen.whole()]
    removed = [copy.id for copy in pruned]
    expected = sorted({*before, chosen.id} - set(removed), reverse=True)
    message = _told(order, chosen.id, reason, removed)
    return Change(changed, message, after.find(chosen.id), before, expected, reason, removed)


def _told(order: Order, identifier: str, reason: str, removed: list[str]) -> str:
    """What was done, or would be, in one sentence."""
    verb = "would be" if order.check else "was"
    message = f"the copy of set {identifier} at {order.place.address} is good"
    if reason:
        message = f"set {identifier} {verb} copied to {order.place.address}: {reason}"
    return message + (f"; the copy of each removed set {verb} removed: {', '.join(removed)}" if removed else "")


def remove_copy(order: Order, identifier: str, force: bool) -> Change:
    """Remove the copy of a set. Raises BackupCopyError when it is the newest good one, unless ``force``; PlaceError."""
    with ExitStack() as held:
        if not order.check:
            held.enter_context(alone(order))
        held.enter_context(order.place.session())
        seen = survey(order.place)
        before = [copy.id for copy in seen.whole()]
        if before[:1] == [identifier] and not force:
            raise BackupCopyError(
                f"the copy of {identifier} is the newest good one at {order.place.address}: use force"
            )
        doomed = [copy for copy in seen.copies if copy.id == identifier]
        for copy in () if order.check else doomed:
            order.place.remove(copy.names)
    after = [each for each in before if each != identifier]
    if not doomed:
        return Change(False, f"there is no copy of set {identifier} at {order.place.address}", None, before, after)
    message = f"the copy of set {identifier} {'would be' if order.check else 'was'} removed from {order.place.address}"
    return Change(True, message, None, before, after, removed=[identifier])


def _why_needed(order: Order, chosen: BackupSet, seen: Survey) -> str:
    """Why a copy must be made; empty when a good one is there."""
    copy = seen.find(chosen.id)
    strange = [name for name in seen.foreign if name.startswith(f"{chosen.id}/")]
    if strange:
        told = f"{order.place.address}: {strange[0]} lies where the copy belongs and is not of one"
        raise BackupCopyError(f"{told}: move it away, or give copies a place of their own")
    if copy is None or copy.state == "incomplete":
        return "there was no whole copy"
    if copy.record is None or copy.state == "damaged":
        return f"the copy was damaged: {copy.problem}"
    if copy.record.manifest_sha256 != sha256_of(os.path.join(chosen.path, MANIFEST)):
        return "the copy was of another set with the same id"
    if copy.record.recipients != order.recipients:
        return "the copy was encrypted to other recipients, or not at all"
    own = {name: {"bytes": entry["bytes"], "sha256": entry["sha256"]} for name, entry in chosen.files.items()}
    if not order.recipients and any(copy.record.files.get(name) != entry for name, entry in own.items()):
        return "the copy was damaged: its record speaks of other bytes than those of the set"
    problem = unlike(order.place, copy, order.tell) if order.read_back else ""
    return f"the copy was damaged: {problem}" if problem else ""


def _prunable(order: Order, seen: Survey, kept: str) -> list[Copy]:
    """Copies of sets that are not here any more and old enough, never the newest good one, nor the one to be made.

    Damaged ones too: what was half removed by a run that was killed looks like one.
    """
    if order.prune_after is None:
        return []
    present = {entry.id for entry in read_sets(order.root)}
    now = order.clock()
    spared = {kept, *(copy.id for copy in seen.whole()[:1])}
    return [
        copy
        for copy in seen.copies
        if copy.state != "incomplete"
        and copy.id not in present
        and copy.id not in spared
        and copy.age(now) > order.prune_after
    ]


# --- making one ------------------------------------------------------------------------------------------------------


def _make(order: Order, chosen: BackupSet, seen: Survey, staging: str) -> None:
    place = order.place
    working = chosen.id + (PARTIAL if place.renames else "")
    sources = _sources(chosen, staging)
    suffix = SUFFIX if order.recipients else ""
    place.begin(working)
    kept = _begin(order, seen, staging, working, [source.name + suffix for source in sources])
    with ExitStack() as keys:
        key = keys.enter_context(OwnKey()) if order.recipients else None
        files = {source.name + suffix: _bring(order, source, working, staging, key, kept) for source in sources}
    manifest = next(source.sha256 for source in sources if source.name == MANIFEST)
    record = CopyRecord(chosen.id, chosen.site, isoformat(order.clock()), manifest, order.recipients, files)
    _write_text(place, staging, working, RECORD, record.as_json())
    place.remove([f"{working}/{BEGUN}"])
    old = seen.find(chosen.id)
    if place.renames:
        place.remove(old.names if old else ())
        place.rename(working, chosen.id)


def _begin(order: Order, seen: Survey, staging: str, working: str, names: list[str]) -> dict[str, int]:
    """Note what is to come, then remove what would be mistaken for a part of the new copy.

    Returns sizes of what is kept: what was sent unencrypted is compared, and sent again only where it differs.
    """
    there = [name for copy in seen.copies if copy.folder == working for name in copy.names]
    noted = sorted({*names, *(name.split("/", 1)[1] for name in there)} - {RECORD, BEGUN})
    _write_text(order.place, staging, working, BEGUN, json.dumps({"files": noted}))
    kept = set() if order.recipients else {f"{working}/{name}" for name in names} & set(there)
    # Its record goes first: from here on it is not taken for whole.
    doomed = sorted(set(there) - kept - {f"{working}/{BEGUN}"}, key=lambda name: name != f"{working}/{RECORD}")
    order.place.remove(doomed)
    return {name: seen.sizes[name] for name in kept}


def _sources(chosen: BackupSet, staging: str) -> list[_Source]:
    """Every file of a set. What was found out about it so far is taken as it is now: it may change meanwhile."""
    sources = [_Source(name, chosen.path, str(entry["sha256"])) for name, entry in sorted(chosen.files.items())]
    held = os.path.join(staging, "held")
    os.mkdir(held, 0o700)
    for name in (VERIFICATION, MANIFEST_DIGEST, MANIFEST):
        shutil.copyfile(os.path.join(chosen.path, name), os.path.join(held, name))
        sources.append(_Source(name, held, sha256_of(os.path.join(held, name))))
    return sources


def _bring(
    order: Order, source: _Source, working: str, staging: str, key: OwnKey | None, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Write one file and read it back; what the record says of it."""
    path = os.path.join(source.root, source.name)
    if key is None:
        size = os.path.getsize(path)
        target = f"{working}/{source.name}"
        if sizes.get(target) != size or _read_back(order, target, None) != source.sha256:
            order.place.write(source.root, source.name, working)
            _prove(order, source, target, None)
        return {"bytes": size, "sha256": source.sha256}
    name = source.name + SUFFIX
    sealed = os.path.join(staging, "sealed", name)
    os.makedirs(os.path.dirname(sealed), mode=0o700, exist_ok=True)
    key.encrypt(path, sealed, order.recipients)
    order.place.write(os.path.join(staging, "sealed"), name, working)
    stored = {"bytes": os.path.getsize(sealed), "sha256": sha256_of(sealed)}
    os.unlink(sealed)
    _prove(order, source, f"{working}/{name}", key, str(stored["sha256"]))
    return stored


def _prove(order: Order, source: _Source, target: str, key: OwnKey | None, sealed: str = "") -> None:
    """Raise BackupCopyError unless what lies at the place is, decrypted where it is encrypted, the file of the set."""
    if _read_back(order, target, key, sealed) == source.sha256:
        return
    path = os.path.join(source.root, source.name)
    if sha256_of(path) != source.sha256:
        raise BackupCopyError(f"{path} is not what the manifest says any more: verify the set (backup_verification)")
    raise BackupCopyError(
        f"{order.place.address}: {target} was read back and is not what was written: look for the cause at the place"
    )


def _read_back(order: Order, target: str, key: OwnKey | None, sealed: str = "") -> str:
    """The sha256 of the plain content of a file at the place; empty when its sealed form is another one."""
    with order.place.read(target) as stream:
        if key is None:
            return digest_of(stream, order.tell)
        watched = _Watched(stream, order.tell)
        try:
            with key.decrypted(watched) as plain:
                digest = digest_of(plain, lambda _size: None)
        except EncryptionError:
            digest = ""  # whether the place is to blame is known at the end of its block
    return digest if watched.sha256.hexdigest() == sealed else ""


class _Watched:
    """A stream that digests what is read from it."""

    def __init__(self, stream: Any, tell: Callable[[int], None]) -> None:
        self._stream, self._tell = stream, tell
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._stream.read(size)
        self.sha256.update(data)
        self._tell(len(data))
        return data


def _write_text(place: Place, staging: str, working: str, name: str, text: str) -> None:
    with open(os.path.join(staging, name), "w", encoding="utf-8") as stream:
        stream.write(text)
    place.write(staging, name, working)
    if place.texts([f"{working}/{name}"]).get(f"{working}/{name}") != text.encode():
        raise BackupCopyError(f"{place.address}: {working}/{name} was read back and is not what was written")
