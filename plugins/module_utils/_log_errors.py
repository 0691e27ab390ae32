# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors in logs before and after a moment: how many, and which, in lines that hold no secret."""

from __future__ import annotations

import calendar
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._access_log_files import blocks, enter, open_log
from ansible_collections.upkeep.ops.plugins.module_utils._secrets import masked_line
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

_ERROR = re.compile(
    rb"\b(?:error|err|fatal|panic|crit|critical|emerg|exception|traceback|segfault|failed|refused)\b"
    rb"|\"(?:level|severity)\"\s*:\s*(?:\"(?:error|fatal|critical)|[56]0\b)"
    rb"|\" 5\d\d (?:\d+|-)(?: |$)",
    re.IGNORECASE,
)
_ISO = re.compile(rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?\s?(Z|[+-]\d\d:?\d\d)?")
_CLF = re.compile(rb"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]")
_MONTHS = {name.encode(): number for number, name in enumerate(calendar.month_abbr) if name}
#: A time stands near the begin of a line.
_HEAD = 200
_LONGEST = 300
_MOST_KINDS = 500
_MOVING = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+", re.IGNORECASE)


@dataclass
class LogErrors:
    """What one log holds: errors in the time before and since, and the commonest of the latter."""

    path: str
    before: int = 0
    after: int = 0
    first_at: float = 0
    last_at: float = 0
    kinds: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, line: str, at: float) -> None:
        """Count a line since the moment."""
        self.after += 1
        self.first_at = min(self.first_at or at, at)
        self.last_at = max(self.last_at, at)
        kind = _MOVING.sub("#", line[:_LONGEST])
        if kind in self.kinds:
            self.kinds[kind][0] += 1
        elif len(self.kinds) < _MOST_KINDS:
            self.kinds[kind] = [1, line]

    def as_dict(self, most: int) -> dict[str, Any]:
        """As results carry it, with so many lines at most, masked."""
        commonest = sorted(self.kinds.values(), key=lambda item: -item[0])[:most]
        return {
            "path": self.path,
            "before": self.before,
            "after": self.after,
            "first_at": _moment(self.first_at),
            "last_at": _moment(self.last_at),
            "lines": [{"count": count, "text": masked_line(line)[:_LONGEST]} for count, line in commonest],
        }


def errors_in(path: str, since: float, began: float, max_bytes: int) -> LogErrors:
    """Read the end of a log, ``max_bytes`` of it at most, and count errors from ``since`` on. Raises OSError.

    A line without a time is of the time of the one before it, as those of a traceback are.
    """
    found, at = LogErrors(path), None
    with open_log(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            enter(stream, size - max_bytes)
        for line in _lines(blocks(stream, max_bytes)):
            told = time_of(line[:_HEAD])
            at = told if told is not None else at
            if at is None or at < since or not _ERROR.search(line):
                continue
            if at < began:
                found.before += 1
            else:
                found.add(line.decode(errors="replace").strip(), at)
    return found


def time_of(line: bytes) -> float | None:
    """When a line was written; one without a zone is in that of this machine."""
    clf = _CLF.search(line)
    try:
        if clf:
            day, month, year, hour, minute, second, zone = clf.groups()
            parts = (int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second))
            return _timestamp(parts, zone)
        iso = _ISO.search(line)
        return _timestamp(tuple(int(part) for part in iso.groups()[:6]), iso.group(7)) if iso else None
    except (ValueError, KeyError, OverflowError):
        return None


def _timestamp(parts: tuple[int, ...], zone: bytes | None) -> float:
    year, month, day, hour, minute, second = parts
    naive = datetime(year, month, day, hour, minute, min(second, 59))
    if zone is None:
        return naive.timestamp()
    if zone == b"Z":
        return naive.replace(tzinfo=timezone.utc).timestamp()
    digits = zone[1:].replace(b":", b"")
    offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60
    return naive.replace(tzinfo=timezone.utc).timestamp() - (offset if zone[:1] == b"+" else -offset)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from piece.splitlines()


def _moment(at: float) -> str:
    return isoformat(datetime.fromtimestamp(at, timezone.utc)) if at else ""
