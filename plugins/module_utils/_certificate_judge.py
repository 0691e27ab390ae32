# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges certificates: their dates by their lifetime, their trust, strength, names, and what is served of them.

A fixed number of days is wrong for somebody: 30 days flag a sound 47-day certificate half of its life. So dates are
judged by the share of the lifetime that is left. A lifetime above 90 days is judged as one of 90, because renewal is
due 30 days before the end at the earliest, and nobody should be warned of what is not due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._certificate_files import CertificateFile
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_trust import (
    INCOMPLETE,
    SELF_SIGNED,
    TRUSTED,
    UNKNOWN,
    UNTRUSTED,
    Trust,
    TrustStore,
    judge_trust,
    misplaced,
    path_within,
)
from ansible_collections.upkeep.ops.plugins.module_utils._certificates import (
    Certificate,
    CertificateError,
    common_name,
    covers,
    read_der,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat, parse_duration
from ansible_collections.upkeep.ops.plugins.module_utils._tls_peer import Endpoint, PeerError, Served

_DAY = 86400.0
_LONGEST_JUDGED = 90 * _DAY
_SHORT_LIVED = 10 * _DAY
_WARNING_PERCENT, _CRITICAL_PERCENT = 25.0, 10.0

#: OpenSSL's verification codes that say how a chain ends.
_SELF_SIGNED_LEAF, _SELF_SIGNED_ROOT = 18, 19
_ISSUER_NOT_FOUND = (2, 20, 21)

_TRUST_HINTS = {
    SELF_SIGNED: "Replace it by one of an authority, or name it in ca_certs",
    INCOMPLETE: "Put the intermediate certificate behind it (fullchain), or name the authority in ca_certs",
    UNTRUSTED: "Name the authority in ca_certs, or replace the certificate",
    UNKNOWN: "Check it with 'openssl verify'",
}


@dataclass(frozen=True)
class Limits:
    """Seconds or percent of the lifetime left at which a certificate is bad; None is the rule of this module."""

    warning: str | None = None
    critical: str | None = None

    def seconds(self, lifetime: float) -> tuple[float, float]:
        """Seconds before the end from which on it is a warning, and critical, for a lifetime in seconds."""
        return (
            _limit(self.warning, _WARNING_PERCENT, lifetime),
            _limit(self.critical, _CRITICAL_PERCENT, lifetime),
        )


@dataclass(frozen=True)
class _Subject:
    """What a finding is about. A fault of ``live`` ones hurts now, of others when somebody uses them."""

    name: str
    source: str
    live: bool

    @property
    def fault(self) -> str:
        return "critical" if self.live else "warning"


def check_limit(text: str | None) -> None:
    """Raises ValueError when a limit is neither a duration nor a percentage."""
    _limit(text, 0, 1)


def renewal_margin(lifetime: float) -> float:
    """Seconds before the end at which renewal is due: a third of the lifetime, 30 days at most, half of short ones."""
    return lifetime / 2 if lifetime < _SHORT_LIVED else min(30 * _DAY, lifetime / 3)


class CertificateJudge:
    """Judges sources one after the other; ``findings`` and ``certificates`` grow with them."""

    def __init__(self, now: datetime, limits: Limits) -> None:
        self._now = now
        self._limits = limits
        # Most certificates share their intermediate, which is judged once.
        self._dates = lru_cache(maxsize=None)(self._judged_dates)
        self._builder = FindingsBuilder(now)
        self.findings = self._builder.findings
        self.certificates: list[dict[str, Any]] = []

    def file(self, file: CertificateFile, store: TrustStore | CertificateError) -> None:
        """A file: each server certificate with the chain beside it, or each authority of a bundle."""
        if file.error:
            self._unknown(file.path, file.error, file.hint)
            return
        servers = [certificate for certificate in file.certificates if certificate.is_server]
        judged = servers or file.certificates
        for number, certificate in enumerate(judged):
            subject = _Subject(_name_in(file.path, certificate, judged, number), file.path, live=False)
            if not servers:
                self._authority(subject, certificate)
                continue
            others = [other for other in file.certificates if other is not certificate]
            order = misplaced(file.certificates) if file.has_order and len(servers) == 1 else ""
            trust = (
                Trust(UNKNOWN, f"there is nothing to judge its chain by: {store}", path_within(certificate, others))
                if isinstance(store, CertificateError)
                else judge_trust(certificate, others, store)
            )
            self._server(subject, certificate, trust, order, others)

    def endpoint(self, endpoint: Endpoint, served: Served | PeerError, expected: CertificateFile | None) -> None:
        """A server: what it presents, for which name, and whether it is what its file holds."""
        where = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        source = f"{where}:{endpoint.port}"
        name = source if endpoint.server_name == endpoint.host else f"{endpoint.server_name} ({source})"
        if isinstance(served, PeerError):
            self._unknown(name, str(served), served.hint)
            return
        try:
            chain = [read_der(der) for der in served.chain]
        except CertificateError as error:
            self._unknown(name, f"what it serves cannot be read: {error}", error.hint)
            return
        subject = _Subject(name, source, live=True)
        trust = self._served_trust(endpoint, served, chain)
        self._server(subject, chain[0], trust, misplaced(chain), chain[1:], self._filed(chain[0], expected))
        self._name(subject, chain[0], endpoint.server_name)
        if expected is not None:
            self._served(subject, chain[0], expected)

    def _server(
        self,
        subject: _Subject,
        leaf: Certificate,
        trust: Trust,
        order: str,
        others: Sequence[Certificate],
        parent: str = "",
    ) -> None:
        self._expiry(subject, leaf, parent)
        self._trust(subject, trust, order)
        self._strength(subject, trust.path)
        self._list(subject, leaf, trust.status, others)

    def _authority(self, subject: _Subject, certificate: Certificate) -> None:
        self._expiry(subject, certificate)
        self._strength(subject, [certificate])
        self._list(subject, certificate, "authority", [])

    def _filed(self, leaf: Certificate, expected: CertificateFile | None) -> str:
        """The subject of the file that explains when a served certificate ends, or an empty text.

        One that is not valid yet weighs less in a file than in a server, and may not hide that.
        """
        if expected is None or expected.error or self._now < leaf.not_before:
            return ""
        servers = [each for each in expected.certificates if each.is_server]
        places = [number for number, each in enumerate(servers) if _same(each, leaf)]
        return _name_in(expected.path, servers[places[0]], servers, places[0]) if places else ""

    def _expiry(self, subject: _Subject, certificate: Certificate, parent: str = "") -> None:
        status, told, threshold = self._dates(certificate, subject.fault)
        hint = "" if status == "ok" else self._renewal_hint(certificate)
        if self._now < certificate.not_before:
            hint = "Use it later, and check the clock of this host and of the one that issued it"
        self._builder.add(
            "certificate_expiry",
            subject.name,
            status,
            told,
            value=self._days_left(certificate),
            unit="d",
            threshold=round(threshold / _DAY, 2),
            hint=hint,
            parent="" if status == "ok" else parent,
        )

    def _judged_dates(self, certificate: Certificate, fault: str) -> tuple[str, str, float]:
        """Status, sentence, and the seconds before the end that decided."""
        left = (certificate.not_after - self._now).total_seconds()
        warning, critical = self._limits.seconds(certificate.lifetime)
        ends = f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
        if self._now < certificate.not_before:
            return fault, f"it is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC", warning
        if left <= 0:
            return "critical", f"it expired {format_duration(-left)} ago, on {ends}", critical
        told = f"it expires in {format_duration(left)}, on {ends}"
        if left <= critical:
            return "critical", told, critical
        return ("warning" if left <= warning else "ok"), told, warning

    def _trust(self, subject: _Subject, trust: Trust, order: str) -> None:
        faults = []
        if trust.status != TRUSTED:
            status = UNKNOWN if trust.status == UNKNOWN else subject.fault
            faults.append((status, trust.detail, _TRUST_HINTS[trust.status]))
        if order:
            faults.append(
                (
                    "warning",
                    f"its chain is out of order: {order}",
                    "Put the server's certificate first, then each issuer",
                )
            )
        for authority in trust.path[1:]:
            status, told, _threshold = self._dates(authority, subject.fault)
            if status != "ok":
                hint = "Replace the chain by the authority's present one"
                faults.append((status, f"'{common_name(authority)}' in its chain: {told}", hint))
        if not faults:
            return
        faults.sort(key=lambda fault: -rank(fault[0]))
        self._builder.add(
            "certificate_trust",
            subject.name,
            worst(status for status, _told, _hint in faults),
            "; ".join(told for _status, told, _hint in faults),
            value=trust.status,
            threshold=TRUSTED,
            hint=faults[0][2],
        )

    def _strength(self, subject: _Subject, path: Sequence[Certificate]) -> None:
        weak = [f"{_whose(certificate, path)}{told}" for certificate in path for told in certificate.weaknesses]
        if weak:
            self._builder.add(
                "certificate_strength",
                subject.name,
                subject.fault,
                "; ".join(weak),
                value=path[0].key,
                hint="Issue it anew with a key of 2048 bits RSA or P-256 and SHA-256",
            )

    def _name(self, subject: _Subject, leaf: Certificate, host: str) -> None:
        covered = covers(leaf.names, host)
        named = ", ".join(leaf.names[:5]) + (" ..." if len(leaf.names) > 5 else "") if leaf.names else "no host"
        self._builder.add(
            "certificate_name",
            subject.name,
            "ok" if covered else "critical",
            f"it is for {named}" + ("" if covered else f" and not for {host}"),
            value=leaf.names[0] if leaf.names else "",
            threshold=host,
            hint="" if covered else "Issue it for this name too, or correct server_name",
        )

    def _served(self, subject: _Subject, leaf: Certificate, expected: CertificateFile) -> None:
        if expected.error:
            told, status, serial = f"what {expected.path} holds is not known: {expected.error}", "unknown", ""
        else:
            filed = next((each for each in expected.certificates if each.is_server), expected.certificates[0])
            serial = filed.serial
            same = _same(filed, leaf)
            status = "ok" if same else "critical"
            told = (
                f"it serves the certificate of {expected.path}"
                if same
                else f"it serves serial {leaf.serial}, but {expected.path} holds {serial}"
            )
        hint = {"critical": "Reload the server, and look at why the renewal did not", "unknown": expected.hint}
        self._builder.add(
            "certificate_served",
            subject.name,
            status,
            told,
            value=leaf.serial,
            threshold=serial,
            hint=hint.get(status, ""),
        )

    def _served_trust(self, endpoint: Endpoint, served: Served, chain: Sequence[Certificate]) -> Trust:
        store = TrustStore([], endpoint.ca_certs or "the system's authorities")
        # Without a store, this only finds the way up; who is trusted was OpenSSL's judgement.
        found = judge_trust(chain[0], chain[1:], store)
        in_date = all(each.not_before <= self._now < each.not_after for each in found.path)
        if served.verify_code == 0 or (served.trusted_but_for_dates and not in_date):
            return Trust(TRUSTED, f"its chain leads to {store.name}", found.path)
        if served.verify_code in (_SELF_SIGNED_LEAF, _SELF_SIGNED_ROOT, *_ISSUER_NOT_FOUND):
            # A Python that shows only the leaf cannot tell a missing intermediate from an unknown authority.
            return found if served.whole else replace(found, status=UNTRUSTED)
        return Trust(UNTRUSTED, f"its chain is not accepted: {served.verify_message}", found.path)

    def _list(self, subject: _Subject, leaf: Certificate, trust: str, chain: Sequence[Certificate]) -> None:
        self.certificates.append(
            {
                "source": subject.source,
                "subject": leaf.subject,
                "names": list(leaf.names),
                "issuer": leaf.issuer,
                "serial": leaf.serial,
                "not_before": isoformat(leaf.not_before),
                "not_after": isoformat(leaf.not_after),
                "lifetime_days": round(leaf.lifetime / _DAY, 2),
                "days_left": self._days_left(leaf),
                "renewal_due_at": isoformat(self._due(leaf)),
                "key": leaf.key,
                "signature": leaf.signature,
                "chain": [certificate.subject for certificate in chain],
                "trust": trust,
            }
        )

    def _unknown(self, subject: str, told: str, hint: str) -> None:
        self._builder.add("certificate_expiry", subject, "unknown", told, unit="d", hint=hint)

    def _days_left(self, certificate: Certificate) -> float:
        return round((certificate.not_after - self._now).total_seconds() / _DAY, 2)

    def _renewal_hint(self, certificate: Certificate) -> str:
        return f"Renew it and reload the server (renewal was due on {self._due(certificate):%Y-%m-%d})"

    @staticmethod
    def _due(certificate: Certificate) -> datetime:
        return certificate.not_after - timedelta(seconds=renewal_margin(certificate.lifetime))


def _same(one: Certificate, other: Certificate) -> bool:
    return one is other or (one.serial, one.issuer_bytes) == (other.serial, other.issuer_bytes)


def _limit(text: str | None, percent: float, lifetime: float) -> float:
    if text is None:
        return percent / 100 * min(lifetime, _LONGEST_JUDGED)
    if not text.strip().endswith("%"):
        return parse_duration(text)
    try:
        return float(text.strip()[:-1]) / 100 * lifetime
    except ValueError:
        raise ValueError(f"{text!r} is neither a duration such as 21d nor a percentage such as 25%") from None


def _name_in(path: str, certificate: Certificate, judged: Sequence[Certificate], number: int) -> str:
    """The path, with the certificate's name when there are others and its place when they share that name."""
    if len(judged) == 1:
        return path
    name = common_name(certificate)
    twins = [place for place, other in enumerate(judged) if common_name(other) == name]
    return f"{path} ({name})" if len(twins) == 1 else f"{path} ({name}, {twins.index(number) + 1})"


def _whose(certificate: Certificate, path: Sequence[Certificate]) -> str:
    return "" if certificate is path[0] else f"'{common_name(certificate)}' in its chain: "
