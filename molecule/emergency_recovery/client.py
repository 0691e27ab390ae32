# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user outside the gateway: asks without a pause until he is told that it is enough, and notes every answer.

Each line is the moment of the answer, the service, the status (0 for none) and what Retry-After or the error said.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path

PATHS = ("/api/auth-service/health", "/api/chat-service/items/1", "/api/news-service/items/1")


def ask(gateway: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(gateway, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After") or ""
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def main(gateway: str, folder: Path) -> None:
    deadline = time.monotonic() + 600
    with (folder / "answers.jsonl").open("w", buffering=1) as answers:
        while not (folder / "enough").exists() and time.monotonic() < deadline:
            for path in PATHS:
                status, told = ask(gateway, path)
                answers.write(json.dumps([time.time(), path.split("/")[2], status, told]) + "\n")
                time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
