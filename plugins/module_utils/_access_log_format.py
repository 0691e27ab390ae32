# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats of access logs: from a block of lines to records, fast.

A record is six byte strings: time, target (method and path without query string), status, bytes sent, request time
in seconds, upstream time in seconds. What a format does not have is empty.

Text formats are one regular expression over a whole block of lines. Some of its character classes may run across a
line's end, which is what makes it fast; a match starts at the start of a line and ends with a newline, so as many
matches as lines mean that none did. Else the block is read again line by line.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_time

#: time, target, status, bytes sent, request time, upstream time.
Record = tuple[bytes, bytes, bytes, bytes, bytes, bytes]

#: What to put into nginx.conf when the log has no request times.
SUGGESTED_LOG_FORMAT = (
    'log_format timed \'$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent" rt=$request_time urt="$upstream_response_time"\'; access_log <path> timed;'
)

_FIELDS = ("time", "target", "status", "size", "seconds", "upstream")
_REQUEST = r"(?P<target>[^ \"\n]* [^ \"?\n]*|)[^\"\n]*"
_COMBINED = (
    r"[^[\n]*\[(?P<time>[^]]+)\] \"(?P<target>[^ \"\n]* [^ \"?\n]*|)[^\"]*\" (?P<status>\d{3}) (?P<size>\d+|-)"
    r"(?: \"[^\"]*\" \"[^\"]*\")?(?:[^\n]*? (?:rt|request_time)=\"?(?P<seconds>[\d.]+))?"
    r"(?:[^\n]*? (?:urt|upstream_response_time)=\"?(?P<upstream>[\d.][^\"\n]*))?.*"
)

#: nginx variable -> expression. Others are passed over.
_VARIABLES = {
    "request": _REQUEST,
    "request_method": r"(?P<method>[^ \"]*)",
    "request_uri": r"(?P<path>[^ \"?]*)[^ \"]*",
    "uri": r"(?P<path>[^ \"?]*)",
    "status": r"(?P<status>\d{3})",
    "body_bytes_sent": r"(?P<size>\d+|-)",
    "bytes_sent": r"(?P<size>\d+|-)",
    "request_time": r"(?P<seconds>[\d.]+|-)",
    "upstream_response_time": r"(?P<upstream>[\d.][\d., :-]*|-?)",
    "time_local": r"(?P<time>\d+/\w+/\d+:[\d:]+ [+-]\d+)",
    "time_iso8601": r"(?P<time>[\dT:+Z-]+)",
    "msec": r"(?P<time>[\d.]+)",
}

#: Keys of JSON logs for each field, the first one that is there counts.
_JSON_KEYS: Mapping[str, Sequence[str]] = {
    "time": ("time_iso8601", "time_local", "@timestamp", "timestamp", "time", "ts", "msec"),
    "request": ("request",),
    "method": ("request_method", "method"),
    "path": ("request_uri", "uri", "path", "url"),
    "status": ("status", "status_code"),
    "size": ("body_bytes_sent", "bytes_sent", "bytes", "size"),
    "seconds": ("request_time", "rt", "duration"),
    "upstream": ("upstream_response_time", "urt"),
}

_MONTHS = {name.encode(): number for number, name in enumerate(calendar.month_abbr) if name}


class FormatError(ValueError):
    """A format description that cannot be used; the text says why."""


class Format(Protocol):
    """One way to write access logs."""

    name: str

    def records(self, block: bytes) -> tuple[list[Record], int]:
        """Records of a block of whole lines, and how many lines were malformed. Blank lines count as neither."""


class TextFormat:
    """Lines described by one regular expression with named groups."""

    def __init__(self, name: str, line: str) -> None:
        self.name = name
        names = set(re.findall(r"\(\?P<(\w+)>", line))
        fields = _FIELDS if "path" not in names else (*_FIELDS, "method", "path")
        absent = "".join(f"(?P<{field}>)" for field in fields if field not in names)
        try:
            self._regex = re.compile(rf"^(?:{line}){absent}\r?\n".encode(), re.MULTILINE)
        except re.error as error:
            raise FormatError(f"the pattern is no regular expression: {error}") from None
        self._pick = itemgetter(*(self._regex.groupindex[field] - 1 for field in fields))
        self._plain = tuple(self._regex.groupindex[field] for field in fields) == tuple(
            range(1, self._regex.groups + 1)
        )
        self._joined = "path" in names

    def records(self, block: bytes) -> tuple[list[Record], int]:
        """See :class:`Format`."""
        lines = block.count(b"\n")
        found = self._regex.findall(block)
        malformed = 0
        if len(found) != lines:
            found, malformed = self._line_by_line(block)
        if not self._plain:
            found = list(map(self._pick, found))
        if self._joined:
            found = [(*fields[:1], b" ".join(fields[6:]), *fields[2:6]) for fields in found]
        return found, malformed

    def _line_by_line(self, block: bytes) -> tuple[list[tuple[bytes, ...]], int]:
        found, malformed = [], 0
        for line in block.split(b"\n"):
            match = self._regex.fullmatch(line + b"\n")
            if match:
                found.append(match.groups(b""))
            elif line.strip():
                malformed += 1
        return found, malformed


