# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be found out about backup sets by looking at them: their bytes, their age, their size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    ADMINISTRATION,
    CLOCK_TOLERANCE,
    HOLD,
    MANIFEST,
    MANIFEST_DIGEST,
    VERIFICATION,
    BackupSet,
    is_temporary,
    newest,
    read_verification,
    walk,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import (
    Store,
    leftovers,
)
from ansible_collections.upkeep.ops.plugins.module_utils._files import sha256_of
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._lock import read_lock
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: The subject of findings about the set as a whole; parts are their own subjects.
SUBJECT = "backup"
#: How many good sets before the newest one tell what size is usual.
_PREDECESSORS = 5
_RUN_AGAIN = "Run the role database_backup and read what it says"


@dataclass(frozen=True)
class Expectations:
    """What the newest set should be like. Ages in seconds, None for no limit; ``max_shrink`` in percent."""

    parts: Sequence[str]
    warning_age: float | None
    max_age: float | None
    max_shrink: float
    leftover_age: float


# --- bytes ---------------------------------------------------------------------------------------------------------


def check_bytes(found: FindingsBuilder, entry: BackupSet) -> None:
    """Level 1: the manifest is the one that was written, and every file has its size and sha256."""
    manifest_problem = entry.problem if not entry.files else _manifest_problem(entry.path)
    if manifest_problem:
        hint = "Do not restore from this set; keep it for a look and take a new one"
        found.add("backup_manifest", SUBJECT, "critical", f"set {entry.id}: {manifest_problem}", hint=hint)
    else:
        found.add("backup_manifest", SUBJECT, "ok", f"set {entry.id}: the manifest is as it was written")
    if not entry.files:
        return
    problems = {name: _file_problem(os.path.join(entry.path, name), known) for name, known in entry.files.items()}
    present = {name for name, _file in walk(entry.path)}
    for name in sorted(present - set(entry.files) - ADMINISTRATION):
        if not is_temporary(name, VERIFICATION, HOLD):
            problems[name] = "is not in the manifest"
    told: set[str] = set()
    for part in entry.parts:
        names = {part["path"], part.get("manifest") or part["path"]}
        told |= names
        _tell_bytes(found, entry, part["name"], {name: problems.get(name, "") for name in names})
    rest = {name: problem for name, problem in problems.items() if name not in told}
    if rest:
        _tell_bytes(found, entry, SUBJECT, rest)


def _tell_bytes(found: FindingsBuilder, entry: BackupSet, subject: str, problems: Mapping[str, str]) -> None:
    bad = [f"{name} {problem}" for name, problem in sorted(problems.items()) if problem]
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        hint = "Do not restore it from this set; look for the cause on this disk and take a new set"
        found.add("backup_bytes", subject, "critical", f"set {entry.id}: {shown}", hint=hint)
        return
    total = sum(int(entry.files[name]["bytes"]) for name in problems)
    summary = f"set {entry.id}: {total} bytes are as they were written"
    found.add("backup_bytes", subject, "ok", summary, value=total, unit="B")


def _manifest_problem(path: str) -> str:
    """Why the manifest is not the one that was written with the set; empty when it is."""
    actual = sha256_of(os.path.join(path, MANIFEST))
    try:
        with open(os.path.join(path, MANIFEST_DIGEST), encoding="utf-8", errors="replace") as stream:
            written = stream.read().split()[:1]
    except FileNotFoundError:
        return f"{MANIFEST_DIGEST} is missing"
    recorded = read_verification(path).get("manifest_sha256", actual)
    if written != [actual]:
        return f"{MANIFEST} was changed after the set was completed: it does not match {MANIFEST_DIGEST}"
    if recorded != actual:
        return f"{MANIFEST} was changed after the set was verified: it does not match {VERIFICATION}"
    return ""


def _file_problem(file: str, known: Mapping[str, Any]) -> str:
    try:
        there = os.lstat(file)
        if not stat.S_ISREG(there.st_mode):
            return "is no regular file"
        if there.st_size != known["bytes"]:
            return f"has {there.st_size} bytes instead of {known['bytes']}"
        return "" if sha256_of(file) == known["sha256"] else "has another sha256 than when it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


# --- the newest set among the others ---------------------------------------------------------------------------------


def check_newest(found: FindingsBuilder, store: Store, sets: Sequence[BackupSet], expected: Expectations) -> None:
    """Is there a good set, young enough, with all its parts, of a usual size, and nothing left lying about?"""
    done = [entry for entry in sets if entry.state != "partial"]
    best = newest(done, "complete")
    _check_present(found, store, done, best)
    if best is not None:
        _check_age(found, best, expected, store.clock())
        _check_parts(found, best, expected.parts)
        _check_sizes(found, best, [entry for entry in done if entry.good and entry.id < best.id], expected.max_shrink)
    _check_leftovers(found, store, expected.leftover_age)


