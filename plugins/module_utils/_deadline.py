# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deadlines that hold against whatever waits: a dripping server, a dead resolver, a command that never ends.

The timeout of a socket counts anew with each byte, and some calls, such as name look-ups, know no timeout at all.
So a watchdog breaks off what is still running when its time is over, and what cannot be broken off is left behind
in a thread of its own.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeadlineExceededError(Exception):
    """The time for an act was over before it ended."""


class Deadline:
    """A point in time until which something must be done, and what is to be broken off when it passes."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._break_off: Callable[[], Any] | None = None
        self.expired = False

    def __lt__(self, other: Deadline) -> bool:
        return self._end < other._end

    def remaining(self) -> float:
        """Seconds that are left, more than 0. Raises DeadlineExceededError when none are."""
        left = self.left()
        if left <= 0 or self.expired:
            raise DeadlineExceededError
        return left

    def left(self) -> float:
        """Seconds that are left; negative when it has passed."""
        return self._end - time.monotonic()

    def guard(self, break_off: Callable[[], Any]) -> None:
        """From now on ``break_off`` is what ends the act when the deadline passes; at once when it has passed.

        ``break_off`` is called from another thread and must neither block nor raise.
        """
        with self._lock:
            self._break_off = break_off
            if self.expired:
                break_off()

    def done(self) -> None:
        """The act has ended: nothing is broken off any more once this returns."""
        with self._lock:
            self._break_off = None

    def expire(self) -> None:
        """Break off what is still running."""
        with self._lock:
            self.expired = True
            if self._break_off is not None:
                self._break_off()


class Watchdog:
    """One thread that expires any number of deadlines."""

    def __init__(self) -> None:
        self._deadlines: list[Deadline] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, seconds: float) -> Iterator[Deadline]:
        """A deadline for the block; what the block guards with it is broken off after ``seconds``."""
        deadline = Deadline(seconds)
        with self._changed:
            heapq.heappush(self._deadlines, deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif self._deadlines[0] is deadline:
                self._changed.notify()
        try:
            yield deadline
        finally:
            deadline.done()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._deadlines or self._deadlines[0].left() > 0:
                    self._changed.wait(self._deadlines[0].left() if self._deadlines else None)
                passed = heapq.heappop(self._deadlines)
            passed.expire()


_thread_numbers = itertools.count(1)


def call_within(deadline: Deadline, act: Callable[[], Result]) -> Result:
    """The result of ``act``, or DeadlineExceededError when it does not come in time.

    For calls that nothing can break off. One that hangs is left behind in its thread, which does not keep the
    program from ending.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, act()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, name=f"call-{next(_thread_numbers)}", daemon=True)
    thread.start()
    thread.join(deadline.remaining())
    if not outcome:
        raise DeadlineExceededError
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    result: Result = value
    return result
