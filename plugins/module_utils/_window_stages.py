# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts on maintenance windows: plan, start, end, cancel. Each is one transaction, and can be repeated.

A start is killed at worst between telling people and noting that: they are told once more. The window is claimed before
anybody is told, so that two starts at once never both go through.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, text_of
from ansible_collections.upkeep.ops.plugins.module_utils._history import History, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_windows import (
    changes_between,
    figures_between,
    last_run,
    read_windows,
    watched,
    write_window,
)
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import (
    CHECKS_AFTER,
    CHECKS_BEFORE,
    Verdict,
    Window,
    WindowError,
    compared,
    merged,
    overlapping,
    performance_verdict,
    planned_end,
    staging_verdict,
    told,
    verdicts,
    watched_verdict,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, isoformat, parse_duration, parse_time
from ansible_collections.upkeep.ops.plugins.module_utils._window_document import document

#: Tells one contact; returns an empty text, or why nobody was reached.
Tell = Callable[[str, str, str], str]

_LOOK_BACK = timedelta(days=7)


@dataclass(frozen=True)
class Request:
    """What a window is to be, and what is known of its checks."""

    site: str
    title: str = ""
    id: str = ""
    planned: bool = True
    services: tuple[str, ...] = ()
    starts_at: str = ""
    ends_at: str = ""
    duration: str = ""
    merge: bool = False
    checks: Sequence[Mapping[str, Any]] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    rollback: Sequence[Any] = ()
    way_back: Mapping[str, Any] = field(default_factory=dict)
    contacts: Sequence[str] = ()
    staging_site: str = ""
    staging_run: str = ""
    staging_max_age: float = 7 * 86400
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tolerance: float = 50
    directory: str = ""


@dataclass(frozen=True)
class Act:
    """What came of it: the window, its checks, which of them hold it up, and what was or would be written."""

    window: Window | None
    changed: bool
    message: str
    checks: Sequence[Verdict] = ()
    blocking: Sequence[str] = ()
    before: str = ""
    after: str = ""

    @property
    def blocked(self) -> bool:
        return any(item.blocks and item.name in self.blocking for item in self.checks)


class Stages:
    """Windows in the history at ``database``; in check mode nothing is written and nobody told."""

    def __init__(self, database: str, clock: Clock, tell: Tell, check_mode: bool) -> None:
        self._database, self._clock, self._tell, self._check_mode = database, clock, tell, check_mode

    def carry_out(self, state: str, request: Request) -> Act:
        """The act that leads to a state, ``planned``, ``started``, ``ended`` or ``cancelled``."""
        acts = {"planned": self.plan, "started": self.start, "ended": self.end, "cancelled": self.cancel}
        return acts[state](request)

    # -- plan ------------------------------------------------------------------------------------------------------

    def plan(self, request: Request) -> Act:
        """Note a window, changed or new, and tell people of it. Checks that are given hold it up when they are bad."""
        checks = verdicts((), self._evidence(request) if request.checks else (), request.overrides)
        if any(item.blocks for item in checks):
            return Act(None, False, "the window is not planned: its checks failed", checks, CHECKS_BEFORE)
        with opened(self._database, write=not self._check_mode) as history:
            known = self._known(history, request, ("planned", "started"))
            window = self._wanted(history, request, known)
            write_window(history.connection, window)
        window, failures = self._announced(window, request)
        changed = window != known
        word = f"{self._word('is', 'would be')} noted" if changed else "is planned already"
        summary = f"window {told(window)} {word}" + "".join(f"; {failure}" for failure in failures)
        return Act(window, changed, summary, checks, CHECKS_BEFORE, _text(known), _text(window))

    def _known(self, history: History, request: Request, statuses: Sequence[str]) -> Window | None:
        """The newest window that is meant: by its id, or else by its title or that of one merged into it."""
        for window in reversed(read_windows(history.connection, request.site, statuses)):
            titles = {window.title, *(item["title"] for item in window.record.get("merged") or [])}
            if window.id == request.id if request.id else request.title in titles:
                return window
        return None

    def _wanted(self, history: History, request: Request, known: Window | None) -> Window:
        """The window as asked for, or another one of the same time that it was merged with. Raises WindowError."""
        window = self._changed(request, known) if known else self._new(request)
        others = overlapping(window, read_windows(history.connection, request.site), self._clock())
        if not others:
            return window
        if request.merge and len(others) == 1 and known is None:
            return merged(window, others[0])
        names = "; ".join(told(other) for other in others)
        merging = ", or merge the two with maintenance_window_overlap=merge" if len(others) == 1 else ""
        raise WindowError(f"window {request.title!r} overlaps with {names}: end or cancel that first{merging}")

    def _new(self, request: Request) -> Window:
        if not request.title:
            raise WindowError("a window needs a title")
        starts_at = parse_time(request.starts_at) if request.starts_at else self._clock()
        ends_at = request.ends_at and isoformat(parse_time(request.ends_at))
        ends_at = ends_at or planned_end(starts_at, parse_duration(request.duration or "1h"))
        window = Window(
            f"{isoformat(starts_at).replace('-', '').replace(':', '')}-{uuid4().hex[:4]}",
            request.site, request.title, request.planned, tuple(sorted(set(request.services))), isoformat(starts_at),
            ends_at,
        )  # fmt: skip
        return self._sound(window)

    def _changed(self, request: Request, known: Window) -> Window:
        """A known window with what is asked for anew. One that began keeps its services and its beginning."""
        if request.title not in ("", known.title):
            return known  # it is the other one of two that were merged
        begun = known.status == "started"
        services = tuple(sorted(set(request.services))) if request.services else known.services
        if begun and set(services) - set(known.services) and known.services:
            raise WindowError(f"window {told(known)} began already for other services: end it first")
        starts_at = isoformat(parse_time(request.starts_at)) if request.starts_at and not begun else known.starts_at
        ends_at = known.ends_at
        if request.ends_at:
            ends_at = isoformat(parse_time(request.ends_at))
        elif request.duration:
            ends_at = planned_end(parse_time(starts_at), parse_duration(request.duration))
        return self._sound(
            replace(
                known, services=known.services if begun else services, starts_at=starts_at, ends_at=ends_at,
                planned=known.planned if begun else request.planned,
            )
        )  # fmt: skip

    def _sound(self, window: Window) -> Window:
        if window.ends_at <= window.starts_at:
            raise WindowError(f"window {told(window)} ends before it begins")
        if window.status != "started" and window.ends_at <= isoformat(self._clock()):
            raise WindowError(f"the time of window {told(window)} is over: give it a new end or duration")
        return window

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, request: Request) -> Act:
        """Begin a window, known or new, when all checks are well or overridden."""
        with opened(self._database, write=False) as history:
            known = self._known(history, request, ("planned", "started"))
            already = known is not None and known.status == "started"
            wanted = self._wanted(history, request, known)
        if already and wanted == known:
            return Act(known, False, f"window {told(wanted)} began already, at {wanted.started_at}")
        if already:
            return self._prolonged(known, wanted)
        return self._begun(request, known)

    def _prolonged(self, known: Window | None, wanted: Window) -> Act:
        with opened(self._database, write=not self._check_mode) as history:
            write_window(history.connection, wanted)
        return Act(
            wanted, True, f"window {wanted.title!r} lasts until {wanted.ends_at} now", before=_text(known),
            after=_text(wanted),
        )  # fmt: skip

    def _begun(self, request: Request, known: Window | None) -> Act:
        before_telling = [name for name in CHECKS_BEFORE if name != "users_told"]
        checks = verdicts(before_telling, self._evidence(request), request.overrides)
        if any(item.blocks for item in checks):
            return Act(known, False, f"window {request.title!r} does not start", checks, CHECKS_BEFORE)
        with opened(self._database, write=not self._check_mode) as history:
            window = self._wanted(history, request, self._known(history, request, ("planned", "started")))
            joined = window.status == "started"
            window = window.noted(**_way_back(window, request, joined))
            write_window(history.connection, window)
        window, failures = self._announced(window, request)
        checks = [item for item in checks if item.name != "users_told"]
        checks += verdicts(("users_told",), [self._users_told(request, window, failures)], _only(request, "users_told"))
        if any(item.blocks for item in checks):
            return Act(window, True, f"window {request.title!r} does not start", checks, CHECKS_BEFORE)
        now = isoformat(self._clock())
        begun = replace(window, status="started", started_at=window.started_at or now)
        begun = begun.noted(checks_before=[asdict(item) for item in checks])
        with opened(self._database, write=not self._check_mode) as history:
            self._still(history, window)
            write_window(history.connection, begun)
        message = f"window {begun.title!r} {self._word('began', 'would begin')}, until {begun.ends_at}" + (
            ", merged with what was asked for" if joined else ""
        )
        return Act(begun, True, message, checks, CHECKS_BEFORE, _text(known), _text(begun))

    def _still(self, history: History, window: Window) -> None:
        """Somebody else may have ended or cancelled it while people were told."""
        for other in read_windows(history.connection, window.site):
            if other.id == window.id and other.status not in ("planned", "started"):
                raise WindowError(f"window {window.title!r} was {other.status} meanwhile")

    def _evidence(self, request: Request) -> list[Mapping[str, Any]]:
        """The checks that were given, and the one that is made here: whether it was tried in staging."""
        given = [item for item in request.checks if item["name"] != "staging_run"]
        site, database = request.staging_site, self._database
        if os.sep in site:
            database, site = site, ""
            if not os.path.exists(database):
                hint = "Correct upkeep_staging_site"
                summary = f"there is no history {database} of the staging site"
                return [*given, {"name": "staging_run", "status": "unknown", "summary": summary, "hint": hint}]
        with opened(database, write=False) as history:
            last = last_run(history.connection, site, request.staging_run)
        return [
            *given,
            staging_verdict(
                request.staging_site, request.staging_run, last, self._clock(), request.staging_max_age
            ),
        ]  # fmt: skip

    # -- telling ---------------------------------------------------------------------------------------------------

    def _announced(self, window: Window, request: Request, stage: str = "announced") -> tuple[Window, list[str]]:
        """Tell the contacts that were not told yet, and note it; returns also who could not be told, and why."""
        known = dict(window.record.get(stage) or {})
        failures = []
        for contact in request.contacts:
            if contact in known or self._check_mode:
                continue
            error = self._tell(contact, *_notice(window, stage))
            if error:
                failures.append(f"{contact} was not told: {error}")
            else:
                known[contact] = isoformat(self._clock())
        if known == (window.record.get(stage) or {}):
            return window, failures
        window = window.noted(**{stage: known})
        with opened(self._database, write=True) as history:
            write_window(history.connection, window)
        return window, failures

    def _users_told(self, request: Request, window: Window, failures: Sequence[str]) -> Mapping[str, Any]:
        """The check ``users_told``: the part that was given (the status page), and the contacts."""
        page = next((item for item in request.checks if item["name"] == "users_told"), None)
        if page is not None and page["status"] != "ok":
            return page
        names = sorted({*(window.record.get("announced") or {}), *(request.contacts if self._check_mode else ())})
        parts = [str(page["summary"])] if page else []
        if failures or not names:
            why = "; ".join(failures) or "no contact with urls is given"
            hint = "Mend the target; run it again, which tells nobody twice"
            return {"name": "users_told", "status": "critical", "summary": "; ".join([*parts, why]), "hint": hint}
        parts.append(f"{'would be told' if self._check_mode else 'told'}: {', '.join(names)}")
        return {"name": "users_told", "status": "ok", "summary": "; ".join(parts)}

    # -- end and cancel --------------------------------------------------------------------------------------------

    def end(self, request: Request) -> Act:
        """End a window when its services are well, and write down what was done in it."""
        with opened(self._database, write=False) as history:
            window = self._begun_one(history, request)
            if window.status == "ended":
                return Act(window, False, f"window {window.title!r} ended already, at {window.ended_at}")
            made = [*request.checks, *self._noted(history, window, request)]
            checks = verdicts(CHECKS_AFTER, made, request.overrides)
            record = self._result(history, window, request)
        if any(item.blocks and item.name in CHECKS_AFTER for item in checks):
            return Act(window, False, f"window {window.title!r} does not end", checks, CHECKS_AFTER)
        path = os.path.join(request.directory, f"window-{window.id}.md") if request.directory else ""
        checks = [*checks, *_written(path)]
        ended = replace(window, status="ended", ended_at=isoformat(self._clock()))
        ended = ended.noted(**record, checks_after=[asdict(item) for item in checks], document=path)
        text, before = document(ended), text_of(path) if path else ""
        if path and not self._check_mode:
            os.makedirs(request.directory, mode=0o700, exist_ok=True)
            publish_text(path, text, 0o640)
        with opened(self._database, write=not self._check_mode) as history:
            self._still_open(history, window)
            write_window(history.connection, ended)
        ended, failures = self._announced(ended, request, "told_over")
        message = f"window {ended.title!r} {self._word('ended', 'would end')}, it began at {ended.started_at}"
        message += "".join(f"; {failure}" for failure in failures)
        return Act(ended, True, message, checks, CHECKS_AFTER, before or "", text)

    def _begun_one(self, history: History, request: Request) -> Window:
        if request.title or request.id:
            found = self._known(history, request, ("started",)) or self._known(history, request, ())
            if found is None:
                name = request.title or request.id
                raise WindowError(f"there is no window {name!r}: -e maintenance_window_stage=status tells them")
            if found.status not in ("started", "ended"):
                raise WindowError(f"window {told(found)} never began: cancel it instead")
            return found
        begun = read_windows(history.connection, request.site, ("started",))
        if len(begun) != 1:
            names = "; ".join(told(window) for window in begun) or "none is"
            raise WindowError(f"say which window is to be ended, by its title: {names}")
        return begun[0]

    def _still_open(self, history: History, window: Window) -> None:
        if all(other.id != window.id for other in read_windows(history.connection, window.site, ("started",))):
            raise WindowError(f"window {window.title!r} was ended meanwhile")

    def _result(self, history: History, window: Window, request: Request) -> dict[str, Any]:
        """What is recorded of a window at its end."""
        now = self._clock()
        return {
            "changes": changes_between(history.connection, window.site, window.started_at, isoformat(now)),
            "health": watched(history.connection, window, isoformat(now)),
            "performance": self._performance(history, window, request, now),
        }

    def _performance(self, history: History, window: Window, request: Request, now: datetime) -> list[dict[str, Any]]:
        begun = parse_time(window.started_at)
        before = figures_between(history.connection, window.site, begun - _LOOK_BACK, begun)
        measured = figures_between(history.connection, window.site, begun, now)
        newest = {host: {name: points[-1] for name, points in named.items()} for host, named in measured.items()}
        given = {host: dict(named) for host, named in request.figures.items()}
        return compared(before, {**newest, **given}, request.tolerance)

    def _noted(self, history: History, window: Window, request: Request) -> list[dict[str, Any]]:
        now = self._clock()
        seen = watched(history.connection, window, isoformat(now))
        return [watched_verdict(seen), performance_verdict(self._performance(history, window, request, now))]

    def cancel(self, request: Request) -> Act:
        """Give up a window that has not begun."""
        with opened(self._database, write=not self._check_mode) as history:
            window = self._known(history, request, ())
            if window is None:
                raise WindowError(f"there is no window {request.title or request.id!r} to cancel")
            if window.status == "cancelled":
                return Act(window, False, f"window {window.title!r} was cancelled already")
            if window.status != "planned":
                raise WindowError(f"window {told(window)} has begun: end it instead")
            cancelled = replace(window, status="cancelled")
            write_window(history.connection, cancelled)
        if window.record.get("announced"):
            cancelled, _failures = self._announced(cancelled, request, "told_cancelled")
        message = f"window {window.title!r} {self._word('is', 'would be')} cancelled"
        return Act(cancelled, True, message, before=_text(window), after=_text(cancelled))

    def _word(self, done: str, foretold: str) -> str:
        return foretold if self._check_mode else done

    # -- look ------------------------------------------------------------------------------------------------------

    def found(self, request: Request) -> tuple[list[Window], list[dict[str, Any]]]:
        """The windows that are planned or open, and those of the last 90 days; and what goes on in the open ones."""
        now = self._clock()
        since = isoformat(now - timedelta(days=90))
        with opened(self._database, write=False) as history:
            windows = [
                window
                for window in read_windows(history.connection, request.site)
                if window.status in ("planned", "started") or window.ends_at >= since
            ]
            at_work = [
                {"id": window.id, "title": window.title, **self._result(history, window, request)}
                for window in windows
                if window.status == "started"
            ]
        return windows, at_work


