# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe is, what one attempt sees on its way, and how it says that something failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import Deadline

#: The phases of an attempt in their order; ttfb and total count from its start, the others are durations.
PHASES = ("dns", "connect", "tls", "ttfb", "total")


@dataclass(frozen=True)
class Probe:
    """One probe as its author wrote it; the fields are the suboptions of service_health."""

    name: str
    type: str = "http"
    critical: bool = True
    depends_on: tuple[str, ...] = ()
    timeout: float = 10.0
    attempts: int = 1
    interval: float = 1.0
    latency_warning_ms: float | None = None
    latency_critical_ms: float | None = None
    url: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Any = None
    username: str = ""
    password: str = field(default="", repr=False)
    auth_scheme: str = "basic"
    token: str = field(default="", repr=False)
    status: tuple[str, ...] = ("200-299",)
    regex: str = ""
    json: Mapping[str, Any] = field(default_factory=dict)
    max_bytes: int = 65536
    follow_redirects: bool = True
    max_redirects: int = 5
    host: str = ""
    port: int | None = None
    unix_socket: str = ""
    sentinel_hosts: tuple[str, ...] = ()
    sentinel_master: str = "mymaster"
    sentinel_user: str = ""
    sentinel_password: str = field(default="", repr=False)
    ip_version: str = "any"
    tls: bool = False
    server_name: str = ""
    validate_certs: bool = True
    ca_certs: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    certificate_warning_days: float | None = None
    certificate_critical_days: float | None = None
    project: str = ""
    database: str = "(default)"
    emulator_host: str = ""
    service_account_file: str = ""
    pid_file: str = ""
    unit: str = ""
    argv: tuple[str, ...] = ()
    rc: tuple[int, ...] = (0,)


class ProbeFailedError(Exception):
    """The subject did not answer as expected; the text is one sentence, ``hint`` what to do next."""

    def __init__(self, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint


class NotMeasurableError(ProbeFailedError):
    """Nothing was learned about the subject, because the probe itself could not be made."""


class Trace:
    """What one attempt saw on its way: it says something also when the attempt fails midway."""

    def __init__(self, deadline: Deadline, clock: Callable[[], float] = time.perf_counter) -> None:
        self.deadline = deadline
        self.phases: dict[str, float] = {}
        self.alive = False
        self.step = ""
        self.address = ""
        self.status_code: int | None = None
        self.redirects = 0
        self.bytes_read = 0
        self.certificate_expires: datetime | None = None
        self._clock = clock
        self._started = clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the duration of the block to a phase, when it ends well; else ``step`` stays at this phase."""
        self.step = name
        started = self._clock()
        yield
        self.step = "answer"
        self.phases[name] = self.phases.get(name, 0.0) + self._clock() - started

    def reached(self, name: str) -> None:
        """Note that a phase which counts from the attempt's start ended now."""
        self.phases[name] = self._clock() - self._started

    def milliseconds(self) -> dict[str, float]:
        """The phases that took place, in milliseconds, rounded to microseconds."""
        return {f"{name}_ms": round(self.phases[name] * 1000, 3) for name in PHASES if name in self.phases}


#: Makes one attempt of one type of probe and returns what the subject said, as in "answered 200".
#: Raises ProbeFailedError, NotMeasurableError or DeadlineExceededError.
Prober = Callable[[Probe, Trace], str]
