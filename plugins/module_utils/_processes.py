# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process as this host knows it: who it is, in a way that a pid alone cannot tell, and how exactly it is ended.

A pid says nothing by itself: it is given to somebody else as soon as its process has ended. Here a process is known by
its pid together with its start time and its command line, and is signalled through a pidfd, which the kernel never
lets point to another process (pidfd_open(2), Linux 5.3).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

#: Seconds by which a process may seem younger than its pid file: the time of boot is known to the second.
CLOCK_SLACK = 3.0


class ProcessError(Exception):
    """The process cannot be told, or does not end; the text says what to do."""


class StalePidFileError(ProcessError):
    """The pid file names a process that is gone, or one that is somebody else's."""


@dataclass(frozen=True)
class Process:
    """A process that was alive when it was looked at. ``started`` are clock ticks after boot."""

    pid: int
    started: int
    began: float
    group: int
    command: tuple[str, ...]

    @property
    def told(self) -> str:
        """Pid and command for a person, without arguments, which may hold secrets."""
        return f"pid {self.pid} ({os.path.basename(self.command[0]) if self.command else 'no command line'})"


def look(pid: int, proc: str = "/proc") -> Process | None:
    """The living process of a pid; None when it has ended, also while it is still a zombie without threads."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # The name in parentheses may hold spaces and parentheses itself.
            fields = stream.read().rsplit(")", 1)[1].split()
        with open(f"{proc}/{pid}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")[:-1]
        threads = len(os.listdir(f"{proc}/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None
    # The first thread may be a zombie while others live and keep ports and files open.
    if fields[0] in "ZX" and threads <= 1:
        return None
    started = int(fields[19])
    began = _boot_time(proc) + started / os.sysconf("SC_CLK_TCK")
    return Process(pid, started, began, int(fields[2]), tuple(os.fsdecode(word) for word in words))


def find_by_pid_file(path: str, command: Sequence[str], proc: str = "/proc") -> Process | None:
    """The process that a pid file means, None when there is no pid file.

    It must have started before the file was written, and its command line must be ``command``, unless that is empty.
    Raises StalePidFileError when the process is gone or is another one, and ProcessError when the file cannot serve.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            words = stream.read(256).split()
            written = os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProcessError(f"the pid file {path} cannot be read: {error.strerror}") from error
    if not words or not words[0].isdigit() or int(words[0]) <= 1:
        raise ProcessError(f"the pid file {path} holds no pid of a service: see who writes it, and remove it")
    pid = int(words[0])
    process = look(pid, proc)
    if process is None:
        raise StalePidFileError(f"the pid file {path} is stale: its process {pid} has ended")
    if process.began > written + CLOCK_SLACK:
        raise StalePidFileError(
            f"the pid file {path} is stale: {process.told} started after it was written, so it is another process"
        )
    if command and not is_command(process.command, command):
        raise StalePidFileError(f"the pid file {path} is stale: {process.told} has another command line")
    return process


def is_command(line: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a command line is the wanted one.

    Its last words must be the wanted ones, word for word: an interpreter may stand before them. The program may be
    written with or without its folder. So a name that is a part of another's never matches.
    """
    tail = line[-len(wanted) :] if wanted else ()
    if len(tail) != len(wanted):
        return False
    program, expected = tail[0], wanted[0]
    same = program == expected or (os.sep not in expected and os.path.basename(program) == expected)
    return same and list(tail[1:]) == list(wanted[1:])


def members(group: int, proc: str = "/proc") -> list[Process]:
    """The living processes of a process group."""
    return [process for process in _all(proc) if process.group == group]


def _all(proc: str) -> Iterator[Process]:
    for name in os.listdir(proc):
        if name.isdigit():
            process = look(int(name), proc)
            if process is not None:
                yield process


def _boot_time(proc: str) -> float:
    with open(f"{proc}/stat", encoding="ascii") as stream:
        return next(float(line.split()[1]) for line in stream if line.startswith("btime "))


@dataclass(frozen=True)
class Patience:
    """Seconds that a process has after the first signal, and after SIGKILL; and the clock they are taken with."""

    stop: float
    kill: float
    monotonic: Callable[[], float]


@dataclass
class Ending:
    """How processes ended. ``survivors`` had to be killed, ``seconds`` is from the first signal to the end of all."""

    processes: int = 0
    survivors: list[Process] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        return bool(self.survivors)


def end(process: Process, whole_group: bool, first_signal: signal.Signals, patience: Patience) -> Ending:
    """End a process, and its process group when it leads one: a signal, time, and SIGKILL only for what is left then.

    Whoever joins the group meanwhile is ended too. Raises ProcessError when something survives SIGKILL, or may not be
    signalled by this user.
    """
    started = patience.monotonic()
    with ExitStack() as stack:
        held = _Held(stack, process, whole_group and process.group == process.pid)
        held.signal(first_signal)
        left = held.wait(started + patience.stop, patience.monotonic)
        ending = Ending(survivors=left)
        if left:
            held.signal(signal.SIGKILL)
            stubborn = held.wait(patience.monotonic() + patience.kill, patience.monotonic)
            if stubborn:
                told = ", ".join(survivor.told for survivor in stubborn)
                raise ProcessError(
                    f"{told} survived SIGKILL for {patience.kill:g} s: it hangs in the kernel, see its stack in /proc"
                )
        ending.processes = held.count
    ending.seconds = round(patience.monotonic() - started, 3)
    return ending


class _Held:
    """A process, or a group, whose members are held by pidfds so that no signal can reach anybody else."""

    def __init__(self, stack: ExitStack, process: Process, whole_group: bool) -> None:
        self._stack = stack
        self._group = process.group if whole_group else None
        self._descriptors: dict[tuple[int, int], tuple[Process, int]] = {}
        self._hold(process)
        self._refresh()

    @property
    def count(self) -> int:
        return len(self._descriptors)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to everybody who is alive, also to those who joined since."""
        self._refresh()
        for process, descriptor in self._descriptors.values():
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                raise ProcessError(f"{process.told} may not be signalled by this user: use become") from error

    def wait(self, deadline: float, monotonic: Callable[[], float]) -> list[Process]:
        """Wait until all have ended; those who have not by the deadline."""
        while True:
            left = self._living()
            remaining = deadline - monotonic()
            if not left or remaining <= 0:
                return [process for process, _descriptor in left]
            poll = select.poll()
            poll.register(left[0][1], select.POLLIN)
            poll.poll(min(remaining, 0.2) * 1000)
            self._refresh()

    def _living(self) -> list[tuple[Process, int]]:
        poll = select.poll()
        for _process, descriptor in self._descriptors.values():
            poll.register(descriptor, select.POLLIN)
        # A pidfd can be read once its process has ended with all its threads.
        ended = {descriptor for descriptor, _event in poll.poll(0)}
        return [held for held in self._descriptors.values() if held[1] not in ended]

    def _refresh(self) -> None:
        for process in members(self._group) if self._group is not None else []:
            self._hold(process)

    def _hold(self, process: Process) -> None:
        """Hold a process, unless it ended, and somebody else got its pid, before that could be done."""
        key = (process.pid, process.started)
        if key in self._descriptors:
            return
        with suppress(ProcessLookupError):
            descriptor = _pidfd(process)
            self._stack.callback(os.close, descriptor)
            now = look(process.pid)
            if now is not None and now.started == process.started:
                self._descriptors[key] = (process, descriptor)


def _pidfd(process: Process) -> int:
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise
    except OSError as error:
        raise ProcessError(f"{process.told} cannot be held: {error.strerror}; Linux 5.3 is needed for that") from error
