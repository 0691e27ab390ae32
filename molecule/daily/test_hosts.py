# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daily run left on its hosts, asked by their own tools."""

from __future__ import annotations

import testinfra
from testinfra.host import Host


def _host(name: str) -> Host:
    return testinfra.get_host(f"docker://upkeep-{name}")


def test_the_backup_holds_every_key() -> None:
    data = _host("data1")
    (folder,) = data.check_output("find /var/backups/upkeep -mindepth 1 -maxdepth 1 -name '2*'").split()
    data.check_output(f"zstd -qdc {folder}/redis/cache.rdb.zst >/root/loaded.rdb")
    assert "1000 keys read" in data.check_output("redis-check-rdb /root/loaded.rdb")


def test_logs_rotate_where_the_catalogue_says() -> None:
    assert _host("app1").file("/etc/logrotate.d/upkeep").exists
    assert _host("app1").run("logrotate --debug /etc/logrotate.conf").rc == 0


def test_services_that_nobody_stopped_still_run() -> None:
    assert _host("app1").service("auth-service").is_running
    assert _host("app1").service("news-service").is_running
    assert _host("data1").service("redis-server").is_running
