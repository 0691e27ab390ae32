# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples of disk use kept over time, and when a file system will be full by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text
from ansible_collections.upkeep.ops.plugins.module_utils._statistics import DAYS_NEEDED, Growth, growth
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

#: How long samples are kept.
KEPT = timedelta(days=60)

#: A newer sample than this makes another one needless: forecasts look at daily maxima.
INTERVAL = timedelta(hours=1)

#: Days beyond which a forecast says nothing that can be acted upon.
_FAR = 3650.0


@dataclass(frozen=True)
class Sample:
    """Use of one file system at one moment."""

    at: str
    mount: str
    used_bytes: int
    used_inodes: int


def sample_from(values: Mapping[str, Any]) -> Sample:
    """A sample from its keys. Raises ValueError when one is missing or is not what it should be."""
    try:
        at = isoformat(parse_time(str(values["at"])))
        return Sample(at, str(values["mount"]), int(values["used_bytes"]), int(values["used_inodes"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dict(values)!r} is no sample: it needs at, mount, used_bytes and used_inodes") from error


def read_samples(path: str) -> tuple[list[Sample], int]:
    """The samples of a file, and how many lines were damaged and passed over. A missing file has none.

    Raises OSError when it is there and cannot be read.
    """
    samples, damaged = [], 0
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    samples.append(sample_from(json.loads(line)))
                except (ValueError, TypeError):
                    damaged += 1
    except FileNotFoundError:
        return [], 0
    return samples, damaged


def record(samples: Sequence[Sample], disks: Iterable[Mapping[str, Any]], now: datetime) -> list[Sample]:
    """The samples with those of now added and the old ones dropped; the same list when the newest is recent."""
    recent = isoformat(now - INTERVAL)
    kept = [sample for sample in samples if sample.at >= isoformat(now - KEPT)]
    known = {sample.mount for sample in kept if sample.at > recent}
    at = isoformat(now)
    new = [
        Sample(at, disk["mount"], disk["used_bytes"], disk["used_inodes"])
        for disk in disks
        if not disk["problem"] and disk["mount"] not in known
    ]
    return kept + new if new else list(samples)


def write_samples(path: str, samples: Iterable[Sample]) -> None:
    """Publish the file as a whole. Raises OSError."""
    publish_text(path, "".join(json.dumps(asdict(sample), sort_keys=True) + "\n" for sample in samples))


def forecast(samples: Iterable[Sample], disk: Mapping[str, Any]) -> dict[str, Any]:
    """When a file system is out of bytes or inodes, whichever is first; with growth per day and the method.

    ``days_to_full`` is null when it does not grow, when that is ten years off, or when there is not enough history;
    ``explanation`` says which.
    """
    of_mount = [(parse_time(sample.at).timestamp(), sample) for sample in samples if sample.mount == disk["mount"]]
    by_bytes = growth((at, float(sample.used_bytes)) for at, sample in of_mount)
    by_inodes = growth((at, float(sample.used_inodes)) for at, sample in of_mount)
    days = _soonest(
        _days(disk["available_bytes"], by_bytes),
        _days(disk["total_inodes"] - disk["used_inodes"], by_inodes) if disk["total_inodes"] else None,
    )
    return {
        "days_to_full": days,
        "bytes_per_day": None if by_bytes.per_day is None else round(by_bytes.per_day),
        "inodes_per_day": None if by_inodes.per_day is None else round(by_inodes.per_day),
        "method": by_bytes.method,
        "days_of_history": by_bytes.days,
        "explanation": _explanation(by_bytes, days),
    }


def _days(free: float, found: Growth) -> float | None:
    if found.per_day is None or found.per_day <= 0:
        return None
    return min(_FAR, max(0.0, free / found.per_day))


def _soonest(*days: float | None) -> float | None:
    known = [day for day in days if day is not None and day < _FAR]
    return round(min(known), 1) if known else None


def _explanation(found: Growth, days: float | None) -> str:
    if found.per_day is None:
        return f"time to full unknown, not enough history ({found.days} of {DAYS_NEEDED} days)"
    if days is None:
        return f"not filling up by {found.days} days of history"
    return f"full in about {days:g} days by {found.days} days of history"
