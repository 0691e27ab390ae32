# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of a restore: a scratch server with the snapshot, and what a server must hold that has copied it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import client
from ansible_collections.upkeep.ops.plugins.module_utils._redis_contents import Contents, contents, unlike
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import Manifest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_preflight import Snapshot
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sample import Raw, Sampled, other_than, sample
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import Target
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Loaded, Order, verify_and_keep
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import (
    Patience,
    Reach,
    become_master,
    scratch_login,
    server_version,
)

_TOLD = 3  # differences that are named


@dataclass(frozen=True)
class Source:
    """A scratch server that others can copy."""

    client: Any
    rdb: str
    reachable: Reach
    manifest: Manifest | None
    expected: Contents
    sampled: list[Sampled]
    raw: Raw
    spare: int
    facts: Snapshot

    def differences(self, target: Target) -> list[str]:
        """Where a server that copied it and has held its writers since differs, in words; nothing may differ."""
        found = contents(target.client, digest=self.expected.digest is not None)
        return [*unlike(self.expected, found), *self.other_values(target)]

    def other_values(self, target: Target) -> list[str]:
        """Which keys of the sample have other values in a server, in words."""
        told = other_than(self.sampled, target.raw, self.raw, self.spare)
        if len(told) <= _TOLD:
            return told
        return [*told[:_TOLD], f"and {len(told) - _TOLD} more of {len(self.sampled)} keys in the sample"]


def open_source(
    order: Order,
    library: ModuleType,
    builder: FindingsBuilder,
    patience: Patience,
    stack: ExitStack,
    reachable: Reach,
    sample_size: int,
) -> Source | None:
    """Verify a snapshot and load it into a scratch server that lives until ``stack`` ends.

    None when it was not proved; the findings say why. Raises redis-py's errors.
    """
    _verification, loaded = verify_and_keep(order, lambda: library, builder, patience, stack, reachable, copies=1)
    if loaded is None:
        return None
    login = scratch_login(loaded.folder, reachable, patience.seconds)

    def raw(database: int) -> Any:
        return client(library, login, db=database, decode_responses=False)

    verified = loaded.verification
    expected = Contents(verified.databases or {}, verified.functions, verified.digest if order.digest else None)
    sampled = sample(raw, expected.databases, sample_size)
    facts = _facts(loaded, expected)
    become_master(loaded.client)
    return Source(
        client=loaded.client,
        rdb=loaded.rdb,
        reachable=reachable,
        manifest=loaded.manifest,
        expected=expected,
        sampled=sampled,
        raw=raw,
        spare=loaded.databases - 1,
        facts=facts,
    )


def _facts(loaded: Loaded, expected: Contents) -> Snapshot:
    return Snapshot(
        verified=loaded.manifest is not None,
        rdb_bytes=os.path.getsize(loaded.rdb),
        used_memory=int(loaded.client.info("memory")["used_memory"]),
        highest_database=max((int(number) for number in expected.databases), default=0),
        scratch_version=server_version(loaded.binary),
    )
