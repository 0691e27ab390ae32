# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that write to a Redis server and read from it all the time, and count what fails."""

from __future__ import annotations

import threading
import time

import redis

from tests.platform.parts.redis import RedisServer


class Clients:
    """Writers and readers, each with a connection of its own and an operation each 2 ms; failures by kind of error.

    ``longest_write`` and ``longest_read`` are the seconds from the first try of an operation until it succeeded.
    """

    def __init__(self, server: RedisServer, writers: int = 3, readers: int = 3) -> None:
        self.failed_writes: dict[str, int] = {}
        self.failed_reads: dict[str, int] = {}
        self.longest_write = 0.0
        self.longest_read = 0.0
        self.writes = 0
        self._server = server
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]
        self._threads += [threading.Thread(target=self._read) for _ in range(readers)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        client = self._server.client()
        begun = time.monotonic()
        while not self._over.wait(0.002):
            try:
                client.set(f"writer:{number}", self.writes)
                self.writes += 1
                self.longest_write = max(self.longest_write, time.monotonic() - begun)
                begun = time.monotonic()
            except redis.RedisError as error:
                _count(self.failed_writes, error)

    def _read(self) -> None:
        client = self._server.client()
        begun = time.monotonic()
        while not self._over.wait(0.002):
            try:
                client.get("string:20")
                self.longest_read = max(self.longest_read, time.monotonic() - begun)
                begun = time.monotonic()
            except redis.RedisError as error:
                _count(self.failed_reads, error)


def _count(counts: dict[str, int], error: Exception) -> None:
    word = type(error).__name__
    counts[word] = counts.get(word, 0) + 1
