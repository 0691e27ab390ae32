# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ways by which the data of a live server is replaced. Both begin while its writers are held."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._compression import decompressing
from ansible_collections.upkeep.ops.plugins.module_utils._redis_contents import contents, wait_until_copied
from ansible_collections.upkeep.ops.plugins.module_utils._redis_data_files import (
    CommandError,
    DataFiles,
    discard,
    move_aside,
    place,
    put_back,
    run_command,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_journal import Journal
from ansible_collections.upkeep.ops.plugins.module_utils._redis_source import Source
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import (
    Hold,
    Target,
    TargetError,
    new_values,
    wait_for_contact,
)

_UNPACKED = "unpacked.rdb"


def copy_online(
    target: Target, source: Source, journal: Journal, contact: float, progress: Progress, run_id: str = ""
) -> None:
    """Let the server copy the scratch server and promote it. It keeps its old data until all of the new is there.

    ``contact`` is how many seconds the server may take to reach the scratch server, ``run_id`` that of the process
    whose writers are held, when another one must not be touched. Raises ScratchError, TargetError, redis-py's errors.
    """
    address, port = source.reachable.address, source.reachable.port
    journal.step("copying", master=[address, port], touched=True)
    if run_id and target.client.info("server")["run_id"] != run_id:
        raise TargetError("the server was restarted, and its writers were not held since")
    target.change(new_values(journal["settings"]), target.client.config_get("*"))
    target.client.execute_command("REPLICAOF", address, port)
    wait_for_contact(source.client, target, contact)
    total = source.facts.rdb_bytes
    wait_until_copied(target.client, source.client, target.patience, lambda done: progress(min(done, total), total))
    journal.step("promoting")
    target.client.execute_command("REPLICAOF", "NO", "ONE")


def detach(target: Target, journal: Journal, info: Mapping[str, Any]) -> bool:
    """Promote the server when it is the replica of our scratch server; whether it was. Raises redis-py's errors."""
    ours = info.get("role") == "slave" and [info["master_host"], info["master_port"]] == journal.get("master")
    if ours:
        target.client.execute_command("REPLICAOF", "NO", "ONE")
    return ours


@dataclass(frozen=True)
class Service:
    """How the server is stopped and started, and how its writers are held from its first moment on."""

    target: Target
    hold: Hold
    stop_command: Sequence[str]
    start_command: Sequence[str]

    def stop(self, pid: int) -> None:
        """Stop it; fine when it does not run. Raises CommandError and TargetError when it goes on running."""
        try:
            run_command(self.stop_command, self.target.patience.seconds)
        except CommandError:
            if self._answers():
                raise
        self.target.wait_until_gone(pid)
        if self._answers():
            raise CommandError(f"after {' '.join(self.stop_command)} the server came back by itself; nothing was moved")

    def runs_on(self, run_id: str) -> bool:
        """Whether the very process runs that was to be stopped."""
        try:
            return bool(self.target.client.info("server")["run_id"] == run_id)
        except (self.target.library.RedisError, OSError):
            return False

    def start(self) -> dict[str, Any]:
        """Start it, hold its writers as soon as it listens, and return its INFO when it has loaded its data."""
        run_command(self.start_command, self.target.patience.seconds)
        self.hold.insist()
        return dict(self.target.wait_until_there())

    def _answers(self) -> bool:
        errors = self.target.library.exceptions
        try:
            self.target.client.ping()
        except (errors.BusyLoadingError, errors.ResponseError):
            return True
        except (self.target.library.RedisError, OSError):
            return False
        return True


def replace_offline(service: Service, source: Source, journal: Journal) -> list[str]:
    """Stop the server, move its files aside, put the snapshot there, start it; what differs then, in words.

    What must be known to take it back is in the journal. Raises CommandError, TargetError, OSError, redis-py's errors.
    """
    files = DataFiles(**journal["files"])
    journal.step("stopping", touched=True)
    try:
        service.stop(journal["pid"])
    except (CommandError, TargetError):
        if service.runs_on(journal["run_id"]):
            journal.note(touched=False)
        raise
    journal.step("replacing its files", old=files.present())
    move_aside(files, journal["aside"])
    place(files, source.rdb)
    journal.step("starting")
    info = service.start()
    loaded = info["rdb_last_load_keys_loaded"] + info["rdb_last_load_keys_expired"]
    told = [] if loaded == source.expected.keys else [f"it loaded {loaded} keys instead of {source.expected.keys}"]
    return [*told, *source.other_values(service.target)]


def take_back_offline(service: Service, journal: Journal, pid: int) -> None:
    """Give the server the files from before and start it, whatever the restore had come to. May be called again.

    Where the server kept nothing on disk its data is that of the safety snapshot.
    """
    files = DataFiles(**journal["files"])
    journal.step("stopping to go back")
    service.stop(pid)
    journal.step("putting its files back")
    if journal["persistent"]:
        put_back(files, journal["aside"], journal.get("old") or files.present())
    else:
        _place_safety(files, journal)
    journal.step("starting again")
    service.start()


def _place_safety(files: DataFiles, journal: Journal) -> None:
    if journal.get("old") is None:
        journal.note(old=files.present())
        move_aside(files, journal["aside"])
    discard(files)
    unpacked = journal.file(_UNPACKED)
    with decompressing(journal["safety"]) as pieces, open(unpacked, "wb") as stream:
        for piece in pieces:
            stream.write(piece)
    place(files, unpacked)
    os.unlink(unpacked)


def lost_since(source: Source, target: Target) -> list[str]:
    """What a server that was started again lacks of the safety snapshot, in words; keys may have expired meanwhile."""
    info = target.client.info()
    over = info["expired_keys"] + info["rdb_last_load_keys_expired"]
    missing = source.expected.keys - contents(target.client).keys - over
    told = [f"{missing} keys are missing"] if missing > 0 else []
    return [*told, *source.other_values(target)]
