# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs that grow without bound: too large, not rotated, covered by no configuration, deleted but held open."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder, judge
from ansible_collections.upkeep.ops.plugins.module_utils._sizes import human
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: What logrotate appends to a name: a number or a date, and the ending of a compressor.
_ROTATED = re.compile(
    r"[.-](?:\d{1,4}|\d{8}(?:[T-]?\d{2,6})?|\d{4}-\d{2}-\d{2}.*)(?:\.(?:gz|bz2|xz|zst))?$|\.(?:gz|bz2|xz|zst)$"
)

#: Files of /var/log that have a life of their own: logrotate must not touch them.
_NOT_ROTATED = re.compile(r".*\.journal~?|lastlog|faillog|tallylog")

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> float:
    """Bytes of ``500M``, ``1.5G`` or ``1048576``. Raises ValueError with the text when it is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)i?b?", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} is no size such as 500M or 5G")
    return float(match.group(1)) * _UNITS[match.group(2)]


@dataclass(frozen=True)
class LogFile:
    """A log that is written to. ``rotated_at`` is when it was last rotated as far as anything tells."""

    path: str
    size: int
    written_at: float
    mode: int
    rotated_at: float | None
    copies: int
    covered: bool | None


@dataclass(frozen=True)
class Held:
    """A log that was deleted while a process still writes to it: its space is free only when that ends."""

    path: str
    size: int
    pid: int
    process: str


def find_logs(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Regular files that patterns name, folders searched below, and the patterns that name nothing.

    Raises nothing: what cannot be listed is as if it were empty.
    """
    found, missing = set(), []
    for pattern in patterns:
        paths = glob.glob(pattern) if glob.has_magic(pattern) else [pattern] if os.path.exists(pattern) else []
        if not paths:
            missing.append(pattern)
        for path in paths:
            found.update(_below(path) if os.path.isdir(path) else [path])
    logs = (path for path in found if not _NOT_ROTATED.fullmatch(os.path.basename(path)))
    return sorted(path for path in logs if _is_regular(path)), missing


def _below(folder: str) -> list[str]:
    return [os.path.join(where, name) for where, _folders, names in os.walk(folder) for name in names]


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_rotated(path: str) -> bool:
    """Whether a name is that of a rotated log."""
    return _ROTATED.search(os.path.basename(path)) is not None


def describe(
    paths: Sequence[str], rotations: Mapping[str, str], considered: Mapping[str, bool] | None, archives: Sequence[str]
) -> list[LogFile]:
    """The logs among the paths, with their rotation by logrotate's state file or by their rotated copies.

    ``considered`` are the logs that some configuration names, None when that is not known. ``archives`` are more
    folders with rotated copies.
    """
    logs = []
    for path in paths:
        if is_rotated(path):
            continue
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        copies = _copies(path, archives)
        known = [moment for moment in (_rotation(rotations.get(path, "")), *copies) if moment is not None]
        covered = None if considered is None else path in considered
        last = max(known, default=None)
        logs.append(LogFile(path, status.st_size, status.st_mtime, status.st_mode, last, len(copies), covered))
    return logs


def _copies(path: str, archives: Sequence[str]) -> list[float]:
    """When the rotated copies of a log were last written to: about when they were rotated."""
    folder, name = os.path.split(path)
    moments = []
    for place in (folder, *archives):
        for copy in glob.glob(os.path.join(glob.escape(place), glob.escape(name) + "[.-]*")):
            if is_rotated(copy) and _is_regular(copy):
                moments.append(os.lstat(copy).st_mtime)
    return moments


def _rotation(text: str) -> float | None:
    """Seconds since the epoch of a time in logrotate's state file, which is local: 2026-11-23-15:54:59."""
    parts = [int(number) for number in re.findall(r"\d+", text)]
    if len(parts) < 3:
        return None
    try:
        year, month, day, hour, minute, second = (*parts, 0, 0, 0)[:6]
        return datetime(year, month, day, hour, minute, second).timestamp()
    except ValueError:
        return None


def deleted_but_open(proc: str, folders: Sequence[str]) -> tuple[list[Held], int]:
    """Deleted logs that processes hold open, and the number of processes that could not be looked at.

    A log is what lies in one of the folders or in any folder named log or logs, or ends with ``.log``.
    """
    held: dict[tuple[int, int], Held] = {}
    hidden = 0
    for pid in (name for name in os.listdir(proc) if name.isdigit()):
        try:
            descriptors = os.listdir(os.path.join(proc, pid, "fd"))
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            continue
        for descriptor in descriptors:
            _note_held(held, os.path.join(proc, pid), descriptor, folders)
    return sorted(held.values(), key=lambda item: (-item.size, item.path)), hidden


