# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told of an incident at which stage, and what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: The stages of which contacts can be told, in their order.
NOTICE_STAGES = ("assess", "contain", "recover", "closed")
_MOST_EVENTS = 30
_WORDS = {
    "assess": "OUTAGE",
    "contain": "OUTAGE CONTAINED",
    "recover": "OUTAGE, RECOVERY",
    "closed": "OUTAGE OVER",
}


@dataclass(frozen=True)
class Notice:
    """What the contacts of a stage are told."""

    title: str
    body: str
    status: str


def told_mark(contact: str, stage: str) -> str:
    """The line of the timeline that says that a contact knows."""
    return f"{contact} was told ({stage})"


def due(contacts: Iterable[Mapping[str, Any]], incident: Mapping[str, Any], stage: str) -> list[Mapping[str, Any]]:
    """Contacts with targets that hear of the stage and the severity, and were not told yet.

    An incident that failed again is told anew.
    """
    texts = [event["text"] for event in incident["events"]]
    # By their order, for several events may bear the same second.
    again = [index for index, text in enumerate(texts) if text == "failed again"]
    known = set(texts[again[-1] :] if again else texts)
    return [
        contact
        for contact in contacts
        if contact.get("urls")
        and stage in (contact.get("stages") or ())
        and incident["severity"] in (contact.get("severities") or ("critical", "unknown"))
        and told_mark(str(contact["name"]), stage) not in known
    ]


def compose(incident: Mapping[str, Any], stage: str, lines: Sequence[str], link: str) -> Notice:
    """The message of a stage: what it is about, what the stage adds, and the timeline so far."""
    over = stage == "closed"
    title = f"[{incident['site']}] {_WORDS[stage]}: {incident['title']} ({incident['id']})"
    head = [f"{incident['severity'].upper()} since {incident['began_at']}"]
    if incident["seconds_to_recovery"] is not None:
        head.append(f"recovered {incident['recovered_at']}, after {format_duration(incident['seconds_to_recovery'])}")
    if incident["services"]:
        head.append(f"services: {', '.join(incident['services'])}")
    events = [f"  {event['at']} {event['stage']}: {event['text']}" for event in incident["events"][-_MOST_EVENTS:]]
    blocks = ["\n".join(head), *(["\n".join(lines)] if lines else []), "\n".join(["TIMELINE", *events])]
    return Notice(title, "\n\n".join([*blocks, *([link] if link else [])]), "ok" if over else incident["severity"])
