# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Third-party libraries: imported when needed, guarded in this one place.

A module that needs one calls :func:`load` after its arguments were checked, so that nobody pays for an import
that is not used, and a missing library is one clear sentence with the interpreter that lacks it.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

#: import name -> (distribution on PyPI, package of Debian, oldest version that is supported)
_LIBRARIES = {
    "apprise": ("apprise", "apprise", "1.9"),
    "cryptography": ("cryptography", "python3-cryptography", "38"),
    "detect_secrets": ("detect-secrets", "", "1.4"),
    "google.api_core": ("google-api-core", "", "2.10"),
    "google.auth": ("google-auth", "", "2.14"),
    "google.cloud.firestore": ("google-cloud-firestore", "", "2.16"),
    "google.cloud.firestore_admin_v1": ("google-cloud-firestore", "", "2.16"),
    "google.cloud.firestore_v1": ("google-cloud-firestore", "", "2.16"),
    "google.cloud.storage": ("google-cloud-storage", "", "2.14"),
    "google.protobuf": ("protobuf", "", "4.22"),
    "google.oauth2": ("google-auth", "", "2.14"),
    "google_crc32c": ("google-crc32c", "", "1.5"),
    "grpc": ("grpcio", "python3-grpcio", "1.51"),
    "redis": ("redis", "python3-redis", "4.3"),
    "requests": ("requests", "python3-requests", "2.28"),
    "zstandard": ("zstandard", "python3-zstandard", "0.19"),
}


class MissingDependencyError(Exception):
    """A library is not there or too old; the text says which, where and how to get it."""


def load(name: str, submodule: str = "") -> ModuleType:
    """The library (or one of its submodules), imported now. Raises MissingDependencyError."""
    distribution, package, oldest = _LIBRARIES[name]
    try:
        library = importlib.import_module(name)
        wanted = importlib.import_module(f"{name}.{submodule}") if submodule else library
    except ImportError as error:
        raise MissingDependencyError(
            f"the Python library {distribution} (>= {oldest}) is needed on this host and cannot be imported by "
            f"{sys.executable}: {error}. {_remedy(distribution, package)}"
        ) from error
    found = str(getattr(library, "__version__", oldest))
    if _version(found) < _version(oldest):
        raise MissingDependencyError(
            f"the Python library {distribution} {found} of {sys.executable} is too old, {oldest} is needed. "
            f"{_remedy(distribution, package)}"
        )
    return wanted


def _remedy(distribution: str, package: str) -> str:
    pip = f"{sys.executable} -m pip install {distribution}"
    return f"Install it with 'apt install {package}' or '{pip}'" if package else f"Install it with '{pip}'"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
