# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads exports from a bucket of Cloud Storage."""

from __future__ import annotations

import re
from typing import IO, Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import explained
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import Opener

_CHUNK = 8 << 20


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and folder of ``gs://bucket/folder``, without slashes at the ends.

    Raises ValueError when it is no such address. A folder is demanded: Firestore would choose one by the time, and a
    task that is run again could not find it.
    """
    found = re.fullmatch(r"gs://([^/]+)/+(.*[^/])/*", uri.strip())
    if not found:
        raise ValueError(f"{uri!r} is no address such as gs://bucket/folder, of a folder in a bucket of Cloud Storage")
    return found[1], found[2]


def bucket_opener(client: Any, bucket: str, address: str, timeout: float) -> Opener:
    """Opens objects of a bucket by their names.

    ``client`` is a google.cloud.storage.Client, ``address`` its server's for messages, ``timeout`` the seconds that
    one request may take with all its tries. What is opened raises FirestoreAccessError; FileNotFoundError when
    there is no such object, or no such bucket.
    """
    calls = {"timeout": timeout, "retry": load("google.cloud.storage", "retry").DEFAULT_RETRY.with_timeout(timeout)}

    def read(name: str) -> Any:
        with explained(f"{address}, gs://{bucket}/{name}"):
            blob = client.bucket(bucket).get_blob(name, **calls)
            if blob is None:
                raise FileNotFoundError(f"gs://{bucket}/{name}")
            return _Explained(blob.open("rb", chunk_size=_CHUNK, **calls), f"{address}, gs://{bucket}/{name}")

    return read


class _Explained:
    """An open object whose reading tells errors as this collection does."""

    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream, self._what = stream, what

    def __enter__(self) -> _Explained:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        with explained(self._what):
            return self._stream.read(size)

    def tell(self) -> int:
        return self._stream.tell()
