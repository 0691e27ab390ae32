# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backup sets at another place: what one consists of, and what is known of those that are there. Only reads.

A copy is a folder named by the id of its set. It holds the files of the set as they are, or each encrypted and with
``.age`` appended to its name, and ``copy.json``. That is written last, is never encrypted, and tells of every file what
it must be to be the one that was proved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._age import Readable
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import Place, PlaceError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import PARTIAL, BackupSetError, moment_of
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

RECORD = "copy.json"
#: Lies in a copy until it is whole, and lists what may be removed when it never becomes so.
BEGUN = "copy.begun.json"

_FORMAT = 1
_KIND = "upkeep_backup_copy"
_CHUNK = 1 << 20
_MOST_TOLD = 5


@dataclass(frozen=True)
class CopyRecord:
    """What ``copy.json`` says. ``files`` are those of the copy as they lie there, with ``bytes`` and ``sha256``."""

    id: str
    site: str
    copied_at: str
    manifest_sha256: str
    recipients: tuple[str, ...]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.files.values())

    def as_json(self) -> str:
        content = {**vars(self), "recipients": list(self.recipients), "kind": _KIND, "format": _FORMAT}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Copy:
    """One copy as it lies at its place. ``state`` is whole (by names and sizes), damaged or incomplete.

    ``folder`` is where it lies, ``foreign`` what is there and does not belong to it, ``names`` what may be removed in
    this order: what says that it is a copy goes last, so that it can be told for one until it is gone.
    """

    id: str
    folder: str
    state: str
    names: tuple[str, ...]
    record: CopyRecord | None = None
    problem: str = ""
    foreign: tuple[str, ...] = ()

    def age(self, now: datetime) -> float:
        """Seconds since its set was opened: a copy is as old as what is in it."""
        return (now - moment_of(self.id)).total_seconds()

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """The copy as the module returns it."""
        record = self.record
        return {
            "id": self.id,
            "state": self.state,
            "age": int(self.age(now)),
            "bytes": record.bytes if record else 0,
            "files": len(record.files) if record else 0,
            "encrypted": bool(record and record.recipients),
            "copied_at": record.copied_at if record else "",
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Survey:
    """All that lies at a place: copies, newest first, and what is none."""

    copies: tuple[Copy, ...]
    foreign: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def whole(self) -> list[Copy]:
        """The copies that are whole by names and sizes, newest first."""
        return [copy for copy in self.copies if copy.state == "whole"]

    def find(self, identifier: str) -> Copy | None:
        """The copy of an id under its final name, whatever its state."""
        return next((copy for copy in self.copies if copy.folder == identifier), None)


@dataclass(frozen=True)
class Expectations:
    """What copies at a place should be like. ``max_age`` in seconds, None for no limit."""

    subject: str
    max_age: float | None
    read_back: bool


# --- what lies there -------------------------------------------------------------------------------------------------


def survey(place: Place) -> Survey:
    """What lies at a place, by names, sizes and records. Raises PlaceError."""
    sizes = place.listing()
    folders: dict[str, dict[str, int]] = {}
    foreign = []
    for path, size in sorted(sizes.items()):
        folder, slash, name = path.partition("/")
        if slash and _is_copy(folder):
            folders.setdefault(folder, {})[name] = size
        else:
            foreign.append(path)
    records = place.texts(
        [f"{folder}/{name}" for folder in folders for name in (RECORD, BEGUN) if name in folders[folder]]
    )
    copies = [_copy(folder, names, records) for folder, names in folders.items()]
    known = [copy for copy in copies if copy is not None]
    foreign += [f"{folder}/" for folder, copy in zip(folders, copies) if copy is None]
    foreign += [name for copy in known for name in copy.foreign]
    ordered = sorted(known, key=lambda copy: (copy.id, copy.folder), reverse=True)
    return Survey(tuple(ordered), tuple(foreign), sizes)


def _is_copy(folder: str) -> bool:
    try:
        moment_of(folder[: -len(PARTIAL)] if folder.endswith(PARTIAL) else folder)
    except BackupSetError:
        return False
    return True


def _copy(folder: str, sizes: Mapping[str, int], texts: Mapping[str, bytes]) -> Copy | None:
    """The copy in a folder; None when nothing in it says that it was ever meant to be one."""
    if folder.endswith(PARTIAL):
        names = tuple(f"{folder}/{name}" for name in sizes)
        return Copy(folder[: -len(PARTIAL)], folder, "incomplete", names)
    if RECORD not in sizes:
        return _begun(folder, sizes, texts.get(f"{folder}/{BEGUN}"))
    try:
        record = read_record(texts.get(f"{folder}/{RECORD}", b""), folder)
    except ValueError as error:
        return Copy(folder, folder, "damaged", (f"{folder}/{RECORD}",), problem=str(error))
    own = {*record.files, RECORD, BEGUN}
    problems = [
        f"{name} is missing" if name not in sizes else f"{name} has {sizes[name]} bytes instead of {entry['bytes']}"
        for name, entry in sorted(record.files.items())
        if sizes.get(name) != entry["bytes"]
    ]
    return Copy(
        folder,
        folder,
        "damaged" if problems else "whole",
        _removable(folder, own & set(sizes)),
        record,
        _few(problems),
        tuple(f"{folder}/{name}" for name in sorted(set(sizes) - own)),
    )


def _begun(folder: str, sizes: Mapping[str, int], text: bytes | None) -> Copy | None:
    """A copy that was begun under its final name; only what it says itself is taken for its own."""
    if text is None:
        return None
    try:
        listed = set(json.loads(text)["files"])
    except (ValueError, KeyError, TypeError):
        listed = set()
    own = {*listed, RECORD, BEGUN} & set(sizes)
    foreign = tuple(f"{folder}/{name}" for name in sorted(set(sizes) - own))
    return Copy(folder, folder, "incomplete", _removable(folder, own), foreign=foreign)


def _removable(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    ordered = sorted(names, key=lambda name: (name == RECORD, name == BEGUN, name))
    return tuple(f"{folder}/{name}" for name in ordered)


def read_record(text: bytes, identifier: str) -> CopyRecord:
    """The record of the copy of an id. Raises ValueError in words when it cannot be relied on."""
    try:
        content = json.loads(text)
        if content["kind"] != _KIND or content["id"] != identifier:
            raise ValueError(f"{RECORD} is not that of a copy of set {identifier}")
        if content["format"] != _FORMAT:
            raise ValueError(f"{RECORD} has format {content['format']!r}, this release reads {_FORMAT}")
        files = {
            str(name): {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in content["files"].items()
        }
        told = {name: str(content[name]) for name in ("id", "site", "copied_at", "manifest_sha256")}
        return CopyRecord(**told, recipients=tuple(content["recipients"]), files=files)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{RECORD} is damaged: {type(error).__name__} {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{RECORD} is damaged: {error}") from error


# --- what it is worth ------------------------------------------------------------------------------------------------


def digest_of(stream: Readable, tell: Callable[[int], None]) -> str:
    """The sha256 of all that comes from a stream; ``tell`` is told the size of each piece."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        tell(len(chunk))
    return digest.hexdigest()


def unlike(place: Place, copy: Copy, tell: Callable[[int], None]) -> str:
    """How the bytes of a copy differ from its record, empty when they do not. Raises PlaceError."""
    problems = []
    for name, entry in sorted(copy.record.files.items() if copy.record else ()):
        with place.read(f"{copy.folder}/{name}") as stream:
            if digest_of(stream, tell) != entry["sha256"]:
                problems.append(f"{name} has another sha256 than when it was copied")
    return _few(problems)


def check_copies(
    found: FindingsBuilder, place: Place, expected: Expectations, now: datetime, tell: Callable[[int], None]
) -> Survey:
    """Judge the copies at a place: the age of the newest good one, bytes that changed, and what is none.

    What cannot be asked is unknown.
    """
    try:
        with place.session():
            seen = survey(place)
            good = _check_bytes(found, place, seen, expected, tell)
    except PlaceError as error:
        hint = "Mend the way to it; until then nobody knows whether there is a copy"
        found.add("backup_copy_age", expected.subject, "unknown", f"the copies cannot be looked at: {error}", hint=hint)
        return Survey(())
    _check_age(found, place, good, expected, now)
    _check_leftovers(found, place, seen, expected.subject)
    return seen


def _check_bytes(
    found: FindingsBuilder, place: Place, seen: Survey, expected: Expectations, tell: Callable[[int], None]
) -> list[Copy]:
    """The good copies; the newest one is read wholly when that is asked for."""
    good = seen.whole()
    bad = [f"{copy.id}: {copy.problem}" for copy in seen.copies if copy.state == "damaged"]
    if good and expected.read_back:
        problem = unlike(place, good[0], tell)
        bad += [f"{good[0].id}: {problem}"] if problem else []
        good = good[1:] if problem else good
    if bad:
        hint = "Run the role backup_copy: it makes the copy of the newest set anew; look for the cause at the place"
        summary = f"{len(bad)} {'copy is' if len(bad) == 1 else 'copies are'} not what was copied: {_few(bad)}"
        found.add("backup_copy_bytes", expected.subject, "critical", summary, value=len(bad), hint=hint)
    elif good:
        how = "every byte was read back" if expected.read_back else "names and sizes were looked at"
        found.add(
            "backup_copy_bytes", expected.subject, "ok", f"copy {good[0].id} is as it was copied ({how})", value=0
        )
    return good


def _check_age(
    found: FindingsBuilder, place: Place, good: Sequence[Copy], expected: Expectations, now: datetime
) -> None:
    hint = "See why the last copy was not made: run the role backup_copy and read what it says"
    if not good:
        summary = f"there is no good copy at {place.address}"
        found.add("backup_copy_age", expected.subject, "critical", summary, hint=hint)
        return
    age = good[0].age(now)
    late = expected.max_age is not None and age > expected.max_age
    allowed = f", {format_duration(expected.max_age)} are allowed" if expected.max_age is not None else ""
    summary = f"the newest good copy is of set {good[0].id}, {format_duration(age)} old{allowed}"
    details = {"value": int(age), "unit": "s", "threshold": expected.max_age, "hint": hint if late else ""}
    found.add("backup_copy_age", expected.subject, "critical" if late else "ok", summary, **details)


def _check_leftovers(found: FindingsBuilder, place: Place, seen: Survey, subject: str) -> None:
    incomplete = [copy.folder for copy in seen.copies if copy.state == "incomplete"]
    told = [f"not whole: {_few(incomplete)}"] if incomplete else []
    told += [f"not of a copy: {_few(seen.foreign)}"] if seen.foreign else []
    if told:
        hint = "The next copy removes what is not whole. Give copies a place of their own, and move away what is none"
        summary = f"at {place.address} lies what is no copy: {'; '.join(told)}"
        found.add("backup_copy_leftovers", subject, "warning", summary, value=len(told), hint=hint)
    else:
        found.add("backup_copy_leftovers", subject, "ok", "nothing but whole copies lies there", value=0)


def _few(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST_TOLD} more" if len(items) > _MOST_TOLD else ""
    return ", ".join(items[:_MOST_TOLD]) + more
