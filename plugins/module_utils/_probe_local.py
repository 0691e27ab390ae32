# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of what runs on this host: a process, by its pid file or systemd unit, and the outcome of a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import Deadline, DeadlineExceededError
from ansible_collections.upkeep.ops.plugins.module_utils._probe import (
    NotMeasurableError,
    Probe,
    ProbeFailedError,
    Trace,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

_CHUNK = 16384

#: Seconds by which a process may seem younger than its pid file: the time of boot is known to the second.
_CLOCK_SLACK = 3.0

#: Seconds that the last output of a command that has ended may take to arrive.
_LAST_OUTPUT = 0.5


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its return code (negative is a signal) and its output, cut at the cap."""

    rc: int
    output: str


def probe_process(probe: Probe, trace: Trace) -> str:
    """The prober of type process."""
    if probe.unit:
        return _judge_unit(probe.unit, _unit_state(probe, trace))
    pid, started = read_pid_file(probe.pid_file)
    age = time.time() - started
    trace.alive = True
    return f"runs as pid {pid} for {format_duration(max(age, 0))}"


def read_pid_file(path: str) -> tuple[int, float]:
    """Pid and start time (epoch) of the process that wrote the pid file and still runs.

    A process that started after the file was written only inherited the number. Raises ProbeFailedError, and
    NotMeasurableError when the file may not be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            words = stream.read(256).split()
            written = os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        raise ProbeFailedError(f"not running: there is no pid file {path}", "Start the service") from None
    except OSError as error:
        raise NotMeasurableError(
            f"the pid file {path} cannot be read: {error.strerror}", "Run the probe as a user who may (become)"
        ) from error
    if not words or not words[0].isdigit():
        raise ProbeFailedError(f"the pid file {path} holds no pid", "Restart the service")
    pid = int(words[0])
    started = _started(pid)
    if started is None:
        raise ProbeFailedError(
            f"not running: pid {pid} of {path} is gone", "Look at the service's log for its end, and start it"
        )
    if started > written + _CLOCK_SLACK:
        raise ProbeFailedError(
            f"not running: pid {pid} of {path} belongs to another process, which started later",
            "Start the service; do not signal this pid",
        )
    return pid, started


def _started(pid: int) -> float | None:
    """When a process started (epoch); None when it has ended, a zombie included."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # The name in parentheses may hold spaces and parentheses itself.
            fields = stream.read().rsplit(")", 1)[1].split()
        with open("/proc/stat", encoding="ascii") as stream:
            boot = next(float(line.split()[1]) for line in stream if line.startswith("btime "))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _unit_state(probe: Probe, trace: Trace) -> dict[str, str]:
    argv = ["systemctl", "show", "--property=LoadState,ActiveState,SubState,Result,MainPID", "--", probe.unit]
    result = run_command(argv, trace.deadline, probe.max_bytes)
    if result.rc != 0:
        raise NotMeasurableError(f"systemd cannot be asked: {_line(result.output)}", "Probe the pid file instead")
    return dict(line.split("=", 1) for line in result.output.splitlines() if "=" in line)


def _judge_unit(unit: str, state: dict[str, str]) -> str:
    """What systemd says of an active unit. Raises ProbeFailedError for any other."""
    told = f"{state.get('ActiveState')} ({state.get('SubState')})"
    if state.get("LoadState") == "not-found":
        raise ProbeFailedError(f"there is no unit {unit}", "Install the unit, or correct unit of the probe")
    if state.get("ActiveState") != "active":
        raise ProbeFailedError(
            f"the unit {unit} is {told}, result {state.get('Result')}", f"See journalctl -u {unit}, then start it"
        )
    return f"the unit is {told}" + (f", pid {state['MainPID']}" if state.get("MainPID", "0") != "0" else "")


def probe_command(probe: Probe, trace: Trace) -> str:
    """The prober of type command."""
    result = run_command(probe.argv, trace.deadline, probe.max_bytes)
    trace.bytes_read = len(result.output)
    trace.alive = True
    said = _line(result.output)
    if result.rc not in probe.rc:
        ended = f"was ended by signal {-result.rc}" if result.rc < 0 else f"returned {result.rc}"
        raise ProbeFailedError(
            f"{probe.argv[0]} {ended}, expected {', '.join(map(str, probe.rc))}" + (f": {said}" if said else ""),
            "Run the command by hand on this host",
        )
    if probe.regex and not re.search(probe.regex, result.output):
        raise ProbeFailedError(
            f"{probe.argv[0]} returned {result.rc} with no match of {probe.regex!r} in {said!r}",
            "Run the command by hand on this host",
        )
    return f"returned {result.rc}"


def _line(output: str) -> str:
    """The beginning of an output, on one line."""
    return " ".join(output.split())[:120]


def run_command(argv: Sequence[str], deadline: Deadline, max_bytes: int) -> CommandResult:
    """Run a command until the deadline, which kills it with all that it started.

    Raises NotMeasurableError when it cannot be started and DeadlineExceededError.
    """
    deadline.remaining()
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        raise NotMeasurableError(
            f"{argv[0]} cannot be started: {error.strerror}", "Install it, or correct argv of the probe"
        ) from error
    if process.stdout is None:
        raise AssertionError("its output was asked for")
    output = bytearray()
    reader = threading.Thread(target=_drain, args=(process.stdout, output, max_bytes), daemon=True)
    reader.start()
    deadline.guard(lambda: _kill_group(process.pid))
    # Not reaped yet: until then neither pid nor group can belong to anybody else.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    deadline.done()
    _kill_group(process.pid)
    process.wait()
    if deadline.expired:
        raise DeadlineExceededError
    reader.join(_LAST_OUTPUT)
    return CommandResult(process.returncode, bytes(output).decode("utf-8", "replace"))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _drain(stream: IO[bytes], output: bytearray, max_bytes: int) -> None:
    """Read to the end, so that the command is not held up, and keep no more than ``max_bytes``."""
    with stream:
        while piece := os.read(stream.fileno(), _CHUNK):
            output += piece[: max_bytes - len(output)]
