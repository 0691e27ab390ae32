"""Who is told what, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._alerts import Contact, Notice, compose, decide, distinct
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding
from ansible_collections.upkeep.ops.plugins.module_utils._history import Identity, State, identity
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 6, 0, tzinfo=timezone.utc)
DAY = timedelta(hours=24)
OPS = Contact("Ops", ("file:///x",))


def finding(subject: str, status: str, procedure: str = "health_check", **more: Any) -> Finding:
    return Finding(
        "service_health", subject, status, f"is {status}", isoformat(NOW), procedure=procedure, host="app1", **more
    )


def states_of(*findings: Finding) -> dict[Identity, State]:
    return {identity(item): State(item.status, item.observed_at, item.summary) for item in findings}


def told_of(*findings: Finding, ago: timedelta = timedelta(hours=1)) -> dict[Identity, tuple[State, str]]:
    return {key: (state, isoformat(NOW - ago)) for key, state in states_of(*findings).items()}


def kinds(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(notice.kind, notice.key[2]) for notice in notices]


def test_a_new_problem_is_told_and_a_repeat_is_not() -> None:
    down = finding("auth", "critical")
    assert kinds(decide(OPS, [down], states_of(down), {}, NOW, DAY)) == [("new", "auth")]
    assert decide(OPS, [down], states_of(down), told_of(down), NOW, DAY) == []


def test_a_lasting_problem_is_told_again_after_the_set_time() -> None:
    down = finding("auth", "critical")
    told = told_of(down, ago=DAY)
    assert kinds(decide(OPS, [down], states_of(down), told, NOW, DAY)) == [("reminder", "auth")]
    assert decide(OPS, [down], states_of(down), told, NOW, timedelta(0)) == []


def test_a_problem_that_gets_worse_is_told() -> None:
    before, now = finding("auth", "unknown"), finding("auth", "critical")
    assert kinds(decide(OPS, [now], states_of(now), told_of(before), NOW, DAY)) == [("changed", "auth")]


def test_recovery_is_always_told_to_who_knew_of_the_problem() -> None:
    down, well = finding("auth", "critical"), finding("auth", "ok")
    assert kinds(decide(OPS, [well], states_of(well), told_of(down), NOW, DAY)) == [("recovered", "auth")]
    assert decide(OPS, [well], states_of(well), {}, NOW, DAY) == []


def test_a_problem_that_is_no_longer_found_has_recovered() -> None:
    secret = finding("config.js", "critical")
    assert kinds(decide(OPS, [], {}, told_of(secret), NOW, DAY)) == [("recovered", "config.js")]


def test_a_check_that_did_not_run_this_time_has_not_recovered() -> None:
    down = finding("auth", "critical")
    assert decide(OPS, [], states_of(down), told_of(down), NOW, DAY) == []


def test_what_cannot_be_measured_is_not_over_for_who_hears_of_critical_alone() -> None:
    down, unknown, well = (finding("auth", status) for status in ("critical", "unknown", "ok"))
    boss = Contact("Boss", ("file:///x",), severities=("critical",))
    assert decide(boss, [unknown], states_of(unknown), told_of(down), NOW, DAY) == []
    assert kinds(decide(boss, [well], states_of(well), told_of(down), NOW, DAY)) == [("recovered", "auth")]


def test_a_title_names_a_few_and_counts_the_others() -> None:
    down = [finding(name, "critical") for name in ("/a/very/long/path/to/some/certificates/of/a.pem", "b", "c", "d")]
    notices = decide(OPS, down, states_of(*down), {}, NOW, DAY)
    title = compose(OPS, notices, "demo", "daily", NOW, "").title
    assert title == "[demo] CRITICAL: .../to/some/certificates/of/a.pem, b, c and 1 more (daily: 4 new)"
    over = decide(OPS, [], {}, told_of(down[1]), NOW, DAY)
    assert compose(OPS, over, "demo", "daily", NOW, "").title == "[demo] RECOVERED: b (daily: 1 recovered)"


def test_children_are_told_under_their_parent_and_alone_once_it_is_well() -> None:
    parent, child = finding("redis:cache", "critical"), finding("auth", "critical", parent="redis:cache")
    notices = decide(OPS, [parent, child], states_of(parent, child), {}, NOW, DAY)
    assert kinds(notices) == [("new", "redis:cache")]
    assert [item.subject for item in notices[0].children] == ["auth"]
    well = finding("redis:cache", "ok")
    later = decide(OPS, [well, child], states_of(well, child), told_of(parent), NOW, DAY)
    assert kinds(later) == [("new", "auth"), ("recovered", "redis:cache")]


def test_severity_and_area_decide_who_is_told() -> None:
    slow = finding("auth", "warning")
    assert decide(OPS, [slow], states_of(slow), {}, NOW, DAY) == []
    keen = Contact("Keen", ("file:///x",), ("warning", "critical"), ("services",))
    assert kinds(decide(keen, [slow], states_of(slow), {}, NOW, DAY)) == [("new", "auth")]
    elsewhere = Contact("Dba", ("file:///x",), ("warning", "critical"), ("database",))
    assert decide(elsewhere, [slow], states_of(slow), {}, NOW, DAY) == []


def test_a_database_that_does_not_answer_is_told_to_who_looks_after_databases() -> None:
    down = finding("redis:cache", "critical")
    keeper = Contact("Dba", ("file:///x",), areas=("database",))
    assert kinds(decide(keeper, [down], states_of(down), {}, NOW, DAY)) == [("new", "redis:cache")]


def test_one_message_tells_all_with_the_worst_in_its_title() -> None:
    parent = finding("redis:cache", "critical", hint="Start redis")
    child = finding("auth", "critical", parent="redis:cache")
    notices = decide(OPS, [parent, child], states_of(parent, child), told_of(finding("old", "critical")), NOW, DAY)
    message = compose(OPS, notices, "demo", "daily", NOW, "https://reports.example.org/x.html")
    assert message.title == "[demo] CRITICAL: redis:cache (daily: 1 new, 1 recovered)"
    for part in ("-> Start redis", "under it: auth", "RECOVERED", "old on app1", "https://reports.example.org/x.html"):
        assert part in message.body
    assert message.body.endswith("\n\n2026-01-31 06:00 UTC, report: https://reports.example.org/x.html")


STATUSES = st.lists(st.sampled_from(["ok", "warning", "unknown", "critical"]), min_size=1, max_size=30)


@given(STATUSES)
def test_over_any_history_each_problem_is_told_once_and_its_end_once(history: list[str]) -> None:
    """A contact that notes what it hears always knows whether the check is well."""
    told: dict[Identity, tuple[State, str]] = {}
    for status in history:
        now = finding("auth", status)
        notices = decide(OPS, [now], states_of(now), told, NOW, DAY)
        assert len(notices) <= 1
        for notice in notices:
            if notice.kind == "recovered":
                del told[notice.key]
            else:
                told[notice.key] = (notice.state, isoformat(NOW))
        assert ({state.status for state, _ in told.values()} == {status}) == (status in OPS.severities)


def test_a_child_is_told_by_itself_to_who_hears_nothing_of_its_parent() -> None:
    """A lost host is the platform's affair; that its backup did not run is the database's."""
    lost = Finding("host_answers", "data1", "unknown", "lost", isoformat(NOW), procedure="run", host="data1")
    missing = Finding(
        "procedure", "database_backup", "unknown", "did not run", isoformat(NOW),
        parent="data1", procedure="database_backup", host="data1",
    )  # fmt: skip
    both = [lost, missing]
    dba = Contact("Dba", ("file:///x",), areas=("database",))
    assert kinds(decide(dba, both, states_of(*both), {}, NOW, DAY)) == [("new", "database_backup")]
    assert kinds(decide(OPS, both, states_of(*both), {}, NOW, DAY)) == [("new", "data1")]


def test_what_fails_over_several_steps_is_told_under_the_first_cause() -> None:
    root, middle, leaf = (
        finding("redis:cache", "critical"),
        finding("auth", "critical", parent="redis:cache"),
        finding("chat", "warning", parent="auth"),
    )
    notices = decide(OPS, [root, middle, leaf], states_of(root, middle, leaf), {}, NOW, DAY)
    assert [(item.key[2], [child.subject for child in item.children]) for item in notices] == [
        ("redis:cache", ["auth", "chat"])
    ]


def test_the_same_subject_on_another_host_explains_nothing() -> None:
    here = finding("redis:cache", "critical")
    there = replace(finding("auth", "critical", parent="redis:cache"), host="app2")
    assert len(decide(OPS, [here, there], states_of(here, there), {}, NOW, DAY)) == 2


def test_findings_that_explain_each_other_in_a_circle_are_told_all_the_same() -> None:
    one, other = finding("a", "critical", parent="b"), finding("b", "critical", parent="a")
    notices = decide(OPS, [one, other], states_of(one, other), {}, NOW, DAY)
    assert sorted([item.key[2] for item in notices] + [child.subject for child in notices[0].children]) == ["a", "b"]


def test_what_is_over_for_a_contact_is_not_called_ok_when_it_is_not() -> None:
    before, now = finding("disk", "critical"), finding("disk", "warning")
    notices = decide(OPS, [now], states_of(now), told_of(before), NOW, DAY)
    body = compose(OPS, notices, "demo", "daily", NOW, "").body
    assert kinds(notices) == [("recovered", "disk")]
    assert "  WARNING   disk on app1: is warning" in body


def test_a_recovery_that_another_run_saw_is_told_in_its_words() -> None:
    down, well = finding("auth", "critical"), finding("auth", "ok")
    body = compose(OPS, decide(OPS, [], states_of(well), told_of(down), NOW, DAY), "demo", "backup", NOW, "").body
    assert "  OK        auth on app1: is ok" in body


def test_a_message_about_very_much_stays_readable() -> None:
    many = [finding(f"disk{number}", "critical") for number in range(500)]
    body = compose(OPS, decide(OPS, many, states_of(*many), {}, NOW, DAY), "demo", "daily", NOW, "").body
    assert "and 450 more: see the report" in body
    assert len(body.splitlines()) < 60


def test_two_contacts_of_one_name_do_not_share_what_they_know() -> None:
    assert [item.name for item in distinct([OPS, Contact("Dba", ()), OPS, OPS])] == ["Ops", "Dba", "Ops (2)", "Ops (3)"]
