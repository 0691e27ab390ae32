# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a platform decides at its first start and keeps: its ports, and what was filled already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Settings:
    """The content of ``platform.json``, which the inventory of the demo reads too."""

    #: Name of a part: its port of loopback. The gateway's is ``nginx``.
    ports: dict[str, int] = field(default_factory=dict)
    #: Why Firestore is left out; empty when it is there.
    firestore_missing: str = ""
    #: Contents that are in already, so that no later start puts them in again.
    filled: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Settings:
        """What was kept, or nothing yet. Raises ValueError when the file is damaged."""
        if not path.exists():
            return cls()
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def write(self, path: Path) -> None:
        """Keep them, readable by their owner alone; a reader sees the old or the new ones, never half of them."""
        temporary = path.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")
        temporary.replace(path)

    def choose_ports(self, names: Iterable[str], usable: Callable[[str, int], bool], free: Callable[[], int]) -> None:
        """Give each name a port of its own; a kept one stays while it is ``usable``."""
        for name in names:
            port = self.ports.get(name, 0)
            if not (port and usable(name, port)):
                others = {other for key, other in self.ports.items() if key != name}
                while not port or port in others or not usable(name, port):
                    port = free()
                self.ports[name] = port
