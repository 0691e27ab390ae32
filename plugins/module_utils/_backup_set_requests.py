# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of backup_set, from its options to its answer. ``params`` are the options of the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    DRILL_LEVEL,
    BackupSet,
    BackupSetError,
    find_set,
    moment_of,
    newest,
    read_sets,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import (
    Change,
    Contents,
    Hold,
    Store,
    abandon_set,
    complete_set,
    hold_set,
    open_set,
    remove_set,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_judgements import judge_set
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_schedule import due_level, parse_periods
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_verification import (
    Expectations,
    check_bytes,
    check_newest,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._lock import Lock, read_lock
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, parse_time


def carry_out(
    store: Store, params: Mapping[str, Any], owner: str, tools: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Do what a state that changes something asks for; the answer and the warnings.

    Raises BackupSetError, LockError, OSError, and ValueError for what is no duration.
    """
    change = _steps(store, params, owner, tools)[params["state"]]()
    answer = {
        "changed": change.changed,
        "msg": change.message,
        "set": _told(change.backup_set, store),
        "diff": {"before": change.before, "after": change.after},
    }
    if params["state"] == "open":
        answer.update(due=change.due, owner=change.owner)
    if params["state"] in ("judged", "drilled"):
        answer["result"] = change.result
    return answer, change.warnings


def _steps(
    store: Store, params: Mapping[str, Any], owner: str, tools: Mapping[str, str]
) -> dict[str, Callable[[], Change]]:
    identifier = params["id"] or ""
    contents = Contents(params["parts"], params["site"], tools)
    return {
        "open": lambda: open_set(
            store,
            owner,
            _age(params, "max_age"),
            params["accept_state"] or "verified",
            parse_duration(params["lock_timeout"]),
        ),
        "complete": lambda: complete_set(store, identifier, owner, contents, parse_duration(params["leftover_age"])),
        "abandoned": lambda: abandon_set(store, identifier, owner, params["force"]),
        "judged": lambda: judge_set(store, identifier, params["level"], params["findings"], digests=params["digests"]),
        "drilled": lambda: judge_set(store, identifier, DRILL_LEVEL, params["findings"], params["drill"]),
        "held": lambda: hold_set(store, identifier, Hold(params["reason"], _age(params, "hold_for"), params["safety"])),
        "unheld": lambda: hold_set(store, identifier, None),
        "absent": lambda: remove_set(store, identifier, params["force"]),
    }


def find(store: Store, params: Mapping[str, Any]) -> dict[str, Any]:
    """The sets below the root that are asked for, and who works there.

    Raises BackupSetError for an id that is none, LockError, OSError, and ValueError for what is no time or duration.
    """
    wanted = _wanted(store, params)
    sets = [entry for entry in read_sets(store.root) if wanted(entry)]
    best, proved, drilled = newest(sets, "complete"), newest(sets, "verified"), newest(sets, "drilled")
    chosen = best if params["id"] is None else next(iter(sets), None)
    return {
        "changed": False,
        "msg": f"{len(sets)} backup set" + ("" if len(sets) == 1 else "s"),
        "set": _told(chosen, store),
        "sets": [_told(entry, store) for entry in sets],
        "newest": best.id if best else "",
        "newest_verified": proved.id if proved else "",
        "newest_drilled": drilled.id if drilled else "",
        "lock": _told_lock(read_lock(store.lock_path), store),
    }


def _wanted(store: Store, params: Mapping[str, Any]) -> Callable[[BackupSet], bool]:
    """Whether a set is one of those that are asked for."""
    identifier, accept, max_age = params["id"], params["accept_state"], _age(params, "max_age")
    before = parse_time(params["before"]) if params["before"] else None
    if identifier is not None:
        moment_of(identifier)

    def wanted(entry: BackupSet) -> bool:
        return (
            identifier in (None, entry.id)
            and (accept is None or entry.meets(accept))
            and (max_age is None or entry.age(store.clock()) <= max_age)
            # What was completed later may hold what was written later.
            and (before is None or (entry.completed_at != "" and parse_time(entry.completed_at) < before))
        )

    return wanted


@dataclass(frozen=True)
class Look:
    """What ``checked`` found: the set, findings about it and its neighbours, and the level that is due."""

    findings: list[Finding]
    backup_set: dict[str, Any] | None
    due_level: int


def check(store: Store, params: Mapping[str, Any]) -> Look:
    """Look at the set of an id, or at the newest one among the others.

    With ``verification`` the bytes are read only when a level is due.
    Raises BackupSetError when there is no set of that id, LockError, OSError, and ValueError for what is no duration.
    """
    found = FindingsBuilder(store.clock())
    periods = None if params["verification"] is None else parse_periods(params["verification"])
    sets = read_sets(store.root)
    if params["id"]:
        chosen = find_set(store.root, params["id"])
        if chosen is None:
            raise BackupSetError(f"there is no complete set {params['id']} below {store.root}")
    else:
        usual = [entry for entry in sets if not entry.safety]
        chosen = next((entry for entry in usual if entry.state != "partial"), None)
        check_newest(found, store, usual, _expectations(params))
    due = 0 if chosen is None or periods is None else due_level(chosen, sets, periods, store.clock())
    if chosen is not None and (periods is None or due):
        with reading(chosen.path):
            check_bytes(found, chosen)
    return Look(found.findings, _told(chosen, store), due)


def _expectations(params: Mapping[str, Any]) -> Expectations:
    return Expectations(
        params["required_parts"],
        _age(params, "warning_age"),
        _age(params, "max_age"),
        params["max_shrink"],
        parse_duration(params["leftover_age"]),
    )


def _age(params: Mapping[str, Any], option: str) -> float | None:
    return None if params[option] is None else parse_duration(params[option])


def _told(entry: BackupSet | None, store: Store) -> dict[str, Any] | None:
    return None if entry is None else entry.as_dict(store.clock())


def _told_lock(lock: Lock | None, store: Store) -> dict[str, Any] | None:
    if lock is None:
        return None
    return {
        "set": lock.subject,
        "owner": lock.owner,
        "host": lock.place.host,
        "pid": lock.pid,
        "taken_at": lock.taken_at,
        "age": int((store.clock() - parse_time(lock.taken_at)).total_seconds()),
        "gone": store.gone(lock),
    }
