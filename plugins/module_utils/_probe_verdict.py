# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The findings of probes: how severe, in which words, and under which parent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder, judge, rank, worst
from ansible_collections.upkeep.ops.plugins.module_utils._probe import Probe
from ansible_collections.upkeep.ops.plugins.module_utils._probe_rounds import TIMED_TYPES, Result
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

CHECK = "service_health"


def findings(results: Sequence[Result], now: datetime) -> list[Finding]:
    """One finding for each probe, in their order."""
    builder = FindingsBuilder(now)
    verdicts = {result.probe.name: _verdict(result, now) for result in results}
    failed = {result.probe.name for result in results if result.outcome == "failed"}
    statuses = {name: str(verdict["status"]) for name, verdict in verdicts.items()}
    for result in results:
        name = result.probe.name
        timed: dict[str, Any] = {"value": result.total_ms, "unit": "ms"} if result.probe.type != "process" else {}
        builder.add(CHECK, name, **verdicts[name], **timed, parent=parent_of(result.probe, statuses, failed))
    return builder.findings


def observations(results: Sequence[Result], now: datetime) -> list[dict[str, str]]:
    """Whether each thing that was probed is up, as history keeps it. What is slow or near its end is up."""
    states = {"passed": "up", "failed": "down"}
    at = isoformat(now)
    return [
        {"subject": result.probe.name, "state": states.get(result.outcome, "unknown"), "at": at} for result in results
    ]


def parent_of(probe: Probe, statuses: Mapping[str, str], failed: set[str]) -> str:
    """The first failed dependency that explains why this probe is not ok.

    It must weigh at least as much: otherwise nobody would hear of a critical failure under a mere warning.
    """
    own = rank(statuses[probe.name])
    if own == 0:
        return ""
    return next((parent for parent in probe.depends_on if parent in failed and rank(statuses[parent]) >= own), "")


def _verdict(result: Result, now: datetime) -> dict[str, Any]:
    probe = result.probe
    if result.outcome != "passed":
        tries = f" ({result.attempts} attempts)" if result.attempts > 1 else ""
        status = "unknown" if result.outcome == "unknown" else "critical"
        return {"status": _cap(status, probe), "summary": result.summary + tries, "hint": result.hint}
    latency, limit = result.latency
    certificate, expiry = _certificate(result, now)
    summary = result.summary + (f" in {result.total_ms:.0f} ms" if probe.type != "process" else "")
    hint = ""
    if latency != "ok":
        summary += f", the limit is {limit:g} ms" + ("" if result.alone else _measured(probe))
        hint = "See which phase takes the time in probes, then look at the service's load"
    if certificate != "ok":
        summary += f"; {expiry}"
        hint = "Renew the certificate and reload the server"
    return {"status": _cap(worst([latency, certificate]), probe), "summary": summary, "hint": hint, "threshold": limit}


def _measured(probe: Probe) -> str:
    return " (measured beside other probes)" if probe.type in TIMED_TYPES else ""


def _cap(status: str, probe: Probe) -> str:
    """The failure of what is not critical is a warning."""
    return "warning" if status == "critical" and not probe.critical else status


def _certificate(result: Result, now: datetime) -> tuple[str, str]:
    """Status of the days that the certificate has left, and a clause about them."""
    expires = result.trace.certificate_expires
    if expires is None:
        return "ok", ""
    days = (expires - now).total_seconds() / 86400
    limits = [result.probe.certificate_warning_days, result.probe.certificate_critical_days]
    # judge() knows what is bad when high: here it is the days that have gone.
    status, _limit = judge(-days, *(None if limit is None else -limit for limit in limits))
    return status, f"the certificate expires in {days:.1f} days ({isoformat(expires)})"


def details(result: Result) -> dict[str, Any]:
    """What the module returns of a probe beside its finding; what was not reached is left out."""
    trace = result.trace
    told: dict[str, Any] = {
        "name": result.probe.name,
        "type": result.probe.type,
        "ok": result.outcome == "passed",
        "alive": trace.alive,
        "attempts": result.attempts,
        "alone": result.alone,
        "error": "" if result.outcome == "passed" else result.summary,
        "address": trace.address,
        "bytes_read": trace.bytes_read,
        "redirects": trace.redirects,
        "phases": trace.milliseconds(),
    }
    if trace.status_code is not None:
        told["status_code"] = trace.status_code
    if trace.certificate_expires is not None:
        told["certificate_expires"] = isoformat(trace.certificate_expires)
    return told
