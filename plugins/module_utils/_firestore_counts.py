# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds the documents of an export against those of the database, collection group by collection group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import ExportRequest, LiveCounts


@dataclass(frozen=True)
class Counts:
    """Documents per collection group, live and exported. ``reason`` says why nothing was compared."""

    tolerance: float
    reason: str = ""
    live: Mapping[str, int] | None = None
    exported: Mapping[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        exported = self.exported or {}
        groups = [
            {"collection": name, "live": count, "exported": exported.get(name)}
            for name, count in sorted((self.live or {}).items())
        ]
        return {"compared": not self.reason, "reason": self.reason, "tolerance": self.tolerance, "groups": groups}

    def differences(self) -> list[str]:
        """A phrase for each group whose counts differ by more than the tolerance."""
        told = []
        for name, live in sorted((self.live or {}).items()):
            exported = (self.exported or {}).get(name, 0)
            if abs(live - exported) * 100 > self.tolerance * max(live, exported):
                told.append(f"{name} has {live} documents, {exported} of them exported")
        return told


def compare_counts(
    request: ExportRequest, exported: Mapping[str, int], read_back: bool, tolerance: float, live: LiveCounts
) -> Counts:
    """Hold the counts of an export that has just been made against the database.

    ``read_back``: the export's documents were counted, so ``exported`` is complete. Raises FirestoreAccessError.
    """
    if tolerance >= 100:
        return Counts(tolerance, "count_tolerance of 100 percent accepts any")
    if request.namespace_ids:
        return Counts(tolerance, "namespace_ids are given, documents are counted in all namespaces")
    if not request.collection_ids and not read_back:
        return Counts(tolerance, "the collections are not known: neither collection_ids nor verify were given")
    names = request.collection_ids or sorted({*live.root_collections(), *exported})
    return Counts(tolerance, "", {name: live.count(name) for name in names}, exported)
