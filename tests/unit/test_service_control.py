# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd and Docker say of a service, judged."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _service_docker, _service_systemd
from ansible_collections.upkeep.ops.plugins.module_utils._service_control import ServiceError

UNIT = {"TimeoutStopUSec": "1min 30s", "KillMode": "control-group", "SendSIGKILL": "yes", "NeedDaemonReload": "no"}


@pytest.mark.parametrize(
    "text, seconds",
    [("infinity", None), ("1min 30s", 90), ("500ms", 0.5), ("1h 2min", 3720), ("5s 250ms", 5.25), ("2d", 172800)],
)
def test_time_spans_of_systemd(text: str, seconds: float | None) -> None:
    assert _service_systemd.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs"])
def test_what_is_no_time_span_is_told(text: str) -> None:
    with pytest.raises(ServiceError, match="cannot be read"):
        _service_systemd.seconds_of(text)


@pytest.mark.parametrize(
    "properties, told",
    [
        ({"TimeoutStopUSec": "infinity"}, "TimeoutStopSec is infinity"),
        ({"TimeoutStopUSec": "5s"}, "TimeoutStopSec is 5 s, though its last requests may take 30 s"),
        ({"KillMode": "process"}, "its children may outlive it"),
        ({"KillMode": "none"}, "all of its processes may outlive it"),
        ({"SendSIGKILL": "no"}, "SendSIGKILL is off"),
        ({"NeedDaemonReload": "yes"}, "systemd has not read it yet"),
    ],
)
def test_a_unit_that_is_not_stopped_well_is_judged(properties: dict[str, str], told: str) -> None:
    ((summary, hint),) = _service_systemd.judge_unit({**UNIT, **properties}, 30)
    assert told in summary and hint
    assert not _service_systemd.judge_unit(UNIT, 30)


@pytest.mark.parametrize(
    "result, code, status, ended",
    [
        ("success", "1", "0", "terminated"),
        ("success", "2", "15", "terminated"),
        ("exit-code", "1", "143", "terminated"),
        ("timeout", "2", "9", "killed"),
        ("signal", "2", "9", "killed"),
        ("exit-code", "1", "1", "failed"),
        ("core-dump", "3", "11", "failed"),
    ],
)
def test_how_a_unit_ended(result: str, code: str, status: str, ended: str) -> None:
    unit = {"Result": result, "ExecMainCode": code, "ExecMainStatus": status}
    assert _service_systemd.how_ended(unit) == ended


@pytest.mark.parametrize(
    "code, out_of_memory, ended",
    [(0, False, "terminated"), (143, False, "terminated"), (137, False, "killed"), (0, True, "killed"),
     (1, False, "failed")],
)  # fmt: skip
def test_how_a_container_ended(code: int, out_of_memory: bool, ended: str) -> None:
    assert _service_docker.how_ended({"ExitCode": code, "OOMKilled": out_of_memory}) == ended


@pytest.mark.parametrize("limit, judged", [(None, 0), (60, 0), (30, 0), (10, 1), (-1, 1)])
def test_the_stop_timeout_of_a_container(limit: int | None, judged: int) -> None:
    container: dict[str, Any] = {"Config": {"StopTimeout": limit}}
    assert len(_service_docker.judge_container(container, 30)) == judged
