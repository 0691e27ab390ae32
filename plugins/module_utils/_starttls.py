# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STARTTLS: the few plain words before the TLS handshake of SMTP, IMAP and PostgreSQL."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

_LONGEST_LINE = 4096
_MOST_LINES = 100
#: PostgreSQL's SSLRequest: its length and the code 1234.5679.
_POSTGRES_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class StarttlsError(Exception):
    """The server did not agree to speak TLS; the text has its answer."""


class Channel(Protocol):
    """A connection that is under a deadline."""

    def receive(self) -> bytes:
        """The next byte, no more: what follows may belong to TLS already. Empty at the end."""

    def send(self, data: bytes) -> None:
        """Send all of it."""


def smtp(channel: Channel) -> None:
    """RFC 3207. Raises StarttlsError."""
    _expect(_smtp_reply(channel), "220", "its greeting")
    channel.send(b"EHLO [127.0.0.1]\r\n")
    offers = _smtp_reply(channel)
    _expect(offers, "250", "EHLO")
    if "STARTTLS" not in offers.upper():
        raise StarttlsError("the server does not offer STARTTLS")
    channel.send(b"STARTTLS\r\n")
    _expect(_smtp_reply(channel), "220", "STARTTLS")


def imap(channel: Channel) -> None:
    """RFC 9051. Raises StarttlsError."""
    _expect(_line(channel), "* OK", "its greeting")
    channel.send(b"a1 STARTTLS\r\n")
    answer = _line(channel)
    while answer.startswith("* "):
        answer = _line(channel)
    _expect(answer, "a1 OK", "STARTTLS")


def postgres(channel: Channel) -> None:
    """PostgreSQL's SSLRequest. Raises StarttlsError."""
    channel.send(_POSTGRES_SSL_REQUEST)
    answer = channel.receive()
    if answer == b"N":
        raise StarttlsError("the server has TLS switched off (ssl = off)")
    if answer != b"S":
        raise StarttlsError(f"the server answered {answer!r} to the request for TLS, it may not be PostgreSQL")


#: Value of the option ``starttls``: how it is done.
PROTOCOLS: Mapping[str, Callable[[Channel], None]] = {"smtp": smtp, "imap": imap, "postgres": postgres}


def _smtp_reply(channel: Channel) -> str:
    lines: list[str] = []
    while not lines or lines[-1][3:4] == "-":
        lines.append(_line(channel))
        if len(lines) > _MOST_LINES:
            raise StarttlsError("the server's answer does not end")
    return "\n".join(lines)


def _line(channel: Channel) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = channel.receive()
        if not byte:
            raise StarttlsError(f"the server closed the connection after {_shown(line)}")
        line += byte
        if len(line) > _LONGEST_LINE:
            raise StarttlsError(f"the server's answer is no line of text: {_shown(line)}")
    return line.decode(errors="replace").strip()


def _expect(answer: str, start: str, question: str) -> None:
    if not answer.upper().startswith(start.upper()):
        raise StarttlsError(f"the server answered {answer[:100]!r} to {question}")


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace")) if line else "no word"
