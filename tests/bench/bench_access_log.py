# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A million lines of access log: p50, p95 and p99 per route, against awk and sort."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.common import Row, at_most, in_turns, timed
from tests.harness import ROOT

_LINES = 1_000_000
_ROUTES = ("/api/orders/%d", "/api/users/%d/profile", "/api/auth/login?token=%d", "/api/catalog/items", "/api/cart/%d")
_MODULE_SIDE = """
import sys
from ansible_collections.upkeep.ops.plugins.module_utils._access_log import AccessLogCounter, RouteNames, read_logs
counter = AccessLogCounter(RouteNames([]))
read_logs(sys.argv[1:], counter, None, float("-inf"), 1 << 40)
for route in counter.result()["routes"]:
    print(route["route"], route["p50_ms"], route["p95_ms"], route["p99_ms"])
"""
_AWK_SIDE = r"""
awk -F'"' '{split($2, r, " "); sub(/\?.*/, "", r[2]); gsub(/\/[0-9]+/, "/:id", r[2]);
            split($7, t, /[= ]/); print r[1] "_" r[2], t[3]}' "$1" | sort -k1,1 -k2,2n | awk '
function told() { if (n) print name, v[c(50)] * 1000, v[c(95)] * 1000, v[c(99)] * 1000 }
function c(p,  r) { r = n * p / 100; return r > int(r) ? int(r) + 1 : int(r) }
$1 != name { told(); n = 0; name = $1 } { v[++n] = $2 } END { told() }'
"""


def write_log(path: Path) -> None:
    """A day of requests as nginx writes them, combined with rt= and urt=, the same at each run."""
    rng = random.Random(1)
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
    with path.open("w") as stream:
        for number in range(_LINES):
            second = number * 86400 // _LINES
            target = rng.choice(_ROUTES)
            target = target % rng.randrange(5000) if "%" in target else target
            seconds = rng.lognormvariate(-3, 1)
            stream.write(
                f"10.0.0.{number % 250} - - [23/Nov/2026:{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} "
                f'+0000] "GET {target} HTTP/1.1" {rng.choice((200, 200, 404, 500))} {rng.randrange(20000)} "-" '
                f'"{agent}" rt={seconds:.3f} urt="{seconds * 0.9:.3f}"\n'
            )


def rows() -> list[Row]:
    """One comparison; takes about a minute."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as folder:
        path = Path(folder) / "access.log"
        write_log(path)
        module, theirs = [sys.executable, "-c", _MODULE_SIDE, str(path)], ["sh", "-c", _AWK_SIDE, "sh", str(path)]
        pair = in_turns(lambda: timed(lambda: percentiles(module)), lambda: timed(lambda: percentiles(theirs)))
        return [at_most(f"{_LINES} lines of access log: awk and sort", pair, 2, note="percentiles of each route.")]


def percentiles(command: list[str]) -> str:
    """What a command prints."""
    environment = {"PYTHONPATH": str(ROOT / "collections"), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
