# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of servers that are not asked by HTTP: tcp, tls and firestore."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import DeadlineExceededError, call_within
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._probe import (
    NotMeasurableError,
    Probe,
    ProbeFailedError,
    Prober,
    Trace,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import Connector, endpoint_of


def tcp_prober(connector: Connector) -> Prober:
    """The prober of type tcp: somebody accepts the connection."""

    def probe_tcp(probe: Probe, trace: Trace) -> str:
        with closing(connector.open(endpoint_of(probe), trace)):
            return "accepts connections"

    return probe_tcp


def tls_prober(connector: Connector) -> Prober:
    """The prober of type tls: the handshake succeeds, with a certificate that is accepted."""

    def probe_tls(probe: Probe, trace: Trace) -> str:
        with closing(connector.open(endpoint_of(probe, tls=True), trace)) as stream:
            return f"speaks {stream.version()}"  # type: ignore[attr-defined]

    return probe_tls


def firestore_prober() -> Prober:
    """The prober of type firestore: one document is asked for. Raises MissingDependencyError.

    The client looks for credentials in places that know no deadline, so it works in a thread that can be left.
    """
    firestore = load("google.cloud.firestore")

    def probe_firestore(probe: Probe, trace: Trace) -> str:
        emulator = firestore_emulator(probe)
        trace.address = emulator or "firestore.googleapis.com:443"
        try:
            return call_within(trace.deadline, lambda: _ask_firestore(firestore, probe, emulator, trace))
        except (DeadlineExceededError, ProbeFailedError):
            raise
        except Exception as error:
            # gRPC, authentication and API errors have no common ancestor; each ends this one probe only.
            raise _firestore_failure(error, trace) from error

    return probe_firestore


def firestore_emulator(probe: Probe) -> str:
    """Address of the emulator that is configured, by the probe or by the environment; else empty: production."""
    return probe.emulator_host or os.environ.get("FIRESTORE_EMULATOR_HOST", "")


def _ask_firestore(firestore: Any, probe: Probe, emulator: str, trace: Trace) -> str:
    client = _firestore_client(firestore, probe, emulator)
    try:
        document = client.collection("upkeep_health").document("probe")
        document.get(retry=None, timeout=trace.deadline.remaining())
    finally:
        client.close()
    trace.alive = True
    trace.reached("ttfb")
    return "answered a read" + (f" (emulator at {emulator})" if emulator else "")


def _firestore_client(firestore: Any, probe: Probe, emulator: str) -> Any:
    options: dict[str, Any] = {"project": probe.project, "database": probe.database}
    if not emulator:
        if probe.service_account_file:
            return firestore.Client.from_service_account_json(probe.service_account_file, **options)
        return firestore.Client(**options)
    from google.auth.credentials import AnonymousCredentials  # comes with google-cloud-firestore

    client = firestore.Client(credentials=AnonymousCredentials(), **options)
    # The library knows the emulator from the environment alone, which is one for all probes.
    client._emulator_host = emulator
    return client


def _firestore_failure(error: Exception, trace: Trace) -> ProbeFailedError:
    kind = type(error).__name__
    said = str(error).splitlines()[0] if str(error) else kind
    if kind in ("DefaultCredentialsError", "FileNotFoundError", "RefreshError"):
        return NotMeasurableError(f"no credentials for Firestore: {said}", "Set service_account_file of the probe")
    if kind in ("PermissionDenied", "Unauthenticated", "NotFound"):
        trace.alive = True
        return ProbeFailedError(
            f"alive, but not ready: {said}", "Check project, database and the rights of the service account"
        )
    return ProbeFailedError(f"{trace.address} did not answer: {said}", "Check the network and the status of Firestore")
