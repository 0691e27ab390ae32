# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role security_scan, used alone, on real files and servers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks
from tests.fixtures.certificates import StartTlsServer
from tests.platform.parts.certificates import CertificateAuthority, defective

_SECRET = "hunter2-hunter2"


def _run_role(catalogue: dict[str, Any], folder: Path, *, check: bool = False) -> dict[str, Any]:
    """Run the role on localhost and return the outcome it leaves; the run must succeed."""
    outcome = folder / "outcome.json"
    tasks: list[dict[str, Any]] = [
        {"name": "Scan", "ansible.builtin.include_role": {"name": "upkeep.ops.security_scan"}},
        {
            "name": "Keep the outcome",
            "ansible.builtin.copy": {"content": "{{ upkeep_outcome | to_json }}", "dest": str(outcome), "mode": "0600"},
            "check_mode": False,
        },
    ]
    told = run_tasks(tasks, catalogue, check=check)
    assert _SECRET not in told, "the run prints a secret"
    left: dict[str, Any] = json.loads(outcome.read_text())
    return left


def _project(folder: Path, content: str) -> dict[str, str]:
    project = folder / "auth-service"
    (project / "src").mkdir(parents=True)
    (project / "src/config.js").write_text(content)
    (project / ".env").write_text("PORT=8080\n")
    return {"name": "auth-service", "project": str(project)}


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_every_part_finds_what_is_wrong(
    certificate_authority: CertificateAuthority, tls_server: StartTlsServer, tmp_path: Path, check: bool
) -> None:
    port = tls_server(defective(certificate_authority, "near_end", "localhost"))
    service = _project(tmp_path, f'const password = "{_SECRET}";\n')
    (Path(service["project"]) / ".env").chmod(0o644)
    catalogue = {
        "upkeep_certificates": {
            "endpoints": [{"host": "localhost", "port": port}],
            "ca_certs": str(certificate_authority.root_file),
        },
        "upkeep_services": [service, {"name": "elsewhere", "project": "/nowhere", "hosts": ["app7"]}],
        "upkeep_fail_on": "never",
        "security_scan_updates": False,
    }
    started = time.monotonic()
    outcome = _run_role(catalogue, tmp_path, check=check)
    assert time.monotonic() - started < 30
    critical = {each["check"] for each in outcome["findings"] if each["status"] == "critical"}
    assert critical - {"loopback_only"} == {"certificate_expiry", "secret_in_file", "file_mode"}
    assert {"secret_scan", "listening_ports", "file_modes"} <= {each["check"] for each in outcome["findings"]}
    assert not [each for each in outcome["findings"] if each["subject"] == "/nowhere"]
    assert outcome["changes"] == [] and outcome["artifacts"]["security_scan_mode"] == "light"


def test_a_part_that_breaks_is_unknown_and_the_others_go_on(tmp_path: Path) -> None:
    service = _project(tmp_path, "nothing to hide\n")
    catalogue = {
        "upkeep_services": [service],
        "upkeep_security": {"file_modes": [{"path": "/etc/passwd", "mode": "rw"}]},
        "upkeep_fail_on": "never",
        "security_scan_updates": False,
    }
    outcome = _run_role(catalogue, tmp_path)
    found = {(each["check"], each["subject"]): each for each in outcome["findings"]}
    assert found["security_scan_part", "host"]["status"] == "unknown"
    assert "'rw' is no octal mode" in found["security_scan_part", "host"]["summary"]
    assert found["secret_scan", service["project"]]["status"] == "ok"


def test_alone_it_fails_by_itself(tmp_path: Path) -> None:
    service = _project(tmp_path, f'const password = "{_SECRET}";\n')
    with pytest.raises(AssertionError, match="Secret Keyword in line 1"):
        _run_role({"upkeep_services": [service], "security_scan_updates": False}, tmp_path)
