# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a snapshot of a Redis server into a file that is either whole, checked and described, or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import ModuleType
from typing import IO, Any

from ansible_collections.upkeep.ops.plugins.module_utils._compression import compressing
from ansible_collections.upkeep.ops.plugins.module_utils._files import published, sync_folder
from ansible_collections.upkeep.ops.plugins.module_utils._rdb import Rdb, RdbReader, server_version_of
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import (
    Manifest,
    ManifestError,
    difference,
    read_manifest,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import FullSync, Progress, SnapshotLink
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import Choice
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, isoformat, parse_time

_WAITING_BLOCKS = 16  # of at most 1 MiB each, between the network and the disk


class SnapshotError(Exception):
    """No snapshot can be taken; the text says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """From where to where. ``mode`` is that of the data file; the manifest always has 0600.

    ``choice`` is what Sentinel led to when it was asked for ``sentinel_master``, which is empty when it was not.
    """

    source: str
    dest: str
    manifest: str
    compression: str
    level: int
    mode: int
    sentinel_master: str = ""
    choice: Choice | None = None

    def at(self, choice: Choice) -> Plan:
        """The plan for the server that was chosen."""
        return replace(self, source=choice.login.url, choice=choice)


@dataclass(frozen=True)
class ServerState:
    """What INFO says of a server at one moment."""

    redis_version: str
    replica: bool
    master: str
    link_up: bool
    replication_id: str
    replication_offset: int
    databases: dict[str, dict[str, int]]
    functions: int | None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> ServerState:
        """From redis-py's answer to INFO."""
        return cls(
            redis_version=server_version_of(info),
            replica=info.get("role") == "slave",
            master=f"redis://{info['master_host']}:{info['master_port']}" if "master_host" in info else "",
            link_up=info.get("master_link_status") == "up",
            replication_id=str(info.get("master_replid", "")),
            replication_offset=int(info.get("master_repl_offset", -1)),
            databases={
                name[2:]: {"keys": int(counts["keys"]), "expires": int(counts["expires"])}
                for name, counts in info.items()
                if re.fullmatch(r"db\d+", name)
            },
            functions=info.get("number_of_libraries"),
        )

    @property
    def keys(self) -> int:
        """Keys in all databases."""
        return sum(counts["keys"] for counts in self.databases.values())


def server_state(library: ModuleType, client: Any) -> ServerState | None:
    """The state of the server, None when the user may not ask for it. Raises redis-py's other errors."""
    try:
        return ServerState.of(client.info())
    except library.exceptions.NoPermissionError:
        return None


def check_source(state: ServerState | None) -> None:
    """Raise SnapshotError when the server's data may be old: it is a replica without its master."""
    if state and state.replica and not state.link_up:
        raise SnapshotError(
            "the server is a replica whose link to its master is down, so its data may be old; "
            "repair the replication or take the snapshot from the master"
        )


def check_dest(plan: Plan) -> None:
    """Raise SnapshotError when the files could not be written, before the server is troubled."""
    for path in (plan.dest, plan.manifest):
        folder = os.path.dirname(os.path.abspath(path))
        if os.path.isdir(path):
            raise SnapshotError(f"{path} is a folder; name the file to write")
        if not os.path.isdir(folder):
            raise SnapshotError(f"the folder {folder} does not exist; make it first, with mode 0700")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SnapshotError(f"this user may not write into the folder {folder}")
    if os.path.abspath(plan.dest) == os.path.abspath(plan.manifest):
        raise SnapshotError("dest and manifest are the same file")


def young_snapshot(plan: Plan, max_age: float, now: datetime) -> Manifest | None:
    """The manifest of a snapshot that makes a new one needless: same source and compression, younger than
    ``max_age`` seconds, and its file still what the manifest says."""
    try:
        manifest = read_manifest(plan.manifest)
        age = (now - parse_time(manifest.taken_at)).total_seconds()
        # Behind Sentinel the server may be another one each time, and the data is that of the same master.
        where = manifest.sentinel_master if plan.sentinel_master else manifest.source
        wanted = (plan.sentinel_master or plan.source, plan.compression, os.path.basename(plan.dest))
        if (where, manifest.compression, manifest.file) != wanted or not 0 <= age < max_age:
            return None
        return None if difference(plan.dest, manifest) else manifest
    except (ManifestError, OSError, ValueError):
        return None


def take(
    plan: Plan,
    link: SnapshotLink,
    sample: Callable[[], ServerState | None],
    *,
    clock: Clock,
    progress: Progress,
) -> Manifest:
    """Take the snapshot and publish it with its manifest. ``sample`` asks the server for its state.

    Until both files are complete and on disk, whatever stood under their names is not touched. Then the old manifest
    goes, the data is renamed, the manifest is renamed: killed in between, it leaves a file without a manifest, never
    a manifest beside a file that it does not describe.
    Raises ReplicationError, RdbError, CompressionError, OSError and redis-py's errors.
    """
    with _FolderLock(os.path.dirname(os.path.abspath(plan.dest))) as lock:
        remove_abandoned(plan.dest)
        remove_abandoned(plan.manifest)
        with published(plan.manifest, 0o600) as manifest_file, published(plan.dest, plan.mode) as data_file:
            _claim(manifest_file)
            _claim(data_file)
            lock.release()
            manifest = _receive(plan, link, sample, data_file, clock, progress)
            manifest_file.write(manifest.as_json().encode())
            _on_disk(manifest_file)
            _on_disk(data_file)
            lock.acquire()
            _withdraw(plan.manifest)
    return manifest


def remove_abandoned(path: str) -> None:
    """Remove the temporary files that killed runs left for ``path``; those whose writer lives are locked by it."""
    folder, name = os.path.split(os.path.abspath(path))
    ours = re.compile(re.escape(f".{name}.") + r"[a-z0-9_]{8}\.partial")
    for entry in os.listdir(folder):
        if ours.fullmatch(entry):
            with suppress(OSError), open(os.path.join(folder, entry), "rb+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(stream.name)


def _receive(
    plan: Plan,
    link: SnapshotLink,
    sample: Callable[[], ServerState | None],
    target: IO[bytes],
    clock: Clock,
    progress: Progress,
) -> Manifest:
    announced = link.request()
    taken_at = clock()
    state = sample()  # at once: the server forked a moment ago
    reader = RdbReader()
    stored = _Counted(target)
    with compressing(stored, plan.compression, plan.level) as writer, _InBackground(writer.write) as background:
        for block in link.blocks(announced, progress):
            background.put(block)
            reader.feed(block)
    return _manifest(plan, announced, state, reader.finish(), stored, taken_at, clock())


def _manifest(
    plan: Plan,
    announced: FullSync,
    state: ServerState | None,
    rdb: Rdb,
    stored: _Counted,
    taken_at: datetime,
    finished_at: datetime,
) -> Manifest:
    return Manifest(
        source=plan.source,
        taken_at=isoformat(taken_at),
        seconds=round((finished_at - taken_at).total_seconds(), 3),
        file=os.path.basename(plan.dest),
        compression=plan.compression,
        bytes=stored.bytes,
        sha256=stored.sha256.hexdigest(),
        rdb_bytes=rdb.bytes,
        rdb_version=rdb.version,
        crc64=rdb.crc64,
        redis_version=rdb.redis_version,
        used_memory=rdb.used_memory,
        replication_id=announced.replication_id,
        replication_offset=announced.replication_offset,
        databases=state.databases if state else {},
        counted=_counted(announced, state),
        functions=state.functions if state else None,
        **_place(plan, state),
    )


def _place(plan: Plan, state: ServerState | None) -> dict[str, Any]:
    """Of whom the snapshot is: what Sentinel led to, else what the server says of itself."""
    if plan.choice:
        choice = plan.choice
        told = {"role": choice.role, "master": choice.master, "lag_bytes": choice.lag}
        return {**told, "sentinel_master": plan.sentinel_master, "chosen": choice.reason}
    if state is None:
        return {}
    if state.replica:
        return {"role": "replica", "master": state.master}
    return {"role": "master", "master": plan.source}


def _counted(announced: FullSync, state: ServerState | None) -> str:
    """Whether the counts are those of the snapshot: they are when nothing was written between the two."""
    if state is None:
        return "no"
    at = (state.replication_id, state.replication_offset)
    return "exact" if at == (announced.replication_id, announced.replication_offset) else "near"


def _on_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _withdraw(manifest: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(manifest)
        sync_folder(os.path.dirname(os.path.abspath(manifest)))


def _claim(stream: IO[bytes]) -> None:
    """Mark a temporary file as having a living writer. The kernel takes the mark away when the writer dies."""
    with suppress(OSError):  # a file system without locks: then nothing is ever taken for abandoned either
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _FolderLock:
    """Lets one run at a time make, remove and rename files in a folder; held when it is made."""

    def __init__(self, folder: str) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> _FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def acquire(self) -> None:
        self._lock(fcntl.LOCK_EX)

    def release(self) -> None:
        self._lock(fcntl.LOCK_UN)

    def _lock(self, operation: int) -> None:
        with suppress(OSError):  # network file systems may not lock folders
            fcntl.flock(self._descriptor, operation)


class _Counted:
    """A writer that counts and digests what goes to disk."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._target.write(data)
        self.bytes += len(data)
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()


class _InBackground:
    """Hands pieces to ``write`` in a thread, so that neither compression nor a slow disk slows the server down.

    What goes wrong there is raised by the next ``put`` or by the end of the block.
    """

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING_BLOCKS)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _InBackground:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pieces.put(None)
        self._thread.join()
        if kind is None and self._error:
            raise self._error

    def put(self, piece: bytes) -> None:
        if self._error:
            raise self._error
        self._pieces.put(piece)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            # Pieces are taken after an error too: a full queue would hold up the one who is to learn of it.
            if self._error is None:
                try:
                    self._write(piece)
                except Exception as error:  # whatever it is, the thread that waits has to raise it
                    self._error = error
