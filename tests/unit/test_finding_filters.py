"""The filters by which roles make findings and fail."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.upkeep.ops.plugins.filter.failure_message import failure_message
from ansible_collections.upkeep.ops.plugins.filter.failure_reason import failure_reason
from ansible_collections.upkeep.ops.plugins.filter.finding import finding
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding


def test_a_finding_of_a_role_is_like_one_of_a_module() -> None:
    made = finding("backup_made", "backup", "critical", "no set was made", "run it again")
    assert Finding(**made).as_dict() == made and made["observed_at"].endswith("Z")


def test_a_status_that_is_none_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="status 'bad' is none of"):
        finding("backup_made", "backup", "bad", "")


@pytest.mark.parametrize(
    ("status", "fail_on", "fails"),
    [
        ("critical", "critical", True),
        ("critical", "never", False),
        ("unknown", "critical", False),
        ("unknown", "warning", True),
        ("ok", "warning", False),
    ],
)
def test_findings_fail_as_the_modules_do(status: str, fail_on: str, fails: bool) -> None:
    message = failure_message([finding("check", "redis:cache", status, "it is so", "do that")], fail_on)
    assert message == ("redis:cache: it is so (do that)" if fails else "")


OK = finding("check", "backup", "ok", "it is so")


@pytest.mark.parametrize(("findings", "fail_on"), [([{}], "critical"), ([OK], "always")])
def test_what_cannot_be_judged_is_an_error(findings: list[dict[str, Any]], fail_on: str) -> None:
    with pytest.raises(AnsibleFilterError, match="failure_message"):
        failure_message(findings, fail_on)


def test_a_reason_is_in_the_words_of_the_module_alone() -> None:
    item = {"failed": True, "msg": "Task failed: Module failed: redis://data1:6379:\n  no route"}
    assert failure_reason({"results": [{"failed": False}, item]}, "Restore") == "Restore: redis://data1:6379: no route"
    assert failure_reason({"msg": "the Module failed: so it is"}) == "the Module failed: so it is"


def test_of_a_host_that_does_not_answer_name_and_cause_are_told() -> None:
    batch = {"ansible_loop_var": "batch", "batch": {"host": "app2", "services": []}}
    gone = {**batch, "unreachable": True, "msg": "Task failed: Failed to connect to the host via ssh: refused"}
    silent = {**batch, "failed": True, "msg": "Module result deserialization failed: No start of json char found"}
    silent["module_stderr"] = "a warning\nContainer x is paused\n"
    assert failure_reason({"results": [{}, gone]}) == "app2: Failed to connect to the host via ssh: refused"
    assert failure_reason({"results": [silent]}, "Start") == "Start: app2: Container x is paused"
    assert failure_reason({"msg": "MODULE FAILURE", "module_stderr": "Traceback\nNo space left"}) == "No space left"
