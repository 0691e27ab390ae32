# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification of backups beside redis-check-rdb, and beside a redis-server that a person starts by hand."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import folder_opener, verify_export

from tests.bench.common import Pair, Row, at_most, in_turns, quantity, timed
from tests.harness import start_module
from tests.platform.parts.firestore import EmulatorMissingError, FirestoreEmulator, client
from tests.platform.parts.process import free_port
from tests.platform.parts.redis import RedisServer, seed

KEYS = 1_000_000
DOCUMENTS = 50_000
MOST_SECONDS = 1.0
_TURNS = 5


def rows() -> list[Row]:
    """All comparisons; takes about two minutes."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        return [*_redis_rows(Path(name)), *_firestore_rows(Path(name))]


def _redis_rows(folder: Path) -> Iterator[Row]:
    snapshot = folder / "cache.rdb"
    with RedisServer(folder / "server") as server:
        seed(server.client(), KEYS)
        arguments = {**server.connection(), "dest": str(snapshot), "compression": "none"}
        assert not _answer("redis_snapshot", arguments)["failed"]
    bench = _Bench(folder, snapshot)
    start = min(timed(lambda: bench.verify(1, empty=True)) for _turn in range(_TURNS))
    size = snapshot.stat().st_size / 1e6
    taken_off = f"of ours {start:.2f} s are taken off: the start of Python and the module"
    format_pair = in_turns(lambda: bench.verify(2), bench.check_rdb, _TURNS)
    yield at_most(
        f"level 2, {KEYS} keys in {size:.0f} MB: redis-check-rdb",
        Pair(format_pair.ours - start, format_pair.theirs),
        1.3,
        note=f"ours reads the file a second time for SHA-256; no compiled dependency; {taken_off}.",
    )
    load_pair = in_turns(lambda: bench.verify(3, digest=False), bench.load_by_hand, _TURNS)
    yield at_most(
        f"level 3, {KEYS} keys: redis-server by hand",
        Pair(load_pair.ours - start, load_pair.theirs),
        1.5,
        note="theirs only loads: redis-server until it answers PING, then INFO keyspace. Ours does level 2 first; both "
        f"without a digest; {taken_off}.",
    )


class _Bench:
    def __init__(self, folder: Path, snapshot: Path) -> None:
        self._folder = folder
        self._snapshot = snapshot

    def verify(self, level: int, *, digest: bool = True, empty: bool = False) -> float:
        """Seconds of a whole run of the module; of one that finds no file when ``empty``."""
        path = self._folder / "missing" if empty else self._snapshot
        options = {"path": str(path), "level": level, "digest": digest, "fail_on": "never"}
        answer: dict[str, Any] = {}
        seconds = timed(lambda: answer.update(_answer("redis_verify", options)))
        assert empty or answer["verification"]["level"] == level, answer
        return seconds

    def check_rdb(self) -> float:
        words = ["redis-check-rdb", str(self._snapshot)]
        return timed(lambda: subprocess.run(words, check=True, capture_output=True))

    def load_by_hand(self) -> float:
        return timed(self._load)

    def _load(self) -> None:
        socket = self._folder / "by-hand"
        where = ["--port", "0", "--unixsocket", str(socket), "--dir", str(self._snapshot.parent)]
        words = ["redis-server", *where, "--dbfilename", self._snapshot.name, "--save", ""]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
            ask = ["redis-cli", "-s", str(socket)]
            while b"PONG" not in subprocess.run([*ask, "ping"], capture_output=True, check=False).stdout:
                time.sleep(0.02)
            told = subprocess.run([*ask, "info", "keyspace"], capture_output=True, check=True).stdout
            assert b"db0:keys=1000001" in told
            server.kill()


def _firestore_rows(folder: Path) -> Iterator[Row]:
    try:
        with _export(folder) as (root, name):
            seconds = statistics.median(
                timed(lambda: verify_export(folder_opener(str(root)), name)) for _ in range(_TURNS)
            )
            assert verify_export(folder_opener(str(root)), name).documents == DOCUMENTS
    except EmulatorMissingError:
        return
    yield Row(
        f"export of {DOCUMENTS} documents, verified offline",
        quantity(seconds, "s"),
        "",
        "",
        f"below {MOST_SECONDS:g} s",
        seconds < MOST_SECONDS,
        "every CRC32C, count, size and path, from a local folder; without the start of Python.",
    )


@contextmanager
def _export(folder: Path) -> Iterator[tuple[Path, str]]:
    """An export by the emulator: its folder, and the name of its metadata in it."""
    emulator = FirestoreEmulator(folder / "emulator", free_port())
    emulator.start()
    try:
        database = client(emulator.host, "bench")
        for start in range(0, DOCUMENTS, 500):
            batch = database.batch()
            for number in range(start, start + 500):
                document = {"name": f"user {number}", "mail": f"u{number}@example.org", "n": number, "tags": ["a", "b"]}
                batch.set(database.collection("users").document(f"user-{number}"), document)
            batch.commit()
        (folder / "export").mkdir()
        metadata = emulator.export("bench", folder / "export", "main")
        yield folder / "export", metadata.relative_to(folder / "export").as_posix()
    finally:
        emulator.stop()


def _answer(name: str, options: dict[str, Any]) -> dict[str, Any]:
    output, errors = start_module(name, options).communicate()
    assert output, errors
    return {"failed": False, **json.loads(output)}