def request_from(params: Mapping[str, Any], contacts: Sequence[str]) -> Request:
    """What the options of the module ask for; ``contacts`` are the names of those who can be told."""
    same = (
        "site",
        "title",
        "id",
        "planned",
        "starts_at",
        "ends_at",
        "duration",
        "checks",
        "overrides",
        "rollback",
        "way_back",
    )
    return Request(
        **{name: params[name] for name in same},
        services=tuple(params["services"]),
        merge=params["overlap"] == "merge",
        contacts=tuple(contacts),
        staging_site=params["staging_site"],
        staging_run=params["staging_run"],
        staging_max_age=parse_duration(params["staging_max_age"]),
        figures=params["figures"],
        tolerance=params["tolerance"],
        directory=params["directory"] or "",
    )


def _written(path: str) -> list[Verdict]:
    where = f"{path}" if path else "in the history alone"
    return [
        Verdict("changes_documented", "ok", f"written: {where}"),
        Verdict("review_opened", "ok", "due as an item of the checklist post"),
    ]


def _way_back(window: Window, request: Request, joined: bool) -> dict[str, Any]:
    """What there is to go back to; in a window that began already, what it was then comes first."""
    earlier: Sequence[Any] = window.record.get("rollback") or []
    hosts: Mapping[str, Any] = window.record.get("way_back") or {}
    points, known = list(request.rollback) or list(earlier), dict(request.way_back or hosts)
    if joined:
        points = [*earlier, *(point for point in points if point not in earlier)]
        for host, recorded in hosts.items():
            new = known.get(host) or {}
            known[host] = {kind: {**(new.get(kind) or {}), **recorded[kind]} for kind in recorded}
    return {"rollback": points, "way_back": known}


def _only(request: Request, name: str) -> dict[str, str]:
    return {name: request.overrides[name]} if name in request.overrides else {}


def _notice(window: Window, stage: str) -> tuple[str, str]:
    """Title and text of what people are told."""
    services = ", ".join(window.services) or "all services"
    kind = "planned maintenance" if window.planned else "unplanned maintenance"
    words = {
        "announced": f"{kind}, {window.starts_at} to {window.ends_at}",
        "told_over": f"maintenance is over since {window.ended_at}",
        "told_cancelled": "the maintenance that was announced will not take place",
    }
    title = f"[{window.site}] {window.title}: {words[stage]}"
    lines = [f"{window.title}: {words[stage]}.", f"Services: {services}."]
    if stage == "announced":
        lines.append("They may be down or slow in this time. You are told when it is over.")
    return title, "\n".join(lines)


def _text(window: Window | None) -> str:
    """A window for a diff."""
    if window is None:
        return ""
    shown = {**window.as_dict(), "services": ", ".join(window.services) or "all"}
    del shown["record"]
    return "".join(f"{key}: {value}\n" for key, value in shown.items())
