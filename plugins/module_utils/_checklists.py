# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checklists: which items are done, open or overdue, and how old credentials are. Pure.

A list is of a period (monthly, quarterly) or of each maintenance window. An item is automatic, and done by a procedure
of the collection or a check of the window, or manual, and done when somebody signs for it. Anything may be signed for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import Window
from ansible_collections.upkeep.ops.plugins.module_utils._time import (
    format_duration,
    isoformat,
    parse_duration,
    parse_time,
)

PERIODS = ("monthly", "quarterly", "window")
#: What a sign-off can say; only these make an item done.
DONE = ("done", "not_needed")
_MONTHS: Mapping[str, int] = {"monthly": 1, "quarterly": 3}
#: What makes an automatic item done: a procedure of any run, a check of a window, or the ages of the credentials.
_SOURCES = ("procedure", "check", "credentials")


class ChecklistError(Exception):
    """A list or a sign-off makes no sense; the text says why."""


@dataclass(frozen=True)
class Item:
    """One line of a list; ``source`` is what does it, empty for a manual one, ``max_age`` how fresh that must be."""

    id: str
    text: str
    source: str = ""
    name: str = ""
    max_age: float = 0


@dataclass(frozen=True)
class Checklist:
    """A list of a period; an item is overdue ``due_after`` seconds after its period or its window's end began."""

    name: str
    title: str
    period: str
    due_after: float
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Known:
    """What the history knows: sign-offs by (list, item, period), last outcomes of procedures, windows, its own age."""

    signed: Mapping[tuple[str, str, str], Mapping[str, Any]]
    outcomes: Mapping[str, Sequence[Mapping[str, Any]]]
    windows: Sequence[Window]
    since: datetime


def checklists_from(raw: Sequence[Mapping[str, Any]]) -> list[Checklist]:
    """The lists of the options; a later one of the same name adds items, or replaces those of the same id."""
    lists: dict[str, Checklist] = {}
    for entry in raw:
        name = str(entry["name"])
        before = lists.get(name)
        period = str(entry.get("period") or (before.period if before else ""))
        if period not in PERIODS:
            raise ChecklistError(f"the period {period!r} of checklist {name} is none of {', '.join(PERIODS)}")
        items = {item.id: item for item in (before.items if before else ())}
        items.update({item.id: item for item in (_item(name, period, raw_item) for raw_item in entry["items"])})
        due_after = entry.get("due_after") or (before.due_after if before else "7d" if period == "window" else "21d")
        title = str(entry.get("title") or (before.title if before else name))
        lists[name] = Checklist(name, title, period, parse_duration(due_after), tuple(items.values()))
    return list(lists.values())


def _item(checklist: str, period: str, raw: Mapping[str, Any]) -> Item:
    automatic = raw.get("automatic") or {}
    sources = [source for source in _SOURCES if automatic.get(source)]
    if "id" not in raw or "text" not in raw:
        raise ChecklistError(f"an item of checklist {checklist} has no id or no text: {dict(raw)}")
    if automatic and len(sources) != 1:
        raise ChecklistError(f"item {raw['id']} of {checklist}: automatic needs one of {', '.join(_SOURCES)}")
    source = sources[0] if sources else ""
    if source == "check" and period != "window":
        raise ChecklistError(f"item {raw['id']} of {checklist}: only lists of windows have checks")
    usual = f"{31 * _MONTHS.get(period, 1)}d"
    age = parse_duration(automatic.get("max_age") or usual)
    return Item(str(raw["id"]), str(raw["text"]), source, str(automatic.get(source, "")), age)


def period_of(checklist: Checklist, moment: datetime, back: int = 0) -> tuple[str, datetime]:
    """Name and begin (UTC) of the period of a list at a moment, or of one so many periods earlier."""
    months = _MONTHS[checklist.period]
    moment = moment.astimezone(timezone.utc)
    index = (moment.year * 12 + moment.month - 1) // months - back
    year, month = divmod(index * months, 12)
    name = f"{year}-{month + 1:02d}" if months == 1 else f"{year}-Q{month // 3 + 1}"
    return name, datetime(year, month + 1, 1, tzinfo=timezone.utc)


def states(checklist: Checklist, known: Known, now: datetime, credentials: str) -> list[dict[str, Any]]:
    """Where each item stands; those of a list of windows once for each window that matters."""
    if checklist.period == "window":
        windows = [window for window in known.windows if _matters(window, now)]
        return [_of_window(checklist, item, window, known, now) for window in windows for item in checklist.items]
    return [_of_period(checklist, item, known, now, credentials) for item in checklist.items]