def _check_present(found: FindingsBuilder, store: Store, done: Sequence[BackupSet], best: BackupSet | None) -> None:
    if not done:
        summary = f"there is no complete backup set below {store.root}"
        found.add("backup_present", SUBJECT, "critical", summary, hint=_RUN_AGAIN)
    elif best is None or done[0].id != best.id:
        instead = f"the newest good one is {best.id}" if best else "there is no good one"
        summary = f"the newest set {done[0].id} failed its verification ({done[0].problem}); {instead}"
        found.add("backup_present", SUBJECT, "critical", summary, hint=_RUN_AGAIN)
    else:
        found.add("backup_present", SUBJECT, "ok", f"the newest set is {best.id}, {best.state}")


def _check_age(found: FindingsBuilder, best: BackupSet, expected: Expectations, now: datetime) -> None:
    age = best.age(now)
    if age < -CLOCK_TOLERANCE:
        summary = f"set {best.id} is dated {format_duration(-age)} in the future: its age cannot be told"
        hint = "Check the clock of this host, then take a new set"
        found.add("backup_age", SUBJECT, "unknown", summary, value=int(age), unit="s", hint=hint)
        return
    limits = (("critical", expected.max_age), ("warning", expected.warning_age))
    status, limit = next(
        ((status, limit) for status, limit in limits if limit is not None and age > limit),
        ("ok", expected.warning_age if expected.warning_age is not None else expected.max_age),
    )
    allowed = f", {format_duration(limit)} are allowed" if limit is not None else ""
    summary = f"the newest good set {best.id} is {format_duration(age)} old{allowed}"
    hint = "" if status == "ok" else "See why the last backup did not run, or take a new set"
    found.add("backup_age", SUBJECT, status, summary, value=int(age), unit="s", threshold=limit, hint=hint)


def _check_parts(found: FindingsBuilder, best: BackupSet, names: Iterable[str]) -> None:
    for name in names:
        if best.part(name) is None:
            hint = "See the variables of database_backup: it is left out there; then take a new set"
            found.add("backup_part", name, "critical", f"set {best.id} does not hold {name}", hint=hint)
        else:
            found.add("backup_part", name, "ok", f"set {best.id} holds {name}")


def _check_sizes(found: FindingsBuilder, best: BackupSet, before: Sequence[BackupSet], max_shrink: float) -> None:
    """Compare each part with the median of its predecessors: a backup of half the data looks whole by itself."""
    for part in best.parts:
        older = [_size(entry, other)[0] for entry, other in _paired(before, part["name"])]
        if not older:
            continue
        size, unit = _size(best, part)
        usual = median(older)
        threshold = round(usual * (1 - max_shrink / 100), 1)
        status = "warning" if size < threshold else "ok"
        hint = "Compare with the database: was data deleted, or is the backup incomplete?" if status != "ok" else ""
        summary = f"set {best.id} holds {size} {unit}, its predecessors {usual:.0f}"
        details = {"value": size, "unit": unit, "threshold": threshold, "hint": hint}
        found.add("backup_size", part["name"], status, summary, **details)


def _paired(sets: Sequence[BackupSet], name: str) -> list[tuple[BackupSet, dict[str, Any]]]:
    return [(entry, part) for entry in sets[:_PREDECESSORS] if (part := entry.part(name)) is not None]


def _size(entry: BackupSet, part: Mapping[str, Any]) -> tuple[int, str]:
    """Documents where the part only records what lies elsewhere, else the bytes of its file."""
    documents = part["details"].get("documents")
    if isinstance(documents, int):
        return documents, "documents"
    return int(entry.files[part["path"]]["bytes"]), "B"


def _check_leftovers(found: FindingsBuilder, store: Store, leftover_age: float) -> None:
    left = leftovers(store)
    if left:
        names = ", ".join(entry.id for entry in left)
        hint = (
            f"The next successful backup removes what is untouched for {format_duration(leftover_age)}; "
            "see why that run ended"
        )
        summary = f"{len(left)} unfinished {'set' if len(left) == 1 else 'sets'} of dead runs: {names}"
        found.add("backup_leftovers", SUBJECT, "warning", summary, value=len(left), hint=hint)
        return
    lock = read_lock(store.lock_path)
    working = f"; set {lock.subject} is being made by {lock.describe(store.clock())}" if lock is not None else ""
    found.add("backup_leftovers", SUBJECT, "ok", f"no dead run has left an unfinished set{working}", value=0)
