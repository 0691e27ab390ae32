# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a message to its targets: a file of the recorder, or any service that Apprise knows."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load

#: Sends (title, body, status) to one URL; returns an empty text, or why it was not delivered.
Sender = Callable[[str, str, str, str], str]

_TYPES = {"ok": "success", "warning": "warning", "unknown": "warning", "critical": "failure"}


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
        with os.fdopen(descriptor, "a") as stream:
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
