# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers hold after an offline restore, now and after another restart by systemd."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://redis_versions"]


def _product(host: Host) -> str:
    return "valkey" if host.check_output("hostname") == "valkey-8" else "redis"


def _cli(host: Host, words: str) -> str:
    return str(host.check_output(f"{_product(host)}-cli --no-auth-warning -a not-a-secret {words}"))


def test_the_restored_data_survives_a_restart(host: Host) -> None:
    assert _cli(host, "dbsize") == "1000"
    assert _cli(host, "get user:7") == "7"
    _cli(host, "set written afterwards")
    host.check_output(f"systemctl restart {_product(host)}-server")
    assert host.check_output(
        f"for i in $(seq 50); do {_product(host)}-cli -a not-a-secret ping 2>/dev/null | grep -q PONG && break; "
        "sleep 0.1; done; echo up"
    )
    assert _cli(host, "get written") == "afterwards"
    assert _cli(host, "del written") == "1"
    assert _cli(host, "dbsize") == "1000"


def test_its_files_are_its_own(host: Host) -> None:
    product = _product(host)
    for path in (f"/var/lib/{product}/appendonlydir", f"/var/lib/{product}/dump.rdb"):
        assert host.file(path).user == product, path


def test_the_old_files_and_journals_are_kept_and_private(host: Host) -> None:
    (aside,) = host.check_output(f"ls -d /var/lib/{_product(host)}/upkeep-before-*").splitlines()
    assert host.file(aside).mode == 0o700
    journals = host.check_output("ls /var/lib/upkeep/redis_restore/*/*/journal.json").splitlines()
    assert len(journals) == 4
    assert {host.file(path).mode for path in journals} == {0o600}


def test_no_private_server_is_left(host: Host) -> None:
    assert len(host.process.filter(comm=f"{_product(host)}-server")) == 1
    assert host.check_output("ls -d /tmp/upkeep-scratch-* 2>/dev/null | wc -l") == "0"
