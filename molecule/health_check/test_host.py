# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A health check only looks: what ran before runs after it, and the data is as it was."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://health-check"]


@pytest.mark.parametrize("name", ["redis-server", "auth-service", "news-service"])
def test_services_run(host: Host, name: str) -> None:
    assert host.service(name).is_running


def test_data_is_untouched(host: Host) -> None:
    assert host.check_output("redis-cli --no-auth-warning -a not-a-secret dbsize") == "1000"
