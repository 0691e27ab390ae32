# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's tables, the words of package managers, and ports and modes as people write them."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._file_modes import ModeRule, judge_modes, parse_mode
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._listening_ports import (
    Listener,
    judge_listeners,
    parse_ports,
    parse_table,
)
from ansible_collections.upkeep.ops.plugins.module_utils._programs import Ended, ProgramError, run_program
from ansible_collections.upkeep.ops.plugins.module_utils._security_updates import (
    Update,
    UpdatesError,
    parse_apt,
    parse_dnf,
    pending_apt,
    pending_dnf,
)
from hypothesis import given
from hypothesis import strategies as st

_NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
_PORTS = st.integers(1, 65535)

_APT = """\
Listing...
libc6/oldstable,oldstable-security 2.36-9+deb12u13 amd64 [upgradable from: 2.36-9+deb12u10]
zip/oldstable-security 3.0-13+deb12u1 amd64 [upgradable from: 3.0-13]
python3-xmltodict/oldstable 0.13.0-1.1~deb12u1 all [upgradable from: 0.13.0-1]
openssl/jammy-updates,jammy-security 3.0.2-0ubuntu1.19 amd64 [upgradable from: 3.0.2-0ubuntu1.18]
tzdata/jammy-updates 2025b all [upgradable from: 2025a]
nginx-security-tools/oldstable 1.0 all [upgradable from: 0.9]
"""
_DNF = """\
RHSA-2026:1234 Important/Sec. openssl-1:3.0.7-28.el9_4.x86_64
RHSA-2026:1234 Important/Sec. openssl-libs-1:3.0.7-28.el9_4.x86_64
RHSA-2026:0999 Moderate/Sec.  openssl-libs-1:3.0.7-28.el9_4.i686
RHBA-2026:0001 bugfix         tzdata-2026a-1.el9.noarch
"""


