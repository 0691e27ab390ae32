# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Linux host has and uses: processor, memory, the largest processes, file systems. Read from /proc."""

from __future__ import annotations

import os
import pwd
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_TICK_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")

#: File systems that hold data without a block device of their own.
_REMOTE_OR_POOLED = frozenset({"btrfs", "ceph", "cifs", "fuse.sshfs", "nfs", "nfs4", "smb3", "virtiofs", "zfs"})

#: Images that are full by nature.
_IMAGES = frozenset({"erofs", "iso9660", "squashfs", "udf"})


def read(path: str) -> str:
    """A small text file of the kernel. Raises OSError."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def numbers(text: str) -> dict[str, int]:
    """``Name: 12 kB`` or ``name 12`` lines as name -> number, in the file's unit."""
    found = (re.match(r"(\S+?):?\s+(\d+)", line) for line in text.splitlines())
    return {match.group(1): int(match.group(2)) for match in found if match}


def cpu_ticks(stat: str) -> dict[str, int]:
    """Clock ticks of all processors together by what they were spent on, from /proc/stat."""
    words = stat.split("\n", 1)[0].split()[1:]
    return dict(zip(_TICK_FIELDS, (int(word) for word in words)))


def cpu_shares(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """Percent of the time between two samples that went to work, to waiting for disks and to other machines.

    ``used`` is everything but idle and waiting for disks.
    """
    spent = {name: max(0, after[name] - before[name]) for name in after if name in before}
    total = sum(spent.values())
    if not total:
        return {"used_percent": 0.0, "iowait_percent": 0.0, "steal_percent": 0.0}
    idle = spent.get("idle", 0) + spent.get("iowait", 0)
    return {
        "used_percent": round(100 * (total - idle) / total, 1),
        "iowait_percent": round(100 * spent.get("iowait", 0) / total, 1),
        "steal_percent": round(100 * spent.get("steal", 0) / total, 1),
    }


def load(loadavg: str, cores: int) -> dict[str, Any]:
    """Load averages over 1, 5 and 15 minutes, and that of 5 minutes per core."""
    averages = [float(word) for word in loadavg.split()[:3]]
    return {"load": averages, "cores": cores, "load_per_core": round(averages[1] / max(1, cores), 2)}


def memory(meminfo: str) -> dict[str, Any]:
    """Bytes of memory and swap. What can be taken back from caches counts as available."""
    kib = numbers(meminfo)
    total, available = kib["MemTotal"] * 1024, kib.get("MemAvailable", kib["MemFree"]) * 1024
    swap, swap_free = kib.get("SwapTotal", 0) * 1024, kib.get("SwapFree", 0) * 1024
    return {
        "total_bytes": total,
        "available_bytes": available,
        "used_percent": round(100 * (total - available) / total, 1),
        "swap_total_bytes": swap,
        "swap_used_bytes": swap - swap_free,
        "swap_percent": round(100 * (swap - swap_free) / swap, 1) if swap else 0.0,
    }


def pressure(text: str) -> dict[str, float]:
    """Percent of the last minute in which some (all) tasks were held up, from /proc/pressure/*."""
    found = re.findall(r"^(some|full) .*?avg60=([\d.]+)", text, re.MULTILINE)
    return {f"{kind}_percent": float(value) for kind, value in found}


def largest_processes(proc: str, count: int, total_bytes: int) -> list[dict[str, Any]]:
    """The processes with the most resident memory. Their arguments are left out: they can hold secrets."""
    found = []
    for name in os.listdir(proc):
        if name.isdigit():
            process = _process(os.path.join(proc, name), int(name), total_bytes)
            if process:
                found.append(process)
    return sorted(found, key=lambda process: (-process["rss_bytes"], process["pid"]))[:count]


def _process(folder: str, pid: int, total_bytes: int) -> dict[str, Any] | None:
    """One process; None for a kernel thread and for one that has ended meanwhile."""
    try:
        status = read(os.path.join(folder, "status"))
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if "VmRSS" not in fields:
        return None
    rss = int(fields["VmRSS"].split()[0]) * 1024
    return {
        "pid": pid,
        "name": fields["Name"],
        "user": _user(int(fields["Uid"].split()[0])),
        "rss_bytes": rss,
        "percent": round(100 * rss / total_bytes, 1),
        "threads": int(fields["Threads"]),
    }


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@dataclass(frozen=True)
class Mount:
    """A mounted file system that holds data."""

    path: str
    source: str
    kind: str


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The file systems worth watching, each once, from /proc/self/mountinfo.

    Bind mounts and subvolumes are the file system they come from. File systems of memory and of the kernel, images
    and overlays are left out, but for the root, which is an overlay inside a container.
    """
    found: dict[str, tuple[int, Mount]] = {}
    for line in mountinfo.splitlines():
        entry = _mount(line)
        if entry is None:
            continue
        identity, root, mount = entry
        order = (0 if mount.path == "/" else 1 if root == "/" else 2) * 10_000 + len(mount.path)
        if identity not in found or order < found[identity][0]:
            found[identity] = (order, mount)
    return sorted((mount for _order, mount in found.values()), key=lambda mount: mount.path)


def _mount(line: str) -> tuple[str, str, Mount] | None:
    """Identity, root inside the file system and mount of one line; None when it is not worth watching."""
    before, separator, after = line.partition(" - ")
    words, rest = before.split(" "), after.split(" ")
    if not separator or len(words) < 6 or len(rest) < 2:
        return None
    path, kind, source = _unescape(words[4]), rest[0], _unescape(rest[1])
    device = source.startswith("/dev/") or kind in _REMOTE_OR_POOLED
    if kind in _IMAGES or not (device or path == "/"):
        return None
    # Every subvolume of btrfs has a device number of its own, but they share one source.
    identity = source if kind in _REMOTE_OR_POOLED else words[2]
    return identity, _unescape(words[3]), Mount(path, source, kind)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def usage(mounts: Sequence[Mount], timeout: float) -> Iterator[dict[str, Any]]:
    """Size and use of each file system, as df reckons it. ``problem`` is set for one that cannot be measured.

    All are asked at once: a dead network file system never answers, and must cost its time only once.
    """
    answers: dict[str, os.statvfs_result | OSError] = {}
    threads = [threading.Thread(target=_ask, args=(mount.path, answers), daemon=True) for mount in mounts]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for mount, thread in zip(mounts, threads):
        thread.join(max(0.0, deadline - time.monotonic()))
        figures = _figures(answers.get(mount.path), timeout)
        yield {"mount": mount.path, "source": mount.source, "type": mount.kind, **figures}


def _ask(path: str, answers: dict[str, os.statvfs_result | OSError]) -> None:
    try:
        answers[path] = os.statvfs(path)
    except OSError as error:
        answers[path] = error


def _figures(answer: os.statvfs_result | OSError | None, timeout: float) -> dict[str, Any]:
    if not isinstance(answer, os.statvfs_result):
        problem = f"it does not answer within {timeout:g} s" if answer is None else str(answer.strerror)
        empty: dict[str, Any] = dict.fromkeys(
            ("total_bytes", "used_bytes", "available_bytes", "total_inodes", "used_inodes"), 0
        )
        return {**empty, "used_percent": None, "inode_percent": None, "problem": problem}
    used = (answer.f_blocks - answer.f_bfree) * answer.f_frsize
    available = answer.f_bavail * answer.f_frsize
    inodes = answer.f_files - answer.f_ffree
    return {
        "total_bytes": answer.f_blocks * answer.f_frsize,
        "used_bytes": used,
        "available_bytes": available,
        # What is kept back for root is neither used nor available: df leaves it out of its percentage.
        "used_percent": round(100 * used / (used + available), 1) if used + available else 0.0,
        "total_inodes": answer.f_files,
        "used_inodes": inodes,
        "inode_percent": round(100 * inodes / answer.f_files, 1) if answer.f_files else None,
        "problem": "",
    }


def wanted(mounts: Iterable[Mount], only: Sequence[str], without: Sequence[str]) -> list[Mount]:
    """Mounts that are listed (all, when nothing is) and not excepted; both are paths."""
    return [mount for mount in mounts if (not only or mount.path in only) and mount.path not in without]


def pressures(folder: str) -> dict[str, dict[str, float]]:
    """Pressure of each resource; empty where the kernel does not measure it."""
    found = {}
    for name in ("cpu", "memory", "io"):
        with suppress(OSError):
            found[name] = pressure(read(os.path.join(folder, name)))
    return found
