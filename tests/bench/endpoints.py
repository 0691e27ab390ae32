# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any number of health endpoints in one process: ``endpoints.py PORT LATENCY_MS``.

A path that begins with /hang is never answered, any other after the latency; connections stay open unless the client
wants them closed. Written on bare asyncio streams, so
that the server needs a fraction of what its clients need and is not what is measured.
"""

from __future__ import annotations

import asyncio
import sys

_BODY = b'{"status": "UP", "checks": {"redis": "UP", "firestore": "UP"}}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)


class Endpoint(asyncio.Protocol):
    """One connection; requests come one after the other."""

    latency = 0.05

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received and b" /hang" not in self._received:
            asyncio.get_running_loop().call_later(self.latency, self._answer)

    def _answer(self) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(_ANSWER)
        if b"connection: close" in self._received.lower():
            self._transport.close()
        self._received = b""


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    Endpoint.latency = float(sys.argv[2]) / 1000
    asyncio.run(serve(int(sys.argv[1])))
