# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""X.509 certificates as facts: what is read from PEM, DER and PKCS#12, and what a certificate says of itself.

Needs cryptography 38 or newer. Nothing here judges; dates are taken as they are, expired or not.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load

PEM_BEGIN, _PEM_END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
#: A PKCS#12 container begins with SEQUENCE { INTEGER 3 }, its length written in any of the ways of BER.
_SEQUENCE = rb"\x30(?:[\x00-\x7f]|\x80|\x81.|\x82..|\x83...|\x84....)"
_PKCS12_HEAD = re.compile(_SEQUENCE + rb"\x02\x01\x03", re.DOTALL)
#: So do private keys, with another number; a certificate begins with two SEQUENCEs.
_KEY_HEAD = re.compile(_SEQUENCE + rb"\x02\x01[\x00\x01]", re.DOTALL)
#: How other things announce themselves in PEM; they are recognized, never read.
_OTHER_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]*(?:PRIVATE KEY|PUBLIC KEY|CERTIFICATE REQUEST|CRL|PARAMETERS))-----")

_WEAK_HASHES = frozenset(("md2", "md4", "md5", "sha1"))
_FEWEST_BITS = {"RSA": 2048, "DSA": 2048, "EC": 224}


class CertificateError(Exception):
    """Something holds no certificate that can be read; the text says why, the hint what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, eq=False)
class Certificate:
    """One certificate. Two readings of the same bytes are the same object, see :func:`read_der`."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    key: str
    signature: str
    weaknesses: tuple[str, ...]
    is_authority: bool
    path_length: int | None
    constrains_names: bool
    subject_bytes: bytes = field(repr=False)
    issuer_bytes: bytes = field(repr=False)
    x509: Any = field(repr=False)

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same, as they are in a root and in a self-signed certificate."""
        return self.subject_bytes == self.issuer_bytes

    @property
    def is_server(self) -> bool:
        """Whether it names hosts or is no authority; ``openssl req -x509`` makes servers that are both."""
        return bool(self.names) or not self.is_authority

    @property
    def lifetime(self) -> float:
        """Seconds from the first to the last moment of validity."""
        return (self.not_after - self.not_before).total_seconds()


def parse_certificates(content: bytes, passphrase: str | None = None) -> list[Certificate]:
    """All certificates of a file: PEM (any number, whatever stands between), DER or PKCS#12, in their order.

    Raises CertificateError when there is none, or one cannot be read.
    """
    blocks = content.split(PEM_BEGIN)[1:]
    if blocks:
        return [_read_pem_block(block, number) for number, block in enumerate(blocks, 1)]
    if is_pkcs12(content):
        return _read_pkcs12(content, passphrase)
    other = other_kind(content)
    if other:
        raise CertificateError(f"it holds a {other}, no certificate")
    if content[:1] == b"\x30":
        return [read_der(content)]
    raise CertificateError("it is neither PEM nor DER nor PKCS#12" if content else "it is empty")


def is_pkcs12(content: bytes) -> bool:
    """Whether it is a PKCS#12 container, in which certificates have no order."""
    return bool(_PKCS12_HEAD.match(content))


def other_kind(content: bytes) -> str:
    """What a file without certificates holds, such as ``private key``; empty when it is nothing known."""
    if _KEY_HEAD.match(content):
        return "private key"
    found = _OTHER_PEM.search(content)
    return found.group(1).decode().lower() if found else ""


@lru_cache(maxsize=8192)
def read_der(der: bytes) -> Certificate:
    """The certificate in DER bytes. Raises CertificateError when they are damaged."""
    x509 = cryptography("x509")
    try:
        return _facts(x509, x509.load_der_x509_certificate(der))
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion) as error:
        raise CertificateError(f"a certificate in it is damaged: {_one_line(error)}", "Write the file again") from error


def covers(names: tuple[str, ...], host: str) -> bool:
    """Whether the subject alternative names cover a host name or address (RFC 6125: ``*`` is one whole label)."""
    wanted = host.rstrip(".").lower()
    try:
        wanted_address = str(ipaddress.ip_address(wanted))
    except ValueError:
        rest = wanted.partition(".")[2]
        accepted = {wanted, f"*.{rest}"} if rest else {wanted}
        return any(name.lower().rstrip(".") in accepted for name in names)
    return wanted_address in names


@lru_cache(maxsize=8192)
def common_name(certificate: Certificate) -> str:
    """A short name for people: the first host name, else the common name, else the whole subject."""
    if certificate.names:
        return certificate.names[0]
    found = re.search(r"(?:^|,)CN=((?:[^,\\]|\\.)+)", certificate.subject)
    return found.group(1) if found else certificate.subject


@cache
def cryptography(submodule: str) -> ModuleType:
    """A part of the cryptography library. Raises MissingDependencyError."""
    return load("cryptography", submodule)


