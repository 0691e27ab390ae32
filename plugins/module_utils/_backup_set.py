# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup sets as they lie on disk: names, files, and what state a set is in. Only reads.

A set is built in ``<root>/<id>.partial`` and renamed to ``<root>/<id>`` when it is complete. Its manifest never
changes afterwards; what is found out later stands beside it, in ``verification.json`` and ``hold.json``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

MANIFEST = "manifest.json"
#: In the format of sha256sum, so that ``sha256sum -c`` proves the manifest without this collection.
MANIFEST_DIGEST = "manifest.json.sha256"
VERIFICATION = "verification.json"
HOLD = "hold.json"
#: Files that describe a set and are therefore not listed in its manifest.
ADMINISTRATION = frozenset((MANIFEST, MANIFEST_DIGEST, VERIFICATION, HOLD))
PARTIAL = ".partial"
REMOVING = ".removing"
LOCK = ".lock"
MUTEX = ".mutex"

#: The format of manifests that this release writes; it reads no newer one.
FORMAT = 1
#: From this level of verification on a set counts as verified: below it only its bytes are known to be the same.
VERIFIED_LEVEL = 2
LEVELS = (1, 2, 3, 4)
#: The highest level compares with the live servers.
LIVE_LEVEL = LEVELS[-1]
#: A drill stands above all levels: the set was restored, and its data was used.
DRILL_LEVEL = 5

#: A set may be dated this many seconds ahead of the clock, which may have been set meanwhile.
CLOCK_TOLERANCE = 300

_ID_FORMAT = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z")


class BackupSetError(Exception):
    """A set cannot be used as asked; the text names the set, the cause and what to do."""


class BusyError(BackupSetError):
    """Another run is at work, which is nobody's failure; the text says who."""


@dataclass(frozen=True)
class BackupSet:
    """One set as it lies on disk. ``state`` is partial, complete, verified or failed."""

    id: str
    path: str
    state: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    site: str = ""
    completed_at: str = ""
    verified_level: int = 0
    verified_at: str = ""
    drilled_at: str = ""
    judgements: list[dict[str, Any]] = field(default_factory=list)
    held: bool = False
    hold_reason: str = ""
    hold_until: str = ""
    safety: bool = False
    problem: str = ""

    @property
    def good(self) -> bool:
        """Whether recovery may choose it."""
        return self.state in ("complete", "verified")

    def meets(self, accept: str) -> bool:
        """Whether recovery may choose it, and it is at least ``complete``, ``verified`` or ``drilled``."""
        return (
            self.good
            and {
                "complete": True,
                "verified": self.state == "verified",
                "drilled": self.drilled_at != "",
            }[accept]
        )

    def age(self, now: datetime) -> float:
        """Seconds since the set was opened: nothing in it is newer than that can be relied on."""
        return (now - moment_of(self.id)).total_seconds()

    def held_at(self, now: datetime) -> bool:
        """Whether it is protected from removal; a hold may be for some time only."""
        return self.held and (not self.hold_until or parse_time(self.hold_until) > now)

    def part(self, name: str) -> dict[str, Any] | None:
        """The part of a name such as ``redis:cache``."""
        return next((part for part in self.parts if part["name"] == name), None)

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """The set as the module returns it."""
        return {
            "id": self.id,
            "path": self.path,
            "state": self.state,
            "site": self.site,
            "created_at": isoformat(moment_of(self.id)),
            "completed_at": self.completed_at,
            "age": int(self.age(now)),
            "bytes": self.bytes,
            "files": len(self.files),
            "parts": self.parts,
            "verified_level": self.verified_level,
            "verified_at": self.verified_at,
            "verifications": [told for level in LEVELS if (told := last_of_level(self.judgements, level))],
            "drilled_at": self.drilled_at,
            "drill": last_drill(self.judgements),
            "digests": digests_of(self.judgements),
            "held": self.held_at(now),
            "hold_reason": self.hold_reason,
            "hold_until": self.hold_until,
            "safety": self.safety,
            "problem": self.problem,
        }


def set_id(moment: datetime) -> str:
    """The id of a set that is opened at a moment, as ``20260131T235959Z``; sorts as text."""
    return moment.astimezone(timezone.utc).strftime(_ID_FORMAT)


def is_id(name: str) -> bool:
    """Whether a name is the id of a set."""
    try:
        moment_of(name)
    except BackupSetError:
        return False
    return True


