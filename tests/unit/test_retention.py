"""Which backup sets stay: the promises of the policy, whatever the sets and the rules are."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSet, moment_of, newest, set_id
from ansible_collections.upkeep.ops.plugins.module_utils._retention import Decision, Policy, plan
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 23, 3, tzinfo=timezone.utc)
DAY = 86400.0


def made(
    hours: float, state: str = "verified", *, held: bool = False, drilled: bool = False, until: str = ""
) -> BackupSet:
    """A set of so many hours ago."""
    identifier = set_id(NOW - timedelta(hours=hours))
    # A drill that passed verifies its set, and one that failed fails it.
    drilled_at = "then" if drilled and state == "verified" else ""
    return BackupSet(identifier, "", state, held=held, drilled_at=drilled_at, hold_until=until, safety=bool(until))


def kept(sets: list[BackupSet], **rules: Any) -> list[str]:
    return [decision.entry.id for decision in plan(sets, Policy(**rules), NOW) if decision.keep]


one_set = st.builds(
    made,
    st.integers(-48, 24 * 800),
    st.sampled_from(["verified", "verified", "complete", "failed", "partial"]),
    held=st.booleans(),
    drilled=st.booleans(),
)
some_sets = st.lists(one_set, max_size=40, unique_by=lambda entry: entry.id)
some_rules = st.fixed_dictionaries(
    {},
    optional={
        **{rule: st.integers(0, 12) for rule in ("last", "hourly", "daily", "weekly", "monthly", "yearly")},
        "within": st.floats(0, 400 * DAY),
    },
)


@settings(max_examples=300)
@given(some_sets, some_rules)
def test_what_is_never_removed(sets: list[BackupSet], rules: dict[str, Any]) -> None:
    decisions = {each.entry.id: each for each in plan(sets, Policy(**rules), NOW)}
    assert set(decisions) == {entry.id for entry in sets if entry.state != "partial"}, "each is decided on"
    assert all(each.reason for each in decisions.values())
    ordered = sorted((e for e in sets if e.id <= set_id(NOW)), key=lambda entry: entry.id, reverse=True)
    best = [newest(ordered, "verified") or newest(ordered, "complete"), newest(ordered, "drilled")]
    for entry in [*best, *(entry for entry in sets if entry.held or entry.id > set_id(NOW + timedelta(hours=1)))]:
        assert entry is None or entry.state == "partial" or decisions[entry.id].keep
    proved = newest(ordered, "verified")
    for entry in ordered:
        if entry.state in ("complete", "failed") and (proved is None or entry.id > proved.id):
            assert decisions[entry.id].keep, "kept for a look until a newer one is verified"


@given(some_sets)
def test_an_empty_policy_removes_nothing(sets: list[BackupSet]) -> None:
    assert len(kept(sets)) == len([entry for entry in sets if entry.state != "partial"])
    assert len(kept(sets, daily=0, within=0)) == len(kept(sets))


@given(some_sets, some_rules)
def test_unverified_sets_push_nothing_out(sets: list[BackupSet], rules: dict[str, Any]) -> None:
    verified = [entry for entry in sets if entry.state == "verified"]
    assert set(kept(verified, **rules)) <= set(kept(sets, **rules))


@given(some_sets, some_rules)
def test_a_second_time_removes_nothing_more(sets: list[BackupSet], rules: dict[str, Any]) -> None:
    first = kept(sets, **rules)
    assert kept([entry for entry in sets if entry.id in first], **rules) == first


@given(some_sets, some_rules, st.sampled_from(["last", "daily", "monthly"]))
def test_a_more_generous_policy_keeps_no_less(sets: list[BackupSet], rules: dict[str, Any], rule: str) -> None:
    if not Policy(**rules).empty:
        assert set(kept(sets, **rules)) <= set(kept(sets, **{**rules, rule: rules.get(rule, 0) + 1}))


@given(st.integers(1, 12), st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_a_rule_keeps_as_many_as_it_says(number: int, rule: str) -> None:
    apart = {"last": 1, "hourly": 1, "daily": 24, "weekly": 168, "monthly": 24 * 31, "yearly": 24 * 366}[rule]
    sets = [made(count * apart) for count in range(20)]
    assert kept(sets, **{rule: number}) == [entry.id for entry in sets[:number]]


def test_the_newest_of_each_place_is_the_one_that_stays() -> None:
    """Two of the days are among the hours, two of the weeks among the days, and so on."""
    sets = [made(hours) for hours in range(24 * 400)]
    assert len(kept(sets, hourly=24, daily=7, weekly=4, monthly=12, yearly=2)) == 24 + 5 + 2 + 11
    days = [moment_of(identifier) for identifier in kept(sets, daily=3)]
    assert [f"{day:%m-%d %H}" for day in days] == ["11-23 03", "11-22 23", "11-21 23"]
    weeks = [moment_of(identifier) for identifier in kept(sets, weekly=2)]
    assert [f"{week:%a %H}" for week in weeks] == ["Mon 03", "Sun 23"]


def test_a_safety_set_stays_for_its_time_only_and_takes_the_place_of_none() -> None:
    before, of_the_night, over = made(30), made(10), made(2, held=True, until="2026-11-23T02:59:00Z")
    lasting = made(1, held=True, until="2026-11-23T03:01:00Z")
    assert kept([before, of_the_night, over, lasting], last=2) == [lasting.id, of_the_night.id, before.id]
    assert kept([of_the_night, over, lasting], daily=1) == [lasting.id, of_the_night.id]
    assert kept([over], last=1) == [over.id], "it is better than nothing"


def test_within_is_counted_from_the_newest_and_not_from_today() -> None:
    """Backups stopped a month ago: the last week of them stays."""
    sets = [made(24 * day) for day in range(30, 50)]
    assert kept(sets, within=7 * DAY) == [entry.id for entry in sets[:8]]


@pytest.mark.parametrize(
    ("entry", "keep", "reason"),
    [
        (made(0), True, "the newest verified one; last (1 of 1)"),
        (made(50), False, "no rule keeps it"),
        (made(50, held=True), True, "held (no reason given)"),
        (made(50, drilled=True), True, "the newest that was restored in a drill"),
        (made(50, "failed"), False, "it failed, and 20261123T020000Z is verified"),
        (made(50, "complete"), False, "it was never verified, and 20261123T020000Z is verified"),
        (made(0, "failed"), True, "it failed and is kept for a look: none after it is verified yet"),
        (made(0, "complete"), True, "it waits for its verification: none after it is verified yet"),
        (made(-2), True, "it is dated in the future: see the clock of this host"),
    ],
)
def test_each_decision_tells_its_reason(entry: BackupSet, keep: bool, reason: str) -> None:
    decisions = {each.entry.id: each for each in plan([made(1), entry], Policy(last=1), NOW)}
    assert decisions[entry.id] == Decision(entry, keep, reason)


def test_with_nothing_verified_the_newest_complete_one_is_the_best_there_is() -> None:
    sets = [made(1, "failed"), made(2, "complete"), made(3, "complete")]
    assert len(kept(sets, last=1)) == 3, "none of them is replaced by a proved one"


def test_a_rule_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the rule daily must keep 0 or more, not -1"):
        Policy(daily=-1)
