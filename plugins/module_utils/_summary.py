# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a run on a terminal: a short table of what was found, what was changed and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import STATUSES
from ansible_collections.upkeep.ops.plugins.module_utils._runs import CAUSE_FIELDS, by_cause
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: Marks up one word by its status; the callback gives colors, the plain text none.
Paint = Callable[[str, str], str]

_LEAST_WIDTH = 60
_MOST_FINDINGS = 8


def _plain(text: str, _status: str) -> str:
    return text


def summary_lines(summary: Mapping[str, Any], width: int = 120, paint: Paint = _plain) -> list[str]:
    """The lines of a run's end.

    ``summary`` has the keys ``run`` (as ``maintenance_history`` returns it), ``alerts`` (as ``alert`` returns
    them), ``report`` (path or empty), ``broken`` (sentences about the end of the run itself) and ``check_mode``, in
    which nothing was sent or written. ``width`` is that of the terminal in columns.
    """
    run = summary["run"]
    width = max(width, _LEAST_WIDTH)
    done = not summary.get("check_mode")
    lines = [_headline(run, paint) + ("" if done else " (check mode: nothing was written or sent)"), ""]
    lines += _table(run, width, paint)
    lines += _changes(run, width)
    lines += _alerts(summary.get("alerts") or {}, paint, "Alerts:" if done else "Alerts that would be sent:")
    if done and summary.get("report"):
        lines += ["", f"Report: {summary['report']}"]
    lines += [paint(f"The end of this run is broken: {reason}", "critical") for reason in summary.get("broken") or []]
    return lines


def _headline(run: Mapping[str, Any], paint: Paint) -> str:
    counts = ", ".join(f"{run['counts'][status]} {status}" for status in reversed(STATUSES) if run["counts"][status])
    verdict = paint(run["status"].upper(), run["status"])
    lasted = format_duration(run["seconds"])
    return f"{run['name']} run of {run['site']}: {verdict}   {counts or 'no findings'} in {lasted}"


def _table(run: Mapping[str, Any], width: int, paint: Paint) -> list[str]:
    rows = _rows(run)
    columns = [max([len(title), *(len(row[index]) for row in rows)]) for index, title in enumerate(_TITLES[:3])]
    indent = sum(columns) + 2 * len(columns)
    lines = ["  ".join([*(title.ljust(size) for title, size in zip(_TITLES, columns)), _TITLES[3]])]
    for procedure, host, status, told in rows:
        cells = [procedure.ljust(columns[0]), host.ljust(columns[1]), paint(status.ljust(columns[2]), status)]
        wrapped = _wrap(told, width - indent)
        lines.append("  ".join([*cells, wrapped[0]]).rstrip())
        lines += [" " * indent + line for line in wrapped[1:]]
    return lines


_TITLES = ("PROCEDURE", "HOST", "STATUS", "WHAT TO DO")


def _rows(run: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row for each outcome that is well, one for each finding that is not; what it explains stands in its row."""
    unwell = [item for item in run["findings"] if item["status"] != "ok"]
    tops: dict[tuple[str, str], list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]] = {}
    explained: dict[tuple[str, str], tuple[str, str]] = {}
    for top, under in by_cause(unwell, itemgetter(*CAUSE_FIELDS)):
        tops.setdefault((top["procedure"], top["host"]), []).append((top, under))
        for item in under:
            explained.setdefault((item["procedure"], item["host"]), (item["status"], f"see {top['subject']}"))
    rows = []
    for key in dict.fromkeys([*((item["procedure"], item["host"]) for item in run["outcomes"]), *tops]):
        if key in tops:
            rows += _problem_rows(*key, tops[key])
        else:
            rows.append((*key, *explained.get(key, ("ok", ""))))
    return rows


def _problem_rows(
    procedure: str, host: str, problems: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]
) -> list[tuple[str, str, str, str]]:
    rows = [(procedure, host, item["status"], _sentence(item, under)) for item, under in problems[:_MOST_FINDINGS]]
    rest = problems[_MOST_FINDINGS:]
    if rest:
        rows.append((procedure, host, rest[0][0]["status"], f"and {len(rest)} more: see the report"))
    return rows


def _sentence(item: Mapping[str, Any], under: list[Mapping[str, Any]]) -> str:
    told = f"{item['subject']}: {item['summary']}"
    if under:
        names = list(dict.fromkeys(child["subject"] for child in under))
        more = f" and {len(names) - _MOST_FINDINGS} more" if len(names) > _MOST_FINDINGS else ""
        told += f" (under it: {', '.join(names[:_MOST_FINDINGS])}{more})"
    return f"{told} -> {item['hint']}" if item["hint"] else told


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 30), break_long_words=False, break_on_hyphens=False) or [""]


def _changes(run: Mapping[str, Any], width: int) -> list[str]:
    lines = []
    for outcome in run["outcomes"]:
        for change in outcome["changes"]:
            lines += textwrap.wrap(
                f"{outcome['procedure']} on {outcome['host']}: {change}", width, initial_indent="  ",
                subsequent_indent="    ",
            )  # fmt: skip
    return ["", "Changed:", *lines] if lines else []


def _alerts(alerts: Mapping[str, Any], paint: Paint, title: str) -> list[str]:
    lines = [f"  {item['contact']}: {item['title']}" for item in alerts.get("messages") or []]
    lines += [paint(f"  {item['subject']}: {item['summary']}", item["status"]) for item in alerts.get("findings") or []]
    windows: dict[str, list[str]] = {}
    for item in alerts.get("held") or []:
        windows.setdefault(item["window"], []).append(item["subject"])
    lines += [f"  held during maintenance {title!r}: {', '.join(names)}" for title, names in windows.items()]
    return ["", title, *lines] if lines else []
