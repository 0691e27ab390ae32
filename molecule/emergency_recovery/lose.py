# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts the primary of Redis off the network in the midst of its restore, and then stops a host with services.

The moment is that at which a Sentinel is told to hold failover off. Called with the containers of the primary and of
the host, the address and password of a Sentinel, and the folder of the journals.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import redis

A_DAY = 86_400_000


def main(primary: str, host: str, address: str, password: str, journals: Path) -> None:
    deadline = time.monotonic() + 300
    # A shell that is there already cuts at once.
    with subprocess.Popen(
        ["docker", "exec", "--interactive", primary, "sh"], stdin=subprocess.PIPE, text=True
    ) as shell:
        while not any('"restore redis:cache"' in path.read_text() for path in journals.glob("2*.json")):
            assert time.monotonic() < deadline, "no recovery came so far"
            time.sleep(0.05)
        sentinel = redis.Redis(address, 26379, password=password)
        while sentinel.sentinel_master("cache")["down-after-milliseconds"] != A_DAY:
            assert time.monotonic() < deadline, "failover was not held off"
            time.sleep(0.001)
        shell.communicate("ip link set eth0 down\n", timeout=30)
    subprocess.run(["docker", "pause", host], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:5], Path(sys.argv[5]))
