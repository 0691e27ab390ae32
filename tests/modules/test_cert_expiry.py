# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cert_expiry on real files and servers; the openssl program is the independent judge."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ansible
import pytest
from cryptography.hazmat.primitives import serialization

from tests.examples import run_examples
from tests.fixtures.certificates import StartTlsServer
from tests.harness import ROOT, run_module
from tests.platform.parts.certificates import CertificateAuthority, Identity, defective, pem, sign
from tests.platform.parts.process import ServerProcess, accepts, free_port, running

#: defect: (check that must find it, status in a file, status on a server, words that name the cause)
_FAULTS = {
    "expired": ("certificate_expiry", "critical", "critical", "expired 10 d"),
    "near_end": ("certificate_expiry", "critical", "critical", "expires in"),
    "not_yet_valid": ("certificate_expiry", "warning", "critical", "not valid before"),
    "self_signed": ("certificate_trust", "warning", "critical", "self-signed"),
    "missing_intermediate": ("certificate_trust", "warning", "critical", "the intermediate certificate is missing"),
    "wrong_order": ("certificate_trust", "warning", "warning", "out of order"),
    "wrong_host": ("certificate_name", "ok", "critical", "not for localhost"),
    "weak_key": ("certificate_strength", "warning", "critical", "only 1024 bits"),
}

#: (days of lifetime, days left, status)
_LIFETIMES = (
    (6, 3, "ok"),
    (6, 1.4, "warning"),
    (6, 0.5, "critical"),
    (47, 20, "ok"),
    (47, 11, "warning"),
    (47, 4, "critical"),
    (90, 23, "ok"),
    (90, 22, "warning"),
    (90, 9, "critical"),
    (398, 31, "ok"),
    (398, 22, "warning"),
)


def check(**arguments: Any) -> dict[str, Any]:
    return run_module("cert_expiry", {"fail_on": "never", **arguments})


