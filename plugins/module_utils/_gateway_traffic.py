# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which traffic the gateway lets through, as files that nginx looks at.

Below one folder lie *flags*, files whose mere presence closes a service or the whole platform without a reload, and
*upstreams*, which nginx includes and reads at a reload:

    flags/maintenance             everything answers 503
    flags/isolated-<service>      this service answers 503
    upstreams/<service>.conf      the servers behind the service, some of them marked down, or its fallback
    pages/unavailable.json        what is answered with 503
    server.conf                   to be included in nginx's server block
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, sync_folder, text_of

_MAINTENANCE = "maintenance"
_ISOLATED = "isolated-"
_HEADER = "# Written by upkeep.ops.gateway_traffic. Each change by hand is lost.\n"
_SERVER = re.compile(r"^\s*server\s+(\S+?)(\s+down)?;\s*$", re.MULTILINE)
_FALLBACK = "# fallback\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADDRESS = re.compile(r"(unix:[^\s;{}]+|\[[0-9A-Fa-f:]+\](:\d+)?|[A-Za-z0-9._-]+(:\d+)?)")
_READABLE = 0o644

_SERVER_CONF = """\
{header}# Include this file in the server block in front of the services.
set $upkeep_closed "";
set $upkeep_service "";
if ($uri ~ "{service_path}") {{ set $upkeep_service $1; }}
if (-f {folder}/flags/isolated-$upkeep_service) {{ set $upkeep_closed 1; }}
if (-f {folder}/flags/maintenance) {{ set $upkeep_closed 1; }}
if ($http_x_upkeep_rehearse) {{ set $upkeep_closed 1; }}
if ($uri ~ "{open_path}") {{ set $upkeep_closed ""; }}
{bypass}if ($upkeep_closed) {{ return 503; }}
error_page 503 @upkeep_unavailable;
location @upkeep_unavailable {{
    root {folder}/pages;
    default_type application/json;
    add_header Retry-After {retry_after} always;
    add_header Cache-Control no-store always;
    try_files /unavailable.json =503;
}}
"""
_BYPASS = 'if ($http_x_upkeep_bypass = "{token}") {{ set $upkeep_closed ""; }}\n'


class TrafficError(Exception):
    """What was asked of the gateway cannot be done; the text says why and what to do."""


@dataclass(frozen=True)
class Upstream:
    """The servers behind one service. ``down`` are those of them that get no requests."""

    servers: tuple[str, ...]
    down: frozenset[str] = frozenset()
    fallback: bool = False

    def text(self) -> str:
        """The file that nginx includes in the service's upstream block."""
        lines = [f"server {server}{' down' if server in self.down else ''};\n" for server in self.servers]
        return _HEADER + (_FALLBACK if self.fallback else "") + "".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        return {
            "servers": [{"address": server, "down": server in self.down} for server in self.servers],
            "fallback": self.fallback,
        }


@dataclass(frozen=True)
class Layout:
    """What :func:`install` writes. ``service_path`` finds the service in a path, ``open_path`` is never closed."""

    retry_after: int
    service_path: str
    open_path: str
    message: str
    bypass_token: str = ""


@dataclass
class Plan:
    """Files to write (None: to remove), by their path relative to the folder, and whether nginx must read them anew."""

    files: dict[str, str | None] = field(default_factory=dict)
    reload: bool = False


