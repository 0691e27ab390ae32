# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Being told to stop is an exception here, so that what was begun is taken back as after any other error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class StoppedError(BaseException):
    """A signal asked the process to end. No ordinary error: nobody but the module's main may catch it."""


def stop_by_exception() -> None:
    """From now on SIGTERM and SIGHUP raise StoppedError in the main thread instead of ending the process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise)


@contextmanager
def not_stopped() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are ignored: for the few steps that take something back."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    raise StoppedError(f"stopped by {signal.Signals(number).name}")
