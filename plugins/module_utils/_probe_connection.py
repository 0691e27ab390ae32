# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of probes: name look-up, connect and TLS handshake, each timed, all under one deadline."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import DeadlineExceededError, call_within
from ansible_collections.upkeep.ops.plugins.module_utils._probe import (
    NotMeasurableError,
    Probe,
    ProbeFailedError,
    Trace,
)

_FAMILIES = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}

#: OpenSSL's codes of verification failures that have a remedy of their own.
_CERTIFICATE_FAULTS = {
    9: ("the certificate is not valid yet", "Check the clock of both hosts"),
    10: ("the certificate has expired", "Renew it and reload the server"),
    18: ("the certificate is self-signed", "Name the authority to trust in ca_certs"),
    19: ("the certificate's authority is not trusted", "Name the authority to trust in ca_certs"),
    20: (
        "the certificate's issuer is unknown",
        "Let the server send its intermediate certificates, or name the authority to trust in ca_certs",
    ),
    62: ("the certificate is for another host name", "Use the name the certificate is for, or set server_name"),
    64: ("the certificate is for another IP address", "Use the name the certificate is for, or set server_name"),
}


@dataclass(frozen=True)
class Trust:
    """Whom to trust in a TLS handshake, by a PEM file or as the system does, and who we are to the server."""

    validate_certs: bool = True
    ca_certs: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""


def trust_of(probe: Probe) -> Trust:
    """The part of a probe that its TLS context is made of."""
    return Trust(probe.validate_certs, probe.ca_certs, probe.client_cert_file, probe.client_key_file)


@dataclass(frozen=True)
class Endpoint:
    """Where to connect and how: by TCP to ``host`` and ``port``, or to a unix socket; with TLS or without."""

    host: str = ""
    port: int = 0
    unix_socket: str = ""
    ip_version: str = "any"
    tls: bool = False
    server_name: str = ""
    trust: Trust = field(default_factory=Trust)


def endpoint_of(probe: Probe, tls: bool = False, default_port: int = 0) -> Endpoint:
    """Where a probe connects to when its own host, port and unix_socket say so."""
    return Endpoint(
        host=probe.host,
        port=probe.port or default_port,
        unix_socket=probe.unix_socket,
        ip_version=probe.ip_version,
        tls=tls or probe.tls,
        server_name=probe.server_name,
        trust=trust_of(probe),
    )


class _FirstByte:
    """A socket that tells its trace when the first byte of the application arrived, and how many came."""

    trace: Trace | None = None

    def _note(self, count: int) -> None:
        if self.trace is not None and count:
            if not self.trace.bytes_read:
                self.trace.reached("ttfb")
            self.trace.bytes_read += count

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        count: int = super().recv_into(*arguments, **options)  # type: ignore[misc]
        self._note(count)
        return count

    def recv(self, *arguments: Any, **options: Any) -> bytes:
        data: bytes = super().recv(*arguments, **options)  # type: ignore[misc]
        self._note(len(data))
        return data


class _PlainSocket(_FirstByte, socket.socket):
    pass


class _TlsSocket(_FirstByte, ssl.SSLSocket):
    pass


