# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""logrotate: its configuration rendered, judged by the program itself, and run with proof of what it rotated.

logrotate ends with 0 for a configuration it does not understand, so its words are read. What it says it would do is
the plan; what its state file says afterwards is the proof.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Runs a command; returns exit code, standard output and standard error.
Runner = Callable[[Sequence[str]], tuple[int, str, str]]

FREQUENCIES = ("hourly", "daily", "weekly", "monthly", "yearly")

_CONSIDERED = re.compile(r"^considering log (.+)$")
_STATE_LINE = re.compile(r'^"((?:[^"\\]|\\.)*)" (\d+-\d+-\d+(?:-\d+:\d+:\d+)?)$')
_STATE_PATH = re.compile(r"^(?:acquired lock on state file .*)?Reading state from file: (.+)$", re.MULTILINE)
_SIZE = re.compile(r"\d+[kMG]?")
_DUPLICATE = "duplicate log entry for"
_HINTS = (
    (
        "insecure permissions",
        "set su_user and su_group to the folder's owner, or take write access from its group",
    ),
    ("duplicate log entry", "rotate it in one place: take it out of that file or out of the logs of this task"),
    ("already locked", "another logrotate is running: try again when it is done"),
    ("same device", "put archive_folder on the file system of the logs"),
)


class LogrotateError(Exception):
    """logrotate refused or failed; the text has its own words and what to do."""


@dataclass(frozen=True)
class Log:
    """Logs that are rotated alike. Sizes are as logrotate writes them, such as ``100M``; empty is none."""

    name: str
    paths: Sequence[str]
    frequency: str
    keep: int
    compress: bool
    delay_compress: bool
    date_ext: bool
    max_size: str = ""
    archive_folder: str = ""
    owner: str = ""
    group: str = ""
    mode: str = "0640"
    su_user: str = ""
    su_group: str = ""
    copy_truncate: bool = False
    postrotate: str = ""


def render(logs: Iterable[Log]) -> str:
    """The configuration file. Raises ValueError for what cannot be written into one."""
    header = "# Written by upkeep.ops.logrotate: what is changed here is lost at its next run.\n"
    return header + "".join(f"\n# {_plain(log.name)}\n{_block(log)}" for log in logs)


def _block(log: Log) -> str:
    if not log.paths:
        raise ValueError(f"the logs {log.name} have no paths")
    paths = "\n".join(f'"{_plain(path)}"' for path in log.paths)
    return f"{paths}\n{{\n" + "".join(f"    {line}\n" for line in _directives(log)) + "}\n"


def _directives(log: Log) -> list[str]:
    """What stands between the braces."""
    lines = [log.frequency, f"rotate {log.keep}", "missingok", "notifempty"]
    lines += _size_directive(log)
    lines += ["compress"] if log.compress else ["nocompress"]
    lines += ["delaycompress"] if log.compress and log.delay_compress else []
    # The time of day is part of the name, or a second rotation on the same day would fail.
    lines += ["dateext", "dateformat -%Y%m%dT%H%M%S"] if log.date_ext else ["nodateext"]
    owners = _owners(log)
    lines += ["copytruncate"] if log.copy_truncate else [f"create {_word(log.mode)}{owners}"]
    if log.archive_folder:
        lines += [f"olddir {_unspaced(log.archive_folder)}", f"createolddir 0750{owners}"]
    if log.su_user:
        lines.append(f"su {_word(log.su_user)} {_word(log.su_group or primary_group(log.su_user))}")
    if log.postrotate:
        lines += ["sharedscripts", "postrotate", *_script(log), "endscript"]
    return lines


def _size_directive(log: Log) -> list[str]:
    if not log.max_size:
        return []
    if not _SIZE.fullmatch(log.max_size):
        raise ValueError(f"{log.max_size!r} is no size for logrotate, such as 500k, 100M or 2G")
    return [f"maxsize {log.max_size}"]


