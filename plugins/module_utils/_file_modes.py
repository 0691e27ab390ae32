# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes and owners of files that must not be open to others: keys, .env files, configuration with passwords."""

from __future__ import annotations

import glob
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder

_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH


@dataclass(frozen=True)
class ModeRule:
    """Files of a pattern may have no permission beyond ``mode``, and belong to ``owner`` when one is named."""

    pattern: str
    mode: int
    owner: str = ""


def parse_mode(text: str) -> int:
    """The permission bits of an octal text such as ``0640``. Raises ValueError with the text."""
    try:
        mode = int(str(text), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"{text!r} is no octal mode such as '0640' (write it in quotes)")
    return mode


def judge_modes(builder: FindingsBuilder, rules: Iterable[ModeRule]) -> int:
    """One finding for each file that is more open than its rule, one for all of them; the number of files."""
    count = wrong = unseen = 0
    for rule in rules:
        try:
            found = [(path, os.stat(path)) for path in _matches(rule.pattern)]
        except OSError as error:
            unseen += 1
            told = f"{error.filename} cannot be looked at: {error.strerror}"
            builder.add("file_mode", rule.pattern, "unknown", told, hint="Run the task with become")
            continue
        count += len(found)
        wrong += sum(_judge_file(builder, path, status, rule) for path, status in found)
    told = f"{count} files looked at, {wrong} are open to more than they should be" if count else "there are none"
    builder.add("file_modes", "files", "unknown" if unseen else "ok", told, value=wrong, unit="files")
    return count


def _matches(pattern: str) -> list[str]:
    """The files of a pattern. Raises OSError when this user may not see whether there are any."""
    fixed = pattern
    while glob.has_magic(fixed):
        fixed = os.path.dirname(fixed)
    try:
        if fixed == pattern:
            os.stat(fixed)
        else:
            os.scandir(fixed or ".").close()
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = glob.glob(pattern, recursive=True)
    return sorted(path for path in found if os.path.exists(path) or not os.path.islink(path))


def _judge_file(builder: FindingsBuilder, path: str, status: os.stat_result, rule: ModeRule) -> bool:
    mode = stat.S_IMODE(status.st_mode)
    excess = mode & ~rule.mode
    owner = _owner(status.st_uid)
    faults = []
    if excess:
        faults.append(f"its mode is {mode:04o}, {rule.mode:04o} is the most it may have")
    if rule.owner and owner != rule.owner:
        faults.append(f"it belongs to {owner}, not to {rule.owner}")
    if faults:
        commands = [f"chmod {mode & rule.mode:04o} {path}"] if excess else []
        commands += [f"chown {rule.owner} {path}"] if rule.owner and owner != rule.owner else []
        builder.add(
            "file_mode",
            path,
            "critical" if excess & _OTHERS else "warning",
            " and ".join(faults),
            value=f"{mode:04o}",
            threshold=f"{rule.mode:04o}",
            hint="; ".join(commands),
        )
    return bool(faults)


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
