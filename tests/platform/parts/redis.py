# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real redis-server in a folder of its own, and data of every kind to put into it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.platform.parts.process import ServerProcess, free_port

#: The database besides 0 that :func:`seed` fills, and the function it loads.
SECOND_DATABASE = 3
FUNCTION = "#!lua name=upkeep_test\nredis.register_function('ping2', function() return 'pong2' end)"
_BATCH = 2000


@dataclass(frozen=True)
class ServerTls:
    """The PEM files of a server that speaks TLS; with ``ask_clients`` it wants a certificate of its clients too."""

    certificate: Path
    key: Path
    ca: Path
    ask_clients: bool = False


class RedisServer:
    """One redis-server. Its settings, secrets among them, stand in a 0600 file, never on its command line.

    Without ``port`` it takes a free one. ``unix_socket`` lets it listen on ``socket_path`` as well. ``tls`` replaces
    the plain port by a TLS one. ``users`` are ACL rules such as ``backup on >pw resetkeys -@all +psync``, ``config``
    further lines of redis.conf that win over the ones written here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "redis",
        port: int | None = None,
        unix_socket: bool = False,
        password: str = "",
        users: Sequence[str] = (),
        tls: ServerTls | None = None,
        appendonly: bool = False,
        config: Sequence[str] = (),
        server_binary: str = "redis-server",
    ) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.socket_path = folder / f"{name}.sock" if unix_socket else None
        self.password = password
        self.tls = tls
        self.process = ServerProcess(name, folder)
        self._users = list(users)
        self._appendonly = appendonly
        self._config = list(config)
        self._binary = server_binary
        self._config_file = folder / f"{name}.conf"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.process.log

    @property
    def rdb(self) -> Path:
        """Where the server itself saves."""
        return self.folder / "dump.rdb"

    @property
    def argv(self) -> list[str]:
        """The command that runs it, once its settings were written."""
        return [self._binary, str(self._config_file)]

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_config()
        self.process.start(self.argv, self._answers)

    def stop(self) -> None:
        """Stop it as an init system would."""
        self.process.stop()

    def kill(self, *, children_only: bool = False) -> None:
        """SIGKILL the server, or only the child that is writing a snapshot. Gone when it returns."""
        pid = self.process.pid()
        if pid is None:
            return
        if children_only:
            for child in _children(pid):
                os.kill(child, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGKILL)
        while self.process.pid() is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """A client of the default user; ``options`` are redis-py's and win. It never tries again by itself."""
        where: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.tls:
            where.update(ssl=True, ssl_ca_certs=str(self.tls.ca))
            if self.tls.ask_clients:
                where.update(ssl_certfile=str(self.tls.certificate), ssl_keyfile=str(self.tls.key))
        settings = {
            **where,
            "db": db,
            "password": self.password or None,
            "socket_timeout": 60,
            "retry": Retry(NoBackoff(), 0),
            **options,
        }
        return redis.Redis(**settings)

    def connection(self) -> dict[str, Any]:
        """The options of the collection's modules that reach this server as its default user."""
        options: dict[str, Any] = {"login_host": self.host, "login_port": self.port}
        if self.password:
            options["login_password"] = self.password
        if self.tls:
            options.update(tls=True, ca_certs=str(self.tls.ca))
            if self.tls.ask_clients:
                options.update(client_cert_file=str(self.tls.certificate), client_key_file=str(self.tls.key))
        return options

    def cli(self, *words: str, timeout: float = 60) -> str:
        """What redis-cli, the independent witness, prints; the password goes by the environment."""
        where = ["-h", self.host, "-p", str(self.port)]
        if self.tls:
            where += ["--tls", "--cacert", str(self.tls.ca)]
            if self.tls.ask_clients:
                where += ["--cert", str(self.tls.certificate), "--key", str(self.tls.key)]
        env = {**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})}
        answer = subprocess.run(
            ["redis-cli", *where, *words], env=env, check=True, capture_output=True, text=True, timeout=timeout
        )
        return answer.stdout.strip()

    def _answers(self) -> bool:
        client = self.client(socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _write_config(self) -> None:
        lines = [
            f"bind {self.host}",
            f"dir {self.folder}",
            'save ""',
            f"appendonly {'yes' if self._appendonly else 'no'}",
            "repl-diskless-sync-delay 0",
            "enable-debug-command local",
            *(["port 0", f"tls-port {self.port}", *_tls_lines(self.tls)] if self.tls else [f"port {self.port}"]),
        ]
        if self.socket_path:
            lines += [f"unixsocket {self.socket_path}", "unixsocketperm 700"]
        if self.password:
            lines += [f'requirepass "{self.password}"']
        lines += [f"user {rule}" for rule in self._users] + self._config
        descriptor = os.open(self._config_file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write("\n".join(lines) + "\n")


def seed(client: redis.Redis, keys: int = 2000) -> None:
    """Fill a server with the same data each time: every type, TTLs, two databases and a function.

    Database 0 gets ``keys`` keys (14 % of them with a TTL of a month) and the list ``bigqueue``, database
    SECOND_DATABASE a hundredth of ``keys``. Only the TTLs count from now.
    """
    with client.pipeline(transaction=False) as pipeline:
        for number, command in enumerate(_commands(keys), 1):
            pipeline.execute_command(*command)
            if number % _BATCH == 0:
                pipeline.execute()
        pipeline.execute()
    client.function_load(FUNCTION, replace=True)


def _commands(keys: int) -> Iterator[tuple[Any, ...]]:
    source = random.Random(42)
    for number in range(keys):
        yield _one_key(source, number)
    yield ("RPUSH", "bigqueue", *(f"job-{number}" for number in range(keys // 5 + 1)))
    yield ("SELECT", SECOND_DATABASE)
    for number in range(keys // 100):
        yield ("SET", f"db{SECOND_DATABASE}:{number}", source.randbytes(20).hex())
    yield ("SELECT", 0)


def _one_key(source: random.Random, number: int) -> tuple[Any, ...]:
    share = number % 100
    if share < 14:
        return ("SET", f"session:{number}", source.randbytes(60).hex(), "EX", 30 * 86400 + number % 1000)
    if share < 70:
        return ("SET", f"string:{number}", source.randbytes(60).hex())
    if share < 85:
        fields = ("name", f"user{number}", "mail", f"u{number}@example.org", "blob", source.randbytes(24).hex())
        return ("HSET", f"hash:{number}", *fields)
    if share < 90:
        return ("RPUSH", f"list:{number}", *(source.randbytes(8).hex() for _ in range(6)))
    if share < 95:
        return ("SADD", f"set:{number}", *(source.randrange(1 << 30) for _ in range(8)))
    if share < 99:
        scores = ((source.randrange(1000) / 7, f"m{member}:{number}") for member in range(6))
        return ("ZADD", f"zset:{number}", *(word for pair in scores for word in pair))
    return ("XADD", f"stream:{number}", f"{number + 1}-1", "field", source.randbytes(10).hex())


def _tls_lines(tls: ServerTls) -> list[str]:
    return [
        f"tls-cert-file {tls.certificate}",
        f"tls-key-file {tls.key}",
        f"tls-ca-cert-file {tls.ca}",
        f"tls-auth-clients {'yes' if tls.ask_clients else 'no'}",
        "tls-replication yes",
    ]


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
