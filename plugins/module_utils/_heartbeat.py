# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs of life for a dead man's switch: a service that raises the alarm when it hears nothing.

The address of a switch is a secret, because whoever knows it can feign life. No text that leaves this file holds more
of it than its scheme and host.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import masked
from ansible_collections.upkeep.ops.plugins.module_utils._deadline import Deadline, DeadlineExceededError, call_within

#: What follows the base URL for each signal, as healthchecks.io and its likes have it.
_SUFFIXES = {"start": "/start", "success": "", "failure": "/fail"}
_PAUSE = 1.0  # seconds before the second try; each further pause is twice as long
_LONGEST_ANSWER = 200


class HeartbeatError(Exception):
    """The sign did not arrive; the text says where it should have and why it did not."""


class _TryAgainError(HeartbeatError):
    """It may arrive a moment later."""


@dataclass(frozen=True)
class Patience:
    """``timeout`` seconds for each try, so many ``tries``, and how to wait between them."""

    timeout: float
    tries: int
    sleep: Callable[[float], None]


def address(signal: str, base: str, addresses: Mapping[str, str]) -> str:
    """The URL of a signal: one of its own, else made of the base URL; empty when there is none.

    Raises HeartbeatError when it is no URL.
    """
    own = addresses.get(signal) or ""
    url = own or (_extended(base, _SUFFIXES[signal]) if base else "")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise HeartbeatError(f"the address for {signal} is no URL such as https://hc-ping.com/<uuid>")
    return url


def send(url: str, patience: Patience, ca_certs: str = "") -> int:
    """Send one sign; how many tries it took. Raises HeartbeatError."""
    pause = _PAUSE
    for number in range(1, patience.tries + 1):
        try:
            _ask(url, patience.timeout, ca_certs)
            return number
        except _TryAgainError as error:
            if number == patience.tries:
                tries = "" if number == 1 else f" ({number} tries)"
                raise HeartbeatError(f"{error}{tries}") from error
        patience.sleep(pause)
        pause *= 2
    raise HeartbeatError("no try was allowed")


def _extended(base: str, suffix: str) -> str:
    """The base with a suffix to its path: a query, as of a slug that is made on demand, stays behind it."""
    parts = urlsplit(base)
    return parts._replace(path=parts.path.rstrip("/") + suffix).geturl()


def _ask(url: str, timeout: float, ca_certs: str) -> None:
    where = masked(url)
    try:
        answer = call_within(Deadline(timeout), lambda: _get(url, timeout, ca_certs))
    except DeadlineExceededError:
        raise _TryAgainError(f"{where} did not answer within {timeout:g} s") from None
    except urllib.error.HTTPError as error:
        kind = _TryAgainError if error.code >= 500 or error.code == 429 else HeartbeatError
        raise kind(f"{where} answered with status {error.code}{_meaning(error.code)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _TryAgainError(f"{where} could not be reached: {_reason(error)}") from None
    # The services answer 200 for what they do not know, and say so in the body.
    if answer.startswith("OK ("):
        raise HeartbeatError(f"{where} answered {answer!r}: is the address of the switch right?")


def _get(url: str, timeout: float, ca_certs: str) -> str:
    context = ssl.create_default_context(cafile=ca_certs or None)
    request = urllib.request.Request(url, headers={"User-Agent": "upkeep.ops"})
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=timeout) as answer:
        return str(answer.read(_LONGEST_ANSWER).decode(errors="replace")).strip()


def _meaning(status: int) -> str:
    return ": it does not know this address" if status in (404, 410) else ""


def _reason(error: Exception) -> str:
    """The cause without the address, which some errors quote."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return type(cause).__name__
