# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time and durations as the collection writes and reads them. The clock is always passed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone

#: A clock: returns the present moment with its time zone.
Clock = Callable[[], datetime]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def utc_now() -> datetime:
    """The clock of production: now, in UTC."""
    return datetime.now(timezone.utc)


def isoformat(moment: datetime) -> str:
    """RFC 3339 in UTC to the second, as ``2026-01-31T23:59:59Z``; sorts as text."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment written by :func:`isoformat` or in any RFC 3339 form; without a zone it is taken as UTC.

    Raises ValueError with the text when it is no point in time.
    """
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is no point in time such as 2026-01-31T23:59:59Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def parse_duration(text: str | int | float) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``26h``, ``1d 12h`` or ``2w``; a bare number is seconds.

    Raises ValueError with the text when it is no duration.
    """
    if isinstance(text, (int, float)):
        return float(text)
    stripped = text.strip().lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return float(stripped)
    parts = _DURATION.findall(stripped)
    if not parts or _DURATION.sub("", stripped).strip():
        raise ValueError(f"{text!r} is no duration such as 90s, 15m, 26h, 7d or '1d 12h'")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """A duration for people, in its two largest units: ``3 d 4 h``, ``12 min 5 s``, ``0.4 s``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)
