# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the platform holds at first: requests in its access log, and logs that are old or large."""

from __future__ import annotations

import gzip
import http.client
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_DAY_SECONDS = 86400
_OLD_DAYS = 40
_CLIENTS = 8
_LINE = "2026-01-01T00:00:00Z {name} GET /items/{number} 200 {number}ms\n"


def send_requests(port: int, services: Sequence[str], count: int) -> None:
    """Send the gateway ``count`` requests, the same each time: most succeed, some are not found, a few fail."""
    paths = list(_paths(services, count))
    with ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(lambda start: _send(port, paths[start::_CLIENTS]), range(_CLIENTS)))


def _send(port: int, paths: Sequence[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for path in paths:
        connection.request("GET", path, headers={"User-Agent": "demo-traffic"})
        connection.getresponse().read()
    connection.close()


def _paths(services: Sequence[str], count: int) -> Iterator[str]:
    for number in range(count):
        base = f"/api/{services[number % len(services)]}"
        if number % 250 == 249:
            yield f"{base}/reports/broken"
        elif number % 40 == 39:
            yield f"{base}/items/missing"
        elif number % 10 == 9:
            yield f"{base}/search?text=word{number}"
        else:
            yield f"{base}/items/{number}"


def write_old_logs(folder: Path, large: str, lines: int = 100_000) -> None:
    """Logs as months of service leave them: a large one, one that nobody writes to, and one rotated long ago."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{large}.log").open("a") as log:
        log.writelines(_LINE.format(name=large, number=number) for number in range(lines))
    quiet = folder / "import.log"
    quiet.write_text(_LINE.format(name="import", number=0))
    rotated = folder / "import.log.1.gz"
    rotated.write_bytes(gzip.compress(_LINE.format(name="import", number=1).encode()))
    for path in quiet, rotated:
        then = time.time() - _OLD_DAYS * _DAY_SECONDS
        os.utime(path, (then, then))
