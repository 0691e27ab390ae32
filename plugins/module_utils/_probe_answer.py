# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answer to a probe must look like: status ranges, a regular expression, JSON paths. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_RANGE = re.compile(r"\s*(\d{3})\s*(?:-\s*(\d{3})\s*)?")
_STEP = re.compile(r"\.?(?:\[(?P<index>\d+)\]|\[(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)\]|(?P<key>[^.\[\]]+))")
_LONGEST_QUOTE = 60
_LONGEST_ANSWER = 200


def parse_ranges(ranges: Sequence[str]) -> list[range]:
    """The status codes of ``["200-299", "401"]``. Raises ValueError with the text that is no such range."""
    parsed = []
    for text in ranges:
        match = _RANGE.fullmatch(text)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f"{text!r} is no status such as 204 and no range such as 200-299")
        parsed.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return parsed


def parse_path(path: str) -> list[str | int]:
    """The steps of a JSON path such as ``$.checks[0].name`` or ``checks['a.b']``. Raises ValueError."""
    rest = path[1:] if path.startswith("$") else path
    steps: list[str | int] = []
    while rest:
        match = _STEP.match(rest)
        if match is None:
            raise ValueError(f"{path!r} is no JSON path such as status, checks[0].name or checks['a.b'].name")
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["key"] if match["key"] is not None else match["quoted"])
        rest = rest[match.end() :]
    return steps


def body_problems(body: bytes, regex: str, paths: Mapping[str, Any], complete: bool) -> Iterator[str]:
    """What is wrong with an answer's body, one clause each; ``complete`` is False when it was cut at max_bytes."""
    text = body.decode("utf-8", "replace")
    if regex and not re.search(regex, text):
        yield f"no match of {regex!r} in {_quoted(text)}"
    if paths:
        yield from _json_problems(text, paths, complete)


def said(body: bytes) -> str:
    """What a service says in JSON of its failure, as a clause; pages for people are left out."""
    text = body.decode("utf-8", "replace")
    try:
        told = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        told = False
    return f"; it says {_quoted(text, _LONGEST_ANSWER)}" if told else ""


def _json_problems(text: str, paths: Mapping[str, Any], complete: bool) -> Iterator[str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield f"no JSON in {_quoted(text)}" if complete else f"a JSON answer longer than max_bytes ({len(text)})"
        return
    for path, expected in paths.items():
        try:
            found = _at(document, parse_path(path))
        except LookupError:
            yield f"no {path} in the JSON answer"
            continue
        if not _equal(found, expected):
            yield f"{path} is {_quoted(json.dumps(found))}, expected {json.dumps(expected)}"


def _at(document: Any, steps: Sequence[str | int]) -> Any:
    """Raises LookupError when the path leads nowhere."""
    for step in steps:
        if isinstance(document, list) and str(step).isdigit():
            document = document[int(step)]
        elif isinstance(document, dict):
            document = document[str(step)]
        else:
            raise LookupError(step)
    return document


def _equal(found: Any, expected: Any) -> bool:
    """Equal as JSON is: true is not 1, but 1 is 1.0."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    return bool(found == expected)


def _quoted(text: str, longest: int = _LONGEST_QUOTE) -> str:
    """The beginning of an answer on one line."""
    line = " ".join(text.split())
    return repr(line) if len(line) <= longest else repr(line[:longest]) + "..."
