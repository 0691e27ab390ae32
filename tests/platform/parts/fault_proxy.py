# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP proxy on loopback that does something bad once so many bytes have come from the server."""

from __future__ import annotations

import contextlib
import socket
import threading


class FaultProxy:
    """Passes everything on between clients and a port of loopback, until ``after`` bytes of the server went through.

    Then ``fault`` happens: ``cut`` closes the connection, ``hang`` passes nothing on any more, ``flip`` changes one
    bit and goes on.
    """

    def __init__(self, target_port: int, fault: str, after: int) -> None:
        self._target = target_port
        self._fault = fault
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    @staticmethod
    def _to_server(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        _close(server)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if passed <= self._after < passed + len(data):
                    data = self._faulty(data, self._after - passed)
                passed += len(data)
                client.sendall(data)
        _close(client)

    def _faulty(self, data: bytes, position: int) -> bytes:
        if self._fault == "hang":
            self._ended.wait()
        if self._fault in ("hang", "cut"):
            raise OSError(self._fault)
        return data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
