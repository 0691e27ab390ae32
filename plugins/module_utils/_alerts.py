# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what, and when: state changes alert, repeats do not, reminders come, recovery is always told.

Pure decisions. A check is told to a contact when its status is one of the contact's severities and its procedure
belongs to one of the contact's areas. A check that fails because of another one (its ``parent``) is told under
that one and raises no alert of its own, unless the contact hears nothing of that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._history import Identity, State, identity
from ansible_collections.upkeep.ops.plugins.module_utils._runs import CAUSE_FIELDS, by_cause
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time

#: Which area a procedure belongs to; a contact may name areas, procedures, or ``all``.
AREAS: Mapping[str, str] = {
    "backup_verification": "database",
    "backup_copy": "database",
    "cache_maintenance": "database",
    "checklist": "platform",
    "contact_check": "platform",
    "database_backup": "database",
    "database_optimization": "database",
    "disaster_recovery_test": "database",
    "emergency_recovery": "database",
    "health_check": "services",
    "log_rotation": "platform",
    "maintenance_window": "platform",
    "outage_assessment": "services",
    "outage_containment": "services",
    "outage_recovery": "services",
    "outage_verification": "services",
    "performance_monitoring": "performance",
    "run": "platform",
    "security_scan": "security",
}

#: Subjects that are databases' affair in whatever procedure: health checks name them so.
_DATABASES = ("redis:", "firestore:")

_MOST_NOTICES, _MOST_CHILDREN = 50, 20
_MOST_NAMES, _LONGEST_NAME = 3, 30
_KINDS = ("new", "changed", "reminder", "recovered")
_HEADINGS = {"new": "NEW", "changed": "CHANGED", "reminder": "STILL NOT WELL", "recovered": "RECOVERED"}


def areas_of(finding: Finding) -> set[str]:
    """All names of areas that a contact may have given to hear of such a finding."""
    areas = {"all", finding.procedure, AREAS.get(finding.procedure, finding.procedure)}
    return areas | {"database"} if finding.subject.startswith(_DATABASES) else areas


@dataclass(frozen=True)
class Contact:
    """Somebody to tell. ``urls`` are Apprise URLs or ``file:///path``; they may hold secrets.

    ``twin_of`` is the name that the catalogue gives to this contact and to another one before it.
    """

    name: str
    urls: tuple[str, ...]
    severities: tuple[str, ...] = ("critical", "unknown")
    areas: tuple[str, ...] = ("all",)
    twin_of: str = ""

    def hears_of(self, finding: Finding) -> bool:
        """Whether a finding is the contact's affair, by its status and its areas."""
        return finding.status in self.severities and not areas_of(finding).isdisjoint(self.areas)


@dataclass(frozen=True)
class Notice:
    """One thing to tell: a new, changed or lasting problem with its finding, or its end.

    ``state`` is that of the problem. At its end ``present`` is where the check stands now, None when it is gone.
    """

    kind: str
    key: Identity
    state: State
    finding: Finding | None = None
    children: tuple[Finding, ...] = ()
    present: State | None = None


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


def distinct(contacts: Sequence[Contact]) -> list[Contact]:
    """The contacts, each with a name of its own: what one was told must not be taken for another one's knowledge."""
    taken: dict[str, int] = {}
    named = []
    for contact in contacts:
        taken[contact.name] = taken.get(contact.name, 0) + 1
        count = taken[contact.name]
        named.append(
            contact if count == 1 else replace(contact, name=f"{contact.name} ({count})", twin_of=contact.name)
        )
    return named


def under_maintenance(
    findings: Sequence[Finding], windows: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[Finding, str]]:
    """The findings, not ok, that are held because of a maintenance window, each with the window's title.

    ``windows`` are titles with their services. A finding is held that is about such a service, or that fails because
    of one, over however many steps. A window of all services holds what belongs to the area services.
    """
    held: dict[tuple[str, str, str], str] = {}
    unwell = [item for item in findings if item.status != "ok"]
    for item in unwell:
        for title, services in windows:
            if item.subject in services or (not services and "services" in areas_of(item)):
                held.setdefault((item.procedure, item.host, item.subject), title)
    grown = bool(held)
    while grown:
        grown = False
        for item in unwell:
            title = held.get((item.procedure, item.host, item.parent), "")
            if title and (item.procedure, item.host, item.subject) not in held:
                held[item.procedure, item.host, item.subject] = title
                grown = True
    return [
        (item, held[item.procedure, item.host, item.subject])
        for item in unwell
        if (item.procedure, item.host, item.subject) in held
    ]


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
    unwell = [item for item in findings if item.status != "ok"]
    notices: dict[Identity, Notice] = {}
    for finding, children in by_cause(unwell, attrgetter(*CAUSE_FIELDS), contact.hears_of):
        key = identity(finding)
        kind = _kind(finding, told.get(key), now, reminder_after)
        if kind:
            since = states[key].since if key in states else finding.observed_at
            state = State(finding.status, since, finding.summary)
            notices.setdefault(key, Notice(kind, key, state, finding, tuple(children)))
    recovered = [
        Notice("recovered", key, before, present=states.get(key))
        for key, (before, _sent) in told.items()
        if _is_over(key, contact, states)
    ]
    return sorted(
        [*notices.values(), *recovered],
        key=lambda notice: (_KINDS.index(notice.kind), -rank(notice.state.status), notice.key),
    )


