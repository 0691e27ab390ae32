# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes the backup sets that no rule keeps, and remembers which exports in buckets are left of them.

A set loses its name first, by one rename, to ``.<id>.expired``. Then its files go, all but the manifest while that
names exports which still lie in a bucket: whoever removes those says so with :func:`finish`. A process that is killed
in between leaves nothing that could be taken for a set, and the next one goes on where it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    MANIFEST,
    BackupSet,
    moment_of,
    read_parts,
    read_sets,
    walk,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import Store
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import IN_USE, removing
from ansible_collections.upkeep.ops.plugins.module_utils._files import sync_folder
from ansible_collections.upkeep.ops.plugins.module_utils._retention import Decision, Policy, plan

_EXPIRED = re.compile(r"\.([0-9]{8}T[0-9]{6}Z)\.expired")


@dataclass(frozen=True)
class Retention:
    """What was decided, and done unless in check mode. ``expired`` are sets of which exports are left in buckets."""

    decisions: list[Decision]
    expired: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)


def apply_policy(store: Store, policy: Policy) -> Retention:
    """Remove what no rule keeps, and what an earlier process began to remove. Raises LockError and OSError."""
    with store.exclusive():
        sets = read_sets(store.root)
        resumed = [name for name in _expired(store.root) if not _is_stripped(_hidden(store.root, name))]
        decisions = [_carried_out(store, decision) for decision in plan(sets, policy, store.clock())]
        doomed = [decision.entry for decision in decisions if not decision.keep]
        if not store.check:
            for identifier in _expired(store.root):
                _strip(_hidden(store.root, identifier))
        expired = {name: exports_of(read_parts(_hidden(store.root, name))) for name in _expired(store.root)}
        if store.check:
            expired.update({entry.id: exports_of(entry.parts) for entry in doomed})
    left = {name: exports for name, exports in sorted(expired.items()) if exports}
    known = sorted({entry.id for entry in sets} | set(left))
    return Retention(decisions, left, known, resumed)


def finish(store: Store, identifiers: Iterable[str]) -> list[str]:
    """Forget sets whose exports are removed; those that were still remembered. Raises BackupSetError and OSError."""
    done = []
    with store.exclusive():
        for identifier in identifiers:
            moment_of(identifier)
            if os.path.isdir(_hidden(store.root, identifier)):
                done.append(identifier)
                if not store.check:
                    shutil.rmtree(_hidden(store.root, identifier))
    return done


def exports_of(parts: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Part and address of each export that a set only records, and that lies in a bucket."""
    found = []
    for part in parts:
        uri = part["details"].get("output_uri_prefix")
        if isinstance(uri, str) and uri.startswith("gs://"):
            found.append({"part": str(part["name"]), "uri": uri})
    return found


def _hidden(root: str, identifier: str) -> str:
    return os.path.join(root, f".{identifier}.expired")


def _expired(root: str) -> list[str]:
    """Ids of the sets that are being removed."""
    names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(found[1] for name in names if (found := _EXPIRED.fullmatch(name)))


def _carried_out(store: Store, decision: Decision) -> Decision:
    """The decision after a set that goes has lost its name; one that is in use stays for now."""
    if decision.keep:
        return decision
    with removing(decision.entry.path) as unused:
        if unused and not store.check:
            _take_name(store.root, decision.entry)
    return decision if unused else replace(decision, keep=True, in_use=True, reason=f"{IN_USE}; {decision.reason}")


def _take_name(root: str, entry: BackupSet) -> None:
    os.rename(entry.path, _hidden(root, entry.id))
    sync_folder(root)


def _is_stripped(path: str) -> bool:
    """Whether nothing is left to do but the removal of the exports."""
    return [name for name, _file in walk(path)] == [MANIFEST] and bool(exports_of(read_parts(path)))


def _strip(path: str) -> None:
    """Remove all of a set without a name but the manifest that tells where its exports are, or all of it."""
    if not exports_of(read_parts(path)):
        shutil.rmtree(path)
        return
    for name, file in list(walk(path)):
        if name != MANIFEST:
            os.unlink(file)
    for folder, _folders, _files in os.walk(path, topdown=False):
        if folder != path:
            os.rmdir(folder)


def told(retention: Retention) -> dict[str, Any]:
    """The answer of the module."""
    sets = {
        keep: [
            {
                "id": decision.entry.id,
                "state": decision.entry.state,
                "bytes": decision.entry.bytes,
                "reason": decision.reason,
            }
            for decision in retention.decisions
            if decision.keep == keep
        ]
        for keep in (True, False)
    }
    kept, removed = sets[True], sets[False]
    return {
        "changed": bool(removed or retention.resumed),
        "msg": f"{len(kept)} backup {'set is' if len(kept) == 1 else 'sets are'} kept, {len(removed)} removed",
        "kept": kept,
        "removed": removed,
        "resumed": retention.resumed,
        "in_use": [decision.entry.id for decision in retention.decisions if decision.in_use],
        "expired": [{"set": name, **export} for name, exports in retention.expired.items() for export in exports],
        "known": retention.known,
        "diff": {
            "before": {"sets": sorted(entry["id"] for entry in kept + removed)},
            "after": {"sets": sorted(entry["id"] for entry in kept)},
        },
    }
