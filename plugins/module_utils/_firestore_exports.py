# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that lie in a bucket: those of sets that are gone are removed, those of no set are found.

An export loses its ``*.overall_export_metadata`` first: without that file nothing imports it, so that one that is
half removed is not taken for a whole one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSetError, moment_of
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import explained
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

_ENTRY = ".overall_export_metadata"


@dataclass(frozen=True)
class Export:
    """An export as it lies in a bucket. ``identifier`` is that of the set that it belongs to, or belonged to."""

    identifier: str
    uri: str
    objects: int
    bytes: int
    changed_at: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "set": self.identifier,
            "uri": self.uri,
            "objects": self.objects,
            "bytes": self.bytes,
            "changed_at": self.changed_at,
        }


class Exports:
    """The exports that one account reaches.

    ``client`` makes a google.cloud.storage.Client, ``address`` is its server's for messages, ``timeout`` the seconds
    that one request may take with all its tries. Every method raises FirestoreAccessError.
    """

    def __init__(self, client: Callable[[], Any], address: str, timeout: float) -> None:
        self._client = client()
        self._address = address
        retry = load("google.cloud.storage", "retry").DEFAULT_RETRY.with_timeout(timeout)
        self._calls = {"timeout": timeout, "retry": retry}

    def look(self, identifier: str, uri: str) -> Export | None:
        """The export at an address; None when nothing lies there."""
        objects = self._objects(uri)
        if not objects:
            return None
        changed = max(item.updated for item in objects)
        return Export(identifier, uri, len(objects), sum(item.size or 0 for item in objects), isoformat(changed))

    def remove(self, export: Export) -> None:
        """Remove it; what another process removed meanwhile is no error."""
        not_found = load("google.api_core", "exceptions").NotFound
        for item in sorted(self._objects(export.uri), key=lambda item: not item.name.endswith(_ENTRY)):
            with explained(f"{self._address}, gs://{item.bucket.name}/{item.name}"):
                try:
                    item.delete(**self._calls)
                except not_found:
                    continue

    def orphans(self, folder: str, name: str, known: Iterable[str]) -> Iterator[Export]:
        """Exports ``<folder>/<id>/<name>`` of sets that are not among the ``known`` ones, oldest first."""
        bucket, path = _split_folder(folder)
        known = set(known)
        with explained(f"{self._address}, {folder}"):
            pages = self._client.list_blobs(bucket, prefix=path, delimiter="/", **self._calls)
            for _item in pages:  # the folders are told once all pages were read
                pass
            identifiers = sorted(prefix[len(path) :].rstrip("/") for prefix in pages.prefixes)
        for identifier in identifiers:
            if identifier not in known and _is_id(identifier):
                found = self.look(identifier, f"gs://{bucket}/{path}{identifier}/{name}")
                if found is not None:
                    yield found

    def _objects(self, uri: str) -> list[Any]:
        bucket, path = split_uri(uri)
        with explained(f"{self._address}, {uri}"):
            return list(self._client.list_blobs(bucket, prefix=f"{path}/", **self._calls))


def require_own_folder(identifier: str, uri: str) -> None:
    """Raise BackupSetError unless an export lies in a folder that is named after its set.

    What it records was written long ago, perhaps by hand: nothing is removed that other sets may use.
    """
    moment_of(identifier)
    if identifier not in split_uri(uri)[1].split("/"):
        raise BackupSetError(
            f"{uri} lies in no folder of set {identifier}, others may use it: remove it by hand when nobody does"
        )


def old_enough(export: Export, now: datetime, age: float) -> bool:
    """Whether nothing was written to an export for some seconds: a younger one may still be in the making."""
    return export.changed_at <= isoformat(datetime.fromtimestamp(now.timestamp() - age, now.tzinfo))


def _split_folder(folder: str) -> tuple[str, str]:
    """Bucket and prefix (empty, or with a slash at its end) of ``gs://bucket/folder``, which may be the bucket."""
    found = re.fullmatch(r"gs://([^/]+)/*(.*?)/*", folder.strip())
    if not found:
        raise ValueError(f"{folder!r} is no address such as gs://bucket/folder")
    return found[1], f"{found[2]}/" if found[2] else ""


def _is_id(text: str) -> bool:
    try:
        moment_of(text)
    except BackupSetError:
        return False
    return True
