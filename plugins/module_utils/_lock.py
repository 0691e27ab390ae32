# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that is held by a run of many tasks, not by the short-lived process of one module.

The lock is a small JSON file that names its owner. It outlives the process that wrote it, so nothing frees it by
itself: whoever finds it has to judge whether its owner is gone. That is certain where the owner's process can be
seen (same machine, same pid namespace), and presumed by age elsewhere. The file is read and written only inside
:func:`mutex`, which the kernel frees with its process.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, sync_folder
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat, parse_time

#: Seconds that one module call may keep another waiting: the work inside the mutex takes milliseconds.
MUTEX_PATIENCE = 30.0
_MUTEX_POLL = 0.05
_PROC = "/proc"


class LockError(Exception):
    """The lock is held by somebody else, or cannot be read; the text names the owner and says what to do."""


@dataclass(frozen=True)
class Place:
    """Where a process lives: two processes can see each other when all four are equal."""

    host: str
    machine: str = ""
    boot: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Lock:
    """Who holds the lock, since when and for what. ``pid`` is 0 when the run's process could not be seen.

    An owner that renews its lock holds it since then.
    ``command`` is a digest of its command line, which may hold secrets.
    """

    owner: str
    subject: str
    taken_at: str
    place: Place
    user: str = ""
    pid: int = 0
    started: int = 0
    command: str = ""

    def describe(self, now: datetime) -> str:
        """The owner in words for a person: who, where, which process, since when."""
        process = f", process {self.pid}" if self.pid else ""
        age = format_duration((now - parse_time(self.taken_at)).total_seconds())
        return f"{self.user or 'somebody'} on {self.place.host} (owner {self.owner}{process}) for {age}"


def here(proc: str = _PROC) -> Place:
    """The place of this process."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink(f"{proc}/self/ns/pid")
    boot = _first_line(f"{proc}/sys/kernel/random/boot_id")
    return Place(socket.gethostname(), _first_line("/etc/machine-id"), boot, namespace)


def new_lock(owner: str, subject: str, now: datetime) -> Lock:
    """A lock for this run: its process is looked up among the ancestors of this one."""
    pid, started = run_process(os.getpid())
    command = _digest(_command_line(pid, _PROC)) if pid else ""
    return Lock(owner, subject, isoformat(now), here(), _user(), pid, started, command)


def default_owner() -> str:
    """A name for this run: the same in all its tasks where the run's process can be seen, else one of a kind."""
    pid, started = run_process(os.getpid())
    return f"{_user()}@{socket.gethostname()}:{pid}:{started}" if pid else f"{_user()}:{uuid.uuid4().hex}"


def run_process(pid: int, proc: str = _PROC) -> tuple[int, int]:
    """Pid and start time of the Ansible run that a process belongs to; (0, 0) when it cannot be seen from here.

    With a local connection the command ``ansible-playbook`` is an ancestor of every module. Its workers are forks
    with the same command line, so the oldest of such a family is the run. Over SSH there is none.
    """
    found = (0, 0)
    family = b""
    while pid > 1:
        command = _command_line(pid, proc)
        if family and command != family:
            break
        if _is_ansible(command):
            family = command
            found = (pid, start_time(pid, proc))
        pid = _parent(pid, proc)
    return found


def start_time(pid: int, proc: str = _PROC) -> int:
    """Clock ticks after boot at which a process started; 0 when it does not run.

    A zombie does not, unless others of its threads still live: then its ports are still open.
    """
    fields = _stat(pid, proc)
    ended = not fields or (fields[0] == "Z" and len(_threads(pid, proc)) <= 1)
    return 0 if ended else int(fields[19])


def owner_gone(lock: Lock, now: datetime, stale_after: float, place: Place, proc: str = _PROC) -> str:
    """Why the owner of a lock is gone, in words; empty while it may be at work.

    ``stale_after`` (seconds) counts only where the owner's process cannot be seen: a live one is never overruled.
    """
    same_machine = (lock.place.host, lock.place.machine) == (place.host, place.machine)
    if same_machine and lock.place.boot != place.boot:
        return f"{lock.place.host} was restarted since"
    if lock.pid and lock.place == place:
        return "" if start_time(lock.pid, proc) == lock.started else f"its process {lock.pid} has ended"
    age = (now - parse_time(lock.taken_at)).total_seconds()
    if age > stale_after:
        return f"it is older than {format_duration(stale_after)} and its process cannot be seen from here"
    return ""


def left_at_work(lock: Lock, place: Place, proc: str = _PROC) -> list[int]:
    """Workers of a run that was killed, which come to the end of their task first; none where they cannot be seen.

    They are known by the command line of their run, by their age, which is between its own and that of the run that
    asks, and because none of those two is above them.
    """
    if not lock.command or lock.place != place:
        return []
    ours, began = run_process(os.getpid(), proc)
    pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    alike = [pid for pid in pids if _digest(_command_line(pid, proc)) == lock.command]
    of_age = [
        pid for pid in alike if lock.started <= start_time(pid, proc) and not (ours and start_time(pid, proc) > began)
    ]
    return [pid for pid in of_age if run_process(pid, proc)[0] not in (ours, lock.pid)]


def read_lock(path: str) -> Lock | None:
    """The lock, or None when it is free. Raises LockError when the file is not one of ours."""
    try:
        with open(path, encoding="utf-8") as stream:
            fields = json.load(stream)
        return Lock(**{**fields, "place": Place(**fields["place"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LockError(
            f"the lock {path} cannot be understood ({error}); remove that file when no backup is running"
        ) from error


def write_lock(path: str, lock: Lock) -> None:
    """Take the lock, or take it over: only inside :func:`mutex`, after :func:`read_lock` was judged."""
    publish_text(path, json.dumps(asdict(lock), indent=2) + "\n")


def free_lock(path: str) -> None:
    """Release the lock; fine when it is free already."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(os.path.dirname(path))


@contextmanager
def mutex(
    path: str, sleep: Callable[[float], None], patience: float = MUTEX_PATIENCE, poll: float = _MUTEX_POLL
) -> Iterator[None]:
    """One module process at a time; the kernel frees it when the process ends, however it ends.

    It is tried each ``poll`` seconds. Raises LockError when another process keeps it longer than ``patience`` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waited = 0.0
        while not locked(descriptor):
            if waited >= patience:
                raise LockError(f"another process has kept {path} locked for {format_duration(patience)}")
            sleep(poll)
            waited += poll
        yield
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Lock an open file for this process alone, unless somebody holds it; nobody is waited for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_ansible(command_line: bytes) -> bool:
    """Whether one of the first two words (the interpreter, the program) is a command of Ansible."""
    programs = [word.rsplit(b"/", 1)[-1] for word in command_line.split(b"\0")[:2]]
    return any(program == b"ansible" or program.startswith(b"ansible-") for program in programs)


def _command_line(pid: int, proc: str) -> bytes:
    try:
        with open(f"{proc}/{pid}/cmdline", "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _digest(command_line: bytes) -> str:
    return hashlib.sha256(command_line).hexdigest()


def _parent(pid: int, proc: str) -> int:
    fields = _stat(pid, proc)
    return int(fields[1]) if fields else 0


def _stat(pid: int, proc: str) -> list[str]:
    """Fields of /proc/PID/stat from the state on: the name before them may hold spaces and brackets."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _threads(pid: int, proc: str) -> list[str]:
    try:
        return os.listdir(f"{proc}/{pid}/task")
    except OSError:
        return []


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
