# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be broken on the platform, each with its way back.

A fault is planned, noted in the platform's folder, and only then done: a fault that was cut short can be healed too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.platform.miniature import Miniature, PlatformError

Note = Mapping[str, Any]
_FULL_LOG_BYTES = 6 * 1024**3


@dataclass(frozen=True)
class Fault:
    """``plan`` decides what will be broken and returns the note by which ``act`` breaks and ``heal`` mends it.

    ``found_by`` is the procedure that must find something critical, and patterns of the subjects that it tells of.
    """

    told: str
    found_by: tuple[str, ...]
    plan: Callable[[Miniature], Note]
    act: Callable[[Miniature, Note], None]
    heal: Callable[[Miniature, Note], None]


def switch(platform: Miniature, name: str) -> list[str]:
    """Have exactly this fault on the platform; ``none`` heals all. Returns what was done, a sentence each.

    Raises PlatformError for a name that is not known, when there is nothing to break, and while the platform is down.
    """
    if name != "none" and name not in FAULTS:
        raise PlatformError(f"there is no fault {name}; there are: {', '.join(FAULTS)}, none")
    if platform.nginx.process.pid() is None:
        raise PlatformError(f"the platform below {platform.root} is not running: start it first")
    changes = [heal(platform, other) for other in active(platform) if other != name]
    if name != "none" and name not in active(platform):
        note = FAULTS[name].plan(platform)
        platform.faults.mkdir(exist_ok=True)
        (platform.faults / name).write_text(json.dumps(note) + "\n")
        FAULTS[name].act(platform, note)
        changes.append(FAULTS[name].told.format(**note))
    return changes


def active(platform: Miniature) -> list[str]:
    """Names of the faults that are switched on."""
    return sorted(path.name for path in platform.faults.iterdir()) if platform.faults.exists() else []


def judge(platform: Miniature, report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Hold a run's report against the faults: those ``missed``, and critical findings that have ``other`` causes."""
    critical = [finding for finding in report["run"]["findings"] if finding["status"] == "critical"]
    caused = {name: [finding for finding in critical if _tells_of(name, finding)] for name in active(platform)}
    explained = [finding for findings in caused.values() for finding in findings]
    return {
        "missed": [name for name, findings in caused.items() if not findings],
        "other": [f"{finding['subject']}: {finding['summary']}" for finding in critical if finding not in explained],
    }


def _tells_of(name: str, finding: Mapping[str, Any]) -> bool:
    procedure, *subjects = FAULTS[name].found_by
    return finding["procedure"] == procedure and any(fnmatch(finding["subject"], pattern) for pattern in subjects)


def heal(platform: Miniature, name: str) -> str:
    """Mend one fault; returns a sentence."""
    noted = platform.faults / name
    FAULTS[name].heal(platform, json.loads(noted.read_text()))
    noted.unlink()
    return f"healed {name}"


def _service_fault(service: str, kind: str, told: str) -> Fault:
    return Fault(
        told,
        ("health_check", service),
        plan=lambda _platform: {"service": service},
        act=lambda platform, _note: platform.services[service].set_fault(kind),
        heal=lambda platform, _note: platform.services[service].set_fault(""),
    )


def _expire(platform: Miniature, _note: Note) -> None:
    platform.write_certificate("near_end")


def _renew(platform: Miniature, _note: Note) -> None:
    platform.write_certificate()


def _choose_byte(platform: Miniature) -> Note:
    """A byte in the middle of the newest complete backup set's Redis snapshot."""
    manifests = sorted(platform.backups.glob("[0-9]*Z/manifest.json"))
    if not manifests:
        raise PlatformError(f"there is no complete backup set below {platform.backups} to damage: make a backup first")
    folder = manifests[-1].parent
    snapshots = sorted(path for path in folder.glob("redis/*") if not path.name.endswith(".json"))
    if not snapshots:
        raise PlatformError(f"the backup set {folder} holds no Redis snapshot to damage")
    content = snapshots[0].read_bytes()
    middle = len(content) // 2
    return {"path": str(snapshots[0]), "offset": middle, "byte": content[middle]}


def _flip_byte(_platform: Miniature, note: Note) -> None:
    _write_byte(note, note["byte"] ^ 0xFF)


def _restore_byte(_platform: Miniature, note: Note) -> None:
    if Path(note["path"]).exists():
        _write_byte(note, note["byte"])


def _write_byte(note: Note, byte: int) -> None:
    with Path(note["path"]).open("r+b") as stream:
        stream.seek(note["offset"])
        stream.write(bytes([byte]))


def _name_full_log(platform: Miniature) -> Note:
    return {"path": str(platform.logs / "services" / "debug.trace"), "gib": _FULL_LOG_BYTES // 1024**3}


def _fill_log(_platform: Miniature, note: Note) -> None:
    """Grow a log without using the disk: its size is told, its blocks are holes."""
    with Path(note["path"]).open("w") as log:
        log.write("2026-01-01T00:00:00Z debug trace left switched on\n")
        log.truncate(_FULL_LOG_BYTES)


def _remove_log(_platform: Miniature, note: Note) -> None:
    Path(note["path"]).unlink(missing_ok=True)


#: By name: what ``make demo FAULT=<name>`` breaks.
FAULTS = {
    "service-down": _service_fault("auth-service", "down", "stopped {service}"),
    "service-hanging": _service_fault("chat-service", "hang", "{service} takes requests and answers none"),
    "service-503": _service_fault("link-service", "503", "{service} answers 503"),
    # The inventory reads the password in the note instead of the true one.
    "redis-password": Fault(
        "the catalog holds a wrong password for Redis",
        ("health_check", "redis:cache"),
        plan=lambda _platform: {"password": "a-wrong-password"},
        act=lambda _platform, _note: None,
        heal=lambda _platform, _note: None,
    ),
    "certificate-expiring": Fault(
        "the gateway serves a certificate near its end",
        ("security_scan", "localhost:*", "*/gateway.pem"),
        plan=lambda _platform: {},
        act=_expire,
        heal=_renew,
    ),
    "corrupt-backup": Fault(
        "flipped byte {offset} of {path}",
        ("backup_verification", "redis:cache", "backup"),
        plan=_choose_byte,
        act=_flip_byte,
        heal=_restore_byte,
    ),
    "full-log": Fault(
        "{path} grew to {gib} GiB",
        ("log_rotation", "*/debug.trace"),
        plan=_name_full_log,
        act=_fill_log,
        heal=_remove_log,
    ),
}
