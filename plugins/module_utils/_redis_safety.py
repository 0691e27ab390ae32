# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots that a restore takes of the live server before it replaces its data: the way back."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.upkeep.ops.plugins.module_utils._compression import (
    DEFAULT_LEVELS,
    CompressionError,
    checked_level,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder, by_severity, worst
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import client
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import Manifest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import Progress, SnapshotLink
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_journal import Journal
from ansible_collections.upkeep.ops.plugins.module_utils._redis_snapshot import (
    Plan,
    ServerState,
    server_state,
    take,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import Hold, Target, position
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Order, verify
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock

_TRIES = 3
_SILENCE = 70.0  # seconds that the server may be silent while it prepares a snapshot


class SafetyError(Exception):
    """There is no safety snapshot that can be relied on; the text says why."""


def secure(target: Target, order: Order, journal: Journal, hold: Hold, clock: Clock, progress: Progress) -> None:
    """Take a safety snapshot and prove it; then hold the writers, and take another one if they wrote meanwhile.

    The path of the one that has everything is in the journal. Raises SafetyError and what taking a snapshot raises.
    """
    journal.step("safety snapshot")
    first = _take(target, journal.file("safety.rdb"), clock, progress)
    journal.note(safety=journal.file("safety.rdb"))
    _prove(order, journal["safety"], clock, target)
    journal.step("holding writers")
    hold.start()
    info = target.client.info()
    journal.note(run_id=info["run_id"], replication_id=info["master_replid"])
    if position(info) == [first.replication_id, first.replication_offset]:
        return
    journal.step("safety snapshot while writers are held")
    for _try in range(_TRIES):  # a keep-alive for replicas may come between the snapshot and its counting
        if _take(target, journal.file("safety-held.rdb"), clock, progress).counted == "exact":
            journal.note(safety=journal.file("safety-held.rdb"))
            return
    raise SafetyError("the server's data changes although its writers are held, so nothing was touched")


def _take(target: Target, path: str, clock: Clock, progress: Progress) -> Manifest:
    compression, level = _compression()
    plan = Plan(target.login.url, path, f"{path}.json", compression, level, 0o600)

    def sample() -> ServerState | None:
        return server_state(target.library, target.client)

    with SnapshotLink(target.library, client(target.library, target.login), _SILENCE) as link:
        link.greet()
        return take(plan, link, sample, clock=clock, progress=progress)


def _compression() -> tuple[str, int]:
    try:
        return "zstd", checked_level("zstd", None)
    except CompressionError:
        return "none", DEFAULT_LEVELS["none"]


def _prove(order: Order, path: str, clock: Clock, target: Target) -> None:
    builder = FindingsBuilder(clock())
    verify(safety_order(order, path), target.get_library, builder, target.patience)
    if worst(finding.status for finding in builder.findings) not in ("ok", "warning"):
        raise SafetyError(f"the safety snapshot was not proved: {by_severity(builder.findings)[0].summary}")


def safety_order(order: Order, path: str) -> Order:
    """How a safety snapshot is verified: as ``order`` says, but it is another file."""
    return replace(
        order, path=path, manifest=f"{path}.json", subject="safety snapshot", digest=False, expected_digest=""
    )
