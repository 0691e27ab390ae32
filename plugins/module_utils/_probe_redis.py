# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of Redis, also where only Sentinel knows which server is the master.

The few commands are written here: so no library is needed, and the deadline holds for each byte.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import Deadline, DeadlineExceededError
from ansible_collections.upkeep.ops.plugins.module_utils._probe import (
    NotMeasurableError,
    Probe,
    ProbeFailedError,
    Prober,
    Trace,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import Connector, at, endpoint_of
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import sentinel_address

_REDIS_PORT = 6379
_LONGEST_REPLY = 512

#: Redis' words for "I am there, but not for you, or not now", with what to do about it.
_REDIS_NOT_READY = {
    "NOAUTH": "Give the probe the password of the server",
    "WRONGPASS": "Correct the username and password that the probe has, such as those in upkeep_redis",
    "NOPERM": "Allow the user the command PING",
    "LOADING": "Wait until the data set is loaded, and find out why the server was restarted",
    "MASTERDOWN": "Look at the replication link of the server",
    "MISCONF": "Look at the disk and the log of the server: it cannot write its snapshots",
    "BUSY": "Find the script that runs too long",
}


def redis_prober(connector: Connector) -> Prober:
    """The prober of type redis: AUTH, when there is a password, and PING."""

    def probe_redis(probe: Probe, trace: Trace) -> str:
        if not probe.sentinel_hosts:
            _ping(connector, probe, trace)
            return "answered PONG"
        master, sentinel = _find_master(connector, probe, trace)
        _ping(connector, master, trace)
        return f"answered PONG as the master {at(master.host, master.port or _REDIS_PORT)} of Sentinel {sentinel}"

    return probe_redis


def _ping(connector: Connector, probe: Probe, trace: Trace) -> None:
    with closing(connector.open(endpoint_of(probe, default_port=_REDIS_PORT), trace)) as stream:
        try:
            if probe.password:
                _command(stream, *_authentication(probe.username, probe.password))
            _command(stream, "PING")
        except OSError as error:
            if trace.deadline.expired or isinstance(error, socket.timeout):
                raise DeadlineExceededError from error
            raise ProbeFailedError(
                f"{trace.address} closed the connection: {error}", "Look at the log and maxclients of the server"
            ) from error


class _Share(Deadline):
    """A part of the time that is left. What waits longer than the whole is broken off by that."""

    def __init__(self, whole: Deadline, shares: int) -> None:
        super().__init__(whole.remaining() / shares)
        self._whole = whole

    def guard(self, break_off: Callable[[], Any]) -> None:
        """As the whole deadline does, whose end a watchdog sees."""
        self._whole.guard(break_off)


def _find_master(connector: Connector, probe: Probe, trace: Trace) -> tuple[Probe, str]:
    """The probe of the master, and the Sentinel that told where it is. Each may take its share of the time."""
    problems = []
    for position, sentinel in enumerate(probe.sentinel_hosts):
        share = Trace(_Share(trace.deadline, len(probe.sentinel_hosts) - position + 1))
        try:
            host, port = _ask(connector, probe, sentinel, share)
        except NotMeasurableError:
            raise
        except (DeadlineExceededError, socket.timeout):
            trace.deadline.remaining()
            problems.append(f"{sentinel} does not answer")
        except (OSError, ProbeFailedError) as error:
            trace.deadline.remaining()
            problems.append(str(error) if sentinel in str(error) else f"{sentinel}: {error}")
        else:
            return replace(probe, host=host, port=port, unix_socket=""), sentinel
    raise ProbeFailedError(
        f"no Sentinel tells where the master {probe.sentinel_master!r} is: {'; '.join(problems)}",
        "Look at the Sentinels, and at sentinel_hosts, sentinel_master and sentinel_password of the probe",
    )


def _ask(connector: Connector, probe: Probe, sentinel: str, trace: Trace) -> tuple[str, int]:
    host, port = sentinel_address(sentinel)
    with closing(connector.open(endpoint_of(replace(probe, host=host, port=port, unix_socket="")), trace)) as stream:
        if probe.sentinel_password:
            _command(stream, *_authentication(probe.sentinel_user, probe.sentinel_password))
        _send(stream, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", probe.sentinel_master)
        told = _receive(stream, lambda reply: reply.count("\r\n") >= (5 if reply.startswith("*2") else 1))
    lines = told.split("\r\n")
    if lines[0] == "*2" and len(lines) > 4 and lines[4].isdigit():
        return lines[2], int(lines[4])
    if lines[0] in ("*-1", "$-1", "_"):
        raise ProbeFailedError("it knows no such master")
    if "unknown command" in lines[0] or not told.startswith("-"):
        raise ProbeFailedError("it is no Sentinel but another server")
    raise ProbeFailedError(lines[0][1:])


def _authentication(user: str, password: str) -> tuple[str, ...]:
    return ("AUTH", user, password) if user else ("AUTH", password)


def _command(stream: socket.socket, *words: str) -> None:
    """Send a command and read its answer of one line. Raises ProbeFailedError when it is an error."""
    _send(stream, *words)
    text = _receive(stream, lambda reply: reply.endswith("\r\n")).strip()
    if text.startswith("-"):
        raise ProbeFailedError(f"alive, but not ready: {text[1:]}", _REDIS_NOT_READY.get(text[1:].split(" ")[0], ""))
    if not text.startswith("+"):
        raise ProbeFailedError(f"does not speak the protocol of Redis: {text[:60]!r}", "Check the port of the probe")


def _send(stream: socket.socket, *words: str) -> None:
    encoded = [word.encode() for word in words]
    stream.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))


def _receive(stream: socket.socket, whole: Callable[[str], bool]) -> str:
    """What comes until it is whole, too long, or the end."""
    reply = b""
    while not whole(reply.decode("utf-8", "replace")) and len(reply) < _LONGEST_REPLY:
        piece = stream.recv(_LONGEST_REPLY - len(reply))
        if not piece:
            break
        reply += piece
    if not reply:
        raise ConnectionResetError("it ended before the answer")
    return reply.decode("utf-8", "replace")
