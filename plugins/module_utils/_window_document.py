# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of a maintenance window in Markdown: what was checked, changed and measured, and what people fill in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import Window
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time


def document(window: Window) -> str:
    """Everything that is recorded of a window."""
    record = window.record
    parts = [
        _head(window),
        _checks("Before it", record.get("checks_before") or []),
        _rollback(record.get("rollback") or []),
        _changes(record.get("changes") or []),
        _health(record.get("health") or {}),
        _performance(record.get("performance") or []),
        _checks("After it", record.get("checks_after") or []),
        _told(record),
        "## Review\n\nTo be filled in by people, then signed off: checklist post, item post_maintenance_review.\n\n"
        "- What went well:\n- What did not:\n- What is to be done, by whom, until when:\n",
    ]
    return "\n".join(part for part in parts if part)


def _head(window: Window) -> str:
    lasted = format_duration((parse_time(window.ended_at) - parse_time(window.started_at)).total_seconds())
    over = (parse_time(window.ended_at) - parse_time(window.ends_at)).total_seconds()
    late = f", {format_duration(over)} later than planned" if over > 0 else ""
    rows = [
        ("Site", window.site),
        ("Window", window.id),
        ("Kind", "planned" if window.planned else "unplanned"),
        ("Services", ", ".join(window.services) or "all"),
        ("Meant for", f"{window.starts_at} to {window.ends_at}"),
        ("Took place", f"{window.started_at} to {window.ended_at} ({lasted}{late})"),
    ]
    merged = [f"{_cell(item['title'])} until {item['ends_at']}" for item in window.record.get("merged") or []]
    rows += [("Merged with", "; ".join(merged))] if merged else []
    table = "".join(f"| {name} | {_cell(value)} |\n" for name, value in rows)
    return f"# Maintenance: {_cell(window.title)}\n\n| | |\n|---|---|\n{table}"


def _checks(title: str, checks: Sequence[Mapping[str, Any]]) -> str:
    if not checks:
        return ""
    lines = [
        f"| {item['name']} | {item['status']} | {_cell(item['summary'])} | {_cell(item['override'])} |\n"
        for item in checks
    ]
    return f"## {title}\n\n| check | status | what | overridden because |\n|---|---|---|---|\n{''.join(lines)}"


def _rollback(points: Sequence[Any]) -> str:
    if not points:
        return ""
    lines = [f"- {_cell(point)}\n" for point in points]
    return f"## The way back\n\n{''.join(lines)}"


def _changes(changes: Sequence[Mapping[str, str]]) -> str:
    if not changes:
        return "## Changes\n\nNo run noted a change. What was done by hand is to be written here.\n"
    lines = [
        f"| {item['at']} | {item['run']} | {item['procedure']} | {_cell(item['host'])} | {_cell(item['text'])} |\n"
        for item in changes
    ]
    return (
        "## Changes\n\nAs the runs between start and end noted them. What was done by hand is to be added.\n\n"
        f"| at | run | procedure | host | change |\n|---|---|---|---|---|\n{''.join(lines)}"
    )


def _health(seen: Mapping[str, Mapping[str, int]]) -> str:
    if not seen:
        return ""
    lines = [f"| {_cell(name)} | {item['seen']} | {item['down']} |\n" for name, item in seen.items()]
    return f"## Health in between\n\n| service | observed | seen down |\n|---|---|---|\n{''.join(lines)}"


def _performance(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        f"| {_cell(row['host'])} | {row['name']} | {_figure(row['before'], row['unit'])} "
        f"| {_figure(row['after'], row['unit'])} | {row['status']} |\n"
        for row in rows
    ]
    head = "| host | figure | before (median of a week) | after | |\n|---|---|---|---|---|"
    return f"## Performance\n\n{head}\n{''.join(lines)}"


def _figure(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"


def _told(record: Mapping[str, Any]) -> str:
    lines = [f"- {_cell(name)}: {at}\n" for name, at in (record.get("announced") or {}).items()]
    return f"## Who was told\n\n{''.join(lines)}" if lines else ""


def _cell(text: Any) -> str:
    """Text that breaks out of no table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
