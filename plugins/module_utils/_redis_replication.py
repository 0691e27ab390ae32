# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An RDB over the replication protocol: redis-py connects and logs in, then its socket is taken over.

redis-py's own parser knows neither the newlines with which a server keeps the link alive nor the ``$EOF:`` form of
a transfer whose length is unknown at its start, and it would hold the whole snapshot in memory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Optional

#: Is told how many bytes came, and of how many when that is known.
Progress = Callable[[int, Optional[int]], None]

_BLOCK = 1 << 20
_MARK_BYTES = 40
_LONGEST_LINE = 1024


class ReplicationError(Exception):
    """The server does not hand out a snapshot or stopped doing so; the text says why."""


@dataclass(frozen=True)
class FullSync:
    """What the server announced: the replication id and offset of the snapshot, and how its end is recognized.

    ``length`` is None when the server writes to the socket while it reads its data (diskless): then ``mark`` follows
    the snapshot. Without PSYNC there is neither id nor offset.
    """

    replication_id: str | None
    replication_offset: int | None
    length: int | None
    mark: bytes


class SnapshotLink:
    """A connection on which the server takes us for a replica that wants nothing but a snapshot.

    ``server_timeout`` is how many seconds the server may stay silent; while it prepares a snapshot it sends a newline
    each second.
    """

    def __init__(self, library: ModuleType, client: Any, server_timeout: float) -> None:
        self._errors = library.exceptions
        self._connection = client.connection_pool.make_connection()
        self._timeout = server_timeout

    def __enter__(self) -> SnapshotLink:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def greet(self) -> None:
        """Connect, log in and say what we understand. Raises redis-py's errors."""
        self._connection.connect()
        self._command("REPLCONF", "capa", "eof")
        try:
            # Without it (servers before 6.2) the stream of commands follows the snapshot; the end is known either way.
            self._command("REPLCONF", "rdb-only", "1")
        except self._errors.NoPermissionError:
            raise
        except self._errors.ResponseError:
            pass

    def request(self) -> FullSync:
        """Ask for a snapshot and wait until the server begins to send it. Raises ReplicationError."""
        self._socket().settimeout(self._timeout)
        answer = self._ask(b"PSYNC ? -1\r\n")
        if answer.startswith("-") and _unwilling_to_psync(answer):
            answer = self._ask(b"SYNC\r\n")
        replication_id, offset = None, None
        if answer.startswith("+FULLRESYNC "):
            _word, replication_id, told = answer.split()
            offset = int(told)
            answer = self._line()
        if answer.startswith("-"):
            raise ReplicationError(_refusal(answer))
        if answer.startswith("$EOF:") and len(answer) == len("$EOF:") + _MARK_BYTES:
            return FullSync(replication_id, offset, None, answer[len("$EOF:") :].encode())
        if answer.startswith("$") and answer[1:].isdigit():
            return FullSync(replication_id, offset, int(answer[1:]), b"")
        raise ReplicationError(f"the server sent {answer[:80]!r} where a snapshot should begin: is it a Redis server?")

    def blocks(self, announced: FullSync, progress: Progress) -> Iterator[bytes]:
        """The snapshot in pieces of at most 1 MiB; ``progress`` hears of each arrival of data.

        Raises ReplicationError when it does not come whole.
        """
        if announced.length is None:
            return self._marked(announced.mark, progress)
        return self._counted(announced.length, progress)

    def _counted(self, length: int, progress: Progress) -> Iterator[bytes]:
        block = memoryview(bytearray(_BLOCK))
        received = 0
        while received < length:
            wanted = min(_BLOCK, length - received)
            filled = 0
            while filled < wanted:
                filled += self._receive(block[filled:wanted], received + filled, length)
                progress(received + filled, length)
            received += filled
            yield bytes(block[:filled])

    def _marked(self, mark: bytes, progress: Progress) -> Iterator[bytes]:
        block = bytearray(_BLOCK)
        view = memoryview(block)
        received = filled = 0
        while True:
            count = self._receive(view[filled:], received + filled, None)
            # Looked for wherever it may have begun, not only at the end: some servers send newlines after it.
            end = block.find(mark, max(0, filled - len(mark)), filled + count)
            filled += count
            progress(received + filled, None)
            if end >= 0:
                yield bytes(view[:end])
                return
            if filled == _BLOCK:
                kept = _BLOCK - len(mark)
                yield bytes(view[:kept])
                view[: len(mark)] = view[kept:]
                received += kept
                filled = len(mark)

    def _receive(self, space: memoryview, received: int, length: int | None) -> int:
        of = f"{received} bytes" if length is None else f"{received} of {length} bytes"
        try:
            count: int = self._socket().recv_into(space)
        except socket.timeout:
            raise ReplicationError(
                f"the server sent nothing for {self._timeout:g} s, after {of}: it hangs, or the network loses packets"
            ) from None
        except OSError as error:
            raise ReplicationError(f"the link to the server broke after {of}: {error}") from error
        if not count:
            raise ReplicationError(
                f"the server closed the connection after {of}: its snapshot process failed or was killed, it was "
                "stopped, or it took us for too slow (repl-timeout); its log says which"
            )
        return count

    def _ask(self, command: bytes) -> str:
        try:
            self._socket().sendall(command)
        except OSError as error:
            raise ReplicationError(f"the link to the server broke: {error}") from error
        return self._line()

    def _line(self) -> str:
        """The next line that is not empty, read byte by byte so that nothing of the snapshot is taken with it."""
        line = bytearray()
        byte = memoryview(bytearray(1))
        while len(line) < _LONGEST_LINE:
            self._receive(byte, 0, None)
            if byte[0] != 0x0A:
                line += byte
            elif line.strip():
                return line.decode("utf-8", "replace").strip()
            else:
                line.clear()
        raise ReplicationError(f"the server sent {bytes(line[:80])!r}: is it a Redis server?")

    def _command(self, *words: str) -> None:
        self._connection.send_command(*words)
        self._connection.read_response()

    def _socket(self) -> Any:
        return self._connection._sock  # redis-py has no public name for it, in any version


def _unwilling_to_psync(answer: str) -> bool:
    """Whether SYNC may succeed where PSYNC was refused: an old server, or an ACL written for redis-cli --rdb."""
    return "NOPERM" in answer or "unknown command" in answer.lower()


def _refusal(answer: str) -> str:
    told = answer.lstrip("-")
    if "NOMASTERLINK" in told:
        return f"the server is a replica whose link to its master is down; its data may be old ({told})"
    if "NOPERM" in told:
        return f"the user's ACL does not allow it: it needs +psync +replconf +ping ({told})"
    if "LOADING" in told:
        return f"the server is still loading its data: try again when it has finished ({told})"
    return f"the server refused: {told}"
