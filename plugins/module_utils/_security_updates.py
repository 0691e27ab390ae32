# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security updates that wait to be installed, as APT or DNF know them from the lists they have."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._programs import ProgramError, Runner
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: ``name/suite,suite available architecture [upgradable from: installed]``
_UPGRADABLE = re.compile(r"^([^/\s]+)/(\S+) (\S+) \S+ \[upgradable from: (\S+)\]$")
_SECURITY_SUITE = re.compile(r"(?:^|,)[^,]*-security(?=,|$)")
#: ``RHSA-2026:1234 Important/Sec. openssl-1:3.0.7-28.el9_4.x86_64``
_ADVISORY = re.compile(r"^(\S+)\s+\S*/?Sec\.\s+(\S+)$")
_DNF_PACKAGE = re.compile(r"^(.+)-([^-]+-[^-]+)\.[^.]+$")
#: What ``apt-get update`` touches even when no list has changed.
_APT_STAMPS = ("periodic/update-success-stamp", "lists/partial", "lists")


@dataclass(frozen=True)
class Update:
    """A package with a security update; ``installed`` is empty when it is new or not known."""

    package: str
    installed: str
    available: str


class UpdatesError(Exception):
    """Which updates wait is not known; the text says why, the hint what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_apt(output: str) -> list[Update]:
    """Security updates in the output of ``apt list --upgradable``.

    That list, and not a simulated upgrade, because it needs a sixth of the time: nothing has to be resolved. Packages
    that are held back are in it as well; their holes are open all the same.
    """
    matches = [_UPGRADABLE.match(line.strip()) for line in output.splitlines()]
    return [
        Update(match.group(1), match.group(4), match.group(3))
        for match in matches
        if match and _SECURITY_SUITE.search(match.group(2))
    ]


def parse_dnf(output: str) -> list[Update]:
    """Security updates in the output of ``dnf updateinfo list --security``; each package once."""
    found: dict[str, Update] = {}
    for line in output.splitlines():
        match = _ADVISORY.match(line.strip())
        package = _DNF_PACKAGE.match(match.group(2)) if match else None
        if package:
            found[package.group(1)] = Update(package.group(1), "", package.group(2))
    return sorted(found.values(), key=lambda update: update.package)


def pending_apt(run: Runner, timeout: float, now: datetime, max_age: float, var: str = "/var/lib/apt") -> list[Update]:
    """What APT would upgrade for security's sake. ``max_age`` of its lists is in seconds. Raises UpdatesError."""
    refresh = "Run 'apt-get update' on this host"
    names = _names(os.path.join(var, "lists"))
    if not any("_Packages" in name for name in names):
        raise UpdatesError("there are no package lists", refresh)
    if not any("security" in name for name in names):
        raise UpdatesError("no list of a security repository is there", "Add it to the sources of APT")
    age = now.timestamp() - max(_modified(os.path.join(var, stamp)) for stamp in _APT_STAMPS)
    if age > max_age:
        raise UpdatesError(f"the package lists are {format_duration(age)} old", refresh)
    return parse_apt(_output(run, ["apt", "list", "--upgradable"], timeout))


def pending_dnf(run: Runner, timeout: float) -> list[Update]:
    """What DNF would upgrade for security's sake, from its cache. Raises UpdatesError."""
    return parse_dnf(_output(run, ["dnf", "-q", "-C", "updateinfo", "list", "--updates", "--security"], timeout))


def judge_updates(builder: FindingsBuilder, updates: Sequence[Update] | UpdatesError) -> None:
    """The finding about security updates."""
    if isinstance(updates, UpdatesError):
        told = f"it is not known which wait: {updates}"
        builder.add("security_updates", "packages", "unknown", told, unit="updates", hint=updates.hint)
        return
    wait = "1 security update waits" if len(updates) == 1 else f"{len(updates)} security updates wait"
    names = ", ".join(update.package for update in updates[:5]) + (", ..." if len(updates) > 5 else "")
    builder.add(
        "security_updates",
        "packages",
        "warning" if updates else "ok",
        f"{wait}: {names}" if updates else "no security update waits",
        value=len(updates),
        unit="updates",
        threshold=1,
        hint="Install them, and restart what uses them" if updates else "",
    )


def _output(run: Runner, argv: Sequence[str], timeout: float) -> str:
    hint = f"Run '{' '.join(argv)}' on this host"
    try:
        ended = run(argv, timeout)
    except ProgramError as error:
        raise UpdatesError(str(error), hint) from error
    if ended.rc != 0:
        raise UpdatesError(f"{argv[0]} failed: {ended.complaint}", hint)
    return ended.stdout


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def _modified(path: str) -> float:
    with suppress(OSError):
        return os.stat(path).st_mtime
    return 0.0
