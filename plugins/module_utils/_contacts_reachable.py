# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether contacts can be reached, without sending them anything: addresses, domains, hosts and files."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import masked
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder, worst

_RESOLV_CONF = "/etc/resolv.conf"
_MX = 15
#: Attributes in which the classes of Apprise keep the address of a service that has one for everybody.
_ADDRESSES = ("notify_url", "webhook_url", "api_url", "service_url")


def judge_contacts(
    found: FindingsBuilder, contacts: Sequence[Mapping[str, Any]], timeout: float, resolvers: Sequence[str]
) -> None:
    """One finding for each contact: ok when its mail address and each of its targets can be reached."""
    domains: dict[str, tuple[str, str]] = {}
    for contact in contacts:
        told = []
        email = str(contact.get("email") or "")
        if email:
            domain = email.rpartition("@")[2] if email.count("@") == 1 else ""
            if domain not in domains:
                domains[domain] = mail_domain(domain, timeout, resolvers)
            told.append((email, *domains[domain]))
        told += [(masked(url), *target(url, timeout)) for url in contact.get("urls") or []]
        _judge(found, str(contact["name"]), told)


def _judge(found: FindingsBuilder, name: str, told: Sequence[tuple[str, str, str]]) -> None:
    if not told:
        hint = "Give it an email or urls in upkeep_contacts"
        found.add("contact_reachable", name, "warning", "it has no address at all", hint=hint)
        return
    status = worst(item[1] for item in told)
    bad = [f"{address}: {why}" for address, verdict, why in told if verdict != "ok"]
    summary = "; ".join(bad) or f"reachable by {', '.join(item[0] for item in told)}"
    hint = "Correct the address in upkeep_contacts, or mend the way to it" if bad else ""
    found.add("contact_reachable", name, status, summary, hint=hint)


def target(url: str, timeout: float) -> tuple[str, str]:
    """Whether an alert to this URL could arrive, as status and reason."""
    if url.startswith("file:"):
        return writable(unquote(urlsplit(url).path))
    try:
        plugin = load("apprise").Apprise.instantiate(url)
    except MissingDependencyError as missing:
        return "unknown", str(missing)
    if not plugin:
        return "critical", "Apprise does not know this kind of URL or misses a part of it"
    host, port = address_of(plugin)
    if not host:
        return "ok", "it is on this host"
    return answers(*_by_proxy(host, port), timeout)


def address_of(plugin: Any) -> tuple[str, int]:
    """Host and port to which Apprise would connect; an empty host when it stays on this one."""
    if getattr(plugin, "smtp_host", None):
        return str(plugin.smtp_host), int(plugin.port or (465 if plugin.secure else 25))
    named = any("{host}" in str(template) for template in getattr(plugin, "templates", ()))
    addresses = [str(getattr(plugin, name, None) or "") for name in _ADDRESSES]
    fixed = [address for address in addresses if address.startswith("http")]
    if plugin.host and named and str(getattr(plugin, "mode", "")) != "cloud":
        return str(plugin.host), int(plugin.port or (443 if plugin.secure else 80))
    if plugin.host and fixed:
        parts = urlsplit(fixed[0])
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return str(plugin.host or ""), int(plugin.port or 443)


def _by_proxy(host: str, port: int) -> tuple[str, int]:
    """Where the connection goes to: to the proxy for what the environment sends through one."""
    proxy = getproxies().get({443: "https", 80: "http"}.get(port, ""), "")
    if not proxy or proxy_bypass(host):
        return host, port
    parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or host, parts.port or 3128


def answers(host: str, port: int, timeout: float) -> tuple[str, str]:
    """Whether somebody listens there."""
    try:
        with closing(socket.create_connection((host, port), timeout)):
            return "ok", ""
    except OSError as error:
        why = "no answer in time" if isinstance(error, (socket.timeout, TimeoutError)) else error.strerror or str(error)
        return "critical", f"{host} does not answer on port {port}: {why}"


def writable(path: str) -> tuple[str, str]:
    """Whether a file can be appended to, or made with the folders above it."""
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    right = os.W_OK if os.path.isfile(existing) else os.W_OK | os.X_OK
    if os.path.isdir(path):
        return "critical", f"{path} is a folder"
    if existing != path and not os.path.isdir(existing):
        return "critical", f"{existing} is no folder"
    read_only = bool(os.statvfs(existing).f_flag & os.ST_RDONLY) or existing.startswith("/proc")
    if not os.access(existing, right) or read_only:
        return "critical", f"{existing} cannot be written"
    return "ok", ""


# --- mail domains ----------------------------------------------------------------------------------------------------


def mail_domain(domain: str, timeout: float, resolvers: Sequence[str]) -> tuple[str, str]:
    """Whether mail for a domain has somewhere to go: an MX record, or else an address of the domain itself.

    ``resolvers`` are name servers as ``address`` or ``address:port``; those of this host when none are given.
    """
    if not domain:
        return "critical", "it is no mail address"
    silent = ""
    for server in resolvers or _resolvers():
        try:
            if _has_mx(domain, server, timeout):
                return "ok", ""
            silent = ""
            break
        except OSError as error:
            silent = str(error) or "no answer in time"
    try:
        socket.getaddrinfo(domain, 25)
    except OSError as error:
        if silent or getattr(error, "errno", 0) == socket.EAI_AGAIN:
            return "unknown", f"whether {domain} exists could not be asked: {silent or error.strerror}"
        return "critical", f"{domain} has no mail server and no address"
    return "ok", ""


def _resolvers() -> list[str]:
    try:
        with open(_RESOLV_CONF, encoding="utf-8") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _has_mx(domain: str, server: str, timeout: float) -> bool:
    """Whether a name server tells an MX record other than the one that means "no mail" (RFC 7505)."""
    host, port = server.rsplit(":", 1) if server.count(":") == 1 else (server, "53")
    labels = domain.encode("idna").rstrip(b".").split(b".")
    question = b"".join(bytes([len(label)]) + label for label in labels) + struct.pack("!BHH", 0, _MX, 1)
    number = secrets.randbelow(65536)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as link:
        link.settimeout(timeout)
        link.connect((host, int(port)))
        link.send(struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
        answer = link.recv(4096)
    if len(answer) < 12 or struct.unpack("!H", answer[:2])[0] != number:
        raise OSError(f"the name server {server} gives answers that make no sense")
    code, records = answer[3] & 15, struct.unpack("!H", answer[6:8])[0]
    if code not in (0, 3):
        raise OSError(f"the name server {server} answers with error {code}")
    # One record with an empty name ends with the preference 0 and the root.
    return records > 0 and not (records == 1 and answer.endswith(struct.pack("!HHB", 3, 0, 0)))
