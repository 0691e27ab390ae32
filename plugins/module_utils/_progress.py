# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work tells how far it is: a file with one JSON object per line, about one line a second, and the system log."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

_LINE_EVERY = 1.0  # seconds
_LOG_EVERY = 30.0


class Progress:
    """Counts bytes, or what ``unit`` says. ``path`` may be empty: then there is no file.

    Each line: what is counted (bytes), total (or null) and seconds. ``monotonic`` is a clock in seconds, ``log`` takes
    a sentence for the system log.
    """

    def __init__(
        self,
        what: str,
        path: str,
        monotonic: Callable[[], float],
        log: Callable[[str], None],
        unit: str = "bytes",
    ) -> None:
        self._what, self._monotonic, self._log, self._unit = what, monotonic, log, unit
        self._started = self._next_log = monotonic()
        self._next_log += _LOG_EVERY
        self._next_line = self._started
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "w") if path else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def __call__(self, done: int, total: int | None) -> None:
        """So many are done, of ``total`` when that is known. Raises OSError when the file cannot be written."""
        now = self._monotonic()
        if now >= self._next_line:
            self._next_line = now + _LINE_EVERY
            self._write(done, total, now)
        if now >= self._next_log:
            self._next_log = now + _LOG_EVERY
            of = f" of {total}" if total is not None else ""
            self._log(f"{self._what}: {done}{of} {self._unit} after {now - self._started:.0f} s")

    def finish(self, done: int) -> None:
        """The last line, whose total is what was done."""
        self._write(done, done, self._monotonic())

    def _write(self, done: int, total: int | None, now: float) -> None:
        if self._file:
            line = {"what": self._what, self._unit: done, "total": total, "seconds": round(now - self._started, 1)}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
