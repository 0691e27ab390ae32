# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Redis Sentinel that watches a master, whose replicas it finds by itself."""

from __future__ import annotations

import os
from pathlib import Path

import redis

from tests.platform.parts.process import ServerProcess, free_port
from tests.platform.parts.redis import RedisServer


class Sentinel:
    """One Sentinel with a quorum of itself. Its settings, secrets among them, stand in a 0600 file."""

    def __init__(self, folder: Path, master: RedisServer, *, name: str = "mymaster", password: str = "") -> None:
        self.port = free_port()
        self.name = name
        self.password = password
        self.process = ServerProcess("sentinel", folder)
        self._folder = folder
        self._master = master

    def __enter__(self) -> Sentinel:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"sentinel monitor {self.name} {self._master.host} {self._master.port} 1",
            f"sentinel down-after-milliseconds {self.name} 60000",
        ]
        if self._master.password:
            lines.append(f'sentinel auth-pass {self.name} "{self._master.password}"')
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        config = self._folder / "sentinel.conf"
        with os.fdopen(os.open(config, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as stream:
            stream.write("\n".join(lines) + "\n")
        self.process.start(["redis-server", str(config), "--sentinel"], self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password or None, socket_timeout=5)

    def replicas(self) -> int:
        """How many replicas it has found."""
        with self.client() as client:
            return len(client.sentinel_slaves(self.name))

    def _answers(self) -> bool:
        try:
            return self.client().ping() is True
        except redis.RedisError:
            return False
