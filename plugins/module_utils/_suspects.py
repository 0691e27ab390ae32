# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may have caused an outage: a ranked list, each suspect with its evidence.

A weight is no probability. It says in which order to look: what failed on its own accord and takes others with it
comes before what changed shortly before, and that before what merely looks bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time

Item = Mapping[str, Any]

_DEPENDENCY, _ITSELF = 90, 40
#: The weight of a change in what fails, and of one elsewhere on a host that runs it, right before the start.
_CHANGES = {
    "release": (95, 55),
    "container": (90, 45),
    "commit": (70, 30),
    "upload": (60, 30),
    "image": (50, 30),
    "package": (60, 60),
}
_TROUBLES = {"oom": (88, 75), "disk_error": (85, 85), "crash": (75, 50), "unit": (80, 45)}
_RESOURCES = {"critical": 80, "warning": 35}
_LOG = 45
#: A failure is noticed somewhat later than it begins, and clocks differ: so much later a change still counts.
_TOLERANCE = timedelta(minutes=1)
_HALF_LIFE = 3600.0
_MOST_LINES = 2


@dataclass
class Suspect:
    """Something that may be the cause: the heaviest piece of its evidence counts, and a little of all others."""

    kind: str
    subject: str
    host: str
    weights: list[float] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    @property
    def weight(self) -> int:
        heaviest, *others = sorted(self.weights, reverse=True)
        return min(99, round(heaviest + 0.05 * sum(others[:5])))

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "host": self.host,
            "weight": self.weight,
            "evidence": self.evidence[:5],
        }


@dataclass(frozen=True)
class Case:
    """The outage: when it began, the health findings, what hosts tell, and the services of the catalogue."""

    began: datetime
    findings: Sequence[Item]
    hosts: Mapping[str, Item]
    services: Sequence[Item]

    @property
    def failing(self) -> dict[str, Item]:
        return {str(item["subject"]): item for item in self.findings if item["status"] in ("critical", "unknown")} | {
            str(item["subject"]): item for item in self.findings if self._is_minor_failure(item)
        }

    def _is_minor_failure(self, item: Item) -> bool:
        """The failure of a service that is not critical is told as a warning."""
        minor = {str(service["name"]) for service in self.services if service.get("critical") is False}
        return item["status"] == "warning" and str(item["subject"]) in minor

    def concerns(self, name: str) -> bool:
        """Whether a name is that of something that fails, or that something that fails depends on."""
        depended = {str(need) for service in self.services if str(service["name"]) in self.failing
                    for need in service.get("depends_on") or []}  # fmt: skip
        return name in self.failing or name in depended

    def runs_here(self, host: str) -> bool:
        """Whether a host runs a service that fails; one of which nobody says where it runs, runs everywhere."""
        return any(
            host in (service.get("hosts") or [host])
            for service in self.services
            if str(service["name"]) in self.failing
        )


def rank(case: Case) -> list[dict[str, Any]]:
    """All suspects, the likeliest first."""
    found: dict[tuple[str, str, str], Suspect] = {}
    for kind, subject, host, weight, told in _evidence(case):
        suspect = found.setdefault((kind, subject, host), Suspect(kind, subject, host))
        suspect.weights.append(weight)
        suspect.evidence.append(told)
    ordered = sorted(found.values(), key=lambda item: (-item.weight, item.kind, item.subject, item.host))
    return [suspect.as_dict() for suspect in ordered]


_Piece = tuple[str, str, str, float, str]


def _evidence(case: Case) -> Iterator[_Piece]:
    yield from _of_health(case)
    for host, told in case.hosts.items():
        weight = 1.0 if case.runs_here(host) else 0.6
        for kind, subject, heaviness, text in _of_host(case, told):
            yield kind, subject, host, heaviness * weight, text


def _of_health(case: Case) -> Iterator[_Piece]:
    """What fails on its own accord; what it takes with it is evidence against it."""
    failing = case.failing
    for name, item in failing.items():
        if item.get("parent") in failing:
            yield "dependency", str(item["parent"]), "", _DEPENDENCY, f"{name} depends on it and fails too"
            continue
        is_service = name in {str(service["name"]) for service in case.services}
        kind, weight = ("service", _ITSELF) if is_service else ("dependency", _DEPENDENCY)
        yield kind, name, "", weight, str(item["summary"])


def _of_host(case: Case, told: Item) -> Iterator[tuple[str, str, float, str]]:
    for change in told.get("changes") or []:
        nearness = _nearness(case.began, str(change["at"]))
        if nearness > 0:
            yield _of_change(case, change, nearness)
    for trouble in told.get("troubles") or []:
        yield _of_trouble(case, trouble)
    for item in told.get("findings") or []:
        if item["status"] in _RESOURCES:
            yield "resource", f"{item['check']} {item['subject']}", _RESOURCES[item["status"]], str(item["summary"])
    for log in told.get("logs") or []:
        grown = log["after"] / (log["before"] + 1)
        if grown >= 2:
            weight = _LOG + (10 if _names(case, str(log["path"])) else 0)
            told_lines = "; ".join(f"{line['count']} times {line['text']}" for line in log["lines"][:_MOST_LINES])
            yield (
                "log",
                str(log["path"]),
                weight,
                f"{log['after']} errors since then, {log['before']} before: {told_lines}",
            )


def _of_change(case: Case, change: Item, nearness: float) -> tuple[str, str, float, str]:
    own, other = _CHANGES[str(change["kind"])]
    weight = own if case.concerns(str(change.get("service") or change["subject"])) else other
    apart = (case.began - parse_time(str(change["at"]))).total_seconds()
    when = f"{format_duration(apart)} before the start" if apart >= 0 else "when it began"
    # Packages come in dozens at a time: together they are one suspect.
    subject = "packages" if change["kind"] == "package" else str(change["subject"])
    return str(change["kind"]), subject, weight * nearness, f"{change['summary']}, {when}"


def _of_trouble(case: Case, trouble: Item) -> tuple[str, str, float, str]:
    """A trouble of long ago weighs less; one since the start may be a consequence, but then it is worth a look, too."""
    own, other = _TROUBLES[str(trouble["kind"])]
    subject = str(trouble["subject"])
    known = {str((service.get("runner") or {}).get("unit", "")): str(service["name"]) for service in case.services}
    name = known.get(subject, known.get(subject.partition(".service")[0], subject))
    weight = own if case.concerns(name) or _names(case, subject) else other
    nearness = _nearness(case.began, str(trouble["at"])) if trouble["at"] else 0.5
    return (
        str(trouble["kind"]),
        subject,
        weight * (nearness or 0.7),
        f"{trouble['summary']} ({trouble['at'] or 'at a time unknown'})",
    )


def _names(case: Case, text: str) -> bool:
    return any(name in text for name in case.failing)


def _nearness(began: datetime, at: str) -> float:
    """1 right before the start, a half an hour before, less and less further back, 0 after it."""
    apart = (began - parse_time(at)).total_seconds()
    if apart < -_TOLERANCE.total_seconds():
        return 0.0
    return _HALF_LIFE / (_HALF_LIFE + max(0.0, apart))


def told(suspects: Iterable[Item]) -> list[str]:
    """A line for each suspect, for people."""
    return [
        f"{number}. {item['kind']} {item['subject']}{' on ' + item['host'] if item['host'] else ''} "
        f"(weight {item['weight']}): {'; '.join(item['evidence'])}"
        for number, item in enumerate(suspects, 1)
    ]
