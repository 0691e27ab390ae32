# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest beside a Redis snapshot: what it holds, where from, and how to tell that it is still the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import sha256_of

_FORMAT = 1
_KIND = "redis_snapshot"
_DIGEST = "manifest_sha256"


class ManifestError(Exception):
    """There is no manifest that can be relied on; the text says why."""


class ManifestMissingError(ManifestError):
    """There is no such file."""


@dataclass(frozen=True)
class Manifest:
    """Facts about one snapshot file.

    ``bytes`` and ``sha256`` are those of the file as it lies there, ``rdb_bytes`` and ``crc64`` those of the RDB in
    it. ``databases`` maps the number of a database to its ``keys`` and ``expires`` (keys with a TTL). ``counted`` says
    how good these are: ``exact``, ``near`` (the server was writing while they were asked for) or ``no`` (the user may
    not ask). What the server did not tell is None.

    ``role`` is master or replica, ``master`` the URL of the master. When Sentinel was asked for ``sentinel_master``,
    ``lag_bytes`` is how far the server was behind its master, and ``chosen`` why this one was taken.
    """

    source: str
    taken_at: str
    seconds: float
    file: str
    compression: str
    bytes: int
    sha256: str
    rdb_bytes: int
    rdb_version: int
    crc64: str | None
    redis_version: str
    used_memory: int | None
    replication_id: str | None
    replication_offset: int | None
    databases: Mapping[str, Mapping[str, int]]
    counted: str
    functions: int | None
    role: str | None = None
    master: str | None = None
    lag_bytes: int | None = None
    sentinel_master: str | None = None
    chosen: str | None = None

    @property
    def keys(self) -> int | None:
        """Keys in all databases, None when they were not counted."""
        return None if self.counted == "no" else sum(counts["keys"] for counts in self.databases.values())

    def as_dict(self) -> dict[str, Any]:
        """The manifest as results carry it."""
        return asdict(self)

    def as_json(self) -> str:
        """The manifest as its file holds it, with a digest of its own against later changes."""
        content = {"kind": _KIND, "format": _FORMAT, **self.as_dict()}
        return json.dumps({**content, _DIGEST: _digest(content)}, indent=2) + "\n"


def read_manifest(path: str) -> Manifest:
    """The manifest in a file. Raises ManifestError when there is none, or it was changed after it was written."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        raise ManifestMissingError(f"there is no manifest {path}") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"the manifest {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ManifestError(f"{path} is not the manifest of a Redis snapshot")
    if content.get("format") != _FORMAT:
        raise ManifestError(f"the manifest {path} has format {content.get('format')!r}; known here is {_FORMAT}")
    digest = content.pop(_DIGEST, None)
    if digest != _digest(content):
        raise ManifestError(f"the manifest {path} was changed after it was written")
    try:
        told: dict[str, Any] = {
            field.name: content[field.name] if field.default is MISSING else content.get(field.name)
            for field in fields(Manifest)
        }
        return Manifest(**told)
    except KeyError as error:
        raise ManifestError(f"the manifest {path} lacks {error}") from error


def difference(path: str, manifest: Manifest) -> str:
    """How the file differs from what its manifest says, empty when it does not. Raises OSError."""
    size = os.path.getsize(path)
    if size != manifest.bytes:
        return f"it has {size} bytes and should have {manifest.bytes}"
    digest = sha256_of(path)
    if digest != manifest.sha256:
        return f"its SHA-256 is {digest[:16]}... and should be {manifest.sha256[:16]}..., at the same size"
    return ""


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
