# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of three servers, judged by the tools and the servers of the hosts."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://redis_versions"]

WRITTEN = {"redis-7": 10, "redis-8": 12, "valkey-8": 11}
LOADED = {"redis-7": {10}, "redis-8": {10, 11, 12}, "valkey-8": {10, 11}}


def _name(host: Host) -> str:
    return str(host.check_output("hostname"))


def _tool(host: Host, what: str) -> str:
    return f"{'valkey' if _name(host) == 'valkey-8' else 'redis'}-{what}"


def _unpacked(host: Host, origin: str) -> str:
    path = f"/root/exchange/{origin}/unpacked.rdb"
    host.check_output(f"zstd -qfdc /root/exchange/{origin}/cache.rdb.zst >{path}")
    return path


@pytest.mark.parametrize("origin", sorted(WRITTEN))
def test_the_tool_of_the_host_agrees(host: Host, origin: str) -> None:
    path, version = _unpacked(host, origin), WRITTEN[origin]
    assert host.check_output(f"head -c 9 {path}") == f"REDIS{version:04d}"
    told = host.run(f"{_tool(host, 'check-rdb')} {path}").stdout
    if version in LOADED[_name(host)]:
        assert "RDB looks OK" in told
        assert "1000 keys read" in told
    else:
        assert f"Can't handle RDB format version {version}" in told


@pytest.mark.parametrize("origin", sorted(WRITTEN))
def test_the_server_of_the_host_refuses_what_we_refused_before(host: Host, origin: str) -> None:
    path, version = _unpacked(host, origin), WRITTEN[origin]
    if version in LOADED[_name(host)]:
        return
    settings = (
        f"--port 0 --unixsocket /root/exchange/s --dir /root/exchange/{origin} --dbfilename {path.rsplit('/', 1)[1]}"
    )
    tried = host.run(f"timeout 5 {_tool(host, 'server')} {settings}")
    assert tried.rc == 1
    assert f"Can't handle RDB format version {version}" in tried.stdout


def test_no_private_server_is_left(host: Host) -> None:
    assert len(host.process.filter(comm=_tool(host, "server"))) == 1


def test_the_data_is_untouched(host: Host) -> None:
    assert host.check_output(f"{_tool(host, 'cli')} --no-auth-warning -a not-a-secret dbsize") == "1000"
