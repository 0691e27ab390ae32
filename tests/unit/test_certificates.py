# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading, chains, limits and STARTTLS, without files and servers."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_judge import Limits, check_limit, renewal_margin
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_trust import (
    TrustStore,
    _verify_by_hand,
    judge_trust,
    misplaced,
)
from ansible_collections.upkeep.ops.plugins.module_utils._certificates import (
    Certificate,
    CertificateError,
    common_name,
    covers,
    parse_certificates,
    read_der,
)
from ansible_collections.upkeep.ops.plugins.module_utils._starttls import PROTOCOLS, StarttlsError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.platform.parts.certificates import CertificateAuthority, Identity, pem, sign

_DAY = 86400.0
_LIFETIMES = st.floats(min_value=3600, max_value=20 * 365 * _DAY)


def read(identity: Identity) -> Certificate:
    return read_der(identity.der())


class TestReading:
    @given(st.binary(max_size=400))
    def test_nothing_crashes_the_reader(self, content: bytes) -> None:
        with pytest.raises(CertificateError):
            parse_certificates(content)

    @given(st.data())
    def test_a_damaged_certificate_is_told_or_differs(self, data: st.DataObject) -> None:
        original = _SAMPLE.der()
        position = data.draw(st.integers(0, len(original) - 1))
        damaged = bytearray(original)
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
        try:
            found = parse_certificates(bytes(damaged))
        except CertificateError:
            return
        assert found[0] is not read(_SAMPLE)
        assert judge_trust(found[0], [], TrustStore([read(_SAMPLE)], "the store")).status != "trusted"

    @given(st.binary(max_size=50).filter(lambda junk: b"-" not in junk), st.integers(0, 3))
    def test_a_bundle_keeps_its_order_whatever_stands_between(self, junk: bytes, copies: int) -> None:
        blocks = [pem(_ROOT.certificate), *[pem(_SAMPLE.certificate)] * copies]
        found = parse_certificates(junk + junk.join(blocks))
        assert found == [read(_ROOT), *[read(_SAMPLE)] * copies]

    def test_names_for_people(self) -> None:
        assert common_name(read(_SAMPLE)) == "a.example.test"
        assert common_name(read(_ROOT)) == "Root"


class TestHostNames:
    @pytest.mark.parametrize(
        ("names", "host", "covered"),
        [
            (["example.org"], "EXAMPLE.org.", True),
            (["*.example.org"], "www.example.org", True),
            (["*.example.org"], "a.www.example.org", False),
            (["*.example.org"], "example.org", False),
            (["www.example.org"], "example.org", False),
            (["*"], "localhost", False),
            (["*"], "example.org", False),
            (["127.0.0.1"], "127.0.0.1", True),
            (["::1"], "0:0:0:0:0:0:0:1", True),
            (["*.0.0.1"], "127.0.0.1", False),
            ([], "localhost", False),
        ],
    )
    def test_cases(self, names: list[str], host: str, covered: bool) -> None:
        assert covers(tuple(names), host) is covered

    @given(st.ip_addresses())
    def test_an_address_is_itself_only(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        assert covers((str(address),), address.exploded)
        assert not covers((str(address + 1 if int(address) == 0 else address - 1),), str(address))


class TestLimits:
    @given(_LIFETIMES)
    def test_nobody_is_warned_before_renewal_is_due(self, lifetime: float) -> None:
        warning, critical = Limits().seconds(lifetime)
        assert 0 < critical < warning < renewal_margin(lifetime) < lifetime

    @pytest.mark.parametrize(("days", "margin"), [(6, 3), (9, 4.5), (12, 4), (47, 47 / 3), (90, 30), (398, 30)])
    def test_renewal_margin(self, days: float, margin: float) -> None:
        assert renewal_margin(days * _DAY) == pytest.approx(margin * _DAY)

    @given(_LIFETIMES, st.floats(min_value=0, max_value=100))
    def test_a_percentage_is_of_the_whole_lifetime(self, lifetime: float, percent: float) -> None:
        assert Limits(warning=f"{percent}%").seconds(lifetime)[0] == pytest.approx(lifetime * percent / 100)
        assert Limits(critical="21d").seconds(lifetime)[1] == 21 * _DAY

    @pytest.mark.parametrize("text", ["soon", "x%", "", "%", "-5d"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is n"):
            check_limit(text)


class TestTrust:
    def test_a_chain_is_found_in_any_order(self, tmp_path: Path) -> None:
        authority = CertificateAuthority(tmp_path)
        leaf, above, root = (read(each) for each in (authority.issue("a.test"), authority.intermediate, authority.root))
        store = TrustStore([root], "the store")
        for others in ([above], [root, above], [above, root]):
            trust = judge_trust(leaf, others, store)
            assert (trust.status, trust.path) == ("trusted", (leaf, above, root))
        assert judge_trust(leaf, [], store).status == "incomplete"
        assert judge_trust(leaf, [], TrustStore([above], "the store")).status == "trusted"
        assert judge_trust(leaf, [above, root], TrustStore([], "the store")).status == "untrusted"
        assert misplaced([leaf, above, root]) == ""
        assert "'a.test' is followed by" in misplaced([leaf, root, above])

    def test_a_server_certificate_signs_nothing(self) -> None:
        leaf = sign(["evil.test"], _SAMPLE, days=10)
        trust = judge_trust(read(leaf), [read(_SAMPLE)], TrustStore([read(_ROOT)], "the store"))
        assert trust.status == "untrusted" and "no authority" in trust.detail

    def test_the_way_of_old_libraries_agrees(self) -> None:
        rsa_root = sign(["R"], None, days=10, authority=True, key=rsa.generate_private_key(65537, 2048))
        for issuer in (rsa_root, _ROOT):
            signed = sign(["x.test"], issuer, days=5).certificate
            _verify_by_hand(signed, issuer.certificate.public_key())
            with pytest.raises(InvalidSignature):
                _verify_by_hand(signed, sign(["y"], None, days=1, key=_other_key(issuer)).certificate.public_key())


class ScriptedServer:
    """The channel to a server that says one text and remembers what it heard."""

    def __init__(self, says: bytes) -> None:
        self._says = says
        self.heard = b""

    def receive(self) -> bytes:
        byte, self._says = self._says[:1], self._says[1:]
        return byte

    def send(self, data: bytes) -> None:
        self.heard += data


class TestStarttls:
    @given(st.sampled_from(sorted(PROTOCOLS)), st.binary(max_size=300))
    def test_a_strange_server_is_told_as_such(self, protocol: str, says: bytes) -> None:
        if (protocol, says[:1]) == ("postgres", b"S"):
            return
        with pytest.raises(StarttlsError):
            PROTOCOLS[protocol](ScriptedServer(says))

    def test_nothing_is_read_beyond_the_answer(self) -> None:
        server = ScriptedServer(b"* OK hello\r\na1 OK begin\r\n\x16\x03")
        PROTOCOLS["imap"](server)
        assert server.receive() == b"\x16"

    @pytest.mark.parametrize("says", [b"220-a\r\n" * 200, b"2" * 5000])
    def test_an_endless_answer_ends(self, says: bytes) -> None:
        with pytest.raises(StarttlsError, match=r"does not end|no line of text"):
            PROTOCOLS["smtp"](ScriptedServer(says))


def _other_key(like: Identity) -> rsa.RSAPrivateKey | None:
    return rsa.generate_private_key(65537, 2048) if isinstance(like.key, rsa.RSAPrivateKey) else None


_ROOT = sign(["Root"], None, days=3650, authority=True)
_SAMPLE = sign(["a.example.test"], _ROOT, days=90)