def moment_of(identifier: str) -> datetime:
    """When the set of an id was opened. Raises BackupSetError when it is no id."""
    try:
        if not _ID.fullmatch(identifier):
            raise ValueError(identifier)
        return datetime.strptime(identifier, _ID_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        raise BackupSetError(f"{identifier!r} is no id of a backup set such as 20260131T235959Z") from None


def read_sets(root: str) -> list[BackupSet]:
    """All sets below a root, newest first; none when the root is not there. Raises OSError when unreadable."""
    try:
        names = sorted(os.listdir(root), reverse=True)
    except FileNotFoundError:
        return []
    return [read_set(root, name) for name in names if _is_set(name) and os.path.isdir(os.path.join(root, name))]


def read_set(root: str, name: str) -> BackupSet:
    """The set in the folder ``name``. A damaged one is returned as failed, with its problem in words."""
    path = os.path.join(root, name)
    if name.endswith(PARTIAL):
        files = {relative: {"bytes": os.lstat(file).st_size} for relative, file in walk(path)}
        total = sum(entry["bytes"] for entry in files.values())
        return BackupSet(name[: -len(PARTIAL)], path, "partial", files=files, bytes=total)
    try:
        manifest = read_manifest(path)
        verification = read_verification(path)
        hold = _read_json(os.path.join(path, HOLD))
    except BackupSetError as error:
        held = os.path.lexists(os.path.join(path, HOLD))
        return BackupSet(name, path, "failed", held=held, problem=str(error))
    return _described(path, manifest, verification, hold)


def find_set(root: str, identifier: str) -> BackupSet | None:
    """The set of an id that is no longer built, or None."""
    moment_of(identifier)
    return read_set(root, identifier) if os.path.isdir(os.path.join(root, identifier)) else None


def read_manifest(path: str) -> dict[str, Any]:
    """The manifest of the set in a folder. Raises BackupSetError when it is missing, damaged or of another set."""
    manifest = _read_json(os.path.join(path, MANIFEST))
    if manifest is None:
        raise BackupSetError(f"{path} has no {MANIFEST}")
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        raise BackupSetError(f"{path}/{MANIFEST} has format {manifest.get('format')!r}, this release reads {FORMAT}")
    if manifest.get("id") != os.path.basename(path):
        raise BackupSetError(f"{path}/{MANIFEST} is that of set {manifest.get('id')!r}")
    if not _well_formed(manifest):
        raise BackupSetError(f"{path}/{MANIFEST} does not list files and parts as a manifest does")
    return manifest


def read_parts(path: str) -> list[dict[str, Any]]:
    """The parts that the manifest in a folder tells, whatever the folder is called; none when it cannot be read."""
    try:
        manifest = _read_json(os.path.join(path, MANIFEST))
    except BackupSetError:
        return []
    return list(manifest["parts"]) if manifest is not None and _well_formed(manifest) else []


def read_verification(path: str) -> dict[str, Any]:
    """What ``verification.json`` holds: judgements in the order they were made."""
    verification = _read_json(os.path.join(path, VERIFICATION))
    if verification is None:
        return {"format": FORMAT, "judgements": []}
    judgements = verification.get("judgements")
    if not isinstance(judgements, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("level"), int) and {"at", "result"} <= set(entry)
        for entry in judgements
    ):
        raise BackupSetError(f"{path}/{VERIFICATION} does not list judgements as it should")
    return verification


