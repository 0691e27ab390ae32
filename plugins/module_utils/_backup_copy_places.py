# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The places that copies of backup sets are brought to: what each of them can do, and folders that are mounted here.

Names at a place are relative to its base, with slashes. A copy is made in a working folder of the place and renamed
when it is whole; in a bucket, where nothing can be renamed, it is made under its final name and is whole once its
record is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

from ansible_collections.upkeep.ops.plugins.module_utils._age import Readable
from ansible_collections.upkeep.ops.plugins.module_utils._files import published, sync_folder


class PlaceError(Exception):
    """A place could not be used; the text names it, the cause and what to do."""


class Place(Protocol):
    """Where copies lie. Everything raises PlaceError, and OSError for what is read or written on this host."""

    @property
    def address(self) -> str:
        """The place in messages; no secret is in it."""

    @property
    def renames(self) -> bool:
        """Whether a folder can be given another name."""

    def session(self) -> AbstractContextManager[None]:
        """A block in which the rest is done; a place may keep its connection open for so long."""

    def listing(self) -> dict[str, int]:
        """Names and sizes of all files."""

    def texts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The content of small files; those that are not there are left out."""

    def read(self, name: str) -> AbstractContextManager[Readable]:
        """A file to read from. That it came whole is certain only when the block ended without an error."""

    def begin(self, folder: str) -> None:
        """Make a working folder unless it is there."""

    def write(self, root: str, name: str, folder: str) -> None:
        """Bring ``root/name`` of this host to ``folder/name`` of the place, in place of what is there."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, also those that are not there, and the folders that become empty by that."""

    def rename(self, old: str, new: str) -> None:
        """Give a folder its final name, which nothing but empty folders may have, and put all of it on disk."""


class FolderPlace:
    """A folder of this host: a disk that is carried away, or something mounted from elsewhere."""

    renames = True

    def __init__(self, path: str) -> None:
        self.address = path

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def listing(self) -> dict[str, int]:
        with self._explained():
            self._must_be_there()
            found = {}
            for folder, _folders, names in os.walk(self.address, onerror=_raise):
                for name in names:
                    path = os.path.join(folder, name)
                    found[os.path.relpath(path, self.address)] = os.lstat(path).st_size
            return found

    def texts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found = {}
        with self._explained():
            for name in names:
                with suppress(FileNotFoundError), open(self._path(name), "rb") as stream:
                    found[name] = stream.read()
        return found

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        with self._explained(), open(self._path(name), "rb") as stream:
            yield stream

    def begin(self, folder: str) -> None:
        with self._explained():
            self._must_be_there()
            os.makedirs(self._path(folder), mode=0o700, exist_ok=True)

    def write(self, root: str, name: str, folder: str) -> None:
        target = self._path(f"{folder}/{name}")
        with open(os.path.join(root, name), "rb") as source, self._explained():
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            with published(target) as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
            with open(target, "rb") as written:  # so that it is the disk that is read back, where the system obeys
                os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self, names: Iterable[str]) -> None:
        with self._explained():
            for name in names:
                path = self._path(name)
                with suppress(FileNotFoundError):
                    os.unlink(path)
                with suppress(OSError):
                    while (path := os.path.dirname(path)) != self.address:
                        os.rmdir(path)

    def rename(self, old: str, new: str) -> None:
        with self._explained():
            for folder, _folders, _names in os.walk(self._path(new), topdown=False):
                os.rmdir(folder)
            os.rename(self._path(old), self._path(new))
            sync_folder(self._path(new))
            sync_folder(self.address)

    def _path(self, name: str) -> str:
        return os.path.join(self.address, name)

    def _must_be_there(self) -> None:
        if not os.path.isdir(self.address):
            raise PlaceError(f"{self.address}: there is no such folder; mount it, or make it with mode 0700")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.address
            raise PlaceError(f"{self.address}: {where} cannot be used: {error.strerror or error}") from error


def _raise(error: OSError) -> None:
    raise error
