# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: what was expected, what came of it, and the verdict. Pure data, no storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar

from ansible_collections.upkeep.ops.plugins.module_utils._findings import STATUSES, Finding, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: Checks that the run itself makes about its procedures and hosts.
PROCEDURE_CHECK = "procedure"
HOST_CHECK = "host_answers"

_FINDING_FIELDS = tuple(item.name for item in fields(Finding))

#: The fields of a finding that say what explains it, for :func:`by_cause`.
CAUSE_FIELDS = ("procedure", "host", "subject", "parent")

#: What a verification or a drill of a backup set can end with, and the figures of a drill that may be null.
PROOF_RESULTS = ("passed", "failed", "unknown")
DRILL_FIGURES = ("rto_seconds", "rpo_seconds", "rpo_bytes")

#: What a service is seen to be.
OBSERVED_STATES = ("up", "down", "unknown")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome:
    """What one procedure did on one host. ``status`` is the worst of its findings; ``seconds`` its duration."""

    procedure: str
    host: str
    started_at: str
    seconds: float
    failed: bool = False
    error: str = ""
    findings: tuple[Finding, ...] = ()
    changes: tuple[str, ...] = ()
    artifacts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return worst(finding.status for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For results and reports, without the findings, which stand in one list of their own."""
        told = {key: value for key, value in asdict(self).items() if key != "findings"}
        return {**told, "changes": list(self.changes), "changed": bool(self.changes), "status": self.status}


def outcome_from(procedure: str, host: str, raw: Mapping[str, Any]) -> Outcome:
    """The outcome that the wrapper role kept as a fact, with its findings claimed for procedure and host.

    A finding that breaks the contract raises ValueError with the procedure's name, and so does a metric.
    """
    artifacts = dict(raw.get("artifacts") or {})
    for name, value in (artifacts.get("metrics") or {}).items():
        if not isinstance(value, (int, float)):
            raise ValueError(f"the metric {name} of procedure {procedure} on {host} is no number: {value!r}")
    _check_proofs(artifacts)
    _check_observations(artifacts)
    findings = tuple(finding_from(procedure, host, item) for item in raw.get("findings") or [])
    failed = bool(raw.get("failed"))
    error = str(raw.get("error") or "")
    own = _procedure_finding(procedure, host, str(raw["started_at"]), failed, error)
    return Outcome(
        procedure=procedure,
        host=host,
        started_at=str(raw["started_at"]),
        seconds=float(raw.get("seconds") or 0),
        failed=failed,
        error=error,
        findings=(own, *findings),
        changes=tuple(str(item) for item in raw.get("changes") or []),
        artifacts=artifacts,
    )


def _check_proofs(artifacts: Mapping[str, Any]) -> None:
    """Verifications and drills of backup sets as the history keeps them. Raises ValueError with what is malformed."""
    for kind in ("verifications", "drills"):
        for entry in artifacts.get(kind) or []:
            if not isinstance(entry, Mapping) or not {"set", "at", "result"} <= set(entry):
                raise ValueError(f"each of the {kind} needs set, at and result, not {entry!r}")
            if entry["result"] not in PROOF_RESULTS:
                raise ValueError(
                    f"the result {entry['result']!r} among the {kind} is none of {', '.join(PROOF_RESULTS)}"
                )
            parse_time(str(entry["at"]))
            if kind == "verifications":
                int(entry.get("level", ""))
            for name in DRILL_FIGURES:
                float(entry.get(name) or 0)


def _check_observations(artifacts: Mapping[str, Any]) -> None:
    """Observations of services and waiting security updates. Raises ValueError with what is malformed."""
    for seen in artifacts.get("observations") or []:
        if not isinstance(seen, Mapping) or not {"subject", "state", "at"} <= set(seen):
            raise ValueError(f"each of the observations needs subject, state and at, not {seen!r}")
        if seen["state"] not in OBSERVED_STATES:
            raise ValueError(f"the state {seen['state']!r} is none of {', '.join(OBSERVED_STATES)}")
        parse_time(str(seen["at"]))
    for update in artifacts.get("security_updates") or []:
        if not isinstance(update, Mapping) or not {"package", "available"} <= set(update):
            raise ValueError(f"each of the security_updates needs package and available, not {update!r}")


def finding_from(procedure: str, host: str, raw: Mapping[str, Any]) -> Finding:
    """A finding as a module returned it, claimed for procedure and host. Raises ValueError when it is malformed."""
    known = {key: value for key, value in raw.items() if key in _FINDING_FIELDS}
    try:
        nested = [key for key, value in known.items() if value is not None and not isinstance(value, (str, int, float))]
        if nested:
            raise ValueError(f"{', '.join(nested)} must be a text or a number")
        return Finding(**{**known, "procedure": procedure, "host": host})
    except (TypeError, ValueError) as error:
        raise ValueError(f"a finding of procedure {procedure} on {host} is malformed: {error}") from error


def _procedure_finding(procedure: str, host: str, at: str, failed: bool, error: str) -> Finding:
    if failed:
        told = f"failed: {error or 'no reason was given'}"
        hint = f"Mend the cause and run it again: --tags {procedure}"
        return Finding(PROCEDURE_CHECK, procedure, "critical", told, at, hint=hint, procedure=procedure, host=host)
    return Finding(PROCEDURE_CHECK, procedure, "ok", "ran to its end", at, procedure=procedure, host=host)


def presence_findings(
    expected: Mapping[str, Sequence[str]], outcomes: Iterable[Outcome], now: datetime
) -> list[Finding]:
    """Whether each expected host answered and each expected procedure left an outcome.

    What left none is unknown: nothing that was not measured is called ok. A host without any outcome gets one
    finding of its own, under which its missing procedures are told.
    """
    seen = {(outcome.procedure, outcome.host) for outcome in outcomes}
    answering = {host for _procedure, host in seen}
    at = isoformat(now)
    found = [_host_finding(host, host in answering, at) for host in _hosts(expected)]
    for procedure, hosts in expected.items():
        for host in hosts:
            if (procedure, host) not in seen:
                found.append(_missing(procedure, host, at, parent="" if host in answering else host))
    return found


def _host_finding(host: str, answers: bool, at: str) -> Finding:
    if answers:
        return Finding(HOST_CHECK, host, "ok", "answered", at, procedure="run", host=host)
    told = "could not be reached: nothing was measured on it"
    hint = f"Try: ansible {host} -m ansible.builtin.ping"
    return Finding(HOST_CHECK, host, "unknown", told, at, hint=hint, procedure="run", host=host)


def _missing(procedure: str, host: str, at: str, parent: str) -> Finding:
    told = f"did not run on {host}: the host was lost before it"
    hint = f"Run it again when the host answers: --tags {procedure}"
    return Finding(
        PROCEDURE_CHECK, procedure, "unknown", told, at, hint=hint, parent=parent, procedure=procedure, host=host
    )


def _hosts(expected: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(host for hosts in expected.values() for host in hosts))


def count_statuses(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each status, all four named."""
    counts = dict.fromkeys(STATUSES, 0)
    for finding in findings:
        counts[finding.status] += 1
    return counts


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The order of reports: by severity, then procedure, host and subject."""
    return sorted(
        findings,
        key=lambda item: (-rank(item.status), item.procedure, item.host, item.parent, item.subject, item.check),
    )


def by_cause(
    unwell: Sequence[Item],
    fields_of: Callable[[Item], Sequence[str]],
    told: Callable[[Item], bool] = lambda _item: True,
) -> list[tuple[Item, list[Item]]]:
    """What has to be told, each with everything that it explains, also over several steps; in the order given.

    ``fields_of`` gets :data:`CAUSE_FIELDS` from an item. ``told`` says what its reader hears of at all: an item is
    told under the uppermost of its causes that is told, and by itself when none of them is.
    """
    causes = _causes([tuple(fields_of(item)) for item in unwell])
    under: dict[int, list[Item]] = {}
    for index, item in enumerate(unwell):
        teller, at = None, index
        while at >= 0:
            if told(unwell[at]):
                teller = at
            at = causes[at]
        if teller is not None:
            explained = under.setdefault(teller, [])
            if teller != index:
                explained.append(item)
    return [(unwell[index], under[index]) for index in sorted(under)]


def _causes(keys: Sequence[tuple[str, ...]]) -> list[int]:
    """For each item the position of the one that explains it, or -1.

    The cause is a subject of the same procedure on the same host, or the host itself when it was lost.
    """
    places: dict[tuple[str, str, str], int] = {}
    for index, (procedure, host, subject, _parent) in enumerate(keys):
        places.setdefault((procedure, host, subject), index)
    causes = [
        places.get((procedure, host, parent), places.get(("run", host, parent), -1)) if parent else -1
        for procedure, host, _subject, parent in keys
    ]
    for start in range(len(causes)):
        # Nothing explains itself, by whatever detour: the circle is opened where it closes.
        seen, at = {start}, start
        while causes[at] >= 0:
            if causes[at] in seen:
                causes[at] = -1
                break
            at = causes[at]
            seen.add(at)
    return causes
