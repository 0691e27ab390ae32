# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what, and when: state changes alert, repeats do not, reminders come, recovery is always told.

Pure decisions. A check is told to a contact when its status is one of the contact's severities and its procedure
belongs to one of the contact's areas. A check that fails because of another one (its ``parent``) is told under
that one and raises no alert of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._history import Identity, State, identity
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time

#: Which area a procedure belongs to; a contact may name areas, procedures, or ``all``.
AREAS: Mapping[str, str] = {
    "backup_verification": "database",
    "database_backup": "database",
    "health_check": "services",
    "log_rotation": "platform",
    "performance_monitoring": "performance",
    "run": "platform",
    "security_scan": "security",
}

_KINDS = ("new", "changed", "reminder", "recovered")
_HEADINGS = {"new": "NEW", "changed": "CHANGED", "reminder": "STILL NOT WELL", "recovered": "RECOVERED"}


@dataclass(frozen=True)
class Contact:
    """Somebody to tell. ``urls`` are Apprise URLs or ``file:///path``; they may hold secrets."""

    name: str
    urls: tuple[str, ...]
    severities: tuple[str, ...] = ("critical", "unknown")
    areas: tuple[str, ...] = ("all",)

    def cares_for(self, procedure: str) -> bool:
        return any(area in ("all", procedure, AREAS.get(procedure, procedure)) for area in self.areas)


@dataclass(frozen=True)
class Notice:
    """One thing to tell: a new, changed or lasting problem, or its end."""

    kind: str
    key: Identity
    state: State
    finding: Finding | None = None
    children: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Message:
    """What one contact is sent about one run."""

    contact: Contact
    title: str
    body: str
    notices: tuple[Notice, ...] = field(default=())

    @property
    def status(self) -> str:
        return worst(notice.state.status for notice in self.notices if notice.kind != "recovered")


def contact_from(raw: Mapping[str, Any]) -> Contact:
    """A contact of the catalogue. Missing severities and areas have their defaults."""
    return Contact(
        name=str(raw["name"]),
        urls=tuple(raw.get("urls") or ()),
        severities=tuple(raw.get("severities") or Contact.severities),
        areas=tuple(raw.get("areas") or Contact.areas),
    )


def decide(
    contact: Contact,
    findings: Sequence[Finding],
    states: Mapping[Identity, State],
    told: Mapping[Identity, tuple[State, str]],
    now: datetime,
    reminder_after: timedelta,
) -> list[Notice]:
    """What a contact has to hear of now.

    ``findings`` are those of this run, ``states`` where all checks of the site stand after it, ``told`` what the
    contact was last told of each check and when. A zero ``reminder_after`` means no reminders.
    """
    problems = {
        identity(item): item
        for item in findings
        if item.status in contact.severities and contact.cares_for(item.procedure)
    }
    subjects = {(item.procedure, item.subject) for item in findings if item.status != "ok"}
    notices = []
    for key, finding in problems.items():
        if _explained(finding, subjects):
            continue
        kind = _kind(finding, told.get(key), now, reminder_after)
        if kind:
            state = State(finding.status, states[key].since if key in states else finding.observed_at, finding.summary)
            notices.append(Notice(kind, key, state, finding, _children(finding, findings)))
    notices += [
        Notice("recovered", key, before, _found(findings, key))
        for key, (before, _sent) in told.items()
        if _is_over(key, contact, states)
    ]
    return sorted(notices, key=lambda notice: (_KINDS.index(notice.kind), -rank(notice.state.status), notice.key))


def _kind(finding: Finding, before: tuple[State, str] | None, now: datetime, reminder_after: timedelta) -> str | None:
    if before is None:
        return "new"
    state, sent_at = before
    if state.status != finding.status:
        return "changed"
    if reminder_after and now - parse_time(sent_at) >= reminder_after:
        return "reminder"
    return None


def _explained(finding: Finding, unwell: set[tuple[str, str]]) -> bool:
    """Whether the failed parent that explains this finding is told in the same run."""
    if not finding.parent:
        return False
    return (finding.procedure, finding.parent) in unwell or ("run", finding.parent) in unwell


def _children(finding: Finding, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(
        item
        for item in findings
        if item.parent == finding.subject
        and item.status != "ok"
        and (item.procedure == finding.procedure or finding.procedure == "run")
    )


def _is_over(key: Identity, contact: Contact, states: Mapping[Identity, State]) -> bool:
    """A check that is gone from the states is well again; one that a contact does not care for counts as well."""
    state = states.get(key)
    return state is None or state.status not in contact.severities


def _found(findings: Iterable[Finding], key: Identity) -> Finding | None:
    return next((item for item in findings if identity(item) == key), None)


def compose(contact: Contact, notices: Sequence[Notice], site: str, run: str, now: datetime, link: str) -> Message:
    """The one message that tells all notices, grouped: what is new first, what is over last. Plain text."""
    counts = {kind: sum(1 for notice in notices if notice.kind == kind) for kind in _KINDS}
    status = worst(notice.state.status for notice in notices if notice.kind != "recovered")
    words = {"new": "new", "changed": "changed", "reminder": "unresolved", "recovered": "recovered"}
    told = ", ".join(f"{count} {words[kind]}" for kind, count in counts.items() if count)
    title = f"[{site}] {'RECOVERED' if status == 'ok' else status.upper()}: {told} ({run})"
    blocks = []
    for kind in _KINDS:
        chosen = [notice for notice in notices if notice.kind == kind]
        if chosen:
            blocks.append("\n".join([_HEADINGS[kind], *(line for notice in chosen for line in _lines(notice, now))]))
    if link:
        blocks.append(f"Report: {link}")
    return Message(contact, title, "\n\n".join(blocks), tuple(notices))


def _lines(notice: Notice, now: datetime) -> list[str]:
    _procedure, check, subject, host = notice.key
    name = subject if subject == host else f"{subject} on {host}"
    lasted = format_duration(max(0.0, (now - parse_time(notice.state.since)).total_seconds()))
    if notice.kind == "recovered":
        present = notice.finding.summary if notice.finding else "is no longer found"
        return [f"  OK        {name}: {present}", f"            ({check}; was {notice.state.status} for {lasted})"]
    if notice.finding is None:
        raise AssertionError("only a recovery is told without its finding")
    since = "" if notice.kind == "new" else f" (since {notice.state.since}, {lasted})"
    lines = [f"  {notice.state.status.upper():9} {name}: {notice.finding.summary}{since}"]
    if notice.finding.hint:
        lines.append(f"            -> {notice.finding.hint}")
    lines += [f"            under it: {child.subject}: {child.summary}" for child in notice.children[:20]]
    if len(notice.children) > 20:
        lines.append(f"            and {len(notice.children) - 20} more under it")
    return lines
