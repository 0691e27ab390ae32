# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of access logs: found, opened also when compressed, and read from where a period begins."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

_BLOCK = 1 << 18
_LONGEST_LINE = 1 << 20

#: Servers write a line when its request ends and buffer lines, so that they stand a little out of order.
DISORDER_SECONDS = 300

_OPENERS: dict[str, Callable[[str], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}

#: What reading a damaged compressed file raises.
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)


def expand(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files that patterns name, oldest first and each once, and the patterns that name none."""
    found: dict[tuple[int, int], tuple[float, str]] = {}
    missing = []
    for pattern in patterns:
        paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not any(os.path.lexists(path) for path in paths):
            missing.append(pattern)
        for path in paths:
            if os.path.exists(path):
                status = os.stat(path)
                found.setdefault((status.st_dev, status.st_ino), (status.st_mtime, path))
            elif os.path.lexists(path):
                missing.append(path)
    return [path for _mtime, path in sorted(found.values())], missing


def open_log(path: str) -> IO[bytes]:
    """A log opened for reading, decompressed by its name's ending.

    Raises OSError, also for what is no regular file: reading a pipe or a terminal, as containers have for a log,
    would wait for ever.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no regular file")
    stream: IO[bytes] = _OPENERS.get(os.path.splitext(path)[1], _open_plain)(path)
    return stream


def _open_plain(path: str) -> IO[bytes]:
    return open(path, "rb")


def is_compressed(path: str) -> bool:
    """Whether the name says so; such a file cannot be entered in its middle."""
    return os.path.splitext(path)[1] in _OPENERS


def blocks(stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """Blocks of whole lines, each ending with a newline, until the end or until ``limit`` bytes were read.

    A line longer than 1 MiB is handed out in pieces: it is malformed whatever it holds, and must not fill memory.
    """
    rest = b""
    while limit > 0:
        block = stream.read(min(_BLOCK, limit))
        if not block:
            break
        limit -= len(block)
        block = rest + block
        end = block.rfind(b"\n") + 1
        if end == 0 and len(block) > _LONGEST_LINE:
            yield block + b"\n"
            rest = b""
            continue
        rest = block[end:]
        if end:
            yield block[:end]
    if rest:
        yield rest + b"\n"


def seek_to(stream: IO[bytes], size: int, since: float, time_of: Callable[[bytes], float | None]) -> int:
    """Move a plain file to a line's start before which nothing belongs to the period, by bisection; return where.

    ``time_of`` gives the time of the first dated line of a block of whole lines. Where it gives none, the search
    stays on the safe side and reads more.
    """
    low, high = 0, size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        stream.seek(middle)
        stream.readline(_LONGEST_LINE)
        moment = time_of(_few_lines(stream))
        if moment is not None and moment < since - DISORDER_SECONDS:
            low = middle
        else:
            high = middle
    return enter(stream, low)


def enter(stream: IO[bytes], position: int) -> int:
    """Move to the first start of a line at or behind a position; return where."""
    stream.seek(max(0, position - 1))
    if position > 0:
        stream.readline()
    return stream.tell()


def _few_lines(stream: IO[bytes]) -> bytes:
    lines = b"".join(stream.readline(_LONGEST_LINE) for _line in range(20))
    return lines if lines.endswith(b"\n") else lines + b"\n"
