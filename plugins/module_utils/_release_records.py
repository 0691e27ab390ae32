# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service was seen to use, newest last, in a file on its host: Docker itself forgets the images before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, text_of
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

_KEPT = 20


class RecordsError(Exception):
    """The file cannot be read; the text says what to do."""


class Records:
    """The file at ``path``: ``[{"at": ..., "release": {...}}]``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        """All records, oldest first. Raises RecordsError."""
        text = text_of(self._path)
        try:
            entries = json.loads(text) if text is not None else []
            return [{"at": str(entry["at"]), "release": dict(entry["release"])} for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise RecordsError(f"{self._path} is damaged: remove it, and record what is in use anew") from error

    def lacks(self, release: Mapping[str, Any]) -> bool:
        """Whether this is not what was recorded last."""
        entries = self.read()
        return not entries or entries[-1]["release"] != dict(release)

    def add(self, release: Mapping[str, Any], now: datetime) -> None:
        """Record it as the newest, unless it is that already."""
        if self.lacks(release):
            entries = [*self.read(), {"at": isoformat(now), "release": dict(release)}][-_KEPT:]
            Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            publish_text(self._path, json.dumps(entries, indent=2) + "\n")

    def image_before(self, current: str) -> dict[str, str]:
        """The newest image with another id than the current one; empty when none was recorded."""
        images = [entry["release"].get("image") or {} for entry in self.read()]
        others = [image for image in images if image.get("id") not in (None, current)]
        return dict(others[-1]) if others else {}
