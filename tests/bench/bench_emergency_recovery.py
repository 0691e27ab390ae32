# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole recovery of a million keys and 50,000 documents, beside the same by hand with redis-cli and gcloud.

By hand means all that a careful operator does in the same order, from a script that was ready: proving the snapshot,
closing the gateway, stopping the services, keeping what is there, restoring both, comparing the counts, starting the
services, asking each, opening the gateway. Finding the set, thinking and typing take no time there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.common import Row, quantity, timed
from tests.bench.platform import DOCUMENTS, KEYS, FilledPlatform, filled_platform
from tests.platform.miniature import BUCKET, PROJECT
from tests.platform.parts import firestore
from tests.platform.parts.gcloud import Gcloud
from tests.platform.parts.redis import SECOND_DATABASE

#: Seconds in which an outage is to be over, as the objective says.
LIMIT = 1800.0
GROUPS = ("users", "orders", "items", "sessions")


def rows() -> list[Row]:
    """Both, once each; takes about five minutes."""
    if missing := Gcloud.missing():
        raise SystemExit(f"emergency_recovery: {missing}")
    with filled_platform() as bench:
        return list(_rows(bench))


def _rows(bench: FilledPlatform) -> Iterator[Row]:
    (kept,) = (path for path in (bench.demo / "backups").iterdir() if path.name.endswith("Z"))
    wanted = _contents(bench)

    _spoil(bench)
    hand = _ByHand(bench, kept)
    by_hand = timed(hand.recover)
    assert _contents(bench) == wanted, "the way by hand restores it, too"

    _spoil(bench)
    ours = timed(lambda: bench.run("emergency_recovery", emergency_recovery_set=kept.name, upkeep_confirm="demo"))
    assert _contents(bench) == wanted
    figures = bench.outcome("emergency_recovery")["artifacts"]["metrics"]

    yield _row("the platform closed", figures["recovery_downtime_seconds"], hand.closed_seconds, "From 503 to 200.")
    yield _row(
        "from the first command to the end", ours, by_hand,
        "Ours also loads the safety set to prove it, reads exports back, compares keys, functions and some values, "
        "keeps a journal, tells contacts and writes a report. By hand: "
        + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in hand.steps.items()) + ".",
    )  # fmt: skip


def _row(measure: str, ours: float, theirs: float, note: str) -> Row:
    return Row(
        f"{KEYS} keys and {DOCUMENTS} documents, {measure}", quantity(ours, "s"), quantity(theirs, "s"),
        f"{ours / theirs:.2f}x", f"below {LIMIT:g} s", ours < LIMIT, note,
    )  # fmt: skip


def _contents(bench: FilledPlatform) -> tuple[str, Any]:
    emulator = bench.platform.emulator
    return bench.platform.redis.cli("debug", "digest"), firestore.digest(emulator.host, PROJECT)


def _spoil(bench: FilledPlatform) -> None:
    """What a bad deployment does: many keys and documents go, others come."""
    with bench.platform.redis.client() as client:
        for key in client.scan_iter(count=10_000):
            if key[-1:] in b"13579":
                client.unlink(key)
        client.set(f"bad:{time.monotonic_ns()}", "x" * 1000)
    database = firestore.client(bench.platform.emulator.host, PROJECT)
    for user in database.collection("users").limit(500).stream():
        user.reference.delete()
    database.document(f"sessions/bad-{time.monotonic_ns()}").set({"bad": True})
    database.close()


class _ByHand:
    """The operator with the script; ``steps`` are seconds by name."""

    def __init__(self, bench: FilledPlatform, kept: Path) -> None:
        self._platform, self._kept = bench.platform, kept
        self._folder = bench.demo / "by-hand"
        self._folder.mkdir()
        self._redis = self._platform.redis
        self._gcloud = partial(
            Gcloud(self._platform.bridge.url, PROJECT, self._folder / "gcloud").firestore, timeout=LIMIT
        )
        self.steps: dict[str, float] = {}

    @property
    def closed_seconds(self) -> float:
        """How long users got 503."""
        return sum(seconds for step, seconds in self.steps.items() if step != "proving the snapshot")

    def recover(self) -> None:
        flag = self._platform.nginx.traffic / "flags" / "maintenance"
        flag.parent.mkdir(exist_ok=True)
        work = {
            "proving the snapshot": self._prove,
            "stopping": lambda: (flag.touch(), self._stop_services()),
            "keeping Redis": self._keep_redis,
            "keeping Firestore": lambda: self._gcloud("export", f"gs://{BUCKET}/by-hand"),
            "restoring Redis": self._restore_redis,
            "restoring Firestore": self._restore_firestore,
            "starting": lambda: (self._start_services(), flag.unlink()),
        }
        for step, act in work.items():
            self.steps[step] = timed(act)

    def _prove(self) -> None:
        packed, self._rdb = self._kept / "redis" / "cache.rdb.zst", self._folder / "dump.rdb"
        subprocess.run(["sha256sum", str(packed)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["zstd", "-q", "-d", str(packed), "-o", str(self._rdb)], check=True)
        subprocess.run(["redis-check-rdb", str(self._rdb)], check=True, stdout=subprocess.DEVNULL)

    def _stop_services(self) -> None:
        for service in self._platform.services.values():
            service.stop()

    def _start_services(self) -> None:
        for service in self._platform.services.values():
            service.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/health", timeout=10) as answer:
                assert answer.status == 200

    def _keep_redis(self) -> None:
        safety = self._folder / "safety.rdb"
        self._redis.cli("--rdb", str(safety), timeout=300)
        subprocess.run(["redis-check-rdb", str(safety)], check=True, stdout=subprocess.DEVNULL)

    def _restore_redis(self) -> None:
        """A server with an append-only file must not find it, and writes a new one afterwards."""
        self._redis.stop()
        shutil.move(self._redis.folder / "appendonlydir", self._folder / "appendonlydir")
        shutil.copy(self._rdb, self._redis.rdb)
        started = [*self._redis.argv, "--appendonly", "no", "--maxmemory", "0"]
        self._redis.process.start(started, self._loaded)
        sizes = [int(self._redis.cli("-n", str(number), "dbsize")) for number in (0, SECOND_DATABASE)]
        assert sum(sizes) > KEYS, sizes
        self._redis.cli("config", "set", "appendonly", "yes")
        while "aof_rewrite_in_progress:0" not in self._redis.cli("info", "persistence"):
            time.sleep(0.1)

    def _loaded(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return "loading:0" in self._redis.cli("info", "persistence").splitlines()  # async_loading is another
        return False

    def _restore_firestore(self) -> None:
        record = json.loads((self._kept / "firestore" / "main.json").read_text())
        self._gcloud("bulk-delete", f"--collection-ids={','.join(GROUPS)}")
        self._finished()
        self._gcloud("import", record["output_uri_prefix"])
        assert self._count() == DOCUMENTS

    def _finished(self) -> None:
        """bulk-delete returns at once; import before its end would lose documents."""
        while not all(operation.get("done") for operation in self._gcloud("operations", "list") or []):
            time.sleep(0.5)

    def _count(self) -> int:
        """All documents, counted by Firestore."""
        database = firestore.client(self._platform.emulator.host, PROJECT)
        counts = [database.collection_group(group).count().get()[0][0].value for group in GROUPS]
        database.close()
        return int(sum(counts))
