# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of backup_copy, from its options to its answer. ``params`` are the options of the module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._age import check_recipients
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy import Copy, Expectations, check_copies
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_bucket import BucketPlace, StorageAccess
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_changes import (
    BackupCopyError,
    Change,
    Order,
    choose_set,
    copy_set,
    remove_copy,
)
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import FolderPlace, Place
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_ssh import SshAccess, SshPlace
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, parse_duration

#: Is told how many bytes were read back so far, and of how many when that is known.
Progress = Callable[[int, Optional[int]], None]


def place_of(params: Mapping[str, Any]) -> Place:
    """The place of the option ``destination``. Raises ValueError when it is none."""
    destination = str(params["destination"]).strip()
    scheme = urlsplit(destination).scheme
    if scheme == "gs":
        names = ("service_account_file", "impersonate_service_account")
        access = {name: params[name] or "" for name in names}
        return BucketPlace(
            destination, StorageAccess(params["storage_endpoint"] or "", **access, timeout=params["timeout"])
        )
    if scheme == "ssh":
        key, known = params["ssh_key_file"] or "", params["ssh_known_hosts_file"] or ""
        return SshPlace(destination, SshAccess(key, known, params["timeout"]))
    path = unquote(urlsplit(destination).path) if scheme == "file" else destination
    if not path.startswith("/"):
        raise ValueError(f"destination is {destination!r}: give gs://bucket/folder, ssh://user@host/folder or /folder")
    root, path = os.path.realpath(params["root"]), os.path.realpath(path)
    if os.path.commonpath((root, path)) in (root, path):
        raise ValueError(f"destination {path} and root {root} lie in each other: a copy belongs on another disk")
    return FolderPlace(path)


def carry_out(params: Mapping[str, Any], clock: Clock, progress: Progress, check: bool) -> dict[str, Any]:
    """Do what ``present`` and ``absent`` ask for; the answer.

    Raises ValueError for options that make no sense, BackupCopyError, PlaceError, EncryptionError and OSError.
    """
    order = _order(params, clock, progress, check)
    if params["state"] == "absent":
        change = remove_copy(order, params["id"], params["force"])
    else:
        change = copy_set(order, choose_set(order.root, params["id"]))
    return _answer(change, clock)


def check(params: Mapping[str, Any], clock: Clock, progress: Progress) -> tuple[list[Finding], list[dict[str, Any]]]:
    """The findings about all copies at the place, and these. Raises ValueError for options that make no sense."""
    max_age = None if params["max_age"] is None else parse_duration(params["max_age"])
    place = place_of(params)
    found = FindingsBuilder(clock())
    expected = Expectations(params["name"] or place.address, max_age, params["read_back"])
    seen = check_copies(found, place, expected, clock(), _tally(progress))
    return found.findings, [copy.as_dict(clock()) for copy in seen.copies]


def _order(params: Mapping[str, Any], clock: Clock, progress: Progress, check: bool) -> Order:
    recipients = tuple(sorted({recipient.strip() for recipient in params["recipients"]}))
    check_recipients(recipients)
    prune_after = None if params["prune_after"] is None else parse_duration(params["prune_after"])
    root = os.path.realpath(params["root"])
    if not os.path.isdir(root):
        raise BackupCopyError(f"there are no backup sets: {root} is no folder")
    read_back = params["read_back"]
    return Order(root, place_of(params), recipients, read_back, prune_after, clock, _tally(progress), check)


def _tally(progress: Progress) -> Callable[[int], None]:
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress(done, None)

    return tell


def _answer(change: Change, clock: Clock) -> dict[str, Any]:
    return {
        "changed": change.changed,
        "msg": change.message,
        "reason": change.reason,
        "removed": change.removed,
        "copy": _told(change.copy, clock),
        "diff": {"before": {"copies": change.before}, "after": {"copies": change.after}},
    }


def _told(copy: Copy | None, clock: Clock) -> dict[str, Any] | None:
    return None if copy is None else copy.as_dict(clock())
