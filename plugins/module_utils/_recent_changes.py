# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a host around a moment, and what its system complains of. Only looks, and looks for a bounded time.

Each source returns its entries or raises SourceError when it cannot be read; one that this host does not have is empty.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._access_log_files import open_log
from ansible_collections.upkeep.ops.plugins.module_utils._programs import ProgramError, Runner
from ansible_collections.upkeep.ops.plugins.module_utils._secrets import masked_line
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time

_MOST = 100
_DPKG = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (install|upgrade|remove|purge) (\S+) (\S+) (\S+)")
_DPKG_BYTES = 16 << 20
#: So much later than its layers an image may get its name and still was built here.
_BUILD_SECONDS = 60
_KERNEL = (
    ("oom", re.compile(r"[Oo]ut of memory: Killed process \d+ \(([^)]+)\)|oom-kill:.*\btask=([^,]+)")),
    (
        "disk_error",
        re.compile(r"(I/O error, dev \S+|\S+: Remounting filesystem read-only|EXT4-fs error \(device \S+\))"),
    ),
    ("crash", re.compile(r"(\S+)\[\d+\]: segfault")),
)


class SourceError(Exception):
    """A source cannot be read; the text says which and why."""


@dataclass(frozen=True)
class Entry:
    """Something that happened: ``kind`` says what, ``subject`` to what, ``service`` of which one if that is known."""

    kind: str
    subject: str
    at: str
    summary: str
    service: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        return asdict(self)


@dataclass(frozen=True)
class Means:
    """How to look: a runner of programs, seconds that each may take, and from when on entries count."""

    run: Runner
    timeout: float
    since: datetime

    def output(self, argv: list[str]) -> str:
        """What a program writes. Raises SourceError when it fails."""
        try:
            ended = self.run(argv, self.timeout)
        except ProgramError as error:
            raise SourceError(str(error)) from error
        if ended.rc != 0:
            raise SourceError(f"{argv[0]}: {masked_line(ended.complaint)}")
        return ended.stdout


def releases(service: Mapping[str, Any], means: Means) -> list[Entry]:
    """When the link ``current`` beside a folder of releases was turned, and which releases were put there."""
    folder, name = str(service.get("releases") or ""), str(service["name"])
    if not folder or not os.path.isdir(folder):
        return []
    found = []
    link = os.path.join(os.path.dirname(os.path.normpath(folder)), "current")
    try:
        if os.path.islink(link):
            release = os.path.basename(os.readlink(link).rstrip("/"))
            found.append(Entry("release", name, _at(os.lstat(link).st_mtime), f"release {release} went live", name))
        with os.scandir(folder) as entries:
            found += [
                Entry("upload", name, _at(entry.stat().st_mtime), f"release {entry.name} was put there", name)
                for entry in entries
                if entry.is_dir()
            ]
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from error
    return _recent(found, means)


def commits(service: Mapping[str, Any], means: Means) -> list[Entry]:
    """Commits in the project folder of a service, when it is a clone of git."""
    folder, name = str(service.get("project") or ""), str(service["name"])
    if not folder or not os.path.exists(os.path.join(folder, ".git")) or not shutil.which("git"):
        return []
    # The settings of somebody else's clone must not make git run anything.
    argv = [
        "git",
        "-c",
        f"safe.directory={os.path.realpath(folder)}",
        "-c",
        "log.showSignature=false",
        "-C",
        folder,
        "log",
    ]
    lines = means.output(
        [*argv, "-n", "20", f"--since={isoformat(means.since)}", "--format=%h%x09%ct%x09%s"]
    ).splitlines()
    parts = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    return _recent(
        [
            Entry("commit", name, _at(float(at)), f"commit {sha}: {masked_line(text)[:120]}", name)
            for sha, at, text in parts
        ],
        means,
    )


def packages(paths: Iterable[str], means: Means) -> list[Entry]:
    """Packages that dpkg installed, upgraded or removed, by its log."""
    found = []
    for path in paths:
        if not os.path.exists(path):
            continue
        try:
            with open_log(path) as stream:
                text = stream.read(_DPKG_BYTES).decode(errors="replace")
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from error
        for match in filter(None, map(_DPKG.match, text.splitlines())):
            at, verb, package, old, new = match.groups()
            moment = datetime.strptime(at, "%Y-%m-%d %H:%M:%S").timestamp()
            bare, told = package.partition(":")[0], {"install": f"installed {new}", "upgrade": f"{old} to {new}"}
            found.append(Entry("package", bare, _at(moment), f"{bare}: {told.get(verb, f'removed {old}')}"))
    return _recent(found, means)


