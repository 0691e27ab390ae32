# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network link on loopback: it can be cut and mended, and something can be made to happen when certain words pass."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Sequence

from tests.platform.parts.process import free_port


class Link:
    """Passes everything on between its port and another one of loopback, for as many clients as there are."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self._words: list[re.Pattern[bytes]] = []
        self._answered = False
        self._act: Callable[[], object] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it for good."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Every connection ends, and no other one lasts, until it is mended."""
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass on again."""
        with self._lock:
            self._is_cut = False

    def when(self, words: Sequence[bytes], answered: bool, act: Callable[[], object]) -> None:
        """Once clients have said something that matches each of ``words`` in turn, let ``act`` happen.

        It happens before the last of them is passed on; or, with ``answered``, before the server's answer is.
        """
        with self._lock:
            self._words, self._answered, self._act = [re.compile(each) for each in words], answered, act

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            with self._lock:
                if self._is_cut:
                    return
                self._open |= {client, server}
            due = threading.Event()
            back = threading.Thread(target=self._pass_back, args=(server, client, due), daemon=True)
            back.start()
            self._pass_on(client, server, due)
            back.join()
        with self._lock:
            self._open = {connection for connection in self._open if connection.fileno() >= 0}

    def _pass_on(self, client: socket.socket, server: socket.socket, due: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self._heard(data):
                    if self._answered:
                        due.set()
                    else:
                        self._happen()
                server.sendall(data)
        _end(client, server)

    def _pass_back(self, server: socket.socket, client: socket.socket, due: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if due.is_set():
                    due.clear()
                    self._happen()
                client.sendall(data)
        _end(client, server)

    def _heard(self, data: bytes) -> bool:
        """Whether the last of the words was said."""
        with self._lock:
            if not self._words or not self._words[0].search(data):
                return False
            del self._words[0]
            return not self._words

    def _happen(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
