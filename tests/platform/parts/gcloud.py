# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Google's own command line, the independent client of the Admin API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any


class Gcloud:
    """``gcloud firestore`` of a project; asks the stand-in at ``admin_url`` and keeps its own files in ``folder``."""

    def __init__(self, admin_url: str, project: str, folder: Path) -> None:
        self._project = project
        self._environment = {
            **os.environ,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE": f"{admin_url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CONFIG": str(folder),
        }

    @staticmethod
    def missing() -> str:
        """Why it cannot be asked here; nothing when it can."""
        return "" if shutil.which("gcloud") else "gcloud is not on PATH (package google-cloud-cli)"

    def firestore(self, *arguments: str, timeout: float = 60) -> Any:
        """What the command answers, and None when it says nothing; waits for what it waits for."""
        command = ["gcloud", "firestore", *arguments, f"--project={self._project}", "--format=json", "--quiet"]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "null")
