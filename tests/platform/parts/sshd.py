# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sshd on a port of loopback, with a host key of its own and one user: the one who runs it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from tests.platform.parts.process import PartError, ServerProcess, accepts


class SshServer:
    """One sshd. ``key`` is the private key that it lets in, ``known_hosts`` a file that knows its host key."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.key = folder / "user"
        self.known_hosts = folder / "known_hosts"
        self.process = ServerProcess("sshd", folder)
        self._host_key = folder / "host"

    def __enter__(self) -> SshServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def url(self, path: Path, port: int | None = None) -> str:
        """The address of a folder of this host, by this server or by a proxy on another port."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port or self.port}{path}"

    def known_at(self, port: int) -> str:
        """What a file of known hosts must hold for this server behind a port."""
        return f"[127.0.0.1]:{port} {Path(f'{self._host_key}.pub').read_text()}"

    def start(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise PartError("there is no sshd: install openssh-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        for key in (self.key, self._host_key):
            if not key.exists():
                make_key(key)
        self.known_hosts.write_text(self.known_at(self.port))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text("\n".join(self._settings()) + "\n")
        self.process.start([program, "-D", "-e", "-f", str(config)], lambda: accepts(self.port))

    def _settings(self) -> list[str]:
        return [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self._host_key}",
            f"AuthorizedKeysFile {self.key}.pub",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
        ]


def make_key(path: Path) -> None:
    """A new key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)