class Traffic:
    """The folder of flags and upstreams."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    # --- looking -----------------------------------------------------------------------------------------------------

    def maintenance(self) -> bool:
        return os.path.lexists(self._path(_flag(_MAINTENANCE)))

    def isolated(self) -> list[str]:
        """Services that are closed by a flag of their own."""
        with suppress(FileNotFoundError):
            names = os.listdir(self._path("flags"))
            return sorted(name[len(_ISOLATED) :] for name in names if name.startswith(_ISOLATED))
        return []

    def upstream(self, service: str) -> Upstream | None:
        """The servers behind a service as nginx reads them at its next reload; None when it has no such file."""
        text = text_of(self._path(_upstream(service)))
        if text is None:
            return None
        found = _SERVER.findall(text)
        down = frozenset(address for address, mark in found if mark)
        return Upstream(tuple(address for address, _mark in found), down, _FALLBACK in text)

    def state(self) -> dict[str, Any]:
        """All of it, as results carry it."""
        services = set(self.isolated())
        with suppress(FileNotFoundError):
            services |= {name[:-5] for name in os.listdir(self._path("upstreams")) if name.endswith(".conf")}
        return {
            "installed": os.path.exists(self._path("server.conf")),
            "maintenance": self.maintenance(),
            "services": {name: self._service(name) for name in sorted(services)},
        }

    def _service(self, name: str) -> dict[str, Any]:
        upstream = self.upstream(name)
        told = upstream.as_dict() if upstream else {"servers": [], "fallback": False}
        return {"isolated": name in self.isolated(), **told}

    # --- planning ----------------------------------------------------------------------------------------------------

    def install(self, layout: Layout, services: Mapping[str, Sequence[str]]) -> Plan:
        """The layout of the folder; upstreams that are there already keep which of their servers are down."""
        body = {"status": "unavailable", "message": layout.message, "retry_after": layout.retry_after}
        bypass = _BYPASS.format(token=_token(layout.bypass_token)) if layout.bypass_token else ""
        snippet = _SERVER_CONF.format(
            header=_HEADER,
            folder=self.folder,
            service_path=_quoted(layout.service_path),
            open_path=_quoted(layout.open_path),
            retry_after=layout.retry_after,
            bypass=bypass,
        )
        files = {"pages/unavailable.json": json.dumps(body) + "\n", "server.conf": snippet}
        files.update({_upstream(name): self._kept(name, servers).text() for name, servers in services.items()})
        return self._plan(files)

    def _kept(self, service: str, servers: Sequence[str]) -> Upstream:
        before = self.upstream(service)
        wanted = tuple(_address(server) for server in servers)
        if not wanted:
            raise TrafficError(f"the service {service} has no servers: name them in its backends")
        if before is None:
            return Upstream(wanted)
        return before if before.fallback else Upstream(wanted, before.down & set(wanted))

    def set_maintenance(self, on: bool) -> Plan:
        return self._plan({_flag(_MAINTENANCE): "" if on else None})

    def isolate(self, service: str) -> Plan:
        return self._plan({_flag(_ISOLATED + _name(service)): ""})

    def redirect(self, service: str, fallback: Sequence[str]) -> Plan:
        """All requests of a service go to other servers."""
        self._known(service)
        servers = tuple(_address(server) for server in fallback)
        if not servers:
            raise TrafficError(f"there is nobody to take the requests of {service}: name servers in fallback")
        return self._plan({_upstream(service): Upstream(servers, fallback=True).text()})

    def take_out(self, service: str, server: str) -> Plan:
        """One server of a service gets no more requests. Raises TrafficError when it is the last one that does."""
        upstream = self._known(service)
        if upstream.fallback:
            raise TrafficError(f"the requests of {service} go to its fallback: open the service first")
        if server not in upstream.servers:
            raise TrafficError(f"{service} has no server {server}: it has {', '.join(upstream.servers)}")
        down = upstream.down | {server}
        if down == set(upstream.servers):
            raise TrafficError(f"{server} is the last server that {service} has: isolate the service instead")
        return self._plan({_upstream(service): Upstream(upstream.servers, down).text()})

    def put_back(self, service: str, server: str) -> Plan:
        upstream = self._known(service)
        if server not in upstream.servers:
            raise TrafficError(f"{service} has no server {server}: it has {', '.join(upstream.servers)}")
        return self._plan({_upstream(service): Upstream(upstream.servers, upstream.down - {server}).text()})

    def open(self, service: str, servers: Sequence[str], keep_out: Sequence[str] = ()) -> Plan:
        """A service is served by all its servers again, or by all but some that are kept out.

        ``servers`` is needed only to come back from a fallback. Raises TrafficError when none would be left.
        """
        files: dict[str, str | None] = {_flag(_ISOLATED + _name(service)): None}
        upstream = self.upstream(service)
        if upstream is not None:
            regular = tuple(_address(server) for server in servers) or (() if upstream.fallback else upstream.servers)
            if not regular:
                raise TrafficError(f"{service} comes back from its fallback: name its regular servers")
            if set(regular) <= set(keep_out):
                raise TrafficError(f"no server of {service} would be left: it stays closed")
            files[_upstream(service)] = Upstream(regular, frozenset(keep_out)).text()
        return self._plan(files)

    def _known(self, service: str) -> Upstream:
        upstream = self.upstream(_name(service))
        if upstream is None:
            raise TrafficError(
                f"the gateway knows no servers of {service}: there is no {self._path(_upstream(service))}; "
                "install the traffic files with its backends, and include that one in its upstream block"
            )
        return upstream

    def _plan(self, wanted: Mapping[str, str | None]) -> Plan:
        """Only what differs from what is there. Flags need no reload."""
        files = {name: text for name, text in wanted.items() if text_of(self._path(name)) != text}
        return Plan(files, any(name.startswith("upstreams/") or name == "server.conf" for name in files))

    # --- doing -------------------------------------------------------------------------------------------------------

    def write(self, files: Mapping[str, str | None]) -> dict[str, str | None]:
        """Write or remove files, each whole or not at all; what they held before, to be written back."""
        before = {name: text_of(self._path(name)) for name in files}
        for name, text in files.items():
            path = self._path(name)
            if text is not None:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                # The workers, who look, are another user than the master, who reads.
                publish_text(path, text, 0o600 if name == "server.conf" else _READABLE)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    sync_folder(os.path.dirname(path))
        return before

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _flag(name: str) -> str:
    return f"flags/{name}"


def _upstream(service: str) -> str:
    return f"upstreams/{_name(service)}.conf"


def _name(service: str) -> str:
    if not _NAME.fullmatch(service):
        raise TrafficError(f"{service!r} is no name of a service")
    return service


def _address(server: str) -> str:
    if not _ADDRESS.fullmatch(server):
        raise TrafficError(f"{server!r} is no address such as app1:8081, [::1]:8081 or unix:/run/auth.sock")
    return server


def _quoted(pattern: str) -> str:
    if '"' in pattern or "\n" in pattern:
        raise TrafficError(f"the pattern {pattern!r} may hold no quotation marks and no line breaks")
    return pattern


def _token(token: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise TrafficError("bypass_token must be at least 16 letters, digits, - or _")
    return token
