# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis_snapshot of a million mixed keys beside ``redis-cli --rdb``, which checks nothing; and its memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.common import Pair, Row, at_most, in_turns, timed
from tests.harness import start_module
from tests.platform.parts.redis import RedisServer, seed

KEYS = 1_000_000
MOST_MEGABYTES = 100
_TURNS = 3


def rows() -> list[Row]:
    """All comparisons; takes about a minute and a half."""
    folder = tempfile.TemporaryDirectory(prefix="upkeep-bench-")
    with folder as name, RedisServer(Path(name) / "server", password="bench") as server:
        seed(server.client(), KEYS)
        return list(_Bench(server, Path(name)).rows())


class _Bench:
    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._peak = 0.0

    def rows(self) -> Iterator[Row]:
        start = min(self.module("none", check=True) for _turn in range(_TURNS))
        for compression, limit, what in (("none", 1.2, "CRC-64 checked"), ("zstd", 1.5, "CRC-64 checked, zstd")):
            pair = in_turns(lambda method=compression: self.module(method), self.redis_cli, _TURNS)  # type: ignore[misc]
            size = (self._folder / f"snapshot.{compression}").stat().st_size / 1e6
            yield at_most(
                f"{KEYS} keys, {what}: redis-cli --rdb",
                Pair(pair.ours - start, pair.theirs),
                limit,
                note=f"file of {size:.0f} MB; of ours {start:.2f} s are taken off: the start of Python and the module.",
            )
        yield Row(
            "peak memory of the module",
            f"{self._peak:.0f} MB",
            "",
            "",
            f"below {MOST_MEGABYTES} MB",
            self._peak < MOST_MEGABYTES,
            "the largest of all runs above; it does not grow with the data.",
        )

    def redis_cli(self) -> float:
        dest = self._folder / "theirs.rdb"
        dest.unlink(missing_ok=True)  # it does not truncate
        return timed(lambda: self._server.cli("--rdb", str(dest), timeout=600))

    def module(self, compression: str, *, check: bool = False) -> float:
        return timed(lambda: self._run(compression, check))

    def _run(self, compression: str, check: bool) -> None:
        dest = str(self._folder / f"snapshot.{compression}")
        options = {**self._server.connection(), "dest": dest, "compression": compression}
        process = start_module("redis_snapshot", options, check=check)
        # The answer is a few kB, which the pipe holds; wait4 alone tells the memory of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
        self._peak = max(self._peak, usage.ru_maxrss / 1024)
