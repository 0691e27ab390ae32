# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container of Docker made anew of another image, with all its settings; the one before is kept beside it, stopped.

The Engine is asked over its socket, because the command line cannot say again all that a container was made with. The
new one is made as ``<name>.next``; then the old one is stopped and becomes ``<name>.before``, and the new one gets the
name. Whoever is killed in between leaves one of these names, by which the next call puts it right.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._programs import ProgramError, Runner

NEXT = ".next"
BEFORE = ".before"
_TIMEOUT = 60.0
#: Settings that a container has of its image unless it was made with others.
_OF_IMAGE = ("Cmd", "Entrypoint", "WorkingDir", "User", "Healthcheck", "StopSignal", "Shell", "OnBuild")
#: Of how it is tied to a network, what was asked for; the rest is what Docker made of it.
_OF_NETWORK = ("IPAMConfig", "Links", "DriverOpts", "GwPriority")


class ContainerError(Exception):
    """The container cannot be made anew; the text says why and what to do."""


class Engine:
    """The daemon, asked over the socket that the command line uses too."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._socket = ""

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float = _TIMEOUT) -> Any:
        """What the daemon answers, None when it has nothing to say. Raises ContainerError."""
        status, text = self._exchange(method, path, body, timeout)
        if status >= 400:
            raise ContainerError(f"Docker refuses {method} {path.split('?')[0]}: {_complaint(text)}")
        return json.loads(text) if text.strip() else None

    def inspect(self, name: str) -> dict[str, Any] | None:
        """All that is known of a container; None when there is none of this name. Raises ContainerError."""
        status, text = self._exchange("GET", f"/containers/{quote(name)}/json", None, _TIMEOUT)
        if status == 404:
            return None
        if status >= 400:
            raise ContainerError(f"Docker does not tell of container {name}: {_complaint(text)}")
        found: dict[str, Any] = json.loads(text)
        return found

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> tuple[int, str]:
        connection = self._connection(timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise ContainerError(f"the Docker daemon did not answer {method} {path.split('?')[0]}: {error}") from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        self._socket = self._socket or self._found_socket()
        return _SocketConnection(self._socket, timeout)

    def _found_socket(self) -> str:
        try:
            ended = self._run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], _TIMEOUT)
        except ProgramError as error:
            raise ContainerError(str(error)) from error
        if ended.rc != 0:
            raise ContainerError(f"docker context inspect failed: {ended.complaint}")
        url = urlsplit(ended.stdout.strip())
        if url.scheme != "unix":
            raise ContainerError(f"the Docker daemon at {url.geturl()} is not on this host: run this where it is")
        return url.path


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket of this host."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _complaint(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200] or "it does not say why"


class Renewal:
    """A container on its way to another image."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def image(self) -> dict[str, str]:
        """Name and id of the image that it was made of. Raises ContainerError when there is no container."""
        found = self._engine.inspect(self._name) or self._engine.inspect(self._before) or self._missing()
        return {"name": str(found["Config"]["Image"]), "id": str(found["Image"])}

    def demand(self) -> None:
        """Raises ContainerError unless it can be made anew."""
        container = self._engine.inspect(self._name) or self._engine.inspect(self._before) or self._missing()
        if container["HostConfig"].get("AutoRemove"):
            raise ContainerError(f"container {self._name} removes itself when it stops (--rm), so there would be no "
                                 "way back: let whoever made it make it of the image before")  # fmt: skip
        users = [
            other for other in self._engine.ask("GET", "/containers/json?all=1") if self._is_used(other, container)
        ]
        if users:
            names = ", ".join(sorted(other["Names"][0].lstrip("/") for other in users))
            raise ContainerError(f"{names} lives in the network of container {self._name} and would lose it: "
                                 "let whoever made both make them anew")  # fmt: skip

    def renew(self, image: str) -> None:
        """Make it anew of this image, started when the old one ran. Raises ContainerError; then the old one is back."""
        self._put_right()
        old = self._engine.inspect(self._name) or self._missing()
        made_of = self._engine.ask("GET", f"/images/{quote(str(old['Image']), safe='')}/json")["Config"] or {}
        body, more = settings(old, made_of, image)
        self._engine.ask("POST", f"/containers/create?{urlencode({'name': self._next})}", body)
        try:
            for network, endpoint in more.items():
                wanted = {"Container": self._next, "EndpointConfig": endpoint}
                self._engine.ask("POST", f"/networks/{quote(network, safe='')}/connect", wanted)
            self._stop(old)
            self._turn(old)
        except ContainerError:
            self._put_right()
            self._resume(old)
            raise

    def _turn(self, old: Mapping[str, Any]) -> None:
        """The old one gives its name to the new one. A policy of ``always`` would start it with the daemon."""
        self._update(self._name, {"Name": "no"})
        if self._engine.inspect(self._before):
            self._remove(self._before)
        self._rename(self._name, self._before)
        self._rename(self._next, self._name)
        if not old["State"]["Running"]:
            return
        try:
            self._engine.ask("POST", f"/containers/{quote(self._name)}/start")
        except ContainerError:
            self._rename(self._name, self._next)
            raise

    def _put_right(self) -> None:
        """Undo what was begun: the name is the old one's again, with its policy, and nothing else is left."""
        new = self._engine.inspect(self._next)
        if not self._engine.inspect(self._name):
            if not self._engine.inspect(self._before):
                self._missing()
            self._rename(self._before, self._name)
        if new:
            self._update(self._name, new["HostConfig"]["RestartPolicy"])
            self._remove(self._next)

    def _resume(self, old: Mapping[str, Any]) -> None:
        if old["State"]["Running"]:
            self._engine.ask("POST", f"/containers/{quote(self._name)}/start")

    def _stop(self, old: Mapping[str, Any]) -> None:
        # Docker waits as long as the container says, and kills it then.
        patience = old["Config"].get("StopTimeout") or 10
        self._engine.ask("POST", f"/containers/{quote(self._name)}/stop", timeout=_TIMEOUT + max(0, patience))

    def _update(self, name: str, policy: Mapping[str, Any]) -> None:
        self._engine.ask("POST", f"/containers/{quote(name)}/update", {"RestartPolicy": policy})

    def _rename(self, name: str, to: str) -> None:
        self._engine.ask("POST", f"/containers/{quote(name)}/rename?{urlencode({'name': to})}")

    def _remove(self, name: str) -> None:
        # Its volumes stay.
        self._engine.ask("DELETE", f"/containers/{quote(name)}?force=1")

    def _is_used(self, other: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
        mode = str((other.get("HostConfig") or {}).get("NetworkMode") or "")
        return mode in (f"container:{container['Id']}", f"container:{self._name}")

    def _missing(self) -> dict[str, Any]:
        raise ContainerError(f"there is no container {self._name}")

    @property
    def _next(self) -> str:
        return self._name + NEXT

    @property
    def _before(self) -> str:
        return self._name + BEFORE


def settings(
    old: Mapping[str, Any], image: Mapping[str, Any], wanted: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What a container is made anew with, of the image ``wanted``, and the further networks it is tied to.

    ``image`` is the configuration of the image that the old one was made of: what the container has of it is left to
    the image that is wanted.
    """
    config = {**old["Config"], "Image": wanted}
    for name in _OF_IMAGE:
        if config.get(name) == image.get(name):
            config.pop(name, None)
    if "Entrypoint" in config and "Cmd" not in config:
        config["Cmd"] = old["Config"].get("Cmd")  # an entrypoint of its own resets the command of the image
    config["Env"] = [entry for entry in config.get("Env") or [] if entry not in (image.get("Env") or [])]
    for name in ("Labels", "ExposedPorts", "Volumes"):
        given = image.get(name) or {}
        config[name] = {key: value for key, value in (config.get(name) or {}).items() if given.get(key, ...) != value}
    if config.get("Hostname") == old["Id"][:12]:
        del config["Hostname"]
    host = {**old["HostConfig"]}
    volumes = _anonymous(old)
    host["Mounts"] = [_with_volume(mount, volumes) for mount in host.get("Mounts") or []]
    host["Binds"] = [
        *(host.get("Binds") or []),
        *(f"{name}:{target}{mode}" for target, (name, mode) in volumes.items()),
    ]
    first, others = _networks(old)
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}}, others


def _anonymous(old: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The volumes that Docker made without being told a name, and their mode, by place: new ones would be empty."""
    host = old["HostConfig"]
    named = {entry.split(":")[1] for entry in host.get("Binds") or [] if ":" in entry}
    named |= {str(mount["Target"]) for mount in host.get("Mounts") or [] if mount.get("Source")}
    return {
        str(mount["Destination"]): (str(mount["Name"]), "" if mount["RW"] else ":ro")
        for mount in old["Mounts"]
        if mount["Type"] == "volume" and mount["Destination"] not in named
    }


def _with_volume(mount: Mapping[str, Any], volumes: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A mount with the volume that Docker made for it, which is taken out of ``volumes``."""
    if mount.get("Type") == "volume" and mount["Target"] in volumes:
        return {**mount, "Source": volumes.pop(mount["Target"])[0]}
    return dict(mount)


def _networks(old: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """How it is tied to the network that it was made in, and to the others; a daemon takes only one at first."""
    mode = str(old["HostConfig"].get("NetworkMode") or "default")
    if mode in ("host", "none") or mode.startswith("container:"):
        return {}, {}
    tied = {}
    for name, endpoint in old["NetworkSettings"]["Networks"].items():
        tied[name] = {key: endpoint[key] for key in _OF_NETWORK if endpoint.get(key)}
        aliases = [alias for alias in endpoint.get("Aliases") or [] if alias != old["Id"][:12]]
        if aliases:
            tied[name]["Aliases"] = aliases
    first = "bridge" if mode == "default" else mode
    return {first: tied.pop(first)} if first in tied else {}, tied