def _owners(log: Log) -> str:
    """``create`` takes both owner and group or neither."""
    if not log.owner:
        return ""
    group = primary_group(log.owner)
    if log.group:
        group = _existing_group(log.group)
    return f" {_word(log.owner)} {_word(group)}"


def primary_group(user: str) -> str:
    """The number of a user's primary group. Raises ValueError when there is no such user."""
    try:
        return str(pwd.getpwnam(user).pw_gid)
    except KeyError:
        raise ValueError(f"there is no user {user!r} on this host: create it first, or correct the owner") from None


def _existing_group(name: str) -> str:
    try:
        grp.getgrnam(name)
    except KeyError:
        raise ValueError(f"there is no group {name!r} on this host: create it first, or correct the group") from None
    return name


def _script(log: Log) -> list[str]:
    lines = log.postrotate.strip("\n").split("\n")
    if any(line.strip() == "endscript" for line in lines):
        raise ValueError(f"the postrotate script of {log.name} holds the line endscript, which would end it early")
    return [f"    {line}" for line in lines]


def _plain(text: str) -> str:
    if re.search(r'["\\\n\r{}]', text):
        raise ValueError(f"{text!r} holds a quote, a backslash, a brace or a line break, which logrotate cannot read")
    return text


def _unspaced(path: str) -> str:
    """logrotate takes a quote in this directive for a part of the name, so that spaces cannot be written at all."""
    if re.search(r"\s", path) or not path.startswith("/"):
        raise ValueError(f"the archive folder {path!r} must be an absolute path without spaces")
    return _plain(path)


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.@-]+", text):
        raise ValueError(f"{text!r} is no name of a user or group and no mode")
    return text


def parse_state(text: str) -> dict[str, str]:
    """Log -> time of its last rotation, as the state file writes it."""
    matches = (_STATE_LINE.match(line) for line in text.splitlines())
    return {re.sub(r"\\(.)", r"\1", match.group(1)): match.group(2) for match in matches if match}


def parse_considered(output: str) -> dict[str, bool]:
    """Log -> whether it needs rotating, from what logrotate prints with ``-v`` or ``-d``."""
    considered: dict[str, bool] = {}
    log = ""
    for line in output.splitlines():
        match = _CONSIDERED.match(line)
        if match:
            log = match.group(1)
            considered.setdefault(log, False)
        elif line.strip() == "log needs rotating" and log:
            considered[log] = True
    return considered


def error_lines(output: str) -> list[str]:
    """The sentences that logrotate marks as errors, each once."""
    return list(dict.fromkeys(re.findall(r"error: (.+)", output)))


def told(errors: Iterable[str]) -> str:
    """Errors in one sentence, with what to do about those that are known."""
    lines = list(errors)
    hints = [hint for sign, hint in _HINTS if any(sign in line for line in lines)]
    return "; ".join(lines) + (f" ({'; '.join(hints)})" if hints else "")


