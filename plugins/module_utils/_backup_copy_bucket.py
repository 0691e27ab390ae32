# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backup sets in a bucket of Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._age import Readable
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import PlaceError
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    Target,
    explained,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri

_CHUNK = 8 << 20
_REMEDIES = {
    "Forbidden": "the account needs roles/storage.objectAdmin on the bucket, or roles/storage.objectUser",
    "NotFound": "there is no such bucket, or not this object in it: is the address right?",
}


@dataclass(frozen=True)
class StorageAccess:
    """How Cloud Storage, or the stand-in at ``endpoint``, is reached. ``timeout`` seconds for one request."""

    endpoint: str = ""
    service_account_file: str = ""
    impersonate_service_account: str = ""
    timeout: float = 60


class BucketPlace:
    """A folder in a bucket, of a URL such as ``gs://bucket/folder``. Raises ValueError for others."""

    renames = False

    def __init__(self, url: str, access: StorageAccess) -> None:
        self._bucket, self._folder = split_uri(url)
        self.address = f"gs://{self._bucket}/{self._folder}"
        if access.endpoint and (access.service_account_file or access.impersonate_service_account):
            raise ValueError("storage_endpoint is for a stand-in and credentials are for Google: leave one of them out")
        # Cloud Storage asks for a project only when a bucket is made.
        self._target = Target(
            "none",
            storage_endpoint=access.endpoint,
            service_account_file=access.service_account_file,
            impersonate_service_account=access.impersonate_service_account,
        )
        self._timeout = access.timeout
        self._client: Any = None

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def listing(self) -> dict[str, int]:
        prefix = f"{self._folder}/"
        with self._explained():
            found = self._cloud().list_blobs(self._bucket, prefix=prefix, **self._patience())
            return {blob.name[len(prefix) :]: int(blob.size) for blob in found if not blob.name.endswith("/")}

    def texts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        missing = load("google.api_core", "exceptions").NotFound
        found = {}
        for name in names:
            with self._explained(), suppress(missing):
                found[name] = self._blob(name).download_as_bytes(**self._patience())
        return found

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        with self._explained(), self._blob(name).open("rb", chunk_size=_CHUNK, **self._patience()) as stream:
            yield stream

    def begin(self, folder: str) -> None:
        """Nothing: a bucket has no folders."""

    def write(self, root: str, name: str, folder: str) -> None:
        with self._explained():
            blob = self._blob(f"{folder}/{name}")
            blob.upload_from_filename(f"{root}/{name}", checksum="crc32c", **self._patience())

    def remove(self, names: Iterable[str]) -> None:
        missing = load("google.api_core", "exceptions").NotFound
        for name in names:
            with self._explained(), suppress(missing):
                self._blob(name).delete(**self._patience())

    def rename(self, old: str, new: str) -> None:
        raise NotImplementedError(f"a bucket cannot rename {old} to {new}")

    def _blob(self, name: str) -> Any:
        return self._cloud().bucket(self._bucket).blob(f"{self._folder}/{name}", chunk_size=_CHUNK)

    def _cloud(self) -> Any:
        if self._client is None:
            self._client = storage_client(self._target)
        return self._client

    def _patience(self) -> dict[str, Any]:
        retry = load("google.cloud.storage", "retry").DEFAULT_RETRY
        return {"timeout": self._timeout, "retry": retry.with_timeout(self._timeout)}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with explained(f"{self._target.storage_url}, {self.address}", _REMEDIES):
                yield
        except FirestoreAccessError as error:
            raise PlaceError(str(error)) from error