def _note_held(held: dict[tuple[int, int], Held], process: str, descriptor: str, folders: Sequence[str]) -> None:
    link = os.path.join(process, "fd", descriptor)
    try:
        target = os.readlink(link)
        if not target.endswith(" (deleted)") or not _is_log(target[: -len(" (deleted)")], folders):
            return
        status = os.stat(link)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink:
            return
        with open(os.path.join(process, "comm"), encoding="utf-8", errors="replace") as stream:
            name = stream.read().strip()
    except OSError:
        return
    found = Held(target[: -len(" (deleted)")], status.st_blocks * 512, int(os.path.basename(process)), name)
    held.setdefault((status.st_dev, status.st_ino), found)


def _is_log(path: str, folders: Sequence[str]) -> bool:
    inside = any(path.startswith(folder.rstrip("/") + "/") for folder in folders)
    return inside or re.search(r"/logs?/|\.log(?:[.-]|$)", path) is not None


@dataclass(frozen=True)
class Limits:
    """Bytes from which a log is too large or a deleted one matters; seconds a rotation may be past."""

    warning_size: float
    critical_size: float
    max_age: float
    held_size: float


class Audit:
    """Turns what was found into findings."""

    def __init__(self, limits: Limits, now: datetime) -> None:
        self._limits = limits
        self._now = now.astimezone(timezone.utc)
        self._builder = FindingsBuilder(now)

    def findings(
        self, logs: Iterable[LogFile], held: Iterable[Held], missing: Iterable[str], errors: Iterable[str]
    ) -> list[Finding]:
        """Size, rotation and permissions of each log, deleted ones, patterns without a log, configuration errors."""
        for log in logs:
            self._size(log)
            self._rotation(log)
            self._permissions(log)
        for item in held:
            if item.size >= self._limits.held_size:
                self._held(item)
        for pattern in missing:
            self._builder.add(
                "log_missing", pattern, "warning", f"no log is called {pattern}", hint="Correct the path of the logs"
            )
        for error in errors:
            self._builder.add(
                "logrotate_config", _subject(error), "warning", f"logrotate: {error}", hint="Correct its configuration"
            )
        return self._builder.findings

    def _size(self, log: LogFile) -> None:
        status, limit = judge(log.size, self._limits.warning_size, self._limits.critical_size)
        self._builder.add(
            "log_size",
            log.path,
            status,
            f"is {human(log.size)}",
            value=log.size,
            unit="bytes",
            threshold=limit,
            hint="" if status == "ok" else "Rotate it now, set max_size, and see what writes so much",
        )

    def _rotation(self, log: LogFile) -> None:
        """Unrotated is what no configuration covers, and what was written to long after its last rotation."""
        since = None if log.rotated_at is None else self._now.timestamp() - log.rotated_at
        late = since is not None and since > self._limits.max_age and log.size > 0
        grows = late and log.rotated_at is not None and log.written_at > log.rotated_at + self._limits.max_age / 2
        when = "never rotated" if since is None else f"last rotated {format_duration(max(0.0, since))} ago"
        if log.covered is False and (log.size > 0 or log.copies == 0):
            status, why = "warning", "no logrotate configuration covers it"
            hint = "Add it to the logs that are rotated"
        elif grows:
            status, why, hint = "warning", "and still written to", "Run logrotate -v and read why it does not rotate"
        elif log.covered is None and since is None:
            status, why = "unknown", "and logrotate could not be asked"
            hint = "Install logrotate or let the task run as root"
        else:
            status, why, hint = "ok", "", ""
        self._builder.add(
            "log_rotation",
            log.path,
            status,
            when + (f", {why}" if why else ""),
            value=None if since is None else round(since),
            unit="s",
            threshold=int(self._limits.max_age),
            hint=hint,
        )

    def _permissions(self, log: LogFile) -> None:
        writable = bool(log.mode & stat.S_IWOTH)
        readable = bool(log.mode & stat.S_IROTH)
        what = "written by anybody" if writable else "read by anybody" if readable else "read by its owners alone"
        self._builder.add(
            "log_permissions",
            log.path,
            "warning" if writable else "ok",
            f"mode {stat.S_IMODE(log.mode):04o}: can be {what}",
            hint=f"chmod o-w {log.path}, and set the mode in its logrotate configuration" if writable else "",
        )

    def _held(self, item: Held) -> None:
        self._builder.add(
            "log_deleted",
            item.path,
            "warning",
            f"was deleted, but {item.process} (pid {item.pid}) holds its {human(item.size)}",
            value=item.size,
            unit="bytes",
            threshold=int(self._limits.held_size),
            hint="Let the process open its logs again, or restart it",
        )


def _subject(error: str) -> str:
    """What an error of logrotate is about, without what changes from run to run: the file and the line."""
    return error.split(" ", 1)[0]


def totals(logs: Iterable[LogFile], paths: Iterable[str], held: Iterable[Held]) -> dict[str, Any]:
    """Bytes in logs, in rotated copies and in deleted files."""
    rotated = [path for path in paths if is_rotated(path)]
    return {
        "log_bytes": sum(log.size for log in logs),
        "rotated_bytes": sum(os.lstat(path).st_size for path in rotated if _is_regular(path)),
        "deleted_bytes": sum(item.size for item in held),
    }
