# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup sets stay and which go, and why. Pure policy; nothing is touched here.

Each rule keeps the newest verified set of each of the last so many hours, days, weeks, months or years that have one,
in UTC; a set that any rule wants stays. What was never proved fills no place, so that a row of broken backups cannot
push the last good one out. Nor does a safety set of a recovery: it holds what was to be replaced, for as long as it is
held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import (
    CLOCK_TOLERANCE,
    BackupSet,
    moment_of,
    newest,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: The rules by calendar: what two moments of the same place have in common.
_PLACES: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda moment: f"{moment:%Y-%m-%d %H} h",
    "daily": lambda moment: f"{moment:%Y-%m-%d}",
    "weekly": lambda moment: f"{moment:%G-W%V}",
    "monthly": lambda moment: f"{moment:%Y-%m}",
    "yearly": lambda moment: f"{moment:%Y}",
}


@dataclass(frozen=True)
class Policy:
    """How many sets each rule keeps; ``within`` is the age in seconds up to which every verified one is kept."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"the rule {name} must keep 0 or more, not {value}")

    @property
    def empty(self) -> bool:
        """Whether no rule is set: then nobody said that anything may go."""
        return not any(vars(self).values())


@dataclass(frozen=True)
class Decision:
    """Whether a set stays, and why. One that is ``in_use`` would go else."""

    entry: BackupSet
    keep: bool
    reason: str
    in_use: bool = False


def plan(sets: Iterable[BackupSet], policy: Policy, now: datetime) -> list[Decision]:
    """A decision on each set that is not being built, newest first."""
    done = sorted((entry for entry in sets if entry.state != "partial"), key=lambda entry: entry.id, reverse=True)
    if policy.empty:
        return [Decision(entry, True, "no rule is set, and without one nothing is removed") for entry in done]
    # A set of the future comes from a clock that was wrong: it stays, and takes no place from the others.
    dated = [entry for entry in done if entry.age(now) >= -CLOCK_TOLERANCE]
    wanted: dict[str, list[str]] = {entry.id: [] for entry in done}
    for entry in done:
        if entry.age(now) < -CLOCK_TOLERANCE:
            wanted[entry.id].append("it is dated in the future: see the clock of this host")
        if entry.held_at(now):
            until = f" until {entry.hold_until}" if entry.hold_until else ""
            wanted[entry.id].append(f"held{until} ({entry.hold_reason or 'no reason given'})")
    for identifier, reason in [*_best(dated), *_by_rules(dated, policy)]:
        wanted[identifier].append(reason)
    return [
        Decision(entry, bool(wanted[entry.id]), "; ".join(wanted[entry.id]) or _why_not(entry, dated)) for entry in done
    ]


def _best(sets: Sequence[BackupSet]) -> Iterator[tuple[str, str]]:
    """What recovery needs, whatever the rules say, and what is not yet replaced by anything better."""
    proved = newest(sets, "verified") or next((entry for entry in sets if entry.state == "verified"), None)
    good, drilled = newest(sets, "complete"), newest(sets, "drilled")
    if proved is not None:
        yield proved.id, "the newest verified one"
    elif good is not None:
        yield good.id, "the newest good one"
    if drilled is not None:
        yield drilled.id, "the newest that was restored in a drill"
    for entry in sets:
        if entry.state != "verified" and (proved is None or entry.id > proved.id):
            what = "it failed and is kept for a look" if entry.state == "failed" else "it waits for its verification"
            yield entry.id, f"{what}: none after it is verified yet"


def _by_rules(sets: Sequence[BackupSet], policy: Policy) -> Iterator[tuple[str, str]]:
    """What the rules keep of the verified sets, newest first."""
    verified = [entry for entry in sets if entry.state == "verified" and not entry.safety]
    for number, entry in enumerate(verified[: policy.last], start=1):
        yield entry.id, f"last ({number} of {policy.last})"
    for rule, place_of in _PLACES.items():
        places: list[str] = []
        for entry in verified:
            place = place_of(moment_of(entry.id))
            if place in places:
                continue
            if len(places) == getattr(policy, rule):
                break
            places.append(place)
            yield entry.id, f"{rule} ({place})"
    for entry in verified:
        # Counted from the newest one: where backups stopped, the last ones must not go one by one.
        if policy.within and (moment_of(verified[0].id) - moment_of(entry.id)).total_seconds() <= policy.within:
            yield entry.id, f"within {format_duration(policy.within)} of the newest"


def _why_not(entry: BackupSet, sets: Sequence[BackupSet]) -> str:
    if entry.safety:
        return "it is a safety set, and its hold is over"
    if entry.state == "verified":
        return "no rule keeps it"
    proved = newest(sets, "verified")
    since = f", and {proved.id} is verified" if proved else ""
    return ("it failed" if entry.state == "failed" else "it was never verified") + since
