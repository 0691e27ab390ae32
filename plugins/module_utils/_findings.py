# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one language of every check: findings, their order of severity and the threshold that fails a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

#: From best to worst. unknown stands above warning: what could not be measured may be anything.
STATUSES = ("ok", "warning", "unknown", "critical")

#: Choices of every ``fail_on`` option, with the statuses that fail the task.
FAIL_ON: Mapping[str, tuple[str, ...]] = {
    "never": (),
    "critical": ("critical",),
    "warning": ("warning", "unknown", "critical"),
}


@dataclass(frozen=True)
class Finding:
    """What one check found out about one subject.

    ``procedure`` and ``host`` are left empty by modules: the run fills them in, because only it knows them.
    ``parent`` names the subject whose failure explains this one; such a finding raises no alert of its own.
    """

    check: str
    subject: str
    status: str
    summary: str
    observed_at: str
    value: float | int | str | None = None
    unit: str = ""
    threshold: float | int | str | None = None
    hint: str = ""
    parent: str = ""
    procedure: str = ""
    host: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")

    def as_dict(self) -> dict[str, Any]:
        """The finding as module results, history and reports carry it."""
        # Not dataclasses.asdict, which copies every value and takes most of the time when there are thousands.
        return dict(vars(self))


class FindingsBuilder:
    """Collects the findings of one observation: the time is the same for all of them."""

    def __init__(self, observed_at: datetime) -> None:
        self._observed_at = isoformat(observed_at)
        self.findings: list[Finding] = []

    def add(self, check: str, subject: str, status: str, summary: str, **details: Any) -> Finding:
        """Append and return a finding; ``details`` are the optional fields of :class:`Finding`."""
        finding = Finding(check, subject, status, summary, self._observed_at, **details)
        self.findings.append(finding)
        return finding


def rank(status: str) -> int:
    """Position of a status in the order of severity, 0 for ok."""
    return STATUSES.index(status)


def worst(statuses: Iterable[str]) -> str:
    """The most severe status; ok when there is none."""
    return max(statuses, key=rank, default="ok")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by check and subject."""
    return sorted(findings, key=lambda finding: (-rank(finding.status), finding.check, finding.subject))


def judge(value: float, warning: float | None, critical: float | None) -> tuple[str, float | None]:
    """Status of a value that is bad when high, with the threshold that decided (the warning one when ok)."""
    if critical is not None and value >= critical:
        return "critical", critical
    if warning is not None and value >= warning:
        return "warning", warning
    return "ok", warning if warning is not None else critical


def result(findings: Iterable[Finding]) -> dict[str, Any]:
    """The part that all checking modules return alike: findings (worst first), status and summary."""
    ordered = by_severity(findings)
    counts = {status: sum(1 for finding in ordered if finding.status == status) for status in STATUSES}
    told = ", ".join(f"{counts[status]} {status}" for status in reversed(STATUSES) if counts[status])
    return {
        "findings": [finding.as_dict() for finding in ordered],
        "status": worst(finding.status for finding in ordered),
        "summary": told or "nothing to check",
    }


def failure_message(findings: Iterable[Finding], fail_on: str) -> str | None:
    """The message with which the task fails under ``fail_on``, or None when it does not."""
    bad = [finding for finding in by_severity(findings) if finding.status in FAIL_ON[fail_on]]
    if not bad:
        return None
    told = "; ".join(
        f"{finding.subject}: {finding.summary}" + (f" ({finding.hint})" if finding.hint else "") for finding in bad[:5]
    )
    return told + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
