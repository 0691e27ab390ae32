# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small certificate authority (root, intermediate, leaves) and every defect a certificate can have.

    authority = CertificateAuthority(folder)                    # made, or read again from the folder
    files = authority.issue("localhost", "127.0.0.1").write(folder, "server")
    files.fullchain, files.key, authority.root_file             # paths, the key with mode 0600

``defective(authority, "expired", "localhost")`` is a leaf with one defect of :data:`DEFECTS`.
"""

from __future__ import annotations

import ipaddress
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class CertificateFiles:
    """Where the parts of one identity lie, named as certbot names them."""

    certificate: Path
    chain: Path
    fullchain: Path
    key: Path


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key and the certificates between it and the root (which is left out)."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)

    def write(self, folder: Path, name: str) -> CertificateFiles:
        """Write ``name``.crt, .chain.crt, .pem (leaf and chain) and .key (0600)."""
        folder.mkdir(parents=True, exist_ok=True)
        files = CertificateFiles(
            folder / f"{name}.crt", folder / f"{name}.chain.crt", folder / f"{name}.pem", folder / f"{name}.key"
        )
        files.certificate.write_bytes(pem(self.certificate))
        files.chain.write_bytes(pem(*self.chain))
        files.fullchain.write_bytes(pem(self.certificate, *self.chain))
        _write_secret(files.key, key_pem(self.key))
        return files

    def der(self) -> bytes:
        """The certificate alone, in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pkcs12(self, passphrase: str = "") -> bytes:
        """Certificate, key and chain as PKCS#12, encrypted when there is a passphrase."""
        protection = (
            serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        )
        return pkcs12.serialize_key_and_certificates(b"identity", self.key, self.certificate, self.chain, protection)

    def serial(self) -> str:
        """The serial number in upper-case hexadecimal, as ``openssl x509 -serial`` prints it."""
        return f"{self.certificate.serial_number:X}"


class CertificateAuthority:
    """A root and an intermediate that signs the leaves; kept in a folder, so that a restart finds them again."""

    def __init__(self, folder: Path, name: str = "Miniature") -> None:
        self.root_file = folder / "root.pem"
        self.intermediate_file = folder / "intermediate.pem"
        folder.mkdir(parents=True, exist_ok=True)
        self.root = self._kept(self.root_file, f"{name} Root CA", None)
        self.intermediate = self._kept(self.intermediate_file, f"{name} Intermediate CA", self.root)

    def issue(
        self, *names: str, days: float = 90, not_before: datetime | None = None, key: PrivateKey | None = None
    ) -> Identity:
        """A leaf for host names and addresses, valid ``days`` from ``not_before`` (one hour ago when not given)."""
        return sign(names, self.intermediate, days=days, not_before=not_before, key=key)

    @staticmethod
    def _kept(path: Path, name: str, issuer: Identity | None) -> Identity:
        key_path = path.with_suffix(".key")
        if path.exists():
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return Identity(certificate, key, [certificate] if issuer else [])
        made = sign([name], issuer, days=3650, authority=True)
        path.write_bytes(pem(made.certificate))
        _write_secret(key_path, key_pem(made.key))
        return made


def sign(
    names: Sequence[str],
    issuer: Identity | None,
    *,
    days: float,
    not_before: datetime | None = None,
    key: PrivateKey | None = None,
    authority: bool = False,
) -> Identity:
    """A certificate for ``names`` (the first is the common name) by ``issuer``, self-signed without one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    subject = _distinguished_name(names[0])
    start = not_before or datetime.now(timezone.utc) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + days * _DAY)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_key_usage(authority), critical=True)
    )
    if not authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    above = issuer.chain if issuer else []
    # A root is not sent with a chain, an intermediate is: it stands at the head of its own chain.
    return Identity(certificate, key, [certificate, *above] if authority and issuer else above)


def pem(*certificates: x509.Certificate) -> bytes:
    """The certificates one after the other, in PEM."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: PrivateKey) -> bytes:
    """A private key in PEM (PKCS#8), not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _distinguished_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _expired(authority: CertificateAuthority, name: str) -> Identity:
    return authority.issue(name, days=30, not_before=datetime.now(timezone.utc) - 40 * _DAY)


def _near_end(authority: CertificateAuthority, name: str) -> Identity:
    return authority.issue(name, days=90, not_before=datetime.now(timezone.utc) - 85 * _DAY)


def _not_yet_valid(authority: CertificateAuthority, name: str) -> Identity:
    return authority.issue(name, days=90, not_before=datetime.now(timezone.utc) + 5 * _DAY)


def _self_signed(_authority: CertificateAuthority, name: str) -> Identity:
    return sign([name], None, days=90)


def _missing_intermediate(authority: CertificateAuthority, name: str) -> Identity:
    return replace(authority.issue(name), chain=[])


def _wrong_order(authority: CertificateAuthority, name: str) -> Identity:
    return replace(authority.issue(name), chain=[authority.root.certificate, authority.intermediate.certificate])


def _wrong_host(authority: CertificateAuthority, _name: str) -> Identity:
    return authority.issue("other.example.test")


def _weak_key(authority: CertificateAuthority, name: str) -> Identity:
    return authority.issue(name, key=rsa.generate_private_key(65537, 1024))


def _sha1(_authority: CertificateAuthority, name: str) -> Identity:
    # The cryptography library signs nothing with SHA-1 any more; the openssl program still does.
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "crt"), Path(folder, "key")
        command = ["openssl", "req", "-x509", "-sha1", "-newkey", "rsa:2048", "-nodes", "-days", "90"]
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, rsa.RSAPrivateKey)
        return Identity(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


#: Name of the defect: how a leaf that has it, and no other, is made. (sha1 is self-signed too.)
DEFECTS: dict[str, Callable[[CertificateAuthority, str], Identity]] = {
    "expired": _expired,
    "near_end": _near_end,
    "not_yet_valid": _not_yet_valid,
    "self_signed": _self_signed,
    "missing_intermediate": _missing_intermediate,
    "wrong_order": _wrong_order,
    "wrong_host": _wrong_host,
    "weak_key": _weak_key,
    "sha1": _sha1,
}


def defective(authority: CertificateAuthority, defect: str, name: str = "localhost") -> Identity:
    """A leaf for ``name`` with one defect of :data:`DEFECTS`."""
    return DEFECTS[defect](authority, name)
