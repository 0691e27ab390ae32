# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_cleanup of many documents on the emulator beside Google's BulkWriter, which asks for no condition.

The BulkWriter is used as it comes, throttled, which is how scripts use it; not throttled it is about as fast, and
hides what failed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.bench.common import Row, quantity, timed
from tests.fixtures.firestore import PROJECT, SPARE, FirestoreStandIn, stand_in
from tests.fixtures.firestore_sets import make_set
from tests.harness import run_module
from tests.platform.parts.firestore import FirestoreEmulator, client
from tests.platform.parts.process import free_port

DOCUMENTS = 20_000
#: For the BulkWriter, which would take half a minute for all of them.
FEWER = 4_000
FAMILIES = 2_000
LEAST_A_SECOND = 1_500
_TURNS = 3
_AGED = datetime.now(timezone.utc) - timedelta(days=800)


def rows() -> list[Row]:
    """All comparisons; takes about a minute."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        emulator = FirestoreEmulator(Path(name), free_port())
        emulator.start()
        try:
            with stand_in(emulator, Path(name), 0) as firestore:
                return list(_Bench(firestore, Path(name) / "backups").rows())
        finally:
            emulator.stop()


def _row(what: str, rates: list[float], theirs: float | None = None) -> Row:
    rate = statistics.median(rates)
    return Row(
        what,
        quantity(rate, "a second"),
        quantity(theirs, "a second") if theirs else "",
        f"{rate / theirs:.1f}x faster" if theirs else "",
        f"over {LEAST_A_SECOND} a second",
        rate > LEAST_A_SECOND,
        f"the slowest of {len(rates)} runs: {quantity(min(rates), 'a second')}; counts before and after not included.",
    )


class _Bench:
    def __init__(self, firestore: FirestoreStandIn, root: Path) -> None:
        self._firestore, self._root = firestore, root
        self._database = client(firestore.emulator.host, PROJECT, SPARE)

    def rows(self) -> Iterator[Row]:
        rates = [self.rate_of(self.sessions(DOCUMENTS)) for _turn in range(_TURNS)]
        yield _row(f"deleting {DOCUMENTS} documents without others below them", rates, self.bulk_writer())
        rates = [self.rate_of(self.families()) for _turn in range(_TURNS)]
        yield _row(f"deleting {FAMILIES} documents, each with four below it", rates)

    def sessions(self, documents: int) -> list[str]:
        return [f"sessions/s{number:05d}" for number in range(documents)]

    def families(self) -> list[str]:
        below = ("", "/orders/1", "/orders/2", "/orders/1/items/1", "/orders/2/items/1")
        return [f"sessions/s{number:05d}{path}" for number in range(FAMILIES) for path in below]

    def rate_of(self, paths: list[str]) -> float:
        """Documents that the module deletes a second, looks below them included."""
        self._fill(paths)
        make_set(self._firestore, SPARE, self._root)
        rule = {"collection_group": "sessions", "time_field": "created_at", "older_than": "365d", "limit": 10**6}
        options = {
            **self._firestore.connection,
            "database": SPARE,
            "state": "cleaned",
            "backup_root": str(self._root),
            "cleanup": [{**rule, "subcollections": True}],
        }
        answer = run_module("firestore_cleanup", options, timeout=300)
        (group,) = answer["groups"]
        assert group["deleted"] + group["deleted_below"] == len(paths), answer
        return float(len(paths) / group["seconds"])

    def bulk_writer(self) -> float:
        """Documents that the BulkWriter deletes a second."""
        self._fill(self.sessions(FEWER))
        return FEWER / timed(self._delete_by_bulk_writer)

    def _delete_by_bulk_writer(self) -> None:
        from google.cloud.firestore_v1.base_query import FieldFilter

        now = datetime.now(timezone.utc)
        query = self._database.collection("sessions").where(filter=FieldFilter("created_at", "<", now)).select([])
        writer = self._database.bulk_writer()
        for snapshot in query.stream():
            writer.delete(snapshot.reference)
        writer.close()

    def _fill(self, paths: list[str]) -> None:
        self._firestore.emulator.wipe(PROJECT, SPARE)
        content: dict[str, Any] = {"created_at": _AGED, "user": "x" * 100}
        for first in range(0, len(paths), 400):
            batch = self._database.batch()
            for path in paths[first : first + 400]:
                batch.set(self._database.document(path), content)
            batch.commit()
