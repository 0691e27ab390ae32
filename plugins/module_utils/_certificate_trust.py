# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of trust: from a certificate up to an authority of a trust store, over signatures that were checked.

Dates play no part here: whether a certificate of the path has expired is judged apart, so that one defect is one
finding. Revocation is not looked at.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._certificates import (
    Certificate,
    CertificateError,
    common_name,
    cryptography,
    parse_certificates,
)

#: What a certificate can be to those who trust a store.
TRUSTED, SELF_SIGNED, INCOMPLETE, UNTRUSTED, UNKNOWN = "trusted", "self_signed", "incomplete", "untrusted", "unknown"

_LONGEST_PATH = 10


@dataclass(frozen=True)
class Trust:
    """``status`` is one of the constants above, ``detail`` says why in words, ``path`` leads from leaf to top."""

    status: str
    detail: str
    path: tuple[Certificate, ...]


class TrustStore:
    """The authorities that are trusted, found by their subject."""

    def __init__(self, authorities: Iterable[Certificate], name: str) -> None:
        self.name = name
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for authority in authorities:
            self._by_subject.setdefault(authority.subject_bytes, []).append(authority)

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate in self._by_subject.get(certificate.subject_bytes, ())

    def issuer_of(self, certificate: Certificate) -> Certificate | None:
        """The trusted authority that signed the certificate, or None."""
        return _issuer_among(self._by_subject.get(certificate.issuer_bytes, ()), certificate)


def load_trust_store(ca_certs: str | None) -> TrustStore:
    """The store in a PEM file, or the system's. Raises OSError and CertificateError."""
    if ca_certs:
        with open(ca_certs, "rb") as stream:
            return TrustStore(parse_certificates(stream.read()), ca_certs)
    authorities: list[Certificate] = []
    for path in _system_files():
        with open(path, "rb") as stream:
            authorities.extend(parse_certificates(stream.read()))
    if not authorities:
        raise CertificateError("the system has no trusted authorities", "Install ca-certificates, or set ca_certs")
    return TrustStore(authorities, "the system's authorities")


def judge_trust(leaf: Certificate, others: Sequence[Certificate], store: TrustStore) -> Trust:
    """Find the way from ``leaf`` over ``others`` (in any order) to an authority of the store."""
    path = [leaf]
    while len(path) <= _LONGEST_PATH:
        current = path[-1]
        anchor = current if current in store else store.issuer_of(current)
        if anchor is not None:
            return _trusted(path if anchor is current else [*path, anchor], store)
        if current.is_self_issued:
            return _ends_untrusted(path, store)
        above = _issuer_among([other for other in others if other not in path], current)
        if above is None:
            return _ends_open(path, store)
        path.append(above)
    return Trust(UNTRUSTED, f"its chain is longer than {_LONGEST_PATH} certificates", tuple(path))


def misplaced(certificates: Sequence[Certificate]) -> str:
    """Why the certificates are not in the order of TLS (leaf first, each signed by the next); empty when they are."""
    for lower, upper in zip(certificates, certificates[1:]):
        if lower.issuer_bytes != upper.subject_bytes:
            return f"'{common_name(lower)}' is followed by '{common_name(upper)}', which did not sign it"
    return ""


def path_within(leaf: Certificate, others: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The certificates from ``leaf`` upwards as far as ``others`` lead; leaf first."""
    return judge_trust(leaf, others, TrustStore([], "nobody")).path


def _issuer_among(candidates: Iterable[Certificate], certificate: Certificate) -> Certificate | None:
    for candidate in candidates:
        if candidate.subject_bytes == certificate.issuer_bytes and _signed_by(certificate, candidate):
            return candidate
    return None


def _trusted(path: Sequence[Certificate], store: TrustStore) -> Trust:
    told = f"its chain ends in '{common_name(path[-1])}' of {store.name}"
    for below, authority in enumerate(path[1:]):
        if not authority.is_authority:
            return Trust(UNTRUSTED, f"'{common_name(authority)}' in its chain is no authority", tuple(path))
        if authority.path_length is not None and below > authority.path_length:
            return Trust(UNTRUSTED, f"'{common_name(authority)}' allows no chain this long", tuple(path))
        if authority.constrains_names:
            told = f"'{common_name(authority)}' in its chain is constrained to some names, which is not judged here"
            return Trust(UNKNOWN, told, tuple(path))
    return Trust(TRUSTED, told, tuple(path))


def _ends_untrusted(path: Sequence[Certificate], store: TrustStore) -> Trust:
    if len(path) == 1:
        return Trust(SELF_SIGNED, f"it is self-signed and not in {store.name}", tuple(path))
    return Trust(UNTRUSTED, f"its root '{common_name(path[-1])}' is not in {store.name}", tuple(path))


def _ends_open(path: Sequence[Certificate], store: TrustStore) -> Trust:
    missing = f"its issuer '{path[-1].issuer}' is neither there nor in {store.name}"
    if len(path) == 1:
        return Trust(INCOMPLETE, f"{missing}: the intermediate certificate is missing", tuple(path))
    return Trust(UNTRUSTED, missing, tuple(path))


@lru_cache(maxsize=8192)
def _signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the signature on the certificate was made with the issuer's key."""
    exceptions = cryptography("exceptions")
    try:
        if hasattr(certificate.x509, "verify_directly_issued_by"):
            certificate.x509.verify_directly_issued_by(issuer.x509)
        else:
            _verify_by_hand(certificate.x509, issuer.x509.public_key())
    except (exceptions.InvalidSignature, exceptions.UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _verify_by_hand(signed: Any, key: Any) -> None:
    """What cryptography from 40 on does itself. Raises InvalidSignature."""
    asymmetric = "hazmat.primitives.asymmetric"
    rsa, ec = cryptography(f"{asymmetric}.rsa"), cryptography(f"{asymmetric}.ec")
    content, algorithm = signed.tbs_certificate_bytes, signed.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey):
        padding = cryptography(f"{asymmetric}.padding").PKCS1v15()
        key.verify(signed.signature, content, padding, algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signed.signature, content, ec.ECDSA(algorithm))
    else:
        key.verify(signed.signature, content)


def _system_files() -> list[str]:
    """Where OpenSSL looks for authorities: its bundle, else its folder of hashed names."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return [paths.cafile]
    folder = paths.capath or ""
    if not os.path.isdir(folder):
        return []
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".0"))
