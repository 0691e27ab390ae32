# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis_restore of a million mixed keys into a server with an append-only file and busy clients: what these see."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.common import Row
from tests.clients import Clients
from tests.harness import run_module
from tests.platform.parts.redis import RedisServer, seed
from tests.restorer import Restorer

KEYS = 1_000_000
_OTHERS = 500_000


def rows() -> list[Row]:
    """Both ways and a drill; takes about two minutes."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        folder = Path(name)
        snapshot = folder / "snapshot.rdb.zst"
        with RedisServer(folder / "source") as source:
            seed(source.client(), KEYS)
            run_module("redis_snapshot", {**source.connection(), "dest": str(snapshot)})
        with RedisServer(folder / "server", appendonly=True) as server:
            return list(_rows(Restorer(server, folder), snapshot))


def _rows(restore: Restorer, snapshot: Path) -> Iterator[Row]:
    drill = restore.run("drilled", path=str(snapshot), timeout=120)["drill"]
    yield _row(
        "drill",
        f"{drill['rto_seconds']:.1f} s",
        True,
        f"load {drill['load_seconds']:.1f} s, copy "
        f"{drill['restore_seconds']:.1f} s, compare all values {drill['compare_seconds']:.1f} s",
    )
    for way, more in (("online", {}), ("offline", restore.commands())):
        restore.server.client().flushall()
        seed(restore.server.client(), _OTHERS)
        options: dict[str, Any] = {"path": str(snapshot), "mode": way, "timeout": 120, **more}
        with Clients(restore.server) as clients:
            answer = restore.run(**options)
        assert answer["status"] == "ok", answer
        yield from _seen(way, clients, answer["restore"])


def _seen(way: str, clients: Clients, restore: dict[str, Any]) -> Iterator[Row]:
    writes, reads = sum(clients.failed_writes.values()), sum(clients.failed_reads.values())
    yield _row(f"{way}, in all", f"{restore['seconds']:.1f} s", True, "proving, safety snapshots, restoring, comparing")
    yield _row(f"{way}, failed writes", str(writes), way == "offline" or writes == 0, _kinds(clients.failed_writes))
    yield _row(f"{way}, failed reads", str(reads), True, _kinds(clients.failed_reads))
    yield _row(f"{way}, longest wait of a writer", f"{clients.longest_write:.1f} s", True, "until a write succeeded")
    yield _row(f"{way}, longest wait of a reader", f"{clients.longest_read:.1f} s", True, "until a read succeeded")


def _kinds(failed: dict[str, int]) -> str:
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(failed.items()))
    return f"three clients, one try each 2 ms: {told or 'none'}"


def _row(measure: str, ours: str, met: bool, note: str) -> Row:
    return Row(
        f"{KEYS} keys, {measure}", ours, "-", "-", "0" if measure.endswith("online, failed writes") else "-", met, note
    )
