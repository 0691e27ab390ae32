# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What verifications and drills found out about a backup set, and how that is recorded in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    DRILL_LEVEL,
    FORMAT,
    LIVE_LEVEL,
    MANIFEST,
    VERIFICATION,
    BackupSet,
    BackupSetError,
    find_set,
    moment_of,
    read_verification,
    remove_temporaries,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import Change, Store
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, sha256_of
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

_MOST_REASONS = 3


def judge_set(
    store: Store,
    identifier: str,
    level: int,
    findings: Sequence[Mapping[str, Any]],
    drill: Mapping[str, Any] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Change:
    """Record in a set what a verification of some level, or a drill, found, and what follows from it.

    Passed only when every part was looked at, and no finding is unknown or critical: what nobody looked at is not
    proved. ``drill`` are the figures of a drill, whose level is DRILL_LEVEL, ``digests`` those of the data in parts.
    Raises BackupSetError when there is no such set, a finding is none, or the drill names no part of the set.
    """
    moment_of(identifier)
    if not all({"check", "subject", "status", "summary"} <= set(finding) for finding in findings):
        raise BackupSetError("every one of the findings needs check, subject, status and summary")
    with store.exclusive():
        found = find_set(store.root, identifier)
        if found is None:
            raise BackupSetError(f"there is no complete set {identifier} below {store.root}")
        result, reason = _outcome(found, level, findings, _drilled(found, drill))
        verification = _verification_of(found)
        judgements = verification["judgements"]
        told = {"findings": list(findings), **({} if drill is None else {"drill": dict(drill)})}
        if digests:
            told["digests"] = dict(digests)
        known = next((old for old in judgements if (old["level"], old["result"]) == (level, result)), None)
        if known is not None and known is judgements[-1] and told.items() <= known.items():
            return Change(
                False, f"set {identifier}: this {_result(level, result)} was recorded already", found, result=result
            )
        judgement = {"level": level, "at": isoformat(store.clock()), "result": result, "reason": reason, **told}
        verification["judgements"] = [old for old in judgements if old is not known] + [judgement]
        if not store.check:
            text = json.dumps(verification, indent=2, sort_keys=True) + "\n"
            remove_temporaries(found.path, VERIFICATION)
            publish_text(os.path.join(found.path, VERIFICATION), text)
        after = found if store.check else find_set(store.root, identifier)
    return Change(
        True,
        f"set {identifier}: {_result(level, result)}" + (f": {reason}" if reason else ""),
        after,
        before={"id": identifier, "judgements": [_brief(old) for old in judgements]},
        after={"id": identifier, "judgements": [_brief(new) for new in verification["judgements"]]},
        result=result,
    )


def _drilled(found: BackupSet, drill: Mapping[str, Any] | None) -> list[str]:
    """Names of the parts that a drill restored. Raises BackupSetError when one of them is no part of the set."""
    parts = (drill or {}).get("parts") or []
    names = [str(part.get("name") if isinstance(part, Mapping) else part) for part in parts]
    foreign = [name for name in names if found.files and found.part(name) is None]
    if foreign:
        held = ", ".join(part["name"] for part in found.parts)
        raise BackupSetError(f"set {found.id} has no part {', '.join(foreign)}, it holds {held}")
    return names


def _outcome(
    found: BackupSet, level: int, findings: Sequence[Mapping[str, Any]], drilled: Sequence[str]
) -> tuple[str, str]:
    """passed, failed or unknown, with the reason in words when it did not pass.

    Above level 1 the checks of backup_set count for nothing: equal bytes do not prove that a part can be read. Level 4
    is passed by a part that is like its live server: one that differs is a warning, and leaves open which is right.
    """
    critical = [finding for finding in findings if finding["status"] == "critical"]
    if critical:
        return "failed", _reasons(found, critical)
    unknown = [finding for finding in findings if finding["status"] == "unknown"]
    if unknown:
        return "unknown", _reasons(found, unknown)
    differing = [finding for finding in findings if level == LIVE_LEVEL and _is_live(finding)]
    differing = [finding for finding in differing if finding["status"] == "warning"]
    if differing:
        return "unknown", _reasons(found, differing)
    proved = {finding["subject"] for finding in findings if _counts(finding, level)}
    proved.update(drilled)
    missing = [part["name"] for part in found.parts if part["name"] not in proved]
    if missing or not found.parts:
        what = "the drill" if level == DRILL_LEVEL else f"level {level}"
        return "unknown", f"nothing of {what} was found out about {', '.join(missing) or 'any part'}"
    return "passed", ""


def _counts(finding: Mapping[str, Any], level: int) -> bool:
    """Whether a finding says something about a part on this level."""
    if level == LIVE_LEVEL:
        return _is_live(finding)
    return level == 1 or not finding["check"].startswith("backup_")


def _is_live(finding: Mapping[str, Any]) -> bool:
    return str(finding["check"]) in ("snapshot_live", "export_live")


def _reasons(found: BackupSet, findings: Sequence[Mapping[str, Any]]) -> str:
    """The first reason for each of the first parts; the findings themselves tell the others."""
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(finding["subject"], finding["summary"])
    told = list(first.items())[:_MOST_REASONS]
    rest = len(findings) - len(told)
    reasons = "; ".join(f"{subject}: {summary.replace(f'set {found.id}: ', '', 1)}" for subject, summary in told)
    return reasons + (f" (and {rest} more)" if rest else "")


def _result(level: int, result: str) -> str:
    return f"drill {result}" if level == DRILL_LEVEL else f"level {level} {result}"


def _brief(judgement: Mapping[str, Any]) -> str:
    return f"{_result(judgement['level'], judgement['result'])} at {judgement['at']}"


def _verification_of(found: BackupSet) -> dict[str, Any]:
    """What is recorded so far. In a damaged set whatever was recorded is worth nothing any more."""
    empty = {"format": FORMAT, "id": found.id, "judgements": []}
    if not found.files:
        return empty
    digest = sha256_of(os.path.join(found.path, MANIFEST))
    return {**empty, "manifest_sha256": digest, **read_verification(found.path)}
