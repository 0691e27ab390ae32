# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a message to its targets: a file of the recorder, or any service that Apprise knows."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._alerts import Contact
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder

_TYPES = {"ok": "success", "warning": "warning", "unknown": "warning", "critical": "failure"}


def deliver(contact: Contact, title: str, body: str, status: str) -> list[dict[str, Any]]:
    """Bring a message to all targets of a contact; each attempt is told."""
    deliveries = []
    for url in contact.urls:
        try:
            error = send(url, title, body, status)
        except MissingDependencyError as missing:
            error = str(missing)
        deliveries.append({"contact": contact.name, "target": masked(url), "delivered": not error, "error": error})
    return deliveries


def tell(contact: Contact, title: str, body: str) -> str:
    """Tell one contact something that is no alert; returns an empty text once a target took it, or why none did."""
    attempts = deliver(contact, title, body, "ok")
    if any(item["delivered"] for item in attempts):
        return ""
    return "; ".join(f"{item['target']}: {item['error']}" for item in attempts) or "it has no urls"


def judge(
    contacts: list[Contact], run: dict[str, Any], deliveries: list[dict[str, Any]], now: datetime
) -> list[Finding]:
    """What is wrong with the alerting itself."""
    found = FindingsBuilder(now)
    if not contacts and run["status"] != "ok":
        hint = "Give the contacts of the catalogue (upkeep_contacts) their urls"
        found.add("alert_routing", "contacts", "warning", "nobody is told: no contact has a target", hint=hint)
    for name in dict.fromkeys(contact.twin_of for contact in contacts if contact.twin_of):
        hint = "Give each contact a name of its own, or one contact all the urls"
        found.add("alert_routing", name, "warning", "several contacts have this name", hint=hint)
    for name in dict.fromkeys(delivery["contact"] for delivery in deliveries):
        own = [delivery for delivery in deliveries if delivery["contact"] == name]
        failed = [delivery for delivery in own if not delivery["delivered"]]
        if failed:
            status = "critical" if len(failed) == len(own) else "warning"
            told = "; ".join(f"{delivery['target']}: {delivery['error']}" for delivery in failed)
            hint = "Mend the target; the same is told again by the next run"
            found.add("alert_delivery", name, status, f"not delivered to {told}", hint=hint)
    return found.findings


def send(url: str, title: str, body: str, status: str) -> str:
    """Deliver one message to one URL; returns an empty text, or the reason why it did not arrive."""
    if url.startswith("file:"):
        return _append(unquote(urlsplit(url).path), title, body)
    return _send_by_apprise(url, title, body, status)


def masked(url: str) -> str:
    """The target as it may be shown: scheme and host (or the file), no credential, token or query.

    Not written as a URL: Ansible would blank it out as a part of the secret that it came from.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file {unquote(parts.path)}"
    return f"{parts.scheme} at {parts.hostname or 'unnamed host'}"


def _append(path: str, title: str, body: str) -> str:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(f"{title}\n{body}\n\n")
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    return ""


def _send_by_apprise(url: str, title: str, body: str, status: str) -> str:
    apprise = load("apprise")
    messenger = apprise.Apprise()
    if not messenger.add(url):
        return "Apprise does not know this kind of URL or misses a part of it"
    with apprise.LogCapture(level=logging.WARNING) as log:
        delivered = messenger.notify(title=title, body=body, notify_type=_TYPES[status])
        said = " ".join(log.getvalue().split())
    if delivered:
        return ""
    return _without_secrets(said, url)[-300:] or "the service did not accept it"


def _without_secrets(text: str, url: str) -> str:
    """What Apprise logs may quote the URL or a token from its path: neither is passed on."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secrets = [parts.username, parts.password, *parts.path.split("/"), *parts.query.split("&")]
    text = text.replace(url, masked(url))
    for secret in secrets:
        if secret and len(secret) > 3 and secret != host:
            text = text.replace(secret, "...").replace(unquote(secret), "...")
    return text
