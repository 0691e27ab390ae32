# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seven services: each a project folder as a Node.js service has it, and a real HTTP server that runs from it."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.platform.parts.process import ServerProcess, accepts, start_time

NAMES = (
    "api-gateway",
    "auth-service",
    "community-service",
    "link-service",
    "chat-service",
    "news-service",
    "admin-service",
)
#: Which services use Firestore and Redis; the others need nothing but themselves.
USES_REDIS = frozenset({"auth-service", "chat-service", "link-service"})
USES_FIRESTORE = frozenset({"auth-service", "community-service", "chat-service", "news-service"})

_PROGRAM = Path(__file__).with_name("service_server.py")


@dataclass(frozen=True)
class Service:
    """One service: its project folder, its port and what its health depends on (ports; None: not needed)."""

    name: str
    folder: Path
    log: Path
    port: int
    redis_port: int | None = None
    redis_password_file: Path | None = None
    firestore_port: int | None = None

    @property
    def process(self) -> ServerProcess:
        return _ServiceProcess(self.folder)

    @property
    def command(self) -> list[str]:
        """How the service is started by whoever restarts it."""
        return [sys.executable, str(self.folder / "server.py")]

    @property
    def fault(self) -> str:
        """The fault that is switched on: ``hang``, ``503``, ``down``, or nothing."""
        return self._fault_file.read_text() if self._fault_file.exists() else ""

    def start(self) -> None:
        """Start it unless it runs with these settings; while its fault is ``down`` it is left stopped."""
        if self.fault == "down":
            return
        if self._write_project():
            self.process.stop()
        self.process.start(self.command, lambda: accepts(self.port))

    def stop(self) -> None:
        self.process.stop()

    def set_fault(self, fault: str) -> None:
        """``hang`` and ``503`` are noticed by the running service, ``down`` stops it, nothing mends it."""
        self._fault_file.unlink(missing_ok=True)
        if fault:
            self._fault_file.write_text(fault)
        if fault == "down":
            self.stop()
        else:
            self.start()

    @property
    def _fault_file(self) -> Path:
        return self.folder / "fault"

    def _write_project(self) -> bool:
        """Write the project folder; true when a service that runs already does so with old program or settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        package = {"name": self.name, "version": "1.4.2", "private": True, "scripts": {"start": "python3 server.py"}}
        lock = {"name": self.name, "version": "1.4.2", "lockfileVersion": 3, "packages": {"": package}}
        settings = {"name": self.name, "port": self.port, "log": str(self.log), **self._dependencies()}
        _write(self.folder / "package.json", package)
        _write(self.folder / "package-lock.json", lock)
        _write(self.folder / ".env", f"NODE_ENV=production\nPORT={self.port}\n", mode=0o600)
        program_changed = _write(self.folder / "server.py", _PROGRAM.read_text())
        return _write(self.folder / "service.json", settings) or program_changed

    def _dependencies(self) -> dict[str, object]:
        needed: dict[str, object] = {}
        if self.redis_port:
            needed["redis"] = {"port": self.redis_port, "password_file": str(self.redis_password_file)}
        if self.firestore_port:
            needed["firestore"] = {"port": self.firestore_port}
        return needed


class _ServiceProcess(ServerProcess):
    """A process that writes its own pid file, as daemons do: whoever restarts it, it is still known.

    A pid file with a pid alone may name a stranger, so the command line must be this service's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("service", folder)

    def pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if str(self.folder / "server.py").encode() in words and start_time(pid):
                return pid
        return None

    def _note(self, pid: int) -> None:
        self.pid_file.write_text(f"{pid}\n")


def _write(path: Path, content: object, mode: int = 0o644) -> bool:
    """Write text, or anything else as JSON; true when that changed the file."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    if path.exists() and path.read_text() == text:
        return False
    path.touch(mode=mode)
    path.write_text(text)
    return True
