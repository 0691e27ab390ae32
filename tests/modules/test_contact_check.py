# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""contact_check against a name server, listening ports and files of this host."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module
from tests.platform.parts.process import free_port

#: Whether the name server tells an MX record, that there is no mail, that there is no such name, or an error.
_ANSWERS = {b"mail": (0, b"\x00\x0a\x04mail\x00"), b"null": (0, b"\x00\x00\x00"), b"gone": (3, b""), b"sick": (2, b"")}


@pytest.fixture(scope="module")
def resolver() -> Iterator[str]:
    """A name server that knows the names above, below .invalid."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            query, peer = server.recvfrom(4096)
            if query == b"stop":
                return
            code, data = _ANSWERS[query[13 : 13 + query[12]]]
            record = b"\xc0\x0c" + struct.pack("!HHIH", 15, 1, 60, len(data)) + data if data else b""
            head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if data else 0, 0, 0)
            server.sendto(head + query[12:] + record, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.sendto(b"stop", server.getsockname())
    thread.join()
    server.close()


def check(contact: dict[str, Any], **options: Any) -> dict[str, Any]:
    env = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), "")
    given = {"contacts": [{"name": "Ops", **contact}], "timeout": 1, "fail_on": "never", **options}
    (finding,) = run_module("contact_check", given, env=env)["findings"]
    assert finding["check"] == "contact_reachable" and finding["subject"] == "Ops"
    return dict(finding)


@pytest.mark.parametrize(
    "email, status, told",
    [
        ("ops@mail.invalid", "ok", "reachable by ops@mail.invalid"),
        ("ops@null.invalid", "critical", "null.invalid has no mail server and no address"),
        ("ops@gone.invalid", "critical", "gone.invalid has no mail server and no address"),
        ("ops@sick.invalid", "unknown", "answers with error 2"),
        ("ops", "critical", "no mail address"),
        ("", "warning", "no address at all"),
    ],
)
def test_the_domain_of_a_mail_address_has_a_mail_server(resolver: str, email: str, status: str, told: str) -> None:
    found = check({"email": email}, resolvers=[resolver])
    # Without a name server at all this host may not even know that .invalid does not exist.
    assert found["status"] in ({status, "unknown"} if status == "critical" and "@" in email else {status})
    assert found["status"] != status or told in found["summary"]


def test_hosts_have_to_answer_on_their_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert check({"urls": [f"json://127.0.0.1:{port}/hook"]})["status"] == "ok"
        mail = f"mailto://upkeep:hunter2hunter2@127.0.0.1:{port}?from=upkeep@company.com&to=ops@company.com"
        assert check({"urls": [mail]})["status"] == "ok"
    closed = free_port()
    found = check(
        {"urls": [f"mailto://upkeep:hunter2hunter2@127.0.0.1:{closed}?from=upkeep@company.com&to=ops@company.com"]}
    )
    assert found["status"] == "critical" and f"127.0.0.1 does not answer on port {closed}" in found["summary"]
    assert "hunter2" not in str(found)
    assert "does not know this kind" in check({"urls": ["carrier-pigeon://roof"]})["summary"]


def test_files_have_to_be_writable(tmp_path: Path) -> None:
    assert check({"urls": [f"file://{tmp_path}/new/alerts.log"]})["status"] == "ok"
    assert "is a folder" in check({"urls": [f"file://{tmp_path}"]})["summary"]
    (tmp_path / "file").write_text("")
    assert check({"urls": [f"file://{tmp_path}/file"]})["status"] == "ok"
    assert "is no folder" in check({"urls": [f"file://{tmp_path}/file/alerts.log"]})["summary"]
    assert "cannot be written" in check({"urls": ["file:///proc/upkeep/alerts.log"]})["summary"]


def test_examples(tmp_path: Path) -> None:
    run_examples("contact_check", {"/var/log/upkeep": str(tmp_path)})