def _kind(finding: Finding, before: tuple[State, str] | None, now: datetime, reminder_after: timedelta) -> str | None:
    if before is None:
        return "new"
    state, sent_at = before
    if state.status != finding.status:
        return "changed"
    if reminder_after and now - parse_time(sent_at) >= reminder_after:
        return "reminder"
    return None


def _is_over(key: Identity, contact: Contact, states: Mapping[Identity, State]) -> bool:
    """A check that is gone from the states is well again; one that a contact does not care for counts as well.

    What could not be measured is never over, also for those who do not hear of such.
    """
    state = states.get(key)
    return state is None or state.status not in (*contact.severities, "unknown")


def _named(notices: Sequence[Notice]) -> str:
    """What a message is about, for its title: the problems, or what is over when there are none."""
    unwell = [notice.key[2] for notice in notices if notice.kind != "recovered"]
    subjects = list(dict.fromkeys(unwell or [notice.key[2] for notice in notices]))
    told = [f"...{name[-_LONGEST_NAME:]}" if len(name) > _LONGEST_NAME + 3 else name for name in subjects[:_MOST_NAMES]]
    more = len(subjects) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def compose(contact: Contact, notices: Sequence[Notice], site: str, run: str, now: datetime, link: str) -> Message:
    """The one message that tells all notices, grouped: what is new first, what is over last. Plain text."""
    counts = {kind: sum(1 for notice in notices if notice.kind == kind) for kind in _KINDS}
    status = worst(notice.state.status for notice in notices if notice.kind != "recovered")
    words = {"new": "new", "changed": "changed", "reminder": "unresolved", "recovered": "recovered"}
    told = ", ".join(f"{count} {words[kind]}" for kind, count in counts.items() if count)
    title = f"[{site}] {'RECOVERED' if status == 'ok' else status.upper()}: {_named(notices)} ({run}: {told})"
    blocks = []
    for kind in _KINDS:
        chosen = [notice for notice in notices if notice.kind == kind]
        if chosen:
            lines = [line for notice in chosen[:_MOST_NOTICES] for line in _lines(notice, now)]
            if len(chosen) > _MOST_NOTICES:
                lines.append(f"  and {len(chosen) - _MOST_NOTICES} more: see the report")
            blocks.append("\n".join([_HEADINGS[kind], *lines]))
    blocks.append(f"{now:%Y-%m-%d %H:%M} UTC" + (f", report: {link}" if link else ""))
    return Message(contact, title, "\n\n".join(blocks), tuple(notices))


def _lines(notice: Notice, now: datetime) -> list[str]:
    _procedure, check, subject, host = notice.key
    name = subject if subject == host else f"{subject} on {host}"
    lasted = format_duration(max(0.0, (now - parse_time(notice.state.since)).total_seconds()))
    if notice.kind == "recovered":
        # What a contact does not care for is over for it as well, and still told as what it is.
        status, told = ("ok", "is no longer found")
        if notice.present:
            status, told = notice.present.status, notice.present.summary
        return [
            f"  {status.upper():9} {name}: {told}",
            f"            ({check}; was {notice.state.status} for {lasted})",
        ]
    if notice.finding is None:
        raise AssertionError("only a recovery is told without its finding")
    since = "" if notice.kind == "new" else f" (since {notice.state.since}, {lasted})"
    lines = [f"  {notice.state.status.upper():9} {name}: {notice.finding.summary}{since}"]
    if notice.finding.hint:
        lines.append(f"            -> {notice.finding.hint}")
    lines += [f"            under it: {child.subject}: {child.summary}" for child in notice.children[:_MOST_CHILDREN]]
    if len(notice.children) > _MOST_CHILDREN:
        lines.append(f"            and {len(notice.children) - _MOST_CHILDREN} more under it")
    return lines
