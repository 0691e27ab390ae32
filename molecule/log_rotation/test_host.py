# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No line is lost, the writer writes to the new file, and a wrong configuration never replaces a right one."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://log-rotation"]


@pytest.mark.parametrize("log", ["/var/log/nginx/access.log", "/var/log/services/auth-service.log"])
def test_every_line_is_in_one_compressed_archive(host: Host, log: str) -> None:
    archives = host.check_output(f"ls {log}-* {log}.* 2>/dev/null || true").split()
    assert len(archives) == 1, archives
    assert host.check_output(f"zcat {archives[0]} | grep -c '^line '") == "10000"


def test_nginx_writes_to_the_new_log(host: Host) -> None:
    log = host.file("/var/log/nginx/access.log")
    assert "after-the-rotation" in log.content_string
    assert "line 0000001" not in log.content_string
    assert (log.user, log.group, log.mode) == ("www-data", "adm", 0o640)


def test_the_good_configuration_stayed(host: Host) -> None:
    configuration = host.file("/etc/logrotate.d/upkeep")
    assert "nobody-of-this-name" not in configuration.content_string
    assert host.run("logrotate --debug /etc/logrotate.conf").rc == 0
