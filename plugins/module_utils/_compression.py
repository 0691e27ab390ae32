# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams that compress and decompress with zstd or gzip, in pieces, with memory that does not grow.

zstd comes from the Python library zstandard or, where that is missing, from the program zstd.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, Any, Protocol

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load

COMPRESSIONS = ("zstd", "gzip", "none")
#: Levels that keep up with a server writing its snapshot; gzip's own default takes three times as long.
DEFAULT_LEVELS = {"zstd": 3, "gzip": 1, "none": 0}
_LEVELS = {"zstd": range(1, 20), "gzip": range(1, 10), "none": range(1)}
_MAGIC = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
_CHUNK = 1 << 20


class CompressionError(Exception):
    """The data cannot be compressed or decompressed; the text says why."""


class Writer(Protocol):
    """What data is written to."""

    def write(self, data: bytes, /) -> Any:
        """Take the next piece."""


def checked_level(method: str, level: int | None) -> int:
    """The level to use. Raises CompressionError when the method cannot be used here or has no such level."""
    if method == "zstd" and _zstandard() is None and not shutil.which("zstd"):
        raise CompressionError(
            "zstd needs the Python library zstandard (apt install python3-zstandard) or the program zstd on this host; "
            "or choose compression: gzip"
        )
    if level is None:
        return DEFAULT_LEVELS[method]
    if level not in _LEVELS[method]:
        raise CompressionError(f"{method} has no level {level}, only {_LEVELS[method][0]} to {_LEVELS[method][-1]}")
    return level


@contextmanager
def compressing(target: Writer, method: str, level: int) -> Iterator[Writer]:
    """A writer whose data arrives compressed at ``target``; complete when the block ends without an exception."""
    if method == "none":
        yield target
    elif method == "gzip":
        # Neither name nor time in the header: the same data gives the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=target, compresslevel=level, mtime=0) as stream:  # type: ignore[call-overload]
            yield stream
    else:
        library = _zstandard()
        with _zstd_library(library, target, level) if library else _zstd_program(target, level) as writer:
            yield writer


@contextmanager
def decompressing(path: str) -> Iterator[Iterator[bytes]]:
    """The pieces of a file's content, decompressed as its first bytes ask for.

    Raises CompressionError when the file is damaged, OSError when it cannot be read.
    """
    with open(path, "rb") as stream:
        method = compression_of(stream.read(4))
        stream.seek(0)
        if method == "zstd":
            library = _zstandard()
            yield _translated(library, _zstd_library_pieces(library, stream) if library else _zstd_program_pieces(path))
        elif method == "gzip":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield _translated(None, _pieces(unpacked.read))
        else:
            yield _pieces(stream.read)


def compression_of(head: bytes) -> str:
    """The method that a file's first bytes show."""
    return next((method for magic, method in _MAGIC.items() if head.startswith(magic)), "none")


def _zstandard() -> ModuleType | None:
    try:
        return load("zstandard")
    except MissingDependencyError:
        return None


@contextmanager
def _zstd_library(library: ModuleType, target: Writer, level: int) -> Iterator[Writer]:
    compressor = library.ZstdCompressor(level=level, write_checksum=True)
    with compressor.stream_writer(target, closefd=False) as writer:
        yield writer


@contextmanager
def _zstd_program(target: Writer, level: int) -> Iterator[Writer]:
    with subprocess.Popen(
        ["zstd", "-q", "-c", f"-{level}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        if program.stdin is None or program.stdout is None:
            raise AssertionError("both ends were asked for")
        relay = _Relay(program.stdout, target)
        try:
            yield program.stdin
            program.stdin.close()
            relay.finish()
            _check_program(program)
        except BrokenPipeError as error:
            _check_program(program)
            raise CompressionError("zstd ended before it had all data") from error
        except BaseException:
            program.kill()
            raise


class _Relay(threading.Thread):
    """Carries a program's output to a writer while somebody else feeds the program."""

    def __init__(self, source: IO[bytes], target: Writer) -> None:
        super().__init__(daemon=True)
        self._source, self._target = source, target
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        for piece in _pieces(self._source.read):
            # Reading goes on after an error: the program must not wait for ever for somebody to take its output.
            if self._error is None:
                try:
                    self._target.write(piece)
                except OSError as error:
                    self._error = error

    def finish(self) -> None:
        self.join()
        if self._error:
            raise self._error


def _zstd_library_pieces(library: ModuleType, stream: IO[bytes]) -> Iterator[bytes]:
    reader = library.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return _pieces(reader.read)


def _zstd_program_pieces(path: str) -> Iterator[bytes]:
    if not shutil.which("zstd"):
        checked_level("zstd", None)
    with subprocess.Popen(
        ["zstd", "-q", "-d", "-c", "--", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        if program.stdout is None:
            raise AssertionError("its output was asked for")
        try:
            yield from _pieces(program.stdout.read)
            _check_program(program)
        finally:
            program.kill()


def _check_program(program: subprocess.Popen[bytes]) -> None:
    if program.stderr is None:
        raise AssertionError("its errors were asked for")
    told = program.stderr.read().decode("utf-8", "replace").strip()
    if program.wait():
        raise CompressionError(f"zstd failed: {told or f'exit code {program.returncode}'}")


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(_CHUNK):
        yield piece


def _translated(library: ModuleType | None, pieces: Iterator[bytes]) -> Iterator[bytes]:
    errors: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
    if library:
        errors += (library.ZstdError,)
    try:
        yield from pieces
    except errors as error:
        raise CompressionError(f"its compressed data is damaged or cut short ({error})") from error
