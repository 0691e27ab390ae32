# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that a TLS server presents, whatever their defects, and what OpenSSL thinks of them.

The first handshake verifies; when it fails for the certificate's sake, a second one reads without verifying. Host
names and key lengths are left to the caller, so that one defect does not hide another.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import (
    Deadline,
    DeadlineExceededError,
    call_within,
)
from ansible_collections.upkeep.ops.plugins.module_utils._starttls import PROTOCOLS, StarttlsError

# Of OpenSSL's x509_vfy.h; Python names the second from 3.10 on and the first not at all.
_NO_CHECK_TIME = 0x200000
_PARTIAL_CHAIN = 0x80000
_DER = 2
#: OpenSSL's codes for "not yet valid" and "expired".
_CODES_OF_TIME = (9, 10)


class PeerError(Exception):
    """The server's certificates could not be read; the text says why, the hint what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Endpoint:
    """A TLS server: where it is, which name to ask for, and how long all of it may take in seconds."""

    host: str
    port: int
    server_name: str
    starttls: str = ""
    ca_certs: str = ""
    timeout: float = 10


@dataclass(frozen=True)
class Served:
    """``chain`` in DER as it was sent, leaf first; it is ``whole`` unless this Python shows only the leaf.

    ``verify_code`` is OpenSSL's, 0 for a chain that is trusted now; when the only fault was a date, it is the code
    of that and ``trusted_but_for_dates`` is true.
    """

    chain: tuple[bytes, ...]
    whole: bool
    verify_code: int
    verify_message: str
    trusted_but_for_dates: bool


def fetch(endpoint: Endpoint) -> Served:
    """What the server presents. Raises PeerError, at the latest when the endpoint's time is over."""
    deadline = Deadline(endpoint.timeout)
    verifying = _context(endpoint.ca_certs, verify=True, check_time=True)
    try:
        chain, whole = _handshake(endpoint, verifying, deadline)
        return Served(chain, whole, 0, "", False)
    except ssl.SSLCertVerificationError as error:
        code, message = error.verify_code, error.verify_message
    if code in _CODES_OF_TIME:
        try:
            timeless = _context(endpoint.ca_certs, verify=True, check_time=False)
            chain, whole = _handshake(endpoint, timeless, deadline)
            return Served(chain, whole, code, message, True)
        except ssl.SSLCertVerificationError as error:
            code, message = error.verify_code, error.verify_message
    chain, whole = _handshake(endpoint, _context("", verify=False, check_time=False), deadline)
    return Served(chain, whole, code, message, False)


class _Connection:
    """The channel of STARTTLS: a socket each of whose calls gets what is left of the time."""

    def __init__(self, stream: socket.socket, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def receive(self) -> bytes:
        self._stream.settimeout(self._deadline.remaining())
        return self._stream.recv(1)

    def send(self, data: bytes) -> None:
        self._stream.settimeout(self._deadline.remaining())
        self._stream.sendall(data)


@lru_cache(maxsize=64)
def _context(ca_certs: str, *, verify: bool, check_time: bool) -> ssl.SSLContext:
    """A client context; made once, because loading the authorities takes longer than a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    # Old servers and short keys are to be read too: the judgement is made from what was read.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.verify_flags |= ssl.VerifyFlags(_PARTIAL_CHAIN | (0 if check_time else _NO_CHECK_TIME))
    if verify and ca_certs:
        try:
            context.load_verify_locations(cafile=ca_certs)
        except OSError as error:
            raise PeerError(
                f"the authorities in {ca_certs} cannot be read: {_reason(error)}", "Correct ca_certs"
            ) from error
    elif verify:
        context.load_default_certs()
    return context


def _handshake(endpoint: Endpoint, context: ssl.SSLContext, deadline: Deadline) -> tuple[tuple[bytes, ...], bool]:
    """Connect, say STARTTLS if need be, shake hands; the chain that was served, and whether that is all of it."""
    with _told(endpoint, "the connection"), _connect(endpoint, deadline) as stream:
        if endpoint.starttls:
            with _told(endpoint, "STARTTLS"):
                PROTOCOLS[endpoint.starttls](_Connection(stream, deadline))
        with _told(endpoint, "the TLS handshake"):
            # The timeout of a socket counts for the handshake as a whole, however slowly its bytes come.
            stream.settimeout(deadline.remaining())
            with context.wrap_socket(stream, server_hostname=endpoint.server_name) as secured:
                return _chain_of(secured)


@contextmanager
def _told(endpoint: Endpoint, act: str) -> Iterator[None]:
    """Turn what goes wrong in an act into a PeerError; verification failures pass."""
    try:
        yield
    except (PeerError, ssl.SSLCertVerificationError):
        raise
    except (DeadlineExceededError, socket.timeout) as error:
        raise PeerError(
            f"{act} was not finished within {endpoint.timeout:g} s", "Look at the server, or raise timeout"
        ) from error
    except StarttlsError as error:
        raise PeerError(str(error), "Correct starttls or the port of the endpoint") from error
    except ConnectionRefusedError as error:
        raise PeerError("the connection was refused", "Start the server, or correct host and port") from error
    except ssl.SSLError as error:
        raise _no_handshake(error, endpoint) from error
    except OSError as error:
        raise PeerError(f"{act} failed: {_reason(error)}", "Check name, address, routes and firewalls") from error


def _no_handshake(error: ssl.SSLError, endpoint: Endpoint) -> PeerError:
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE"):
        hint = (
            "Correct the port"
            if endpoint.starttls
            else "Correct the port, or set starttls for a mail server or PostgreSQL"
        )
        return PeerError("the server does not speak TLS here", hint)
    return PeerError(
        f"the server broke off the TLS handshake: {_reason(error)}", "Look at the server's log and its TLS settings"
    )


def _connect(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    """A connection to the first address of the name that accepts one."""
    try:
        addresses = call_within(
            deadline, lambda: socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        )
    except (OSError, UnicodeError) as error:
        raise PeerError(f"the name {endpoint.host} cannot be resolved: {_reason(error)}", "Correct host") from error
    for position, (family, _type, _protocol, _name, address) in enumerate(addresses):
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.settimeout(deadline.remaining() / (len(addresses) - position))
            stream.connect(address)
            return stream
        except OSError:
            stream.close()
            if position == len(addresses) - 1:
                raise
    raise PeerError(f"the name {endpoint.host} has no address", "Correct host")


def _chain_of(secured: ssl.SSLSocket) -> tuple[tuple[bytes, ...], bool]:
    # Public from Python 3.13 on, on the inner object from 3.10, not at all in 3.9.
    inner: Any = secured if hasattr(secured, "get_unverified_chain") else getattr(secured, "_sslobj", None)
    if not hasattr(inner, "get_unverified_chain"):
        return (secured.getpeercert(True) or b"",), False
    served = inner.get_unverified_chain() or []
    return tuple(item if isinstance(item, bytes) else bytes(item.public_bytes(_DER)) for item in served), True


def _reason(error: Exception) -> str:
    """The words of an error without its number and its place in OpenSSL's source."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