def standing(judgements: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The judgement that verifies a set and the one that fails it, each None when there is none.

    Judgements count in the order they were made. A failure is overcome only by a later pass of the same level or a
    higher one, and takes with it what was proved before at its level and above.
    """
    passed: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    for entry in judgements:
        if entry["result"] == "passed":
            passed = entry if passed is None or entry["level"] >= passed["level"] else passed
            failed = None if failed is not None and entry["level"] >= failed["level"] else failed
        elif entry["result"] == "failed":
            failed = entry
            passed = None if passed is not None and passed["level"] >= entry["level"] else passed
    return passed, failed


def drill_that_stands(judgements: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last drill that passed, unless something failed after it."""
    last: dict[str, Any] | None = None
    for entry in judgements:
        if entry["result"] == "failed":
            last = None
        elif entry["result"] == "passed" and entry["level"] == DRILL_LEVEL:
            last = entry
    return last


def proves(entry: dict[str, Any], level: int) -> bool:
    """Whether a judgement is a pass of some level. Who passes a higher one passes the lower ones too.

    A drill proves all but the comparison with the live server (level 4), which it does not ask.
    """
    if entry["result"] != "passed":
        return False
    return entry["level"] == level or (entry["level"] > level and (entry["level"] != DRILL_LEVEL or level < LEVELS[-1]))


def last_of_level(judgements: list[dict[str, Any]], level: int) -> dict[str, Any] | None:
    """The last judgement that says something of a level, in brief: level, result, at, reason."""
    saying = [entry for entry in judgements if entry["level"] == level or proves(entry, level)]
    if not saying:
        return None
    return {"level": level, **{key: saying[-1].get(key, "") for key in ("result", "at", "reason")}}


def last_drill(judgements: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last drill: at, result, reason and its figures."""
    drills = [entry for entry in judgements if entry["level"] == DRILL_LEVEL]
    if not drills:
        return None
    figures = dict.fromkeys(("rto_seconds", "rpo_seconds", "rpo_bytes"))
    told = {key: drills[-1].get(key, "") for key in ("result", "at", "reason")}
    return {**told, **figures, "parts": [], **drills[-1].get("drill", {})}


def digests_of(judgements: list[dict[str, Any]]) -> dict[str, str]:
    """The digest of the data in each part, as it was first told by a verification that passed."""
    digests: dict[str, str] = {}
    for entry in judgements:
        if entry["result"] == "passed":
            digests = {**entry.get("digests", {}), **digests}
    return digests


def newest(sets: Sequence[BackupSet], accept: str) -> BackupSet | None:
    """The newest that meets ``complete``, ``verified`` or ``drilled``, of a list that is sorted newest first.

    Safety sets are none of these: they hold what a recovery was to replace, and serve its way back alone.
    """
    return next((entry for entry in sets if entry.meets(accept) and not entry.safety), None)


def walk(path: str) -> Iterator[tuple[str, str]]:
    """Name relative to the set and full path of everything in it that is no folder, in a fixed order."""
    for folder, folders, files in os.walk(path):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted(files + links):
            file = os.path.join(folder, name)
            yield os.path.relpath(file, path), file


def is_temporary(file: str, *names: str) -> bool:
    """Whether a file is what a killed process left when it wrote one of some names (see ``_files.published``)."""
    found = os.path.basename(file)
    return found.endswith(PARTIAL) and any(found.startswith(f".{name}.") for name in names)


def remove_temporaries(folder: str, *names: str) -> None:
    """Remove what killed processes left when they wrote some names, where nobody else writes them now."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if is_temporary(name, *names):
            os.unlink(os.path.join(folder, name))


def newest_change(path: str) -> float:
    """Unix time of the last change below a folder: tells whether somebody still writes there."""
    changes = [os.lstat(file).st_mtime for _name, file in walk(path)]
    folders = [os.lstat(folder).st_mtime for folder, _folders, _files in os.walk(path)]
    return max(changes + folders, default=0.0)


def _is_set(name: str) -> bool:
    return is_id(name[: -len(PARTIAL)] if name.endswith(PARTIAL) else name)


def _well_formed(manifest: dict[str, Any]) -> bool:
    files, parts = manifest.get("files"), manifest.get("parts")
    return (
        isinstance(files, dict)
        and isinstance(parts, list)
        and all(_is_file_entry(entry) for entry in files.values())
        and all(_is_part_entry(entry, files) for entry in parts)
    )


def _is_file_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _is_part_entry(entry: Any, files: dict[str, Any]) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and entry.get("path") in files
        and (not entry.get("manifest") or entry["manifest"] in files)
        and isinstance(entry.get("details"), dict)
    )


def _read_json(path: str) -> dict[str, Any] | None:
    """A JSON object, or None when the file is not there. Raises BackupSetError when it holds anything else."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise BackupSetError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BackupSetError(f"{path} holds no JSON object")
    return content


def _described(
    path: str, manifest: dict[str, Any], verification: dict[str, Any], hold: dict[str, Any] | None
) -> BackupSet:
    judgements = verification["judgements"]
    passed, failed = standing(judgements)
    state = "complete"
    if failed is not None:
        state = "failed"
    elif passed is not None and passed["level"] >= VERIFIED_LEVEL:
        state = "verified"
    return BackupSet(
        manifest["id"],
        path,
        state,
        files=manifest["files"],
        parts=manifest["parts"],
        bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
        site=manifest.get("site", ""),
        completed_at=manifest.get("completed_at", ""),
        verified_level=passed["level"] if passed else 0,
        verified_at=passed["at"] if passed else "",
        drilled_at=(drill_that_stands(judgements) or {}).get("at", ""),
        judgements=judgements,
        held=hold is not None,
        hold_reason=str((hold or {}).get("reason", "")),
        hold_until=str((hold or {}).get("until", "")),
        safety=bool((hold or {}).get("safety", False)),
        problem=failed.get("reason", "") if failed else "",
    )
