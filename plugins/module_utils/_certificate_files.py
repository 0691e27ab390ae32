# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files hold certificates: named ones, folders such as Let's Encrypt's ``live``, and patterns."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.upkeep.ops.plugins.module_utils._certificates import (
    PEM_BEGIN,
    Certificate,
    CertificateError,
    is_pkcs12,
    other_kind,
    parse_certificates,
)

_EXTENSIONS = (".pem", ".crt", ".cer", ".cert", ".der", ".p12", ".pfx")
#: Names under which private keys lie: those files are not opened in folders.
_KEY_NAMES = ("privkey", "private")
_LARGEST = 4 << 20


@dataclass(frozen=True)
class CertificateFile:
    """A file with its certificates in their order (if it is a kind that has one), or the reason for none."""

    path: str
    certificates: tuple[Certificate, ...] = ()
    has_order: bool = True
    error: str = ""
    hint: str = ""


def find_files(paths: Iterable[str], passphrase: str | None) -> Iterator[CertificateFile]:
    """The certificates under ``paths``.

    A file that was named must hold a certificate. In a folder or pattern, keys, requests and files of other kinds
    are passed over without a word, but not what looks like a certificate and cannot be read.
    """
    for path in paths:
        if os.path.isdir(path):
            closed: list[OSError] = []
            yield from _found_in(path, _walk(path, closed.append), passphrase, closed)
            yield from (_unreadable(str(error.filename), error) for error in closed)
        elif glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.glob(path, recursive=True))
            yield from _found_in(path, _unique(match for match in matches if not os.path.isdir(match)), passphrase, [])
        else:
            yield read_file(path, passphrase)


def read_file(path: str, passphrase: str | None) -> CertificateFile:
    """The certificates of one file that should hold some."""
    try:
        return _parsed(path, _content(path), passphrase)
    except (OSError, CertificateError) as error:
        return _unreadable(path, error)


def _parsed(path: str, content: bytes, passphrase: str | None) -> CertificateFile:
    try:
        return CertificateFile(path, tuple(parse_certificates(content, passphrase)), not is_pkcs12(content))
    except CertificateError as error:
        return _unreadable(path, error)


def _unreadable(path: str, error: Exception) -> CertificateFile:
    if isinstance(error, CertificateError):
        return CertificateFile(path, error=f"no certificate can be read: {error}", hint=error.hint)
    if isinstance(error, FileNotFoundError):
        told = "it is a link to a file that does not exist" if os.path.islink(path) else "there is no such file"
        return CertificateFile(path, error=told, hint="Restore it, or correct the path")
    hint = "Run the task with become" if isinstance(error, PermissionError) else "Look at the file system"
    return CertificateFile(path, error=f"it cannot be read: {getattr(error, 'strerror', error)}", hint=hint)


def _found_in(
    origin: str, candidates: Iterable[str], passphrase: str | None, closed: Sequence[OSError]
) -> Iterator[CertificateFile]:
    """What the candidates hold; ``closed`` are the folders of which that is not known."""
    count = 0
    for path in candidates:
        found = _read_candidate(path, passphrase)
        if found is not None:
            count += 1
            yield found
    if not count and not closed:
        yield CertificateFile(origin, error="no certificates are in it", hint="Correct the path")


def _read_candidate(path: str, passphrase: str | None) -> CertificateFile | None:
    """A file that nobody named; None when it neither holds certificates nor should by its name."""
    name = os.path.basename(path).lower()
    if name.endswith(".key") or name.startswith(_KEY_NAMES):
        return None
    named_so = name.endswith(_EXTENSIONS)
    try:
        content = _content(path)
    except (OSError, CertificateError) as error:
        return _unreadable(path, error) if named_so else None
    if PEM_BEGIN in content or (named_so and not other_kind(content)):
        return _parsed(path, content, passphrase)
    return None


def _walk(folder: str, note: Callable[[OSError], None]) -> Iterator[str]:
    """The files of a folder and the folders in it, in the order of their names, each only once.

    ``note`` is told of folders that this user may not look into.
    """
    for parent, folders, names in os.walk(folder, onerror=note):
        folders.sort()
        # certbot's fullchain.pem is cert.pem and chain.pem in one: what servers serve, judged as a whole.
        parts = {"cert.pem", "chain.pem"} if "fullchain.pem" in names else set()
        ordered = sorted(set(names) - parts, key=lambda name: (not name.lower().endswith(_EXTENSIONS), name))
        yield from _unique(os.path.join(parent, name) for name in ordered)


def _unique(paths: Iterable[str]) -> Iterator[str]:
    """Leave out further names of a file that came already, such as the hashed links of /etc/ssl/certs."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            yield path
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield path


def _content(path: str) -> bytes:
    # Without O_NONBLOCK, opening a named pipe would wait for somebody who writes to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CertificateError("it is no regular file")
        if status.st_size > _LARGEST:
            raise CertificateError(f"it is larger than {_LARGEST >> 20} MiB")
        return stream.readall()