def table(address: str, port: int, inode: int, state: str = "0A") -> str:
    """A table as the kernel prints it."""
    packed = (IPv6Address if ":" in address else IPv4Address)(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    written = "".join(f"{word:08X}" for word in words)
    fields = (
        f"{written}:{port:04X} {'0' * len(written)}:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode}"
    )
    return f"  sl  local_address rem_address   st ...\n   0: {fields} 1 0000 100 0 0 10 0\n"


class TestPorts:
    @given(st.ip_addresses(), _PORTS, st.integers(1, 2**40))
    def test_a_table_is_read_back(self, address: IPv4Address | IPv6Address, port: int, inode: int) -> None:
        assert [
            (IPv6Address(found) if ":" in found else IPv4Address(found), *rest)
            for found, *rest in parse_table(table(str(address), port, inode))
        ] == [(address, port, inode)]
        assert parse_table(table(str(address), port, inode, state="01")) == []

    @given(_PORTS, _PORTS)
    def test_ranges(self, one: int, other: int) -> None:
        first, last = sorted((one, other))
        (ports,) = parse_ports([f" {first} - {last}"])
        assert first in ports and last in ports and first - 1 not in ports and last + 1 not in ports

    @pytest.mark.parametrize("text", ["", "http", "0", "70000", "90-80", "1-", "-1", "1-2-3"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="neither a port"):
            parse_ports([text])

    @pytest.mark.parametrize(
        ("address", "local"),
        [
            ("127.0.0.1", True),
            ("127.1.2.3", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("0.0.0.0", False),
            ("::", False),
            ("::ffff:10.0.0.1", False),
            ("192.0.2.1", False),
        ],
    )
    def test_local(self, address: str, local: bool) -> None:
        assert Listener(address, 80, "nginx", 1).is_local is local

    def test_a_port_without_a_name_is_unknown(self) -> None:
        builder = FindingsBuilder(_NOW)
        judge_listeners(builder, [Listener("0.0.0.0", 5000, "", 0)], None, ["redis-server"], as_root=False)
        assert [(finding.status, "become" in finding.hint) for finding in builder.findings] == [("unknown", True)]

    def test_root_is_not_told_to_become_root(self) -> None:
        nfs = [Listener("0.0.0.0", 2049, "", 0)]
        builder = FindingsBuilder(_NOW)
        judge_listeners(builder, nfs, None, [], as_root=True)
        assert [(finding.status, "become" in finding.hint) for finding in builder.findings] == [("unknown", False)]
        builder = FindingsBuilder(_NOW)
        judge_listeners(builder, nfs, parse_ports(["2049"]), [], as_root=True)
        assert [finding.status for finding in builder.findings] == ["ok"]

    def test_a_number_in_local_only_is_a_port_and_no_part_of_a_name(self) -> None:
        builder = FindingsBuilder(_NOW)
        judge_listeners(builder, [Listener("0.0.0.0", 80, "app6379", 7)], None, ["6379"], as_root=True)
        assert [finding.status for finding in builder.findings] == ["ok"]


class TestModes:
    @given(st.integers(0, 0o7777))
    def test_octal(self, mode: int) -> None:
        assert parse_mode(f"{mode:04o}") == parse_mode(f"{mode:o}") == mode

    @pytest.mark.parametrize("text", ["rw", "", "0888", "-1", "10000"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="no octal mode"):
            parse_mode(text)

    @pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
    @pytest.mark.parametrize("pattern", ["*.key", "a.key"])
    def test_what_one_may_not_see_is_unknown(self, tmp_path: Path, pattern: str) -> None:
        (tmp_path / "a.key").touch(mode=0o644)
        tmp_path.chmod(0o700)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            builder = FindingsBuilder(_NOW)
            judge_modes(builder, [ModeRule(str(tmp_path / pattern), 0o600)])
            os._exit(0 if {finding.status for finding in builder.findings} == {"unknown"} else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestUpdates:
    def test_apt(self) -> None:
        found = parse_apt(_APT)
        assert [update.package for update in found] == ["libc6", "zip", "openssl"]
        assert found[1] == Update("zip", "3.0-13", "3.0-13+deb12u1")

    def test_dnf(self) -> None:
        assert parse_dnf(_DNF) == [
            Update("openssl", "", "1:3.0.7-28.el9_4"),
            Update("openssl-libs", "", "1:3.0.7-28.el9_4"),
        ]

    @pytest.mark.parametrize(
        ("lists", "age", "cause"),
        [
            ([], 0, "no package lists"),
            (["deb.example.org_debian_dists_bookworm_main_binary-amd64_Packages"], 0, "security repository"),
            (["deb.example.org_debian-security_dists_bookworm-security_main_Packages"], 90000, "1 d 1 h old"),
        ],
    )
    def test_lists_that_say_nothing(self, tmp_path: Path, lists: list[str], age: int, cause: str) -> None:
        (tmp_path / "lists/partial").mkdir(parents=True)
        for name in lists:
            (tmp_path / "lists" / name).touch()
        then = _NOW.timestamp() - age
        for folder in ("lists/partial", "lists"):
            os.utime(tmp_path / folder, (then, then))
        with pytest.raises(UpdatesError, match=cause):
            pending_apt(lambda _argv, _timeout: Ended(0, _APT, ""), 1, _NOW, 86400, str(tmp_path))

    def test_a_package_manager_that_fails(self) -> None:
        def hangs(argv: Sequence[str], timeout: float) -> Ended:
            raise ProgramError(f"{argv[0]} did not end within {timeout:g} s")

        with pytest.raises(UpdatesError, match="Cache-only enabled but no cache"):
            pending_dnf(lambda _argv, _timeout: Ended(1, "", "Error: Cache-only enabled but no cache for 'baseos'"), 1)
        with pytest.raises(UpdatesError, match="did not end within 1 s"):
            pending_dnf(hangs, 1)


class TestPrograms:
    def test_how_they_end(self) -> None:
        assert run_program(["sh", "-c", "echo out; echo err >&2; exit 3"], 5) == Ended(3, "out\n", "err\n")
        assert run_program(["sh", "-c", "echo $LC_ALL"], 5).stdout == "C\n"
        assert run_program(["false"], 5).complaint == "it ended with rc 1 and said nothing"
        with pytest.raises(ProgramError, match="cannot be run: No such file"):
            run_program(["no-such-program"], 5)
        with pytest.raises(ProgramError, match=r"did not end within 0\.2 s"):
            run_program(["sleep", "5"], 0.2)
