# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client outside, on a host of its own: asks without end, and notes each answer with its time and who gave it.

Usage: client.py                     until there is a file /root/enough
       client.py phase <name>        returns when each service was asked often enough, and notes from when to when
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SERVICES = ("auth-service", "auth-service", "news-service")
ENOUGH, ANSWERS, PHASES = (Path("/root", name) for name in ("enough", "answers", "phases"))
OFTEN = 40
LONGEST = 60.0


def ask(service: str) -> dict[str, Any]:
    told: dict[str, Any] = {"service": service, "began": time.time(), "status": 0, "by": "", "retry_after": ""}
    try:
        with urllib.request.urlopen(f"http://gateway1/api/{service}/items", timeout=20) as answer:
            told.update(status=answer.status, by=json.load(answer)["service"])
    except urllib.error.HTTPError as error:
        body = error.read()
        told.update(status=error.code, retry_after=error.headers.get("Retry-After", ""))
        if error.headers.get_content_type() == "application/json":
            told["by"] = json.loads(body)["status"]
    except OSError as error:
        told["by"] = str(error)
    return {**told, "ended": time.time()}


def keep_asking(service: str, written: Any) -> None:
    while not ENOUGH.exists():
        # A line at a time, each whole, whoever writes.
        written.write(json.dumps(ask(service)) + "\n")
        time.sleep(0.02)


def main() -> None:
    with ANSWERS.open("w", buffering=1) as written:
        asking = [threading.Thread(target=keep_asking, args=(service, written)) for service in SERVICES]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()


def phase(name: str) -> None:
    began = time.time()
    while not ANSWERS.exists():
        time.sleep(0.05)
    with ANSWERS.open() as answers:
        answers.seek(0, 2)
        seen = dict.fromkeys(SERVICES, 0)
        while min(seen.values()) < OFTEN:
            if time.time() > began + LONGEST:
                raise SystemExit(f"the services were asked {seen} times only within {LONGEST:g} s")
            line = answers.readline()
            if not line.endswith("\n"):
                answers.seek(answers.tell() - len(line))
                time.sleep(0.05)
                continue
            told = json.loads(line)
            seen[told["service"]] += told["began"] > began
    with PHASES.open("a") as phases:
        phases.write(json.dumps({"name": name, "began": began, "ended": time.time()}) + "\n")


if __name__ == "__main__":
    phase(sys.argv[2]) if sys.argv[1:2] == ["phase"] else main()
