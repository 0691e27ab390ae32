# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Firestore's Admin API, which the emulator lacks: the part that starts and sets it.

The program is ``admin_bridge_server``. It serves exports, imports, databases and their operations over gRPC and REST,
takes the documents from the emulator and keeps the exports in the stand-in for Cloud Storage.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.platform.parts.process import PartError, ServerProcess, accepts

_ROOT = Path(__file__).resolve().parents[3]

#: How the next export ends. ``no_metadata`` claims success without ever having written the overall metadata,
#: ``unfinished`` is done without an error, but not in the state SUCCESSFUL.
OUTCOMES = ("success", "failure", "cancelled", "no_metadata", "unfinished")

#: The methods whose operations can be delayed and made to fail.
METHODS = ("export", "import", "create_database", "delete_database", "bulk_delete")


@dataclass(frozen=True)
class AdminBridge:
    """The bridge on two ports of loopback, between an emulator and a storage server."""

    folder: Path
    grpc_port: int
    rest_port: int
    #: ``host:port`` of the emulator.
    emulator_host: str
    #: URL of the storage server.
    storage_url: str
    #: Full names of the databases that exist at its start; the emulator would answer for any.
    databases: Sequence[str]

    @property
    def endpoint(self) -> str:
        """``host:port`` for gRPC, as ``admin_endpoint`` wants it."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def url(self) -> str:
        """For REST, as gcloud's CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE wants it, less the last slash."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def process(self) -> ServerProcess:
        return ServerProcess("admin-bridge", self.folder)

    def start(self) -> None:
        """Start it unless it runs; it knows nothing of the operations of an earlier run."""
        argv = [sys.executable, "-m", "tests.platform.parts.admin_bridge_server"]
        argv += ["--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port)]
        argv += ["--emulator", self.emulator_host, "--storage", self.storage_url]
        for database in self.databases:
            argv += ["--database", database]
        path = os.pathsep.join([str(_ROOT / "collections"), os.environ.get("PYTHONPATH", "")])
        self.process.start(argv, self.ready, cwd=_ROOT, env={"PYTHONPATH": path.rstrip(os.pathsep)})

    def stop(self) -> None:
        self.process.stop()

    def ready(self) -> bool:
        """Whether both ports answer."""
        return accepts(self.rest_port) and accepts(self.grpc_port)

    def configure(self, *, delay: float = 0, outcome: str = "success", method: str = "") -> None:
        """Operations take ``delay`` seconds, also those that are going, and new ones end as ``outcome`` says.

        ``outcome`` is one of OUTCOMES, ``method`` the one of METHODS that is meant; without one all are.
        """
        self._put("settings", {"delay": delay, "outcome": outcome, "method": method})

    def list_schema(self, indexes: Sequence[Mapping[str, Any]] = (), fields: Sequence[Mapping[str, Any]] = ()) -> None:
        """From now on list these indexes and fields, given as the API's Index and Field in JSON."""
        self._put("schema", {"indexes": list(indexes), "fields": list(fields)})

    def _put(self, path: str, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", method="PUT", data=content)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            raise PartError(f"the bridge refused {content!r}: {error.read().decode()}") from error
