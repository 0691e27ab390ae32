# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of restores into one Redis server: what was found, done and changed, so that a killed run is not lost.

Each restore has a folder of its own, named by its time, with ``journal.json`` and the safety snapshots. The journal is
on disk before the step that it speaks of is begun.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, sync_folder
from ansible_collections.upkeep.ops.plugins.module_utils._time import Clock, isoformat

_FILE = "journal.json"
_FORMAT = 1
_NAME = re.compile(r"\d{8}T\d{12}Z")
#: What may have become of a restore; ``open`` is one whose run has not come to its end.
OPEN, DONE, BACK = "open", "done", "back"


class JournalError(Exception):
    """A journal cannot be read or written; the text says which and why."""


class Journal:
    """One restore. ``log`` hears of each step."""

    def __init__(self, folder: str, content: dict[str, Any], log: Callable[[str], object]) -> None:
        self.folder = folder
        self._content = content
        self._log = log

    def __getitem__(self, name: str) -> Any:
        return self._content[name]

    def get(self, name: str) -> Any:
        """What was noted under a name, None when nothing was."""
        return self._content.get(name)

    @property
    def open(self) -> bool:
        """Whether its run has not come to its end."""
        return bool(self._content["state"] == OPEN)

    def file(self, name: str) -> str:
        """Path of a file that belongs to this restore."""
        return os.path.join(self.folder, name)

    def taken_back(self) -> None:
        """Note that the server holds again what it held before; when that was to go back, that is still to be done."""
        if self["goal"] == BACK:
            self.note(state=DONE, step="taken back", back_to=self["path"])
        else:
            self.note(state=BACK, step="taken back")

    def step(self, name: str, **notes: Any) -> None:
        """Note that a step begins, with what has to be known to take it back."""
        self.note(step=name, **notes)
        self._log(f"restore into {self._content['target']}: {name}")

    def note(self, **notes: Any) -> None:
        """Add to the journal. It is on disk when this returns."""
        self._content.update(notes)
        publish_text(self.file(_FILE), json.dumps(self._content, indent=2) + "\n")


def state_folder(root: str, target: str) -> str:
    """The folder for all restores into a server; it need not be there yet."""
    return os.path.join(root, re.sub(r"[^A-Za-z0-9.]+", "_", target).strip("_"))


def begin(folder: str, target: str, now: Clock, log: Callable[[str], object], **notes: Any) -> Journal:
    """Open the journal of a new restore."""
    moment = now()
    own = os.path.join(folder, moment.strftime("%Y%m%dT%H%M%S%fZ"))
    os.mkdir(own, 0o700)
    content = {"format": _FORMAT, "state": OPEN, "target": target, "begun_at": isoformat(moment), "step": "begun"}
    journal = Journal(own, content, log)
    journal.note(**notes)
    sync_folder(folder)
    return journal


def newest(folder: str, log: Callable[[str], object]) -> Journal | None:
    """The journal of the newest restore, None when there was none. Raises JournalError."""
    for own in reversed(_restores(folder)):
        journal = _read(own, log)
        if journal is not None:
            return journal
    return None


def remove_all(folder: str, with_files: bool) -> int:
    """Remove all restores of a server with their safety snapshots; how many there were.

    ``with_files`` also removes the old files that were moved aside in the server's folder on this host.
    """
    restores = _restores(folder)
    for own in restores:
        journal = _read(own, lambda _told: None)
        if with_files and journal is not None:
            shutil.rmtree(journal["aside"], ignore_errors=True)
        shutil.rmtree(own)
    return len(restores)


def _read(own: str, log: Callable[[str], object]) -> Journal | None:
    path = os.path.join(own, _FILE)
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        return None  # killed before it began
    except (OSError, ValueError) as error:
        raise JournalError(f"the journal {path} cannot be read: {error}") from error
    if content.get("format") != _FORMAT:
        raise JournalError(f"the journal {path} has format {content.get('format')!r}; known here is {_FORMAT}")
    return Journal(own, content, log)


def _restores(folder: str) -> list[str]:
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []
