"""What a run makes of the outcomes of its procedures."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._runs import outcome_from, presence_findings

NOW = datetime(2026, 1, 31, 6, 0, tzinfo=timezone.utc)
FINE = {"started_at": "2026-01-31T05:59:00Z", "seconds": 1.5, "findings": [], "changes": [], "artifacts": {}}


def test_a_procedure_that_ran_is_a_finding_too_so_that_its_failure_can_recover() -> None:
    outcome = outcome_from("health_check", "app1", FINE)
    assert [(item.check, item.status, item.host) for item in outcome.findings] == [("procedure", "ok", "app1")]


def test_findings_are_claimed_for_procedure_and_host() -> None:
    finding = {"check": "c", "subject": "s", "status": "warning", "summary": "slow", "observed_at": "x", "host": ""}
    outcome = outcome_from("health_check", "app1", {**FINE, "findings": [finding]})
    assert outcome.status == "warning"
    assert (outcome.findings[1].procedure, outcome.findings[1].host) == ("health_check", "app1")


def test_a_failure_is_critical_and_names_its_reason() -> None:
    outcome = outcome_from("log_rotation", "app1", {**FINE, "failed": True, "error": "Rotate: no space left"})
    assert outcome.status == "critical"
    assert "no space left" in outcome.findings[0].summary
    assert "--tags log_rotation" in outcome.findings[0].hint


def test_a_malformed_finding_names_its_procedure() -> None:
    with pytest.raises(ValueError, match="procedure health_check on app1"):
        outcome_from("health_check", "app1", {**FINE, "findings": [{"check": "c", "status": "fine"}]})


def test_a_lost_host_is_unknown_and_its_procedures_are_told_under_it() -> None:
    outcomes = [outcome_from("log_rotation", "app1", FINE)]
    found = presence_findings({"log_rotation": ["app1", "app2"], "security_scan": ["app2"]}, outcomes, NOW)
    assert [(item.check, item.subject, item.status, item.parent) for item in found] == [
        ("host_answers", "app1", "ok", ""),
        ("host_answers", "app2", "unknown", ""),
        ("procedure", "log_rotation", "unknown", "app2"),
        ("procedure", "security_scan", "unknown", "app2"),
    ]


def test_a_host_that_is_lost_midway_is_told_by_the_procedure_that_is_missing() -> None:
    outcomes = [outcome_from("log_rotation", "app1", FINE)]
    found = presence_findings({"log_rotation": ["app1"], "security_scan": ["app1"]}, outcomes, NOW)
    assert [(item.subject, item.status, item.parent) for item in found] == [
        ("app1", "ok", ""),
        ("security_scan", "unknown", ""),
    ]


def test_a_figure_that_is_none_names_its_procedure() -> None:
    with pytest.raises(ValueError, match="metric load of procedure health_check on app1"):
        outcome_from("health_check", "app1", {**FINE, "artifacts": {"metrics": {"load": "much"}}})


def test_a_finding_that_no_table_can_hold_names_its_procedure() -> None:
    finding = {"check": "c", "subject": "s", "status": "ok", "summary": "x", "observed_at": "x", "value": [1]}
    with pytest.raises(ValueError, match="value must be a text or a number"):
        outcome_from("health_check", "app1", {**FINE, "findings": [finding]})
