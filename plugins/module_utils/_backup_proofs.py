# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether backups can be restored, in words, from the verifications and drills that the history holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import VERIFIED_LEVEL
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

_LEVELS = {1: "bytes", 2: "format", 3: "load", 4: "comparison with the live server"}


def backup_proofs(
    verifications: Sequence[Mapping[str, Any]], drills: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each host that keeps backups ``{host, status, summary, lines}``: the verdict, and what it rests on."""
    hosts = dict.fromkeys(str(entry["host"]) for entry in [*verifications, *drills])
    return [
        _of_host(
            host,
            [entry for entry in verifications if entry["host"] == host],
            [entry for entry in drills if entry["host"] == host],
        )
        for host in sorted(hosts)
    ]


def _of_host(
    host: str, verifications: Sequence[Mapping[str, Any]], drills: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    proofs = [entry for entry in verifications if entry["result"] == "passed" and int(entry["level"]) >= VERIFIED_LEVEL]
    # Of one verification the highest level tells most.
    proof = max(proofs, key=lambda entry: (entry["at"], entry["level"]), default=None)
    proved = (
        f"can be restored: proved {_when(proof['at'])} by level {proof['level']}"
        if proof
        else f"not proved to be restorable: nothing has passed level {VERIFIED_LEVEL} yet"
    )
    failed = [entry for entry in [*verifications, *drills] if entry["result"] == "failed" and _later(entry, proof)]
    if proof and failed:
        last = max(failed, key=lambda entry: entry["at"])
        proved += f", but {'level ' + str(last['level']) if 'level' in last else 'a drill'} failed {_when(last['at'])}"
    status = "critical" if failed else "ok" if proof else "unknown"
    lines = [_verification(entry) for entry in verifications] + [_drill(entry) for entry in drills]
    return {"host": host, "status": status, "summary": f"{proved}; {_last_drill(drills)}", "lines": lines}


def _later(entry: Mapping[str, Any], proof: Mapping[str, Any] | None) -> bool:
    return proof is None or entry["at"] > proof["at"]


def _last_drill(drills: Sequence[Mapping[str, Any]]) -> str:
    if not drills:
        return "no drill yet"
    last = drills[0]
    told = f"last drill {_when(last['at'])}" + ("" if last["result"] == "passed" else f" ({last['result']})")
    return told + ("" if last.get("rto_seconds") is None else f", RTO {format_duration(last['rto_seconds'])}")


def _verification(entry: Mapping[str, Any]) -> str:
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    level = int(entry["level"])
    named = f"level {level} ({_LEVELS[level]})" if level in _LEVELS else f"level {level}"
    return f"{named} {entry['result']} {_when(entry['at'])}, set {entry['set']}{reason}"


def _drill(entry: Mapping[str, Any]) -> str:
    figures = [
        f"{name} {format_duration(entry[key])}"
        for key, name in (("rto_seconds", "RTO"), ("rpo_seconds", "RPO"))
        if entry.get(key) is not None
    ]
    return ", ".join([f"drill {entry['result']} {_when(entry['at'])}, set {entry['set']}", *figures])


def _when(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"
