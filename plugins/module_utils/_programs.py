# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other programs, run to their end or to their deadline, with their words in English."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1


class ProgramError(Exception):
    """A program could not be run, or did not end in time."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    rc: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The last line it wrote about its failure."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1][:200] if lines else f"it ended with rc {self.rc} and said nothing"


def dies_with_us(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """For ``preexec_fn``: whoever kills this process with SIGKILL ends the program too; nothing else could then.

    It must be started by the main thread: what counts is the end of the thread that started it. The function is made
    just before the program is started, by the process that starts it.
    """
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before it was asked, so no signal will come
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


#: Runs a program (name and arguments) for so many seconds at most.
Runner = Callable[[Sequence[str], float], Ended]


def run_program(argv: Sequence[str], timeout: float) -> Ended:
    """The Runner of production. Raises ProgramError."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{argv[0]} did not end within {timeout:g} s") from error
    except OSError as error:
        raise ProgramError(f"{argv[0]} cannot be run: {error.strerror}") from error
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
