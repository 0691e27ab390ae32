# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a Redis snapshot can be relied on: its bytes, its format, and what a server makes of it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import IO, Any

from ansible_collections.upkeep.ops.plugins.module_utils._compression import (
    CompressionError,
    compression_of,
    decompressing,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._rdb import (
    Rdb,
    RdbError,
    RdbReader,
    can_load,
    server_in_words,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import RedisAccessError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_contents import contents
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import (
    Manifest,
    ManifestError,
    ManifestMissingError,
    difference,
    read_manifest,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_spot_check import Live, live_version, spot_check
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import (
    Patience,
    Reach,
    RefusedError,
    ScratchError,
    available_memory,
    scratch_folder,
    scratch_server,
    server_programs,
    server_version,
)

_FEWEST_DATABASES = 1024
_NEAR_KEYS = 100  # so many keys may come or go on a busy server while they are counted
_MEMORY_RESERVE = 1.1  # loading takes a little more than the data took
_ROOM = "Free some space or choose another scratch_dir"
_LIVE = "See whether it runs and may be asked, and verify again; the snapshot itself was loaded"
_AGAIN = "Remove the cause and verify again; the snapshot itself may be sound"
_COMPARE = "Look which of the two is right: data may have been lost there, or the snapshot is one of something else"
_ANOTHER = "Do not restore from this file. Take a new snapshot, or use an older one"


@dataclass(frozen=True)
class Order:
    """What to verify. ``tolerance`` is a percentage, ``target_version`` and ``server_binary`` may be empty.

    ``expected_digest`` is what an earlier load of the same file told, ``live`` the server to compare with on level 4.
    """

    path: str
    manifest: str
    subject: str
    level: int
    target_version: str
    server_binary: str
    scratch_dir: str
    tolerance: float
    digest: bool
    expected_digest: str = ""
    live: Live | None = None


@dataclass(frozen=True)
class Verification:
    """What was found out. ``level`` is the highest one that was passed, 0 for none; the rest is None until known."""

    level: int = 0
    keys_loaded: int | None = None
    databases: dict[str, dict[str, int]] | None = None
    functions: int | None = None
    digest: str | None = None
    rdb_version: int | None = None
    redis_version: str | None = None
    spot_check: dict[str, int] | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The verification as results carry it."""
        return asdict(self)


@dataclass(frozen=True)
class Loaded:
    """A scratch server that has loaded a snapshot, and what it was made of.

    ``rdb`` is the uncompressed file, ``folder`` the scratch server's own, ``databases`` how many it can hold.
    """

    verification: Verification
    manifest: Manifest | None
    client: Any
    binary: str
    folder: str
    rdb: str
    databases: int


def verify(
    order: Order, library: Callable[[], ModuleType], builder: FindingsBuilder, patience: Patience
) -> Verification:
    """Verify the levels one after the other and add a finding for each that was tried.

    ``library`` loads redis-py and is called only when a server is to be asked. Nothing is raised for what is wrong
    with the snapshot: that is a finding.
    """
    with ExitStack() as stack:
        return verify_and_keep(order, library, builder, patience, stack)[0]


def verify_and_keep(
    order: Order,
    library: Callable[[], ModuleType],
    builder: FindingsBuilder,
    patience: Patience,
    stack: ExitStack,
    reachable: Reach | None = None,
    copies: int = 0,
) -> tuple[Verification, Loaded | None]:
    """Verify as :func:`verify` does, and keep the scratch server until ``stack`` ends, for those who restore from it.

    It listens where ``reachable`` says. There is memory for so many ``copies`` of the data on this host as well.
    The second value is None unless everything was loaded and is as its manifest says.
    """
    started = patience.monotonic()
    run = _Run(order, library, builder, patience, stack, reachable, copies)
    verification = run.levels()
    return replace(verification, seconds=round(patience.monotonic() - started, 3)), run.kept


class _Run:
    """One verification; the levels share what the earlier ones learnt."""

    def __init__(
        self,
        order: Order,
        library: Callable[[], ModuleType],
        builder: FindingsBuilder,
        patience: Patience,
        stack: ExitStack,
        reachable: Reach | None,
        copies: int,
    ) -> None:
        self._order = order
        self._library = library
        self._builder = builder
        self._patience = patience
        self._stack = stack
        self._reachable = reachable
        self._copies = copies
        self._manifest: Manifest | None = None
        self.kept: Loaded | None = None

    def levels(self) -> Verification:
        bytes_status = self._check_bytes()
        if bytes_status == "absent":
            return Verification()
        verification = Verification(level=1 if bytes_status == "ok" else 0)
        if self._order.level == 1:
            return verification
        loading = self._order.level >= 3 and bytes_status != "critical"
        try:
            folder = self._stack.enter_context(scratch_folder(self._order.scratch_dir)) if loading else ""
        except OSError as error:
            self._unknown("snapshot_load", f"there is no room for a scratch server: {error}", _ROOM)
            folder = ""
        return self._format_and_load(verification, folder)

    def _format_and_load(self, verification: Verification, folder: str) -> Verification:
        packed = compression_of(_head(self._order.path)) != "none"
        unpacked = os.path.join(folder, "dump.rdb") if folder and packed else ""
        if unpacked and not self._fits_on_disk(folder):
            folder = unpacked = ""
        rdb = self._check_format(unpacked)
        if rdb is None:
            return verification
        level = 2 if verification.level == 1 else 0
        verification = replace(verification, level=level, rdb_version=rdb.version, redis_version=rdb.redis_version)
        if not folder or not self._fits_in_memory(rdb):
            return verification
        loaded = self._load(folder, unpacked or self._order.path, rdb, verification)
        return loaded or verification

    # Level 1

    def _check_bytes(self) -> str:
        path = self._order.path
        try:
            if not os.path.getsize(path):
                return self._absent("the snapshot is empty")
            self._manifest = read_manifest(self._order.manifest)
            different = difference(path, self._manifest)
        except FileNotFoundError:
            return self._absent(f"there is no snapshot {path}")
        except ManifestMissingError as error:
            return self._unknown("snapshot_bytes", str(error), "Without it nobody knows what the file should hold")
        except ManifestError as error:
            return self._critical("snapshot_bytes", str(error))
        except OSError as error:
            return self._absent(f"the snapshot cannot be read: {error}")
        if different:
            return self._critical("snapshot_bytes", f"the snapshot is not the one of its manifest: {different}")
        told = f"{self._manifest.bytes} bytes with the SHA-256 of the manifest"
        return self._ok("snapshot_bytes", told, self._manifest.bytes, "bytes")

    def _absent(self, summary: str) -> str:
        self._critical("snapshot_bytes", summary)
        return "absent"

    # Level 2

    def _check_format(self, unpacked: str) -> Rdb | None:
        """The facts of the RDB when it is sound; on the way it is written to ``unpacked``, unless that is empty."""
        try:
            rdb = _read(self._order.path, unpacked)
        except (RdbError, CompressionError) as error:
            self._critical("snapshot_format", f"the snapshot is not sound: {error}")
            return None
        except OSError as error:
            self._unknown("snapshot_format", f"the snapshot could not be read or unpacked: {error}", _ROOM)
            return None
        wrong = self._contradiction(rdb)
        if wrong:
            self._critical("snapshot_format", wrong)
            return None
        told = f"RDB version {rdb.version} of {server_in_words(rdb.redis_version)}, {rdb.bytes} bytes"
        if rdb.crc64 is None:
            hint = "Set rdbchecksum yes on the server"
            self._builder.add(
                "snapshot_format", self._order.subject, "warning", f"{told}, written without a checksum", hint=hint
            )
        else:
            self._ok("snapshot_format", f"{told}, CRC-64 and end mark are right", rdb.version)
        return rdb

    def _contradiction(self, rdb: Rdb) -> str:
        manifest, target = self._manifest, self._order.target_version
        if manifest and (manifest.rdb_bytes, manifest.crc64) != (rdb.bytes, rdb.crc64):
            return f"the manifest speaks of another RDB ({manifest.rdb_bytes} bytes, CRC-64 {manifest.crc64})"
        if target and can_load(target, rdb.version) is False:
            return _not_loadable(target, rdb)
        return ""

    # Level 3

    def _fits_on_disk(self, folder: str) -> bool:
        free = shutil.disk_usage(folder).free
        needed = self._manifest.rdb_bytes if self._manifest else os.path.getsize(self._order.path)
        if needed <= free:
            return True
        told = f"unpacking needs {needed} bytes and {self._order.scratch_dir} has {free} free"
        self._unknown("snapshot_load", told, _ROOM)
        return False

    def _fits_in_memory(self, rdb: Rdb) -> bool:
        available = available_memory()
        needed = math.ceil((rdb.used_memory or 0) * _MEMORY_RESERVE) * (1 + self._copies)
        if available is None or needed <= available:
            return True
        told = f"loading needs about {needed} bytes of memory and {available} are available"
        self._unknown("snapshot_load", told, "Verify it on a host with more memory")
        return False

    def _load(self, folder: str, path: str, rdb: Rdb, verification: Verification) -> Verification | None:
        try:
            binary = self._program(rdb)
        except ScratchError as error:
            hint = f"Install {server_in_words(rdb.redis_version)} or newer here, or name it in server_binary"
            self._unknown("snapshot_load", str(error), hint)
            return None
        library = self._library()
        numbers = [int(number) for number in self._manifest.databases] if self._manifest else []
        databases = max(_FEWEST_DATABASES, *(number + 1 for number in numbers), 0)
        try:
            server = scratch_server(library, binary, folder, path, databases, self._patience, self._reachable)
            client = self._stack.enter_context(server)
            loaded = _contents(client, self._digest_wanted, verification)
        except RefusedError as error:
            self._critical("snapshot_load", f"redis-server does not load the snapshot: {error}")
            return None
        except (ScratchError, library.RedisError, OSError) as error:
            self._unknown("snapshot_load", f"the snapshot could not be loaded for comparison: {error}", _AGAIN)
            return None
        compared = self._compare(loaded)
        if compared is None:
            return loaded
        self.kept = Loaded(compared, self._manifest, client, binary, folder, path, databases)
        return self._compare_live(library, client, rdb, compared)

    def _program(self, rdb: Rdb) -> str:
        """The first server that is installed here and can load the snapshot. Raises ScratchError."""
        told = []
        for binary in server_programs(self._order.server_binary):
            version = server_version(binary)
            if can_load(version, rdb.version) is not False:
                return binary
            told.append(_not_loadable(version, rdb))
        if told:
            raise ScratchError(f"{' and '.join(told)}, so nobody tried to; no other server is installed here")
        named = self._order.server_binary
        missing = f"{named} is not" if named else "neither redis-server nor valkey-server is"
        raise ScratchError(f"{missing} installed here, so nobody tried to load the snapshot")

    @property
    def _digest_wanted(self) -> bool:
        return self._order.digest or bool(self._order.expected_digest)

    def _compare(self, loaded: Verification) -> Verification | None:
        differences = _differences(self._manifest, loaded, self._order.tolerance) if self._manifest else []
        expected = self._order.expected_digest
        if expected and loaded.digest != expected:
            differences.append(f"its digest is {loaded.digest}, and was {expected} when it was loaded before")
        if differences:
            self._critical(
                "snapshot_load", f"the snapshot holds other data than was recorded of it: {', '.join(differences)}"
            )
            return None
        compared = "as its manifest says" if self._manifest and self._manifest.counted != "no" else "not compared"
        compared += ", with the digest of earlier loads" if expected else ""
        self._ok("snapshot_load", f"a server loaded {loaded.keys_loaded} keys, {compared}", loaded.keys_loaded, "keys")
        return replace(loaded, level=3 if loaded.level == 2 else loaded.level)

    # Level 4

    def _compare_live(self, library: ModuleType, scratch: Any, rdb: Rdb, loaded: Verification) -> Verification:
        """Nothing is compared with a live server unless the snapshot is what it should be."""
        live = self._order.live
        if live is None or loaded.level < 3:
            return loaded
        try:
            version = live_version(library, live)
            if can_load(version, rdb.version) is False:
                self._critical("snapshot_live", f"{live.login.url}: {_not_loadable(version, rdb)}")
                return loaded
            found, differences = spot_check(library, scratch, loaded.databases or {}, live)
        except (RedisAccessError, library.RedisError, OSError) as error:
            self._unknown("snapshot_live", f"nothing was compared with the live server: {error}", _LIVE)
            return loaded
        loaded = replace(loaded, spot_check=found.as_dict())
        if differences:
            told = (
                f"{live.login.url} and the snapshot differ by more than {live.tolerance:g} %: {'; '.join(differences)}"
            )
            self._builder.add(
                "snapshot_live", self._order.subject, "warning", told, value=found.different, unit="keys", hint=_COMPARE
            )
            return loaded
        self._ok(
            "snapshot_live", f"{live.login.url} has about as many keys; {found.in_words()}", found.different, "keys"
        )
        return replace(loaded, level=4)

    # Findings

    def _ok(self, check: str, summary: str, value: int | None, unit: str = "") -> str:
        return self._builder.add(check, self._order.subject, "ok", summary, value=value, unit=unit).status

    def _unknown(self, check: str, summary: str, hint: str = "") -> str:
        return self._builder.add(check, self._order.subject, "unknown", summary, hint=hint).status

    def _critical(self, check: str, summary: str) -> str:
        return self._builder.add(check, self._order.subject, "critical", summary, hint=_ANOTHER).status


def _not_loadable(server: str, rdb: Rdb) -> str:
    return f"{server_in_words(server)} cannot load RDB version {rdb.version} ({server_in_words(rdb.redis_version)})"


def _head(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(4)


def _read(path: str, unpacked: str) -> Rdb:
    reader = RdbReader()
    with decompressing(path) as pieces, _optional_file(unpacked) as copy:
        for piece in pieces:
            reader.feed(piece)
            if copy:
                copy.write(piece)
    return reader.finish()


@contextmanager
def _optional_file(path: str) -> Iterator[IO[bytes] | None]:
    if not path:
        yield None
        return
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as stream:
        yield stream


def _contents(client: Any, digest: bool, verification: Verification) -> Verification:
    """What the scratch server holds, added to what is known already."""
    found = contents(client, digest)
    return replace(
        verification,
        databases={number: dict(counts) for number, counts in found.databases.items()},
        keys_loaded=found.keys,
        functions=found.functions,
        digest=found.digest,
    )


def _differences(manifest: Manifest, loaded: Verification, tolerance: float) -> list[str]:
    """In words, where the loaded data differs from the manifest by more than is allowed."""
    if manifest.counted == "no":
        return []
    told = []
    databases = loaded.databases or {}
    nothing = {"keys": 0, "expires": 0}
    for number in sorted({*databases, *manifest.databases}, key=int):
        expected, found = manifest.databases.get(number, nothing), databases.get(number, nothing)
        for what, words in (("keys", "keys"), ("expires", "keys with a TTL")):
            if abs(expected[what] - found[what]) > _allowed(manifest, expected[what], tolerance):
                told.append(f"database {number} has {found[what]} {words} instead of {expected[what]}")
    if None not in (manifest.functions, loaded.functions) and manifest.functions != loaded.functions:
        told.append(f"{loaded.functions} function libraries instead of {manifest.functions}")
    return told


def _allowed(manifest: Manifest, count: int, tolerance: float) -> int:
    return 0 if manifest.counted == "exact" else max(_NEAR_KEYS, math.ceil(count * tolerance / 100))
