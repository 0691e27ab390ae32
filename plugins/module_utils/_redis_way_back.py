# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of a restore: by the run whose check failed, and by the next run when one was killed."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder, by_severity
from ansible_collections.upkeep.ops.plugins.module_utils._redis_data_files import DataFiles, is_aside
from ansible_collections.upkeep.ops.plugins.module_utils._redis_failover import Failover
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_journal import Journal
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_ways import (
    Service,
    copy_online,
    detach,
    lost_since,
    take_back_offline,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_safety import SafetyError, safety_order
from ansible_collections.upkeep.ops.plugins.module_utils._redis_source import Source, open_source
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import Hold, Target, TargetError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Order
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import reach
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock

#: From these steps on a restore into a stopped server has proved what it put there.
_PROVED = ("compared", "waiting for the append-only file")


@dataclass(frozen=True)
class WayBack:
    """Takes restores back. ``contact`` is how many seconds the server may take to reach a scratch server."""

    target: Target
    hold: Hold
    service: Service
    failover: Failover
    order: Order
    sample_size: int
    contact: float
    clock: Clock
    progress: Progress

    def after_failure(self, journal: Journal) -> None:
        """Give the server the data from before this run touched it, and prove that it has it.

        Raises SafetyError, TargetError and what the steps raise.
        """
        if journal.get("touched"):
            with ExitStack() as stack:
                if journal["mode"] == "online":
                    self._copy_back(journal, stack)
                else:
                    take_back_offline(self.service, journal, self._pid())
                    self._demand(self._lost_offline(journal, stack))
        self.let_go(journal)
        self.target.wait_for_aof()
        self.failover.put_back(journal["sentinels"], self.target.patience)
        journal.taken_back()

    def after_death(self, journal: Journal) -> bool:
        """Bring a server whose restore was killed into order; whether its safety snapshot must be restored to go back.

        That is so when the restored data was whole already, whose writers may have used it since, or when the files
        from before do not hold all of the snapshot (``lost`` in the journal). Else the server holds what it held
        before with all that was written since. Raises SafetyError, TargetError and what the steps raise.
        """
        replaced = self._settle_offline(journal) if journal["mode"] == "offline" else self._settle_online(journal)
        self.let_go(journal)
        self.failover.put_back(journal["sentinels"], self.target.patience)
        if not replaced:
            journal.taken_back()
        return replaced

    def let_go(self, journal: Journal) -> None:
        """Put the server's settings back and let its writers go on. Raises redis-py's errors."""
        self.target.put_back(journal["settings"])
        self.hold.release()
        self.target.client.execute_command("CLIENT", "UNPAUSE")

    def _settle_online(self, journal: Journal) -> bool:
        info = self.target.wait_until_there()
        if info.get("role") == "slave" and not detach(self.target, journal, info):
            raise TargetError(
                f"the server has become a replica of {info.get('master_host')}:{info.get('master_port')} since: "
                "somebody else changed it; look there first"
            )
        # A server that has copied another one has given up its own replication history. One that was restarted may
        # have, too: then it is taken for one that holds the restored data, and a safety snapshot of it is taken anyway.
        history = (info.get("master_replid"), info.get("master_replid2"))
        return bool(journal.get("touched")) and journal["replication_id"] not in history

    def _settle_offline(self, journal: Journal) -> bool:
        if not journal.get("touched"):
            self.target.wait_until_there()
            return False
        if journal["step"] in _PROVED:
            self.target.wait_until_there()
            return True
        if journal.get("lost"):  # an earlier run has seen it
            self.target.wait_until_there()
            return True
        # Once the files are in their place again the server may have gone on, and differ from the snapshot rightly.
        aside = journal["step"] == "starting" or is_aside(DataFiles(**journal["files"]), journal["aside"])
        take_back_offline(self.service, journal, self._pid())
        with ExitStack() as stack:
            return (aside or not journal["persistent"]) and bool(self._lost_offline(journal, stack))

    def _lost_offline(self, journal: Journal, stack: ExitStack) -> list[str]:
        """What the server, with its files from before, lacks of the safety snapshot; later runs know it, too."""
        lost = lost_since(self._safety(journal, stack), self.target)
        journal.note(lost=lost)
        return lost

    def _copy_back(self, journal: Journal, stack: ExitStack) -> None:
        info = self.target.wait_until_there()
        self.hold.insist()
        detach(self.target, journal, info)
        safety = self._safety(journal, stack)
        if safety.differences(self.target):
            copy_online(self.target, safety, journal, self.contact, self.progress)
            self._demand(safety.differences(self.target))

    def _safety(self, journal: Journal, stack: ExitStack) -> Source:
        """A scratch server with the safety snapshot, which the server reaches as it reached the one before."""
        builder = FindingsBuilder(self.clock())
        reachable = reach(journal["address"], password=journal["settings"]["masterauth"][1])
        order, patience = safety_order(self.order, journal["safety"]), self.target.patience
        source = open_source(order, self.target.library, builder, patience, stack, reachable, self.sample_size)
        if source is None:
            raise SafetyError(f"the safety snapshot is not sound: {by_severity(builder.findings)[0].summary}")
        return source

    def _demand(self, differences: list[str]) -> None:
        if differences:
            raise SafetyError(f"the server does not hold the data of the safety snapshot: {', '.join(differences)}")

    def _pid(self) -> int:
        """The server's process, 0 when it does not run."""
        with suppress(self.target.library.RedisError, OSError):
            info: dict[str, Any] = self.target.client.info("server")
            return int(info["process_id"])
        return 0