class Connector:
    """Opens connections; TLS contexts are made once, because loading the authorities takes longer than a probe."""

    def __init__(self) -> None:
        self._contexts: dict[Trust, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def open(self, endpoint: Endpoint, trace: Trace) -> socket.socket:
        """A connected socket that the deadline of ``trace`` shuts; its phases and address are noted there.

        Raises ProbeFailedError with the cause, NotMeasurableError when ca_certs cannot be read and
        DeadlineExceededError.
        """
        if endpoint.unix_socket:
            stream = _connect(socket.AF_UNIX, endpoint.unix_socket, trace, 1)
        else:
            stream = _connect_any(_resolve(endpoint, trace), trace)
        trace.alive = True
        if not endpoint.tls:
            stream.trace = trace
            return stream
        return self._handshake(stream, endpoint, trace)

    def prepare(self, trust: Trust) -> None:
        """Load the authorities ahead of time, so that no probe's figures contain it."""
        with suppress(NotMeasurableError):  # told by the probe
            self._context(trust)

    def _handshake(self, stream: socket.socket, endpoint: Endpoint, trace: Trace) -> socket.socket:
        context = self._context(endpoint.trust)
        wrapped = context.wrap_socket(
            stream, server_hostname=endpoint.server_name or endpoint.host, do_handshake_on_connect=False
        )
        _guard(wrapped, trace)
        try:
            with trace.phase("tls"):
                wrapped.do_handshake()
        except OSError as error:
            wrapped.close()
            raise _handshake_failure(error, endpoint, trace) from error
        if not isinstance(wrapped, _TlsSocket):
            raise AssertionError("the context makes sockets of this class")
        wrapped.trace = trace
        trace.certificate_expires = not_after(wrapped.getpeercert(True) or b"")
        return wrapped

    def _context(self, trust: Trust) -> ssl.SSLContext:
        with self._lock:
            if trust not in self._contexts:
                self._contexts[trust] = _new_context(trust)
            return self._contexts[trust]


def at(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _new_context(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca_certs or None)
        if trust.client_cert_file:
            context.load_cert_chain(trust.client_cert_file, trust.client_key_file or None)
    except (OSError, ValueError) as error:
        files = ", ".join(filter(None, (trust.ca_certs, trust.client_cert_file, trust.client_key_file)))
        raise NotMeasurableError(
            f"the certificate files cannot be used ({files}): {_reason(error)}",
            "Correct ca_certs, client_cert_file and client_key_file of the probe",
        ) from error
    if not trust.validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _TlsSocket
    return context


def _resolve(endpoint: Endpoint, trace: Trace) -> Sequence[tuple[Any, ...]]:
    family = _FAMILIES[endpoint.ip_version]

    def look_up(flags: int) -> list[tuple[Any, ...]]:
        return list(socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM, 0, flags))

    with trace.phase("dns"):
        with suppress(OSError, UnicodeError):
            return look_up(socket.AI_NUMERICHOST)
        try:
            return call_within(trace.deadline, lambda: look_up(0))
        except (OSError, UnicodeError) as error:
            raise ProbeFailedError(
                f"the name {endpoint.host} cannot be resolved: {_reason(error)}",
                "Check the name, ip_version and the resolver of this host",
            ) from error


def _connect_any(addresses: Sequence[tuple[Any, ...]], trace: Trace) -> _PlainSocket:
    """Connect to the first address that answers; each may take its share of the time, so none eats it all."""
    failures: list[ProbeFailedError] = []
    for position, (family, _type, _protocol, _name, address) in enumerate(addresses):
        try:
            return _connect(family, address, trace, len(addresses) - position)
        except ProbeFailedError as failure:
            failures.append(failure)
    raise ProbeFailedError(", ".join(dict.fromkeys(failure.summary for failure in failures)), failures[-1].hint)


def _connect(family: int, address: Any, trace: Trace, shares: int) -> _PlainSocket:
    where = address if isinstance(address, str) else at(address[0], address[1])
    stream = _PlainSocket(family, socket.SOCK_STREAM)
    try:
        stream.settimeout(trace.deadline.remaining() / shares)
        with trace.phase("connect"):
            stream.connect(address)
        stream.settimeout(trace.deadline.remaining())
    except OSError as error:
        stream.close()
        if isinstance(error, socket.timeout) and shares == 1:
            raise DeadlineExceededError from error
        raise _connect_failure(error, where) from error
    except DeadlineExceededError:
        stream.close()
        raise
    if family != socket.AF_UNIX:
        # Nagle would hold back a request that is sent in two parts until the first is acknowledged (40 ms).
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    trace.address = where
    _guard(stream, trace)
    return stream


def _guard(stream: socket.socket, trace: Trace) -> None:
    """Let the deadline shut the connection: whoever waits on it in whatever call comes back at once."""

    def shut() -> None:
        with suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS session away from the thread that is reading from it.
            socket.socket.shutdown(stream, socket.SHUT_RDWR)

    trace.deadline.guard(shut)


def _connect_failure(error: OSError, where: str) -> ProbeFailedError:
    if isinstance(error, ConnectionRefusedError):
        return ProbeFailedError(
            f"connection refused by {where}", "Start the service, or correct the address of the probe"
        )
    if isinstance(error, socket.timeout):
        return ProbeFailedError(f"no connection to {where} in its share of the time", "Check routes and firewalls")
    if isinstance(error, FileNotFoundError):
        return ProbeFailedError(
            f"there is no unix socket {where}", "Start the service, or correct unix_socket of the probe"
        )
    if isinstance(error, PermissionError):
        return NotMeasurableError(
            f"this user may not connect to {where}: {_reason(error)}", "Run the probe as a user who may (become)"
        )
    return ProbeFailedError(f"no connection to {where}: {_reason(error)}", "Check address, routes and firewalls")


def _handshake_failure(error: OSError, endpoint: Endpoint, trace: Trace) -> Exception:
    if trace.deadline.expired or isinstance(error, socket.timeout):
        return DeadlineExceededError()
    if isinstance(error, ssl.SSLCertVerificationError):
        summary, hint = _CERTIFICATE_FAULTS.get(
            error.verify_code, (f"the certificate is not accepted: {error.verify_message}", "Check it with cert_expiry")
        )
        return ProbeFailedError(f"{summary} ({endpoint.server_name or endpoint.host}, {trace.address})", hint)
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"):
        return ProbeFailedError(f"{trace.address} does not speak TLS", "Check the port, or probe without TLS")
    return ProbeFailedError(
        f"{trace.address} broke off the TLS handshake: {_reason(error)}", "Look at the server's log and TLS settings"
    )


def _reason(error: Exception) -> str:
    """The words of an error without its number and the place in OpenSSL's source."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split(" (_ssl.c")[0]


def not_after(certificate: bytes) -> datetime | None:
    """When a certificate in DER expires; None when it cannot be read.

    The standard library tells the dates of verified certificates only, and the expiry of one that fails the
    verification is what people want to know. TBSCertificate is [version] serial algorithm issuer validity.
    """
    try:
        _tag, outer, _rest = _der(certificate)
        _tag, body, _rest = _der(outer)
        tag, _value, rest = _der(body)
        for _skipped in range(3 if tag == 0xA0 else 2):
            _tag, _value, rest = _der(rest)
        _tag, validity, _rest = _der(rest)
        _tag, _not_before, rest = _der(validity)
        tag, value, _rest = _der(rest)
        text = value.decode("ascii")
        if tag == 0x17:  # UTCTime has two digits for the year: 1950 to 2049
            text = ("19" if int(text[:2]) >= 50 else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    except (IndexError, ValueError):
        return None


def _der(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of ``data``, and what follows it."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
    return tag, data[start : start + length], data[start + length :]
