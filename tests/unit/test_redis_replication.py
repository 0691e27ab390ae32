"""The replication protocol as servers of all kinds speak it, by a peer that follows a script byte by byte."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import Login, client
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import (
    FullSync,
    ReplicationError,
    SnapshotLink,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MARK = b"0123456789abcdef0123456789abcdef01234567"
IDENTITY = b"8b954c75f23abfa1fff83320ef184854121a32a8"
FULLRESYNC = b"+FULLRESYNC " + IDENTITY + b" 42\r\n"
DATA = random.Random(5).randbytes(3 << 20)


class Peer:
    """Answers each command with the bytes that its script has for it; several pieces are sent one by one."""

    def __init__(self, script: dict[bytes, list[bytes]]) -> None:
        self._script = {b"REPLCONF": [b"+OK\r\n"], **script}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while command := connection.recv(4096).upper():
                    pieces = next((answer for word, answer in self._script.items() if word in command), [b"+OK\r\n"])
                    for piece in pieces:
                        if piece == b"silence":
                            self._ended.wait()
                        elif piece == b"close":
                            return
                        else:
                            connection.sendall(piece)


@contextlib.contextmanager
def linked(script: dict[bytes, list[bytes]], timeout: float = 5) -> Iterator[SnapshotLink]:
    peer = Peer(script)
    try:
        with SnapshotLink(redis, client(redis, Login(host="127.0.0.1", port=peer.port)), timeout) as link:
            link.greet()
            yield link
    finally:
        peer.close()


def nothing(_done: int, _total: int | None) -> None:
    """No progress is told."""


def fetched(*pieces: bytes, timeout: float = 5) -> tuple[FullSync, bytes]:
    with linked({b"PSYNC": list(pieces)}, timeout) as link:
        announced = link.request()
        blocks = list(link.blocks(announced, nothing))
        assert all(len(block) <= 1 << 20 for block in blocks)
        return announced, b"".join(blocks)


def test_a_transfer_of_known_length() -> None:
    announced, data = fetched(FULLRESYNC, b"$%d\r\n" % len(DATA), DATA)
    assert announced == FullSync(IDENTITY.decode(), 42, len(DATA), b"")
    assert data == DATA


def test_a_transfer_with_a_mark() -> None:
    announced, data = fetched(FULLRESYNC + b"$EOF:" + MARK + b"\r\n" + DATA + MARK)
    assert announced == FullSync(IDENTITY.decode(), 42, None, MARK)
    assert data == DATA


def test_newlines_before_and_after() -> None:
    newlines = b"\n" * 7
    _, data = fetched(newlines, FULLRESYNC, newlines, b"$EOF:" + MARK + b"\r\n", DATA + MARK + newlines)
    assert data == DATA


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.integers(0, 39))
def test_a_mark_wherever_reads_cut_it(length: int, cut: int) -> None:
    # Around the end of a block of 1 MiB, and with the mark arriving in two pieces.
    data = DATA[: (1 << 20) - 100 + length]
    _, received = fetched(FULLRESYNC + b"$EOF:" + MARK + b"\r\n" + data + MARK[:cut], MARK[cut:], timeout=1)
    assert received == data


def test_an_empty_transfer() -> None:
    assert fetched(FULLRESYNC, b"$0\r\n")[1] == b""


def test_commands_after_the_snapshot_are_not_part_of_it() -> None:
    assert fetched(FULLRESYNC, b"$5\r\nREDIS*1\r\n$4\r\nPING\r\n")[1] == b"REDIS"


@pytest.mark.parametrize("refusal", [b"-ERR unknown command 'PSYNC'\r\n", b"-NOPERM this user has no permissions\r\n"])
def test_sync_where_psync_is_not_to_be_had(refusal: bytes) -> None:
    with linked({b"PSYNC": [refusal], b"SYNC": [b"$5\r\nREDIS"]}) as link:
        announced = link.request()
        assert announced == FullSync(None, None, 5, b"")
        assert list(link.blocks(announced, nothing)) == [b"REDIS"]


def test_a_server_that_knows_no_rdb_only() -> None:
    old = {b"RDB-ONLY": [b"-ERR Unrecognized REPLCONF option: rdb-only\r\n"], b"PSYNC": [b"$5\r\nREDIS"]}
    with linked(old) as link:
        assert link.request().length == 5


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n"], "link to its master is down"),
        ([b"-LOADING Redis is loading\r\n"], "still loading"),
        ([b"-ERR something new\r\n"], "the server refused: ERR something new"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "is it a Redis server"),
        ([b"$EOF:short\r\n"], "where a snapshot should begin"),
        ([b"x" * 5000], "is it a Redis server"),
        ([b"close"], "closed the connection after 0 bytes"),
        ([FULLRESYNC, b"$10\r\nREDIS", b"close"], "closed the connection after 5 of 10 bytes"),
        ([FULLRESYNC, b"$EOF:" + MARK + b"\r\nREDIS", b"close"], "closed the connection after 5 bytes"),
        ([FULLRESYNC, b"$10\r\nREDIS", b"silence"], "sent nothing for 0.2 s, after 5 of 10 bytes"),
        ([b"silence"], "sent nothing for 0.2 s"),
    ],
)
def test_the_error_names_the_cause(pieces: list[bytes], words: str) -> None:
    started = time.monotonic()
    with pytest.raises(ReplicationError, match=words):
        fetched(*pieces, timeout=0.2)
    assert time.monotonic() - started < 4


def test_newlines_are_signs_of_life() -> None:
    peer_answers = threading.Event()

    class Patient(Peer):
        def _serve(self) -> None:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                while b"PSYNC" not in connection.recv(4096):
                    connection.sendall(b"+OK\r\n")
                for _ in range(6):
                    time.sleep(0.1)
                    connection.sendall(b"\n")
                connection.sendall(b"$5\r\nREDIS")
                peer_answers.wait()

    peer = Patient({})
    with SnapshotLink(redis, client(redis, Login(host="127.0.0.1", port=peer.port)), 0.4) as link:
        link.greet()
        assert link.request().length == 5
    peer_answers.set()
    peer.close()