def _matters(window: Window, now: datetime) -> bool:
    """Windows that began; those that ended more than 90 days ago matter no more."""
    ended = parse_time(window.ended_at) if window.ended_at else now
    return bool(window.started_at) and now - ended <= timedelta(days=90)


def _told(
    checklist: Checklist, item: Item, period: str, known: Known, state: str, summary: str, about: str = ""
) -> dict[str, Any]:
    signed = known.signed.get((checklist.name, item.id, period)) or {}
    counts = _signature(signed) is not None
    return {
        "checklist": checklist.name,
        "title": checklist.title,
        "item": item.id,
        "text": item.text,
        "kind": "automatic" if item.source else "manual",
        "period": period,
        "about": about,
        "state": state,
        "summary": summary,
        **{name: str(signed[name]) if counts else "" for name in ("signed_by", "signed_at", "outcome", "evidence")},
    }


def _signature(signed: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """State and sentence of a sign-off that counts."""
    if not signed or signed["outcome"] == "withdrawn":
        return None
    words = f"{signed['outcome'].replace('_', ' ')}, signed by {signed['signed_by']} at {signed['signed_at']}"
    evidence = f": {signed['evidence']}" if signed["evidence"] else ""
    return ("done" if signed["outcome"] in DONE else "failed"), words + evidence


def _of_period(checklist: Checklist, item: Item, known: Known, now: datetime, credentials: str) -> dict[str, Any]:
    name, begin = period_of(checklist, now)
    before, begin_before = period_of(checklist, now, 1)
    signed = _signature(known.signed.get((checklist.name, item.id, name)))
    if signed:
        return _told(checklist, item, name, known, *signed)
    if item.source == "credentials":
        return _told(
            checklist, item, name, known, "failed" if credentials else "done", credentials or "none is too old"
        )
    if item.source == "procedure":
        return _told(checklist, item, name, known, *_by_procedure(item, known, now))
    earlier = _signature(known.signed.get((checklist.name, item.id, before)))
    due = max(begin, known.since) + timedelta(seconds=checklist.due_after)
    due_before = max(begin_before, known.since) + timedelta(seconds=checklist.due_after)
    if not (earlier and earlier[0] == "done") and known.since < begin and due_before <= now:
        return _told(checklist, item, name, known, "overdue", f"not signed for {before} nor for {name}")
    if now >= due:
        return _told(checklist, item, name, known, "overdue", f"not signed for {name}, due since {isoformat(due)[:10]}")
    return _told(checklist, item, name, known, "open", f"to be signed until {isoformat(due)[:10]}")


def _by_procedure(item: Item, known: Known, now: datetime) -> tuple[str, str]:
    outcomes = known.outcomes.get(item.name)
    if not outcomes:
        late = (now - known.since).total_seconds() > item.max_age
        return "overdue" if late else "open", f"{item.name} never ran"
    last = outcomes[-1]
    age = (now - parse_time(last["at"])).total_seconds()
    summary = f"{item.name} ended {last['status']} {format_duration(age)} ago"
    if age > item.max_age:
        return "overdue", f"{summary}, the limit is {format_duration(item.max_age)}"
    return ("failed" if last["status"] in ("critical", "unknown") else "done"), summary


def _of_window(checklist: Checklist, item: Item, window: Window, known: Known, now: datetime) -> dict[str, Any]:
    signed = _signature(known.signed.get((checklist.name, item.id, window.id)))
    state, summary = signed or _by_window(item, window, known)
    if state == "open":
        end = parse_time(window.ended_at or window.ends_at)
        due = end + timedelta(seconds=checklist.due_after)
        state = "overdue" if now >= due else "open"
        summary += f", due {isoformat(due)[:10]}"
    return _told(checklist, item, window.id, known, state, summary, window.title)


def _by_window(item: Item, window: Window, known: Known) -> tuple[str, str]:
    """What the record of a window, or the outcomes while it was open, say of an item."""
    if item.source == "check":
        checks = [*(window.record.get("checks_before") or []), *(window.record.get("checks_after") or [])]
        for check in checks:
            if check["name"] == item.name:
                well = check["status"] == "ok" or check["override"]
                told = f"{check['summary']}; overridden: {check['override']}" if check["override"] else check["summary"]
                return ("done" if well else "failed"), str(told)
        return "open", f"check {item.name} was not made yet"
    if item.source == "procedure":
        end = window.ended_at or "9999"
        times = [each["at"] for each in known.outcomes.get(item.name) or [] if window.started_at <= each["at"] <= end]
        if times:
            return "done", f"{item.name} ran {len(times)} times while it was open"
        return "open", f"{item.name} did not run while it was open"
    return "open", "to be signed"


def judge_lists(found: FindingsBuilder, checklists: Sequence[Checklist], told: Sequence[Mapping[str, Any]]) -> None:
    """One finding for each list, and one under it for each item that is overdue or failed."""
    for checklist in checklists:
        own = [item for item in told if item["checklist"] == checklist.name]
        bad = [item for item in own if item["state"] in ("overdue", "failed")]
        done = sum(1 for item in own if item["state"] == "done")
        subject = f"checklist {checklist.name}"
        summary = f"{done} of {len(own)} items done"
        names = ", ".join(sorted({item["text"] for item in bad}))
        hint = f"Sign: playbooks/checklist_signoff.yml -e checklist_signoff_list={checklist.name}" if bad else ""
        told_bad = f"{summary}; not done in time or failed: {names}" if bad else summary
        found.add("checklist_overdue", subject, "warning" if bad else "ok", told_bad, hint=hint)
        for item in bad:
            about = f" of {item['about']}" if item["about"] else ""
            name = f"{checklist.name}/{item['item']}{about}"
            found.add("checklist_item", name, "warning", f"{item['text']}: {item['summary']}", parent=subject)


def judge_credentials(found: FindingsBuilder, credentials: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """A finding for the age of each credential; returns those that are too old or not known, empty when none is."""
    bad = []
    for credential in credentials:
        name = str(credential.get("name") or "a credential without a name")
        status, summary = _age(credential, now)
        owner = str(credential.get("owner") or "its owner")
        hint = "" if status == "ok" else f"Let {owner} rotate it, and write rotated_at into upkeep_credentials"
        found.add("credential_age", name, status, summary, hint=hint)
        if status != "ok":
            bad.append(f"{name}: {summary}")
    return "; ".join(bad)


def _age(credential: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    try:
        age = (now - parse_time(str(credential.get("rotated_at") or ""))).total_seconds()
        limit = parse_duration(credential.get("max_age") or "")
    except ValueError as error:
        return "unknown", f"its age is not known: {error}"
    if age < 0:
        return "unknown", f"its age is not known: it was rotated in the future, at {credential['rotated_at']}"
    if age > limit:
        return "warning", f"{format_duration(age)} old, at most {format_duration(limit)} are allowed"
    return "ok", f"{format_duration(age)} old, to be rotated in {format_duration(limit - age)}"


def to_sign(
    checklists: Sequence[Checklist], known: Known, now: datetime, asked: Mapping[str, str]
) -> tuple[str, str, str]:
    """The key (list, item, period) of the sign-off that is asked for. Raises ChecklistError for what is not there.

    ``asked`` has ``checklist``, ``item`` and ``period``, the last of which is the present one, or the newest window,
    when it is empty.
    """
    checklist = next((each for each in checklists if each.name == asked["checklist"]), None)
    if checklist is None:
        there_are = ", ".join(each.name for each in checklists)
        raise ChecklistError(f"there is no checklist {asked['checklist']!r}; there are {there_are}")
    if all(item.id != asked["item"] for item in checklist.items):
        there_are = ", ".join(item.id for item in checklist.items)
        raise ChecklistError(f"checklist {checklist.name} has no item {asked['item']!r}; it has {there_are}")
    return checklist.name, asked["item"], _period_to_sign(checklist, known, now, asked["period"])


def _period_to_sign(checklist: Checklist, known: Known, now: datetime, period: str) -> str:
    if checklist.period != "window":
        periods = [period_of(checklist, now, back)[0] for back in range(13)]
        if period and period not in periods:
            raise ChecklistError(f"{period!r} is no period that can be signed for; there are {', '.join(periods)}")
        return period or periods[0]
    windows = [window for window in known.windows if window.started_at]
    chosen = [window for window in windows if not period or period in (window.id, window.title)]
    if not chosen:
        raise ChecklistError(f"there is no window {period!r} that began" if period else "no window began yet")
    return max(chosen, key=lambda window: window.started_at).id