class JsonLines:
    """One JSON object a line, with nginx's variables or the usual short names as keys."""

    name = "json"

    def records(self, block: bytes) -> tuple[list[Record], int]:
        """See :class:`Format`."""
        found: list[Record] = []
        malformed = 0
        for line in block.split(b"\n"):
            if not line.strip():
                continue
            record = _json_record(line)
            if record is None:
                malformed += 1
            else:
                found.append(record)
        return found, malformed


def _json_record(line: bytes) -> Record | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    values = {field: _first(document, keys) for field, keys in _JSON_KEYS.items()}
    if not values["status"]:
        return None
    request = values["request"].split(b" ")
    if len(request) < 2:
        request = [values["method"], values["path"]]
    target = b" ".join((request[0], request[1].split(b"?")[0])) if request[1] else b""
    return values["time"], target, values["status"], values["size"], values["seconds"], values["upstream"]


def _first(document: dict[str, Any], keys: Iterable[str]) -> bytes:
    for key in keys:
        if document.get(key) is not None:
            return str(document[key]).encode(errors="replace")
    return b""


def combined() -> Format:
    """nginx's and Apache's ``combined`` (or ``common``), with ``rt=`` and ``urt=`` behind it when they are there."""
    return TextFormat("combined", _COMBINED)


def from_log_format(log_format: str) -> Format:
    """The format that nginx writes for a ``log_format`` string. Raises FormatError when it lacks what is needed."""
    pieces = re.split(r"\$\{?(\w+)\}?", log_format.strip())
    seen: set[str] = set()
    line = [re.escape(pieces[0])]
    for variable, literal in zip(pieces[1::2], pieces[2::2]):
        line.append(_expression(variable, literal, seen))
        line.append(re.escape(literal))
    if "status" not in seen or not seen & {"target", "path"}:
        raise FormatError("the log_format needs $status and one of $request, $request_uri and $uri")
    return TextFormat("log_format", "".join(line))


def _expression(variable: str, literal: str, seen: set[str]) -> str:
    """The expression of one variable; ``literal`` is what follows it, ``seen`` the groups that are taken."""
    expression = _VARIABLES.get(variable, "")
    groups = set(re.findall(r"\(\?P<(\w+)>", expression))
    if groups and not groups & seen:
        seen |= groups
        return expression
    if not literal:
        return r"[^\n]*"
    if literal[0] != " ":
        return rf"[^{re.escape(literal[0])}\n]*"
    # Names of users and lists of upstreams hold spaces; nothing else that stands without quotes does.
    return r"[^\n]*?" if variable.startswith(("remote_user", "http_", "upstream_")) else r"[^ \n]*"


def from_pattern(pattern: str) -> Format:
    """The format of a regular expression with the groups status and path (or target), and others of a record.

    Raises FormatError when it is no regular expression or lacks a group.
    """
    names = set(re.findall(r"\(\?P<(\w+)>", pattern))
    if "status" not in names or not names & {"path", "target"}:
        raise FormatError("the pattern needs the named groups (?P<status>...) and (?P<path>...) or (?P<target>...)")
    unknown = names - {*_FIELDS, "method", "path"}
    if unknown:
        raise FormatError(f"the pattern has the unknown group {sorted(unknown)[0]}; known are {', '.join(_FIELDS)}")
    if names >= {"path", "target"}:
        raise FormatError("the pattern has both of the groups path and target; it needs one")
    return TextFormat("pattern", pattern)


def detect(block: bytes) -> Format:
    """JSON lines when the first line that is not blank starts with a brace, else combined."""
    return JsonLines() if block.lstrip()[:1] == b"{" else combined()


def epoch(token: bytes, midnights: dict[bytes, int]) -> float | None:
    """Seconds since the epoch of a record's time, None when it is none.

    ``midnights`` is the caller's memory of days already parsed: a log has few days and many lines.
    """
    try:
        if token[2:3] == b"/":
            return _epoch_of_local(token, midnights)
        text = token.decode("ascii")
        return float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else parse_time(text).timestamp()
    except (ValueError, KeyError, IndexError, OverflowError):
        return None


def _epoch_of_local(token: bytes, midnights: dict[bytes, int]) -> float:
    """Of nginx's $time_local, such as ``23/Nov/2026:15:25:06 +0000``."""
    day = token[:12] + token[20:]
    midnight = midnights.get(day)
    if midnight is None:
        date, month, year = token[:11].split(b"/")
        zone = token[21:26]
        offset = (int(zone[1:3]) * 60 + int(zone[3:5])) * (-60 if zone[:1] == b"-" else 60)
        midnight = calendar.timegm((int(year), _MONTHS[month], int(date), 0, 0, 0)) - offset
        midnights[day] = midnight
    return midnight + int(token[12:14]) * 3600 + int(token[15:17]) * 60 + int(token[18:20])