class Logrotate:
    """The program. ``state`` is the path of its state file, empty for the one that is built into it."""

    def __init__(self, program: str, state: str, run: Runner) -> None:
        self._program = program
        self._state = state
        self._run = run

    def plan(self, text: str, name: str, force: bool = False) -> list[str]:
        """The logs that a configuration would rotate now. Raises LogrotateError when logrotate finds an error."""
        code, output, candidate = self._try(text, name, _force_option(force))
        errors = [line.replace(candidate, name) for line in error_lines(output)]
        if errors or code != 0:
            raise LogrotateError(told(errors) or output.strip()[-500:])
        return [log for log, needed in parse_considered(output).items() if needed]

    def conflicts(self, text: str, path: str) -> list[str]:
        """What other files in the folder of ``path`` already rotate: logrotate then drops one of the two."""
        folder = os.path.dirname(os.path.abspath(path))
        others = [entry.path for entry in _configurations(folder) if entry.name != os.path.basename(path)]
        if not others:
            return []
        _code, output, candidate = self._try(text, os.path.basename(path), others)
        return [
            line.replace(candidate, os.path.basename(path)) + self._owner(line.split(_DUPLICATE, 1)[1].strip(), others)
            for line in error_lines(output)
            if candidate in line and _DUPLICATE in line
        ]

    def _owner(self, log: str, configs: Sequence[str]) -> str:
        """Which configuration rotates a log, as a clause; logrotate itself does not say it."""
        owners = [config for config in configs if log in self.considered([config])[0]]
        return f", which {' and '.join(owners)} rotates already" if owners else ""

    def considered(self, configs: Sequence[str]) -> tuple[dict[str, bool], list[str], dict[str, str]]:
        """Of installed configurations: log -> needs rotating, the errors, and log -> last rotation."""
        _code, output = self._debug(configs)
        return parse_considered(output), error_lines(output), self._read_state(output)

    def rotate(self, path: str, force: bool) -> list[str]:
        """Run a configuration; the logs that were rotated, proved by the state file.

        Raises LogrotateError, with ``rotated`` set, when logrotate reports an error on the way.
        """
        if self._state:
            os.makedirs(os.path.dirname(os.path.abspath(self._state)), exist_ok=True)
        _considered, _errors, before = self.considered([path])
        code, out, err = self._run([self._program, "-v", *_force_option(force), *self._state_option(), path])
        needed = parse_considered(out + err)
        after = self._read_state(out + err)
        rotated = [log for log in needed if needed[log] and after.get(log) != before.get(log)]
        if code != 0:
            raise RotationError(told(error_lines(err)) or err.strip()[-500:], rotated)
        return rotated

    def _try(self, text: str, name: str, before: Sequence[str]) -> tuple[int, str, str]:
        """Exit code and output of a dry run with a configuration that is not installed, and where that stood."""
        with tempfile.TemporaryDirectory() as folder:
            candidate = os.path.join(folder, name)
            with open(candidate, "w", encoding="utf-8") as stream:
                stream.write(_without_missing_folders(text))
            os.chmod(candidate, 0o644)
            return (*self._debug([*before, candidate]), candidate)

    def _debug(self, configs: Sequence[str]) -> tuple[int, str]:
        code, out, err = self._run([self._program, "-d", *self._state_option(), *configs])
        return code, out + err

    def _state_option(self) -> list[str]:
        return ["-s", self._state] if self._state else []

    def _read_state(self, output: str) -> dict[str, str]:
        match = _STATE_PATH.search(output)
        path = self._state or (match.group(1) if match else "")
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return parse_state(stream.read())
        except OSError:
            return {}


def _without_missing_folders(text: str) -> str:
    """The configuration for a dry run: logrotate creates archive folders even then."""
    folders = re.findall(r"^ +olddir (\S+)$", text, re.MULTILINE)
    for folder in folders:
        if not os.path.isdir(folder):
            text = re.sub(rf"^ +olddir {re.escape(folder)}\n +createolddir .*\n", "", text, flags=re.MULTILINE)
    return text


def _force_option(force: bool) -> list[str]:
    return ["-f"] if force else []


class RotationError(LogrotateError):
    """Some logs were rotated before, or in spite of, an error."""

    def __init__(self, message: str, rotated: list[str]) -> None:
        super().__init__(message)
        self.rotated = rotated


def _configurations(folder: str) -> list[os.DirEntry[str]]:
    """Files of a folder that logrotate's include would read, but for rare endings."""
    if not os.path.isdir(folder):
        return []
    ignored = ("~", ".bak", ".disabled", ".partial", ".swp", ",v")
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.is_file() and not entry.name.endswith(ignored)]
    return sorted((entry for entry in files if ".dpkg-" not in entry.name), key=lambda entry: entry.name)


def logs_of(items: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]) -> list[Log]:
    """Log descriptions with the common settings filled in where an item has none of its own."""
    return [Log(**{**defaults, **{key: value for key, value in item.items() if value is not None}}) for item in items]