def containers(means: Means) -> list[Entry]:
    """Containers that were made, and images that were built here or came here, where there is Docker."""
    if not shutil.which("docker") or not (os.environ.get("DOCKER_HOST") or os.path.exists("/var/run/docker.sock")):
        return []
    made = means.output(["docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}"])
    ids = sorted(set(means.output(["docker", "image", "ls", "--quiet", "--no-trunc"]).split()))
    images = json.loads(means.output(["docker", "image", "inspect", *ids])) if ids else []
    found = []
    for item in map(json.loads, made.splitlines()):
        told = f"container {item['Names']} was made of {item['Image']}; {item['Status']}"
        found.append(Entry("container", item["Names"], _docker_time(item["CreatedAt"]), told))
    for item in images:
        # One that nobody named any more is what was there before.
        named = _any_time(str((item.get("Metadata") or {}).get("LastTagTime") or ""))
        found += [_image(name, _any_time(str(item["Created"])), named) for name in item.get("RepoTags") or []]
    return _recent(found, means)


def _image(name: str, built: str, named: str) -> Entry:
    """An image at the time when it was built, or later got its name, as by a pull."""
    if named and (not built or (parse_time(named) - parse_time(built)).total_seconds() > _BUILD_SECONDS):
        return Entry("image", name, named, f"image {name} came here or was named so; it was built {built or 'once'}")
    return Entry("image", name, built, f"image {name} was built")


def failed_units(means: Means) -> list[Entry]:
    """Units of systemd that failed, whenever that was."""
    if not os.path.isdir("/run/systemd/system"):
        return []
    listed = means.output(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"])
    found = []
    for line in listed.splitlines()[:_MOST]:
        unit = line.split()[0]
        asked = ["systemctl", "show", unit, "--timestamp=unix", "--property=Result,StateChangeTimestamp"]
        told = dict(pair.split("=", 1) for pair in means.output(asked).splitlines() if "=" in pair)
        stamp = told.get("StateChangeTimestamp", "").lstrip("@")
        at = _at(float(stamp)) if stamp.isdigit() else ""
        found.append(Entry("unit", unit, at, f"the unit {unit} failed: {told.get('Result') or 'unknown'}"))
    return found


def kernel(means: Means) -> list[Entry]:
    """What the kernel said of memory that ran out, of failing disks and of crashes."""
    text = ""
    if shutil.which("journalctl"):
        since = f"@{int(means.since.timestamp())}"
        argv = ["journalctl", "-k", "-q", "--no-pager", "-o", "short-unix", f"--since={since}", "-n", "5000"]
        text = means.output(argv)
    # The journal holds nothing of the kernel where no journald reads its log.
    if not text and shutil.which("dmesg"):
        text = means.output(["dmesg", "--time-format", "iso"])
    found: dict[tuple[str, str], Entry] = {}
    for line in text.splitlines():
        for kind, rule in _KERNEL:
            match = rule.search(line)
            if match:
                subject = next(group for group in match.groups() if group)
                at = _line_time(line.split(" ", 1)[0])
                found[kind, subject] = Entry(kind, subject, at, masked_line(line.split(" ", 1)[-1])[:200])
    return [entry for entry in found.values() if not entry.at or parse_time(entry.at) >= means.since]


def _line_time(text: str) -> str:
    """The time that a line begins with, in seconds or ISO; empty when it is none."""
    try:
        return _at(float(text)) if re.fullmatch(r"\d+\.\d+", text) else isoformat(parse_time(text.replace(",", ".")))
    except ValueError:
        return ""


def _docker_time(text: str) -> str:
    """``2026-01-31 12:00:00 +0000 UTC`` as Docker writes it."""
    parts = text.split()
    try:
        return isoformat(datetime.strptime(" ".join(parts[:3]), "%Y-%m-%d %H:%M:%S %z"))
    except ValueError:
        return ""


def _any_time(text: str) -> str:
    """RFC 3339 as Docker writes it; empty when it is none, or that of nothing."""
    try:
        # It writes nanoseconds, which not every Python reads.
        return "" if text.startswith("0001-") else isoformat(parse_time(re.sub(r"\.\d+", "", text)))
    except ValueError:
        return ""


def _recent(entries: Iterable[Entry], means: Means) -> list[Entry]:
    """Those since the moment that counts, newest first, not too many."""
    wanted = [entry for entry in entries if entry.at and parse_time(entry.at) >= means.since]
    return sorted(wanted, key=lambda entry: entry.at, reverse=True)[:_MOST]


def _at(timestamp: float) -> str:
    return isoformat(datetime.fromtimestamp(timestamp, timezone.utc))
