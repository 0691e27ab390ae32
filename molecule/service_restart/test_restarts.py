# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients saw of the restarts, and what history tells of them."""

from __future__ import annotations

import ast
import contextlib
import sqlite3
from pathlib import Path

import testinfra
from testinfra.host import Host

testinfra_hosts = ["local://"]

_STATE = Path(__file__).resolve().parents[2] / ".cache" / "molecule-daily-restart"


def _host(name: str) -> Host:
    return testinfra.get_host(f"docker://upkeep-{name}")


def test_no_request_failed_while_both_servers_were_restarted() -> None:
    seen = ast.literal_eval(_host("gateway1").check_output("cat /root/seen"))
    assert seen.keys() == {"200"} and seen["200"] > 100, seen


def test_both_servers_are_back_at_the_gateway() -> None:
    upstream = _host("gateway1").file("/etc/nginx/upkeep/upstreams/auth-service.conf").content_string
    assert "server app1:8081;" in upstream and "server app2:8081;" in upstream


def test_history_tells_that_both_are_back() -> None:
    query = "SELECT host, status FROM findings WHERE check_name = 'service_back'"
    with contextlib.closing(sqlite3.connect(_STATE / "history.sqlite3")) as history:
        assert dict(history.execute(query)) == {"app1": "ok", "app2": "ok"}
