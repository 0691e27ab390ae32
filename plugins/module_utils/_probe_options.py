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


def probe_from_options(options: Mapping[str, Any], default_timeout: float) -> Probe:
    """The probe of one item of the module's option; what is None keeps its default."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) and name != "body" else value
        for name, value in options.items()
        if value is not None
    }
    return Probe(**{"timeout": default_timeout, **given})


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
    _ = parts.port  # raises ValueError when it is none