def bad(answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Findings that are not ok: check -> (status, summary)."""
    return {each["check"]: (each["status"], each["summary"]) for each in answer["findings"] if each["status"] != "ok"}


def assert_found(answer: dict[str, Any], subject: str, expected: list[tuple[str, str]], words: str) -> None:
    """Of this subject, exactly these checks are not ok, and the summary has the words."""
    found = [each for each in answer["findings"] if each["subject"] == subject and each["status"] != "ok"]
    assert [(each["check"], each["status"]) for each in found] == expected
    assert all(words in each["summary"] for each in found), found


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def good(certificate_authority: CertificateAuthority) -> Identity:
    return certificate_authority.issue("localhost", "127.0.0.1")


class TestFiles:
    def test_a_good_file_is_read_as_openssl_reads_it(
        self, certificate_authority: CertificateAuthority, good: Identity, tmp_path: Path
    ) -> None:
        files = good.write(tmp_path, "good")
        answer = check(paths=[str(files.fullchain)], ca_certs=str(certificate_authority.root_file))
        assert bad(answer) == {}
        entry = answer["certificates"][0]
        told = openssl("x509", "-in", files.certificate, "-noout", "-serial", "-enddate", "-dateopt", "iso_8601")
        assert f"serial={entry['serial'].zfill(len(entry['serial']) + len(entry['serial']) % 2)}\n" in told
        assert f"notAfter={entry['not_after'].replace('T', ' ')}" in told
        verified = openssl(
            "verify", "-CAfile", certificate_authority.root_file, "-untrusted", files.chain, files.certificate
        )
        assert verified.endswith("OK\n") and entry["trust"] == "trusted"
        assert entry["names"] == ["localhost", "127.0.0.1"]
        assert entry["chain"] == ["CN=Miniature Intermediate CA"]
        assert (entry["key"], entry["lifetime_days"]) == ("EC secp256r1", 90.0)

    def test_one_defect_is_one_finding(self, certificate_authority: CertificateAuthority, tmp_path: Path) -> None:
        files = {defect: defective(certificate_authority, defect).write(tmp_path, defect) for defect in _FAULTS}
        paths = [str(each.fullchain) for each in files.values()]
        answer = check(paths=paths, ca_certs=str(certificate_authority.root_file))
        for defect, (name, status, _live, words) in _FAULTS.items():
            expected = [] if status == "ok" else [(name, status)]
            assert_found(answer, str(files[defect].fullchain), expected, words)

    def test_sha1_and_self_signed(self, certificate_authority: CertificateAuthority, tmp_path: Path) -> None:
        files = defective(certificate_authority, "sha1").write(tmp_path, "server")
        found = bad(check(paths=[str(files.fullchain)]))
        assert "signed with SHA1" in found["certificate_strength"][1]
        assert "self-signed" in found["certificate_trust"][1]

    def test_der_and_pkcs12(self, certificate_authority: CertificateAuthority, good: Identity, tmp_path: Path) -> None:
        (tmp_path / "a.der").write_bytes(good.der())
        (tmp_path / "b.p12").write_bytes(good.pkcs12("open sesame"))
        arguments = {"paths": [str(tmp_path)], "ca_certs": str(certificate_authority.root_file)}
        answer = check(**arguments, passphrase="open sesame")
        assert [entry["serial"] for entry in answer["certificates"]] == [good.serial()] * 2
        assert [entry["trust"] for entry in answer["certificates"]] == ["incomplete", "trusted"]
        for passphrase, cause in ((None, "needs a passphrase"), ("wrong-one", "does not open it")):
            answer = check(**arguments, **({"passphrase": passphrase} if passphrase else {}))
            assert bad(answer)["certificate_expiry"][0] == "unknown"
            assert cause in bad(answer)["certificate_expiry"][1]
            assert "wrong-one" not in str(answer)

    def test_certbots_live_folder(
        self, certificate_authority: CertificateAuthority, good: Identity, tmp_path: Path
    ) -> None:
        archive, live = tmp_path / "archive/localhost", tmp_path / "live/localhost"
        archive.mkdir(parents=True)
        live.mkdir(parents=True)
        files = good.write(tmp_path, "made")
        parts = {"cert": files.certificate, "chain": files.chain, "fullchain": files.fullchain, "privkey": files.key}
        for name, source in parts.items():
            (archive / f"{name}1.pem").write_bytes(source.read_bytes())
            (live / f"{name}.pem").symlink_to(f"../../archive/localhost/{name}1.pem")
        (archive / "privkey1.pem").chmod(0)
        (live / "README").write_text("This directory contains your keys and certificates.\n")
        (tmp_path / "live/README").write_text("This directory contains your keys and certificates.\n")
        answer = check(paths=[str(tmp_path / "live")], ca_certs=str(certificate_authority.root_file))
        assert bad(answer) == {}
        assert [entry["source"] for entry in answer["certificates"]] == [str(live / "fullchain.pem")]
        (archive / "fullchain1.pem").unlink()
        answer = check(paths=[str(tmp_path / "live")])
        assert "link to a file that does not exist" in bad(answer)["certificate_expiry"][1]

    def test_a_bundle_of_authorities_is_judged_one_by_one(self, tmp_path: Path) -> None:
        past = datetime.now(timezone.utc) - timedelta(days=400)
        roots = [
            sign([f"Root {number}"], None, days=days, not_before=past, authority=True)
            for number, days in enumerate((3650, 300))
        ]
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(b"# two roots\n" + pem(*(root.certificate for root in roots)))
        answer = check(paths=[str(bundle)])
        assert [entry["trust"] for entry in answer["certificates"]] == ["authority"] * 2
        critical = [each["subject"] for each in answer["findings"] if each["status"] == "critical"]
        assert critical == [f"{bundle} (Root 1)"]

    def test_the_systems_own_bundle(self) -> None:
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        answer = check(paths=[bundle])
        assert len(answer["certificates"]) == Path(bundle).read_text().count("BEGIN CERTIFICATE")
        assert "unknown" not in {each["status"] for each in answer["findings"]}

    def test_an_expired_intermediate_is_found(self, tmp_path: Path) -> None:
        past = datetime.now(timezone.utc) - timedelta(days=400)
        root = sign(["Root"], None, days=3650, not_before=past, authority=True)
        above = sign(["Old Intermediate"], root, days=300, not_before=past, authority=True)
        files = sign(["localhost"], above, days=90).write(tmp_path, "server")
        (tmp_path / "root.crt").write_bytes(pem(root.certificate))
        found = bad(check(paths=[str(files.fullchain)], ca_certs=str(tmp_path / "root.crt")))
        assert list(found) == ["certificate_trust"]
        assert found["certificate_trust"][0] == "critical"
        assert "'Old Intermediate' in its chain: it expired" in found["certificate_trust"][1]

    def test_an_issuer_of_the_same_name_with_another_key_is_not_trusted(
        self, certificate_authority: CertificateAuthority, tmp_path: Path
    ) -> None:
        impostor = CertificateAuthority(tmp_path / "impostor")
        files = impostor.issue("localhost").write(tmp_path, "server")
        answer = check(paths=[str(files.fullchain)], ca_certs=str(certificate_authority.root_file))
        assert answer["certificates"][0]["trust"] == "untrusted"

    def test_what_cannot_be_read_is_unknown_and_the_rest_goes_on(self, good: Identity, tmp_path: Path) -> None:
        files = good.write(tmp_path, "good")
        flipped = bytearray(good.der())
        flipped[8] ^= 0xFF
        (tmp_path / "flipped.der").write_bytes(flipped)
        (tmp_path / "cut.pem").write_bytes(pem(good.certificate)[:300])
        (tmp_path / "empty.crt").touch()
        (tmp_path / "notes.txt").write_text("no certificate, and no name of one")
        os.mkfifo(tmp_path / "pipe.pem")
        answer = check(paths=[str(tmp_path), "/nowhere/a.pem", str(files.key), str(tmp_path / "*.none")])
        unknown = {each["subject"]: each["summary"] for each in answer["findings"] if each["status"] == "unknown"}
        causes = {
            tmp_path / "flipped.der": "damaged",
            tmp_path / "cut.pem": "cut short",
            tmp_path / "empty.crt": "empty",
            tmp_path / "pipe.pem": "no regular file",
            Path("/nowhere/a.pem"): "no such file",
            files.key: "private key",
            tmp_path / "*.none": "no certificates are in it",
        }
        assert set(unknown) == {str(path) for path in causes}
        for path, cause in causes.items():
            assert cause in unknown[str(path)]
        assert {entry["serial"] for entry in answer["certificates"]} >= {good.serial()}

    def test_the_lifetime_decides(self, certificate_authority: CertificateAuthority, tmp_path: Path) -> None:
        statuses = {}
        for lifetime, left, status in _LIFETIMES:
            start = datetime.now(timezone.utc) - timedelta(days=lifetime - left)
            identity = certificate_authority.issue("localhost", days=lifetime, not_before=start)
            statuses[str(identity.write(tmp_path, f"{lifetime}-{left}").fullchain)] = status
        answer = check(paths=list(statuses), ca_certs=str(certificate_authority.root_file))
        found = {
            each["subject"]: each["status"] for each in answer["findings"] if each["check"] == "certificate_expiry"
        }
        assert found == statuses

    def test_limits_of_ones_own_and_fail_on(
        self, certificate_authority: CertificateAuthority, good: Identity, tmp_path: Path
    ) -> None:
        files = good.write(tmp_path, "good")
        arguments = {"paths": [str(files.fullchain)], "ca_certs": str(certificate_authority.root_file)}
        assert check(**arguments, warning="100d")["status"] == "warning"
        assert check(**arguments, critical="99.99%")["status"] == "critical"
        failed = run_module("cert_expiry", {**arguments, "critical": "95d"})
        assert failed["failed"] and "expires in 89 d" in failed["msg"] and failed["certificates"]
        assert "neither a duration" in run_module("cert_expiry", {**arguments, "warning": "soon%"})["msg"]
        assert "no duration" in run_module("cert_expiry", {**arguments, "warning": "soon"})["msg"]

    def test_an_unreadable_authority_is_unknown(self, good: Identity, tmp_path: Path) -> None:
        files = good.write(tmp_path, "good")
        answer = check(paths=[str(files.fullchain)], ca_certs="/nowhere/ca.pem")
        assert bad(answer)["certificate_trust"][0] == "unknown"
        assert "/nowhere/ca.pem" in bad(answer)["certificate_trust"][1]


class TestServers:
    def test_one_defect_is_one_finding(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer
    ) -> None:
        ports = {defect: tls_server(defective(certificate_authority, defect)) for defect in _FAULTS}
        endpoints = [{"host": "127.0.0.1", "port": port, "server_name": "localhost"} for port in ports.values()]
        answer = check(endpoints=endpoints, ca_certs=str(certificate_authority.root_file))
        for defect, (name, _filed, status, words) in _FAULTS.items():
            assert_found(answer, f"localhost (127.0.0.1:{ports[defect]})", [(name, status)], words)
        assert {entry["source"] for entry in answer["certificates"]} == {f"127.0.0.1:{port}" for port in ports.values()}

    @pytest.mark.parametrize("defect", ["expired", "self_signed", "missing_intermediate", "wrong_order", "good"])
    def test_trust_is_what_openssl_says(
        self, certificate_authority: CertificateAuthority, tmp_path: Path, good: Identity, defect: str
    ) -> None:
        identity = good if defect == "good" else defective(certificate_authority, defect)
        files = identity.write(tmp_path, "server")
        port = free_port()
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.certificate, "-key", files.key]
        chain = ["-cert_chain", str(files.chain)] if identity.chain else []
        server = ServerProcess("s_server", tmp_path)
        with running(server, [*map(str, command), *chain, "-quiet"], lambda: accepts(port)):
            client = ["-connect", f"127.0.0.1:{port}", "-CAfile", str(certificate_authority.root_file)]
            verified = re.search(r"Verify return code: (\d+)", openssl("s_client", *client, "-no_check_time"))
            answer = check(
                endpoints=[{"host": "127.0.0.1", "port": port, "server_name": "localhost"}],
                ca_certs=str(certificate_authority.root_file),
            )
        assert verified is not None
        assert (answer["certificates"][0]["trust"] == "trusted") == (verified.group(1) == "0")
        assert answer["certificates"][0]["serial"] == identity.serial()

    def test_unknown_authority(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity
    ) -> None:
        port = tls_server(good)
        trusted = {"host": "localhost", "port": port, "ca_certs": str(certificate_authority.root_file)}
        answer = check(endpoints=[trusted, {**trusted, "ca_certs": None, "server_name": "127.0.0.1"}])
        assert [entry["trust"] for entry in answer["certificates"]] == ["trusted", "untrusted"]
        assert "is neither there nor in the system's" in bad(answer)["certificate_trust"][1]

    def test_the_name_decides_which_certificate_is_served(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity
    ) -> None:
        other = certificate_authority.issue("shop.example.test")
        port = tls_server(good, other=other)
        names = ("localhost", "shop.example.test")
        answer = check(
            endpoints=[{"host": "127.0.0.1", "port": port, "server_name": name} for name in names],
            ca_certs=str(certificate_authority.root_file),
        )
        assert bad(answer) == {}
        assert [entry["serial"] for entry in answer["certificates"]] == [good.serial(), other.serial()]

    def test_the_end_of_one_certificate_is_told_once(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, tmp_path: Path
    ) -> None:
        """The server is told under the file it serves, unless it weighs more than that."""
        ca_certs = str(certificate_authority.root_file)
        for defect, parents in (("near_end", 1), ("expired", 1), ("not_yet_valid", 0)):
            identity = defective(certificate_authority, defect)
            file = str(identity.write(tmp_path, defect).fullchain)
            endpoint = {"host": "localhost", "port": tls_server(identity), "file": file}
            answer = check(paths=[file], endpoints=[endpoint], ca_certs=ca_certs)
            unwell = [each for each in answer["findings"] if each["status"] != "ok"]
            assert len(unwell) == 2 and [each["parent"] for each in unwell].count(file) == parents, unwell

    def test_a_server_that_was_not_reloaded(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity, tmp_path: Path
    ) -> None:
        port = tls_server(good)
        same, renewed = good.write(tmp_path, "same"), certificate_authority.issue("localhost").write(tmp_path, "new")
        endpoint = {"host": "localhost", "port": port}
        ca_certs = str(certificate_authority.root_file)
        assert bad(check(endpoints=[{**endpoint, "file": str(same.fullchain)}], ca_certs=ca_certs)) == {}
        found = bad(check(endpoints=[{**endpoint, "file": str(renewed.fullchain)}], ca_certs=ca_certs))
        assert found["certificate_served"][0] == "critical"
        assert good.serial() in found["certificate_served"][1]
        found = bad(check(endpoints=[{**endpoint, "file": "/nowhere.pem"}], ca_certs=ca_certs))
        assert found["certificate_served"][0] == "unknown" and "no such file" in found["certificate_served"][1]

    @pytest.mark.parametrize("protocol", ["smtp", "imap", "postgres"])
    def test_starttls(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity, protocol: str
    ) -> None:
        port = tls_server(good, prologue={"smtp": speak_smtp, "imap": speak_imap, "postgres": speak_postgres}[protocol])
        endpoint = {"host": "localhost", "port": port, "starttls": protocol}
        assert "CONNECTED" in openssl("s_client", "-connect", f"127.0.0.1:{port}", "-starttls", protocol)
        assert bad(check(endpoints=[endpoint], ca_certs=str(certificate_authority.root_file))) == {}

    def test_servers_that_do_not_speak_tls(self, tls_server: StartTlsServer) -> None:
        endpoints = [
            {"host": "127.0.0.1", "port": tls_server(None, prologue=refuse_postgres), "starttls": "postgres"},
            {"host": "127.0.0.1", "port": tls_server(None, prologue=speak_smtp_without_tls), "starttls": "smtp"},
            {"host": "127.0.0.1", "port": tls_server(None, prologue=lambda stream: stream.sendall(b"220 hello\r\n"))},
            {"host": "127.0.0.1", "port": free_port()},
            {"host": "no-such-host.invalid", "port": 443},
        ]
        answer = check(endpoints=endpoints)
        told = {each["subject"]: each["summary"] for each in answer["findings"]}
        assert answer["status"] == "unknown" and len(told) == len(endpoints)
        causes = ("ssl = off", "does not offer STARTTLS", "does not speak TLS", "refused", "cannot be resolved")
        for endpoint, cause in zip(endpoints, causes):
            assert cause in told[f"{endpoint['host']}:{endpoint['port']}"]

    @pytest.mark.parametrize("starttls", [None, "smtp"])
    @pytest.mark.parametrize("manner", ["hangs", "drips"])
    def test_the_deadline_holds(self, tls_server: StartTlsServer, manner: str, starttls: str | None) -> None:
        prologue = hang if manner == "hangs" else (drip_text if starttls else drip_tls)
        endpoint = {"host": "127.0.0.1", "port": tls_server(None, prologue=prologue), "timeout": 0.6}
        started = time.monotonic()
        answer = check(endpoints=[{**endpoint, **({"starttls": starttls} if starttls else {})}])
        assert time.monotonic() - started < 10
        assert "not finished within 0.6 s" in bad(answer)["certificate_expiry"][1]

    def test_hanging_servers_do_not_add_up(
        self, certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity
    ) -> None:
        slow, quick = tls_server(None, prologue=hang), tls_server(good)
        endpoints = [{"host": "localhost", "port": quick}] + [{"host": "127.0.0.1", "port": slow}] * 10
        started = time.monotonic()
        answer = check(endpoints=endpoints, timeout=1, ca_certs=str(certificate_authority.root_file))
        assert time.monotonic() - started < 6  # one after the other would take 10 s
        assert answer["certificates"][0]["serial"] == good.serial()


class TestOldLibraries:
    """Debian 12 ships cryptography 38 for its own Python."""

    @pytest.fixture
    def environment(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        version = subprocess.run(
            ["/usr/bin/python3", "-c", "import cryptography; print(cryptography.__version__)"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not version.stdout.startswith("38."):
            pytest.skip("needs Debian 12's python3-cryptography 38")
        # Ansible brings its own part to a host; nothing else of this environment may be seen there.
        folder = tmp_path_factory.mktemp("ansible")
        (folder / "ansible").symlink_to(Path(ansible.__file__).parent)
        return {"PYTHONPATH": f"{ROOT / 'collections'}:{folder}"}

    def test_files(
        self,
        environment: dict[str, str],
        certificate_authority: CertificateAuthority,
        good: Identity,
        tmp_path: Path,
    ) -> None:
        folder = tmp_path / "files"
        for defect in _FAULTS:
            defective(certificate_authority, defect).write(folder / defect, "server")
        good.write(folder / "good", "server")
        (folder / "good/server.p12").write_bytes(good.pkcs12("open sesame"))
        (folder / "good/server.der").write_bytes(good.der())
        paths = [str(folder / name / "server.pem") for name in (*_FAULTS, "good")]
        arguments = {
            "paths": [*paths, str(folder / "good/server.p12"), str(folder / "good/server.der")],
            "ca_certs": str(certificate_authority.root_file),
            "passphrase": "open sesame",
            "fail_on": "never",
        }
        now = run_module("cert_expiry", arguments)
        old = run_module("cert_expiry", arguments, python="/usr/bin/python3", env=environment)
        assert [steady(entry) for entry in old["certificates"]] == [steady(entry) for entry in now["certificates"]]
        statuses = [
            {(each["check"], each["subject"]): each["status"] for each in one["findings"]} for one in (now, old)
        ]
        assert statuses[0] == statuses[1]

    def test_servers(
        self,
        environment: dict[str, str],
        certificate_authority: CertificateAuthority,
        tls_server: StartTlsServer,
        good: Identity,
    ) -> None:
        arguments = {
            "endpoints": [{"host": "localhost", "port": tls_server(good)}],
            "ca_certs": str(certificate_authority.root_file),
        }
        assert run_module("cert_expiry", arguments, python="/usr/bin/python3", env=environment)["status"] == "ok"


def test_examples(
    certificate_authority: CertificateAuthority, tls_server: StartTlsServer, good: Identity, tmp_path: Path
) -> None:
    live = tmp_path / "live"
    fullchain = live / "www.example.org/fullchain.pem"
    fullchain.parent.mkdir(parents=True)
    fullchain.write_bytes(pem(good.certificate, *good.chain))
    # The first example trusts the system's authorities, which OpenSSL lets the environment replace.
    run_examples(
        "cert_expiry",
        {
            "/etc/letsencrypt/live": str(live),
            "host: www.example.org": "host: localhost",
            "port: 443": f"port: {tls_server(good)}",
            "host: mail.example.org": "host: localhost",
            "port: 25": f"port: {tls_server(good, prologue=speak_smtp)}",
            "host: 192.0.2.10": "host: 127.0.0.1",
            "port: 5432": f"port: {tls_server(good, prologue=speak_postgres)}",
            "server_name: db.example.org": "server_name: localhost",
            "/etc/ssl/house-ca.pem": str(certificate_authority.root_file),
        },
        env={"SSL_CERT_FILE": str(certificate_authority.root_file)},
    )


def steady(entry: dict[str, Any]) -> dict[str, Any]:
    """A certificate's entry without the figure that moves while one looks at it."""
    return {name: value for name, value in entry.items() if name != "days_left"}


def read_line(stream: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionError
        line += byte
    return line


def speak_smtp(stream: socket.socket) -> None:
    stream.sendall(b"220-mail.example.test\r\n220 ready\r\n")
    assert read_line(stream).startswith(b"EHLO ")
    stream.sendall(b"250-mail.example.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n")
    assert read_line(stream) == b"STARTTLS\r\n"
    stream.sendall(b"220 go ahead\r\n")


def speak_smtp_without_tls(stream: socket.socket) -> None:
    stream.sendall(b"220 mail.example.test\r\n")
    read_line(stream)
    stream.sendall(b"250-mail.example.test\r\n250 SIZE 1000\r\n")
    stream.recv(1)


def speak_imap(stream: socket.socket) -> None:
    stream.sendall(b"* OK IMAP4rev2 ready\r\n")
    command = read_line(stream)
    while not command.upper().endswith(b"STARTTLS\r\n"):  # openssl asks for the capabilities first
        stream.sendall(b"* CAPABILITY IMAP4rev2 STARTTLS\r\n" + command.split()[0] + b" OK done\r\n")
        command = read_line(stream)
    stream.sendall(b"* 1 EXISTS\r\n" + command.split()[0] + b" OK begin TLS\r\n")


def speak_postgres(stream: socket.socket) -> None:
    assert stream.recv(8, socket.MSG_WAITALL) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
    stream.sendall(b"S")


def refuse_postgres(stream: socket.socket) -> None:
    stream.recv(8, socket.MSG_WAITALL)
    stream.sendall(b"N")


def hang(stream: socket.socket) -> None:
    while stream.recv(4096):
        pass


def drip_text(stream: socket.socket) -> None:
    while True:
        stream.sendall(b"2")
        time.sleep(0.1)


def drip_tls(stream: socket.socket) -> None:
    stream.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # a handshake record that promises 16 kB
    drip_text(stream)


def test_keys_of_this_file_are_read_by_openssl(good: Identity, tmp_path: Path) -> None:
    """The authority of the tests is itself checked by somebody else."""
    files = good.write(tmp_path, "good")
    assert files.key.stat().st_mode & 0o777 == 0o600
    public = good.certificate.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert openssl("pkey", "-in", files.key, "-pubout") == public.decode()
    assert ssl.PEM_cert_to_DER_cert(files.certificate.read_text()) == good.der()
