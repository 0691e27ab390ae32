# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Cloud Storage: gcp-storage-emulator, with its objects on disk below one folder."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.platform.parts.process import PartError, ServerProcess


@dataclass(frozen=True)
class Bucket:
    """A storage server on a port of loopback with one bucket."""

    folder: Path
    port: int
    name: str

    @property
    def url(self) -> str:
        """What ``storage_endpoint`` and STORAGE_EMULATOR_HOST want."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> ServerProcess:
        return ServerProcess("bucket", self.folder)

    def start(self) -> None:
        """Start it unless it runs; objects of an earlier run are there again. Raises PartError."""
        if importlib.util.find_spec("gcp_storage_emulator") is None:
            raise PartError(f"the stand-in for Cloud Storage needs gcp-storage-emulator, which {sys.executable} lacks")
        argv = [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(self.folder / "objects"), "start"]
        argv += ["--host", "127.0.0.1", "--port", str(self.port), "--default-bucket", self.name, "--quiet"]
        self.process.start(argv, self.ready)

    def stop(self) -> None:
        self.process.stop()

    def ready(self) -> bool:
        """Whether it answers requests."""
        try:
            with urllib.request.urlopen(f"{self.url}/storage/v1/b/{self.name}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def storage(url: str) -> Iterator[Any]:
    """A google.cloud.storage.Client of the server at ``url`` that reaches no other and retries nothing for long."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    client = Client(project="stand-in", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
    # A proxy of the environment is none of loopback's business.
    client._http.trust_env = False
    try:
        yield client
    finally:
        client.close()
