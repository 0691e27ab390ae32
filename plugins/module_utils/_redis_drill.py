# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore for practice: a snapshot goes the way of a real restore, into a private server, and is compared there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    Login,
    RedisAccessError,
    client,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_contents import (
    Contents,
    contents,
    unlike,
    wait_until_copied,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import Manifest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import (
    SentinelError,
    Sentinels,
    find_master,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Loaded, Order, verify_and_keep
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import (
    Patience,
    Reach,
    ScratchError,
    become_master,
    reach,
    scratch_copy,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, parse_time

_LOOPBACK = "127.0.0.1"
_AGAIN = "Remove the cause and drill again; the snapshot itself may be sound"
_ANOTHER = "Do not rely on this snapshot: take a new one and drill that, or use an older one"


@dataclass(frozen=True)
class Drill:
    """What a drill measured; None is what it did not come to.

    ``rto_seconds`` is the whole way: reading and loading, copying and promoting, comparing. ``rpo_seconds`` is the age
    of the snapshot, ``rpo_bytes`` how much was written to the live server since, in bytes of its replication stream.
    """

    load_seconds: float | None = None
    restore_seconds: float | None = None
    compare_seconds: float | None = None
    rto_seconds: float | None = None
    keys: int | None = None
    databases: dict[str, dict[str, int]] | None = None
    digest: str | None = None
    rpo_seconds: float | None = None
    rpo_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The drill as results carry it."""
        return asdict(self)


def drill(
    order: Order,
    library: Callable[[], ModuleType],
    builder: FindingsBuilder,
    patience: Patience,
    *,
    live: Callable[[], dict[str, Any]] | None,
    now: datetime,
) -> Drill:
    """Restore for practice, and add findings for each step.

    ``live`` asks the live server for its INFO, or raises RedisAccessError or SentinelError. Nothing is raised for what
    is wrong with the snapshot: that is a finding.
    """
    started = patience.monotonic()
    reachable = reach(_LOOPBACK)
    with ExitStack() as stack:
        # A digest takes its time; the one that is expected is compared with what was restored.
        unmeasured = replace(order, expected_digest="")
        verification, loaded = verify_and_keep(unmeasured, library, builder, patience, stack, reachable, copies=1)
        done = Drill(load_seconds=verification.seconds)
        if loaded is not None:
            done = _restore(order, library(), builder, patience, loaded, reachable, done)
    if done.keys is not None:
        done = replace(done, rto_seconds=_since(started, patience))
        told = f"{done.keys} keys were restored into a private server in {format_duration(done.rto_seconds or 0)}"
        builder.add(
            "snapshot_restore",
            order.subject,
            "ok",
            f"{told} and are equal to the snapshot's",
            value=done.rto_seconds,
            unit="s",
        )
    if loaded is not None and loaded.manifest is not None:
        done = _recovery_point(order.subject, builder, done, loaded.manifest, live, now)
    return done


def _restore(
    order: Order,
    library: ModuleType,
    builder: FindingsBuilder,
    patience: Patience,
    loaded: Loaded,
    reachable: Reach,
    done: Drill,
) -> Drill:
    folder = os.path.join(loaded.folder, "copy")
    os.mkdir(folder, 0o700)
    try:
        with scratch_copy(library, loaded.binary, folder, loaded.databases, patience, reachable) as copy:
            seconds = _copy(copy, loaded.client, reachable, patience)
            begun = patience.monotonic()
            expected, found = contents(loaded.client, digest=True), contents(copy, digest=True)
    except (ScratchError, library.RedisError, OSError) as error:
        told = f"the snapshot was loaded, but could not be restored: {error}"
        builder.add("snapshot_restore", order.subject, "unknown", told, hint=_AGAIN)
        return done
    done = replace(done, restore_seconds=seconds, compare_seconds=_since(begun, patience))
    return _judged(order, builder, done, expected, found)


def _copy(copy: Any, source: Any, reachable: Reach, patience: Patience) -> float:
    """The way of a real restore: the target copies the source and is promoted; in seconds."""
    begun = patience.monotonic()
    copy.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")  # what has expired since is compared too
    become_master(source)
    copy.execute_command("REPLICAOF", reachable.address, reachable.port)
    wait_until_copied(copy, source, patience)
    copy.execute_command("REPLICAOF", "NO", "ONE")
    return _since(begun, patience)


def _judged(order: Order, builder: FindingsBuilder, done: Drill, expected: Contents, found: Contents) -> Drill:
    recorded = replace(expected, digest=order.expected_digest or expected.digest)
    differences = unlike(expected, found) or unlike(recorded, found)
    if differences:
        told = f"what was restored differs from the snapshot: {', '.join(differences)}"
        builder.add("snapshot_restore", order.subject, "critical", told, hint=_ANOTHER)
        return done
    databases = {number: dict(counts) for number, counts in found.databases.items()}
    return replace(done, keys=found.keys, databases=databases, digest=found.digest)


def _recovery_point(
    subject: str,
    builder: FindingsBuilder,
    done: Drill,
    manifest: Manifest,
    live: Callable[[], dict[str, Any]] | None,
    now: datetime,
) -> Drill:
    seconds = round((now - parse_time(manifest.taken_at)).total_seconds(), 3)
    done = replace(done, rpo_seconds=seconds)
    told = f"the snapshot is {format_duration(seconds)} old"
    if live is not None:
        try:
            done = replace(done, rpo_bytes=bytes_since(manifest, live()))
        except (RedisAccessError, SentinelError) as error:
            told += f", and how much was written since is not known: {error}"
            builder.add("recovery_point", subject, "unknown", told, value=seconds, unit="s")
            return done
        told += (
            "; how much was written since cannot be told: the live server's replication history began anew"
            if done.rpo_bytes is None
            else f" and {done.rpo_bytes} bytes of its replication stream were written since"
        )
    builder.add("recovery_point", subject, "ok", told, value=seconds, unit="s")
    return done


def live_info(options: Mapping[str, Any], library: Callable[[], ModuleType]) -> Callable[[], dict[str, Any]] | None:
    """What asks the live server of a module's options for its INFO; None when the options name none."""
    told = Login.of({**options, "timeout": options["answer_timeout"]})
    sentinels = Sentinels.of(options, told)
    if not sentinels and not options["login_host"] and not options["login_unix_socket"]:
        return None

    def ask() -> dict[str, Any]:
        redis = library()
        login = find_master(redis, sentinels, told) if sentinels else told
        with explained(redis, login), client(redis, login) as connection:
            return dict(connection.info())

    return ask


def bytes_since(manifest: Manifest, info: dict[str, Any]) -> int | None:
    """Bytes of the replication stream between the snapshot and now, from INFO of a live server.

    None when its history is another one, as after a restart, or an hour after its last replica has gone.
    """
    if manifest.replication_offset is None:
        return None
    written = int(info.get("master_repl_offset", -1)) - manifest.replication_offset
    same = manifest.replication_id == info.get("master_replid") or (
        # It was a replica of the snapshot's server, and promoted after the snapshot.
        manifest.replication_id == info.get("master_replid2")
        and manifest.replication_offset <= int(info.get("second_repl_offset", -1))
    )
    return written if same and written >= 0 else None


def _since(begun: float, patience: Patience) -> float:
    return round(patience.monotonic() - begun, 3)
