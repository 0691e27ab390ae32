"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._summary import summary_lines


def finding(subject: str, status: str = "critical", procedure: str = "health_check", **more: Any) -> dict[str, Any]:
    return {
        "procedure": procedure, "host": "app1", "check": "c", "subject": subject, "status": status,
        "summary": f"is {status}", "hint": "", "parent": "", **more,
    }  # fmt: skip


def table(outcomes: list[str], *findings: dict[str, Any], **more: Any) -> str:
    ended = [{"procedure": procedure, "host": "app1", "changes": []} for procedure in outcomes]
    counts = {status: sum(item["status"] == status for item in findings) for status in ("ok", "warning", "unknown")}
    run = {
        "name": "daily", "site": "test", "status": "critical", "seconds": 1.0, "outcomes": ended,
        "counts": {**counts, "critical": 1}, "findings": list(findings),
    }  # fmt: skip
    return "\n".join(summary_lines({"run": run, **more}, width=400))


def test_what_one_failure_explains_stands_in_its_row() -> None:
    told = table(
        ["health_check"],
        finding("redis:cache", hint="Start it"),
        finding("auth", parent="redis:cache"),
        finding("chat", parent="auth"),
        finding("auth", "warning", parent="redis:cache", check="other"),
    )
    assert "redis:cache: is critical (under it: auth, chat) -> Start it" in told
    assert "auth: is" not in told


def test_what_a_lost_host_explains_is_not_told_a_second_time() -> None:
    told = table(
        [],
        finding("app1", "unknown", "run"),
        finding("log_rotation", "unknown", "log_rotation", parent="app1"),
    )
    assert "app1: is unknown (under it: log_rotation)" in told
    assert told.count("log_rotation") == 1


def test_a_parent_that_is_well_explains_nothing() -> None:
    assert "auth: is critical" in table(
        ["health_check"], finding("redis:cache", "ok"), finding("auth", parent="redis:cache")
    )


def test_very_many_findings_are_counted() -> None:
    many = [finding(f"s{number}", parent="top") for number in range(1000)]
    assert "s7 and 992 more)" in table(["health_check"], finding("top"), *many)
    assert "and 992 more: see the report" in table(["health_check"], *[{**item, "parent": ""} for item in many])


def test_a_procedure_that_is_well_has_its_row() -> None:
    assert "log_rotation  app1  ok" in table(["log_rotation"])


def test_a_run_in_check_mode_tells_of_nothing_as_done() -> None:
    parts: dict[str, Any] = {"alerts": {"messages": [{"contact": "Ops", "title": "t"}]}, "report": "/reports/x.html"}
    done = table(["health_check"], finding("auth"), **parts)
    tried = table(["health_check"], finding("auth"), **parts, check_mode=True)
    assert "Report: /reports/x.html" in done and "Alerts:" in done
    assert "/reports/x.html" not in tried and "Alerts that would be sent:" in tried and "check mode" in tried