def _read_pem_block(block: bytes, number: int) -> Certificate:
    text, end, _rest = block.partition(_PEM_END)
    if not end:
        raise CertificateError(f"PEM block {number} has no end: the file is cut short", "Write the file again")
    try:
        return read_der(base64.b64decode(b"".join(text.split()), validate=True))
    except binascii.Error as error:
        raise CertificateError(f"PEM block {number} is damaged: {error}", "Write the file again") from error


def _read_pkcs12(content: bytes, passphrase: str | None) -> list[Certificate]:
    x509, pkcs12 = cryptography("x509"), cryptography("hazmat.primitives.serialization.pkcs12")
    encoding = cryptography("hazmat.primitives.serialization").Encoding.DER
    try:
        # The key comes along, for it is in the same container; it is dropped here.
        _key, first, others = pkcs12.load_key_and_certificates(content, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        cause = "the passphrase does not open it, or it is damaged" if passphrase else "it needs a passphrase"
        raise CertificateError(
            f"this PKCS#12 container cannot be read: {cause}", "Set the option passphrase to the right one"
        ) from error
    found = [certificate for certificate in [first, *others] if certificate is not None]
    if not found:
        raise CertificateError("this PKCS#12 container holds no certificate")
    return [read_der(certificate.public_bytes(encoding)) for certificate in found]


def _facts(x509: ModuleType, certificate: Any) -> Certificate:
    extensions = {extension.oid.dotted_string: extension.value for extension in certificate.extensions}
    constraints = extensions.get("2.5.29.19")
    usage = extensions.get("2.5.29.15")
    # Each access makes these objects anew.
    subject, issuer = certificate.subject, certificate.issuer
    subject_bytes, issuer_bytes = subject.public_bytes(), issuer.public_bytes()
    is_authority = bool(constraints and constraints.ca and (usage is None or usage.key_cert_sign))
    names = _names(x509, extensions)
    key, weaknesses = _key_strength(certificate)
    # Nobody relies on the signature of a root: it is trusted because it is in the store.
    if not (is_authority and subject_bytes == issuer_bytes and not names):
        weaknesses += _signature_weaknesses(certificate)
    return Certificate(
        subject=subject.rfc4514_string(),
        issuer=issuer.rfc4514_string(),
        names=names,
        serial=f"{certificate.serial_number:X}",
        not_before=_utc(certificate, "not_valid_before"),
        not_after=_utc(certificate, "not_valid_after"),
        key=key,
        signature=_signature_name(certificate),
        weaknesses=weaknesses,
        is_authority=is_authority,
        path_length=constraints.path_length if constraints else None,
        constrains_names="2.5.29.30" in extensions,
        subject_bytes=subject_bytes,
        issuer_bytes=issuer_bytes,
        x509=certificate,
    )


def _names(x509: ModuleType, extensions: dict[str, Any]) -> tuple[str, ...]:
    alternative = extensions.get("2.5.29.17")
    if alternative is None:
        return ()
    names = alternative.get_values_for_type(x509.DNSName)
    return (*names, *(str(address) for address in alternative.get_values_for_type(x509.IPAddress)))


def _utc(certificate: Any, attribute: str) -> datetime:
    """A date of validity; cryptography before 42 knows it only without its time zone, which is UTC."""
    moment: datetime = (
        getattr(certificate, f"{attribute}_utc")
        if hasattr(certificate, f"{attribute}_utc")
        else getattr(certificate, attribute).replace(tzinfo=timezone.utc)
    )
    return moment


def _key_strength(certificate: Any) -> tuple[str, tuple[str, ...]]:
    """The key as ``RSA 2048``, ``EC secp256r1`` or ``Ed25519``, with a sentence when it is too short."""
    try:
        key = certificate.public_key()
    except Exception as error:  # the library has no common class for keys that it does not know
        return "unknown", (f"its key is of a kind that cannot be judged: {_one_line(error)}",)
    kind = type(key).__name__.replace("PublicKey", "").lstrip("_")
    family = {"EllipticCurve": "EC", "EC": "EC"}.get(kind, kind)
    bits = getattr(key, "key_size", 0)
    told = f"EC {key.curve.name}" if family == "EC" else f"{family} {bits}".replace(" 0", "")
    if bits and bits < _FEWEST_BITS.get(family, 0):
        return told, (f"its {family} key has only {bits} bits, {_FEWEST_BITS[family]} are the least",)
    return told, ()


def _signature_weaknesses(certificate: Any) -> tuple[str, ...]:
    try:
        algorithm = certificate.signature_hash_algorithm
    except cryptography("exceptions").UnsupportedAlgorithm:
        return (f"it is signed in a way that cannot be judged ({_signature_name(certificate)})",)
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        return (f"it is signed with {algorithm.name.upper()}",)
    return ()


def _signature_name(certificate: Any) -> str:
    oid = certificate.signature_algorithm_oid
    return str(getattr(oid, "_name", oid.dotted_string))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
