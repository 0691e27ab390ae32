# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every module reaches a Redis server: the options, the client they make, and errors put into words.

The library redis-py is passed in as ``library``: modules load it with ``_dependencies.load("redis")`` after their
arguments were checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

#: Argument spec of the options in the documentation fragment ``upkeep.ops._redis_connection``.
CONNECTION_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "login_host": {"type": "str", "default": "localhost"},
    "login_port": {"type": "int", "default": 6379},
    "login_unix_socket": {"type": "path"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "tls": {"type": "bool", "default": False},
    "validate_certs": {"type": "bool", "default": True},
    "ca_certs": {"type": "path"},
    "client_cert_file": {"type": "path"},
    "client_key_file": {"type": "path", "no_log": False},
    "timeout": {"type": "float", "default": 10},
}


class RedisAccessError(Exception):
    """The server could not be asked; the text names the server, the cause and what to do."""


@dataclass(frozen=True)
class Login:
    """Where a server is and who we are to it. ``timeout`` in seconds holds for the connection and each answer."""

    host: str = "localhost"
    port: int = 6379
    unix_socket: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    validate_certs: bool = True
    ca_certs: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    timeout: float = 10.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Login:
        """From the options of :data:`CONNECTION_OPTIONS`, as a module's ``params`` hold them; others are ignored."""
        names = {name: name[6:] if name.startswith("login_") else name for name in CONNECTION_OPTIONS}
        return cls(**{ours: options[name] for name, ours in names.items() if options.get(name) is not None})

    @property
    def url(self) -> str:
        """The server's name in messages, findings and manifests; it holds neither user nor password."""
        if self.unix_socket:
            return f"unix://{self.unix_socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"


def client(library: ModuleType, login: Login, **settings: Any) -> Any:
    """A ``redis.Redis`` that is not connected yet; ``settings`` are redis-py's and win.

    It tries each command once: how long a module may take is then what its options say, whatever the version.
    Wrap its use in :func:`explained`.
    """
    options = {
        **(_unix_options(login) if login.unix_socket else _tcp_options(login)),
        "username": login.user or None,
        "password": login.password or None,
        "socket_timeout": login.timeout,
        "socket_connect_timeout": login.timeout,
        "retry": library.retry.Retry(library.backoff.NoBackoff(), 0),
        "decode_responses": True,
        **_same_protocol(library),
        **settings,
    }
    return library.Redis(**options)


@contextmanager
def explained(library: ModuleType, login: Login) -> Iterator[None]:
    """Turn what redis-py raises inside the block into RedisAccessError with a sentence for a person."""
    try:
        yield
    except (library.RedisError, OSError) as error:
        raise RedisAccessError(explain(library, login, error)) from error


def explain(library: ModuleType, login: Login, error: Exception) -> str:
    """Why the server could not be asked, and what to do about it."""
    exceptions = library.exceptions
    told = str(error) or type(error).__name__
    who = f"user {login.user}" if login.user else "the default user"
    causes = (
        (_says("WRONGPASS", "invalid username-password", "invalid password"), f"it refuses the password of {who}"),
        (
            _says("NOAUTH", "Authentication required", "HELLO must be called"),
            "it wants a password: set login_password (and login_user)",
        ),
        (_says("NOPERM", "no permissions"), f"its ACL does not let {who} do this"),
        (_says("CERTIFICATE_VERIFY_FAILED"), "its certificate is not trusted: set ca_certs, or the name it is for"),
        (_says("WRONG_VERSION_NUMBER", "record layer failure"), "it does not speak TLS on this port: set tls: false"),
        (_is(exceptions.BusyLoadingError), "it is still loading its data: try again when it has finished"),
        (_says("Connection refused"), "nothing listens there: is redis-server running, is the address right?"),
        (_says("No such file"), "there is no such socket: is redis-server running, is login_unix_socket right?"),
        (_says("Permission denied"), "this user may not use the socket: see unixsocketperm in the server's settings"),
        (_says("Name or service not known", "name resolution"), "its name has no address: is login_host right?"),
        (_is(exceptions.TimeoutError), f"it did not answer within {login.timeout:g} s: is it hanging, or filtered?"),
        (_says("Connection closed by server"), "it closed the connection: does it want TLS, or has it no room?"),
    )
    cause = next((cause for matches, cause in causes if matches(error, told)), "")
    return f"{login.url}: {cause} ({told})" if cause else f"{login.url}: {told}"


def _says(*words: str) -> Any:
    return lambda _error, told: any(word in told for word in words)


def _is(kind: type) -> Any:
    return lambda error, _told: isinstance(error, kind)


def _same_protocol(library: ModuleType) -> dict[str, int]:
    """RESP2 in every version: the newest speak RESP3 by default, and raw answers would differ between versions."""
    return {"protocol": 2} if int(library.__version__.split(".")[0]) >= 5 else {}


def _unix_options(login: Login) -> dict[str, Any]:
    return {"unix_socket_path": login.unix_socket}


def _tcp_options(login: Login) -> dict[str, Any]:
    options: dict[str, Any] = {"host": login.host, "port": login.port}
    if login.tls:
        options.update(
            ssl=True,
            ssl_cert_reqs="required" if login.validate_certs else "none",
            ssl_check_hostname=login.validate_certs,
            ssl_ca_certs=login.ca_certs or None,
            ssl_certfile=login.client_cert_file or None,
            ssl_keyfile=login.client_key_file or None,
        )
    return options
