# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service of the platform: a threaded HTTP/1.1 server that needs nothing but Python.

It reads ``service.json`` beside itself, writes its own pid file, and looks at its fault file before each answer, so
that a fault comes and goes without a restart: ``hang`` keeps clients waiting, ``503`` refuses them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
# Answers a client might wait for at most while the service hangs.
LONGEST_HANG_SECONDS = 120
# The route's first segment: least and most milliseconds it takes.
LATENCY_MS = {"": (0, 2), "items": (2, 12), "search": (20, 60), "reports": (5, 15)}
DEPENDENCY_TIMEOUT_SECONDS = 1


class Service:
    """What the service knows of itself and of what it depends on."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name = settings["name"]
        self.address = settings.get("address", LOOPBACK)
        self.port = settings["port"]
        self.pid_file = HERE / "service.pid"
        self.fault_file = HERE / "fault"
        self.log = Path(settings["log"])
        self.redis: dict[str, Any] = settings.get("redis", {})
        self.firestore: dict[str, Any] = settings.get("firestore", {})

    def fault(self) -> str:
        """The fault that is switched on, or nothing."""
        with contextlib.suppress(OSError):
            return self.fault_file.read_text().strip()
        return ""

    def checks(self) -> dict[str, str]:
        """State of each dependency, UP or DOWN."""
        asked = {}
        if self.redis:
            asked["redis"] = self._redis_answers()
        if self.firestore:
            asked["firestore"] = self._firestore_answers()
        return {name: "UP" if answers else "DOWN" for name, answers in asked.items()}

    def note(self, line: str) -> None:
        """Append to the service's own log, opened anew each time so that a rotation needs no signal."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.log.open("a") as log:
            log.write(f"{stamp} {self.name} {line}\n")

    def _redis_answers(self) -> bool:
        password = Path(self.redis["password_file"]).read_bytes().strip()
        words = [b"AUTH", password], [b"PING"]
        request = b"".join(_resp(*command) for command in words)
        return b"+PONG" in _exchange(self.redis, request, until=b"+PONG\r\n")

    def _firestore_answers(self) -> bool:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return _exchange(self.firestore, request, until=b"\r\n").startswith(b"HTTP/1.1 200")


def _resp(*words: bytes) -> bytes:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%s" % (len(words), parts)


def _exchange(server: dict[str, Any], request: bytes, until: bytes) -> bytes:
    """What a server (of loopback unless it has a host) answers, up to ``until``; nothing when it is not in time."""
    answer = b""
    address = (server.get("host", LOOPBACK), server["port"])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=DEPENDENCY_TIMEOUT_SECONDS) as connection,
    ):
        connection.sendall(request)
        while until not in answer and (piece := connection.recv(4096)):
            answer += piece
    return answer


class Handler(BaseHTTPRequestHandler):
    """Routes: /health, /, /items, /items/<id>, /search; /reports/broken fails; anything else is not found."""

    protocol_version = "HTTP/1.1"
    server_version = "service"
    sys_version = ""
    timeout = 70
    wbufsize = -1  # Head and body in one packet: no delayed acknowledgement in between.
    service: Service

    def do_GET(self) -> None:
        self._answer_unless_broken(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer_unless_broken(201)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the service logs by itself."""

    def _answer_unless_broken(self, success: int) -> None:
        fault = self.service.fault()
        if fault == "hang":
            self._hang()
        elif fault == "503":
            self._send(503, {"status": "DOWN", "service": self.service.name, "error": "overloaded"})
        else:
            self._answer(success)

    def _answer(self, success: int) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            checks = self.service.checks()
            up = "DOWN" not in checks.values()
            health = {"status": "UP" if up else "DOWN", "service": self.service.name, "checks": checks}
            self._send(200 if up else 503, health)
            return
        started = time.monotonic()
        first = path.strip("/").partition("/")[0]
        status = _status(path, first, success)
        time.sleep(_latency(first, self.path))
        self._send(status, {"service": self.service.name, "path": path, "status": status})
        self.service.note(f"{self.command} {path} {status} {1000 * (time.monotonic() - started):.0f}ms")

    def _hang(self) -> None:
        deadline = time.monotonic() + LONGEST_HANG_SECONDS
        while self.service.fault() == "hang" and time.monotonic() < deadline:
            time.sleep(0.1)
        self.close_connection = True

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _status(path: str, first: str, success: int) -> int:
    if path == "/reports/broken":
        return 500
    return success if first in LATENCY_MS and path != "/items/missing" else 404


def _latency(first: str, path: str) -> float:
    """Seconds the route takes: the same for the same path, so that two runs can be compared."""
    least, most = LATENCY_MS.get(first, (0, 1))
    return (least + zlib.crc32(path.encode()) % 1000 / 1000 * (most - least)) / 1000


class Server(ThreadingHTTPServer):
    """Threads of requests that hang do not keep the service from ending."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def main() -> None:
    service = Service(json.loads((HERE / "service.json").read_text()))
    handler = type("ServiceHandler", (Handler,), {"service": service})
    server = Server((service.address, service.port), handler)
    # shutdown() waits for serve_forever(), which the signal has interrupted: it needs a thread of its own.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    # Whoever reads the pid file meanwhile finds a pid in it.
    written = service.pid_file.with_suffix(".new")
    written.write_text(f"{os.getpid()}\n")
    written.replace(service.pid_file)
    service.note("started")
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    service.note("stopped")
    service.pid_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
