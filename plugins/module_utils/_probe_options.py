# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes from the options of service_health, and what can be wrong with them before anything is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._probe import Probe
from ansible_collections.upkeep.ops.plugins.module_utils._probe_answer import parse_path, parse_ranges
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import sentinel_address

_TYPES = ["http", "https", "tcp", "tls", "redis", "firestore", "process", "command"]
#: Argument spec of the option probes; documented by service_health.
PROBES_OPTION: Mapping[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "name": {"type": "str", "required": True},
        "type": {"type": "str", "choices": _TYPES, "default": "http"},
        "critical": {"type": "bool", "default": True},
        "depends_on": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "float"},
        "attempts": {"type": "int", "default": 1},
        "interval": {"type": "float", "default": 1},
        "latency_warning_ms": {"type": "float"},
        "latency_critical_ms": {"type": "float"},
        "url": {"type": "str"},
        "method": {"type": "str", "default": "GET"},
        "headers": {"type": "dict", "default": {}},
        "secret_headers": {"type": "dict", "no_log": True},
        "body": {"type": "raw"},
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "auth_scheme": {"type": "str", "choices": ["basic", "digest"], "default": "basic"},
        "token": {"type": "str", "no_log": True},
        "status": {"type": "list", "elements": "str", "default": ["200-299"]},
        "regex": {"type": "str"},
        "json": {"type": "dict", "default": {}},
        "max_bytes": {"type": "int", "default": 65536},
        "follow_redirects": {"type": "bool", "default": True},
        "max_redirects": {"type": "int", "default": 5},
        "host": {"type": "str"},
        "port": {"type": "int"},
        "unix_socket": {"type": "path"},
        "sentinel_hosts": {"type": "list", "elements": "str"},
        "sentinel_master": {"type": "str", "default": "mymaster"},
        "sentinel_user": {"type": "str"},
        "sentinel_password": {"type": "str", "no_log": True},
        "ip_version": {"type": "str", "choices": ["any", "ipv4", "ipv6"], "default": "any"},
        "tls": {"type": "bool", "default": False},
        "server_name": {"type": "str"},
        "validate_certs": {"type": "bool", "default": True},
        "ca_certs": {"type": "path"},
        "client_cert_file": {"type": "path"},
        "client_key_file": {"type": "path", "no_log": False},
        "certificate_warning_days": {"type": "float"},
        "certificate_critical_days": {"type": "float"},
        "project": {"type": "str"},
        "database": {"type": "str", "default": "(default)"},
        "emulator_host": {"type": "str"},
        "service_account_file": {"type": "path"},
        "pid_file": {"type": "path"},
        "unit": {"type": "str"},
        "argv": {"type": "list", "elements": "str"},
        "rc": {"type": "list", "elements": "int", "default": [0]},
    },
    "required_if": [
        ("type", "http", ["url"]),
        ("type", "https", ["url"]),
        ("type", "tcp", ["host", "unix_socket"], True),
        ("type", "tls", ["host", "unix_socket"], True),
        ("type", "redis", ["host", "unix_socket", "sentinel_hosts"], True),
        ("type", "firestore", ["project"]),
        ("type", "process", ["pid_file", "unit"], True),
        ("type", "command", ["argv"]),
    ],
    "mutually_exclusive": [("pid_file", "unit"), ("token", "username"), ("host", "unix_socket")],
}


def probe_from_options(options: Mapping[str, Any], default_timeout: float) -> Probe:
    """The probe of one item of the module's option; what is None keeps its default."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) and name != "body" else value
        for name, value in options.items()
        if value is not None
    }
    return Probe(**{"timeout": default_timeout, **given})


def as_written(params: Mapping[str, Any]) -> dict[str, Any]:
    """The module's arguments with probes that name only what differs from the defaults.

    A thousand probes with forty options each would be most of the answer.
    """
    options = PROBES_OPTION["options"]
    probes = [
        {name: value for name, value in probe.items() if value != options[name].get("default")}
        for probe in params["probes"]
    ]
    return {**params, "probes": probes}


def problems(probes: Sequence[Probe]) -> list[str]:
    """What keeps these probes from being made, one sentence each; empty when nothing does."""
    found = [f"{probe.name}: {problem}" for probe in probes for problem in _problems_of(probe)]
    counts = Counter(probe.name for probe in probes)
    found += [f"{name}: {count} probes have this name" for name, count in counts.items() if count > 1]
    found += [
        f"{probe.name}: depends_on names {parent}, and there is no such probe"
        for probe in probes
        for parent in probe.depends_on
        if parent not in counts
    ]
    circle = find_circle({probe.name: probe.depends_on for probe in probes})
    return found + ([f"depends_on runs in a circle: {' -> '.join(circle)}"] if circle else [])


def find_circle(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Names along one circle of dependencies, the first again at its end; empty when there is none."""
    finished: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return []
        for parent in parents.get(name, ()):
            circle = walk(parent, [*path, name])
            if circle:
                return circle
        finished.add(name)
        return []

    return next((circle for name in parents if (circle := walk(name, []))), [])


def _problems_of(probe: Probe) -> Iterator[str]:
    if probe.timeout <= 0 or probe.interval < 0 or probe.attempts < 1 or probe.max_bytes < 1:
        yield "timeout, attempts and max_bytes must be above 0, interval must not be below"
    checks: list[tuple[Callable[[Any], Any], Any]] = [(parse_ranges, probe.status), (_check_regex, probe.regex)]
    checks += [(parse_path, path) for path in probe.json]
    checks += [(sentinel_address, address) for address in probe.sentinel_hosts]
    if probe.type in ("http", "https"):
        checks.append((_check_url, probe))
    for check, value in checks:
        try:
            check(value)
        except ValueError as error:
            yield str(error)


def _check_regex(regex: str) -> None:
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"regex {regex!r} is not valid: {error}") from None


def _check_url(probe: Probe) -> None:
    parts = urlsplit(probe.url)
    schemes = ("https",) if probe.type == "https" else ("http", "https")
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"url of a probe of type {probe.type} must begin with {' or '.join(schemes)}, then a host")
    if parts.username is not None:
        raise ValueError("url holds credentials, which would be shown: put them into username and password")
    _port = parts.port  # raises ValueError when it is none
