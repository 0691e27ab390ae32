# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are either whole or not there: temp file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_CHUNK = 1 << 20


@contextmanager
def published(path: str, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A binary file that takes its final name only when the block ends without an exception.

    Until then it is a hidden temporary file beside ``path``, which an exception removes; what stood under
    ``path`` before stays untouched until the rename. The data and the folder entry are on disk when it returns.
    Raises OSError as the file system does.
    """
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def publish_text(path: str, text: str, mode: int = 0o600) -> None:
    """Write a whole text file as :func:`published` does."""
    with published(path, mode) as stream:
        stream.write(text.encode())


def published_link(path: str, target: str) -> None:
    """Make or turn a symbolic link, without a moment in which it is not there."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.partial")
    os.symlink(target, temporary)
    os.replace(temporary, path)
    sync_folder(folder)


def text_of(path: str) -> str | None:
    """The text of a file, or None when it is not there."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def sync_folder(folder: str) -> None:
    """Make renames, creations and removals in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
