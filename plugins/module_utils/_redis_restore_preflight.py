# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against a restore, found out before anything is touched, and which way it is to go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._rdb import (
    can_load,
    newest_written_by,
    server_in_words,
    server_version_of,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_target import Facts

_OLDEST = (7, 0)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_RESERVE = 1.1


@dataclass(frozen=True)
class Snapshot:
    """What a scratch server told of the snapshot that it loaded; sizes in bytes."""

    verified: bool
    rdb_bytes: int
    used_memory: int
    highest_database: int
    scratch_version: str


@dataclass(frozen=True)
class Wishes:
    """What was asked for, as far as it can be refused. ``way`` is auto, online or offline."""

    way: str
    digest: bool
    unverified: bool
    sentinels: bool
    commands: bool
    scratch_address: str
    state_dir: str


@dataclass(frozen=True)
class Way:
    """How to restore, online or offline, and why so; or what speaks against either."""

    mode: str
    why: str
    refusals: list[str]


def judge(facts: Facts, snapshot: Snapshot, wishes: Wishes) -> Way:
    """The way to go. It must not be gone when there are refusals."""
    always = _always(facts, snapshot, wishes)
    online = _online(facts, snapshot, wishes)
    offline = _offline(facts, wishes)
    if wishes.way == "online":
        return Way("online", "mode asks for it", always + online)
    if wishes.way == "offline":
        return Way("offline", "mode asks for it", always + offline)
    if not online:
        return Way("online", "writers wait meanwhile instead of failing, and nothing is stopped", always)
    if not offline:
        return Way("offline", f"online it cannot be done: {'; '.join(online)}", always)
    return Way("online", "neither way can be gone", [*always, *online, *(f"offline: {told}" for told in offline)])


def _always(facts: Facts, snapshot: Snapshot, wishes: Wishes) -> list[str]:
    info = facts.info
    told = []
    if not snapshot.verified and not wishes.unverified:
        told.append("the snapshot has no manifest, so nobody knows whether it holds what it should: see unverified")
    if facts.version < _OLDEST:
        told.append(f"the server is Redis {info['redis_version']}; restores are made for 7.0 and newer")
    if info.get("cluster_enabled"):
        told.append(
            "the server is a node of a cluster: restore each of its masters by hand, slots and nodes.conf first"
        )
    if info.get("role") == "slave":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        lost = (
            "; its link there is down: where that was the private server of a restore whose journal is lost, restart "
            "it, or promote it with REPLICAOF NO ONE"
        )
        told.append(
            f"the server is a replica of {master}, from where its data would come back: restore into that"
            + (lost if info.get("master_link_status") == "down" else "")
        )
    if "config|get" in facts.forbidden:
        return [*told, "the user may not ask for its settings: its ACL needs +config|get"]
    return [*told, *_of_the_settings(facts, snapshot, wishes)]


def _of_the_settings(facts: Facts, snapshot: Snapshot, wishes: Wishes) -> list[str]:
    config, info = facts.config, facts.info
    told = []
    databases, maxmemory = int(config.get("databases", 16)), int(config.get("maxmemory", 0))
    if snapshot.highest_database >= databases:
        told.append(
            f"the snapshot has database {snapshot.highest_database} and the server only {databases} databases: it "
            f"would end at once; set databases {snapshot.highest_database + 1} in its redis.conf and restart it"
        )
    if maxmemory and snapshot.used_memory > maxmemory:
        told.append(
            f"the snapshot needs {snapshot.used_memory} bytes of memory and maxmemory is {maxmemory}: keys would be "
            "evicted, or writes refused; raise maxmemory first"
        )
    if facts.sentinels and not wishes.sentinels:
        told.append(
            f"{facts.sentinels} Sentinels watch the server and would fail over meanwhile: name all of them in "
            "sentinel_hosts"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        told.append("the server cannot write its append-only file: mend that first, is its disk full?")
    if info.get("aof_rewrite_in_progress"):
        told.append("the server is rewriting its append-only file: try again when it has finished")
    if wishes.digest and not facts.debug:
        told.append("digest needs DEBUG, which the server does not allow (enable-debug-command): leave digest out")
    return [*told, *_no_room(facts, snapshot, wishes)]


def _no_room(facts: Facts, snapshot: Snapshot, wishes: Wishes) -> list[str]:
    """Free space: for the safety snapshots, and on the server's disk when it can be seen from here."""
    needed = {wishes.state_dir: 2 * int(facts.info.get("used_memory_dataset", 0))}
    if facts.local:
        copies = 2 if facts.aof else 1  # the copy that is received, and the base of the append-only file
        needed[facts.config["dir"]] = int(copies * snapshot.rdb_bytes * _RESERVE)
    by_device: dict[int, list[str]] = {}
    for folder in needed:
        by_device.setdefault(os.stat(_existing(folder)).st_dev, []).append(folder)
    told = []
    for folders in by_device.values():
        wanted, free = sum(needed[folder] for folder in folders), shutil.disk_usage(_existing(folders[0])).free
        if wanted > free:
            told.append(f"{' and '.join(folders)} would need about {wanted} bytes and {free} are free")
    return told


def _existing(folder: str) -> str:
    """The folder, or what is there of the way to it."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "/"
    return folder


def _online(facts: Facts, snapshot: Snapshot, wishes: Wishes) -> list[str]:
    told = []
    rights = [name for name in facts.forbidden if name != "config|get"]
    if rights:
        told.append(f"the user may not do what it takes: its ACL needs {' '.join(f'+{name}' for name in rights)}")
    if facts.config.get("tls-replication") == "yes" and wishes.scratch_address not in _LOOPBACK:
        told.append("the server replicates by TLS, the scratch server does not: run this on the server's own host")
    written, server = newest_written_by(snapshot.scratch_version), server_version_of(facts.info)
    understood = snapshot.scratch_version == server or (written is not None and can_load(server, written) is not False)
    if not understood:
        told.append(
            f"the scratch server is {server_in_words(snapshot.scratch_version)}, whose data {server_in_words(server)} "
            "may not understand: name an older one in server_binary"
        )
    return told


def _offline(facts: Facts, wishes: Wishes) -> list[str]:
    told = []
    if not wishes.commands:
        told.append("how to stop and start the server is not told: give service, or stop_command and start_command")
    if not facts.local:
        told.append(
            "the server does not run on this host, or this user may not see its process: run this there, as root"
        )
    filed = _filed_appendonly(facts.info)
    if filed and filed != facts.config.get("appendonly"):
        told.append(
            f"appendonly is {facts.config.get('appendonly')} and would be {filed} after a restart, as its "
            "redis.conf says: make both equal first (CONFIG REWRITE)"
        )
    return told


def _filed_appendonly(info: Mapping[str, Any]) -> str:
    """What the configuration file says of appendonly; empty when it says nothing or cannot be read."""
    found = ""
    try:
        with open(str(info.get("config_file", "")), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                words = line.split()
                if len(words) == 2 and words[0].lower() == "appendonly":
                    found = words[1].strip("\"'").lower()
    except OSError:
        return ""
    return found
