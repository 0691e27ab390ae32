# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP probes: requests asks, over connections that are timed, kept under the deadline and read up to a cap."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import DeadlineExceededError
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._probe import Probe, ProbeFailedError, Prober, Trace
from ansible_collections.upkeep.ops.plugins.module_utils._probe_answer import body_problems, parse_ranges, said
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import Connector, Endpoint, trust_of

_PORTS = {"http": 80, "https": 443}
_CHUNK = 16384
_HEADERS = {
    "User-Agent": "upkeep.ops.service_health",
    "Accept": "*/*",
    # Nothing is compressed, so that the cap on what is read is one on what is kept in memory, too.
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class _Body:
    """The body of an answer up to a cap; past it the answer seems to end.

    requests reads the bodies of redirects whole, and so would read for ever from a server that means ill.
    """

    def __init__(self, answer: http.client.HTTPResponse, cap: int) -> None:
        self._answer = answer
        self._left = cap

    def read(self, amount: int | None = None) -> bytes:
        wanted = self._left if amount is None else min(amount, self._left)
        data = self._answer.read(wanted) if wanted else b""
        self._left -= len(data)
        if wanted and not data and self._answer.length:
            raise http.client.IncompleteRead(data, self._answer.length)
        return data

    def isclosed(self) -> bool:
        """Whether there is no more to read, as urllib3 asks."""
        return not self._left or self._answer.isclosed()

    def close(self) -> None:
        self._answer.close()


def http_prober(connector: Connector) -> Prober:
    """The prober of types http and https. Raises MissingDependencyError when requests is not there."""
    requests = load("requests")
    # requests' own dependency; its answers are built from urllib3's.
    from urllib3.response import HTTPResponse

    build_response = requests.adapters.HTTPAdapter().build_response

    class Adapter(requests.adapters.BaseAdapter):  # type: ignore[misc,name-defined]
        """Sends the requests of one attempt, each over a connection of its own."""

        def __init__(self, probe: Probe, trace: Trace) -> None:
            super().__init__()
            self._probe = probe
            self._trace = trace
            self._connections: list[http.client.HTTPConnection] = []

        def send(self, request: Any, **_options: Any) -> Any:
            answer = self._ask(request)
            raw = HTTPResponse(
                body=_Body(answer, self._probe.max_bytes),  # type: ignore[arg-type]
                headers=answer.headers.items(),  # type: ignore[arg-type]
                status=answer.status,
                reason=answer.reason,
                preload_content=False,
                # What the cap cuts off is no error, and what the server cuts off is told by _Body.
                enforce_content_length=False,
                original_response=answer,
            )
            response = build_response(request, raw)
            response.connection = self  # the answer to a challenge goes the same way
            return response

        def _ask(self, request: Any) -> http.client.HTTPResponse:
            connection = _connection(request.url, self._probe, connector, self._trace)
            self._connections.append(connection)
            connection.request(request.method, request.path_url, request.body, _headers_for(request, self._probe))
            return connection.getresponse()

        def close(self) -> None:
            for connection in self._connections:
                connection.close()

    def probe_http(probe: Probe, trace: Trace) -> str:
        adapter = Adapter(probe, trace)
        with requests.Session() as session:
            session.trust_env = False
            session.max_redirects = probe.max_redirects
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            try:
                # Prepared without the session, which would look for defaults in ten places.
                request = requests.Request(probe.method, probe.url, auth=_auth(requests, probe), **_content(probe))
                response = session.send(request.prepare(), allow_redirects=probe.follow_redirects, stream=True)
                trace.status_code = response.status_code
                trace.redirects = len(response.history)
                body = _read(response, probe.max_bytes)
            except (OSError, http.client.HTTPException) as error:
                raise _failure(error, requests, probe, trace) from error
        return _judge(probe, trace, body)

    return probe_http


def _connection(url: str, probe: Probe, connector: Connector, trace: Trace) -> http.client.HTTPConnection:
    """A connection for one request, whose socket is already connected."""
    trace.bytes_read = 0  # the first byte is that of the last answer, as curl has it
    stream = connector.open(endpoint_of(url, probe), trace)
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.sock = stream
    return connection


def endpoint_of(url: str, probe: Probe) -> Endpoint:
    """Where a URL is asked: at the probe's unix socket, host or port when it names them, else where the URL says.

    Raises ProbeFailedError when a probe of type https was sent to a plain URL.
    """
    parts = urlsplit(url)
    if probe.type == "https" and parts.scheme != "https":
        raise ProbeFailedError(f"redirected to {url}, which is not encrypted", "Let the server redirect to https")
    name = parts.hostname or ""
    return Endpoint(
        host=probe.host or name,
        port=probe.port or parts.port or _PORTS[parts.scheme],
        unix_socket=probe.unix_socket,
        ip_version=probe.ip_version,
        tls=parts.scheme == "https",
        server_name=probe.server_name or name,
        trust=trust_of(probe),
    )


def _content(probe: Probe) -> dict[str, Any]:
    """Headers and body of the request; a mapping or list is sent as JSON."""
    headers = {**_HEADERS, **probe.headers, **probe.secret_headers}
    body = probe.body
    if isinstance(body, (Mapping, list)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    if probe.token:
        headers["Authorization"] = f"Bearer {probe.token}"
    return {"headers": headers, "data": None if body is None else str(body).encode()}


def _headers_for(request: Any, probe: Probe) -> dict[str, str]:
    """The headers of a request; to another host than the probe's a redirect takes none of the secret ones along.

    requests itself takes away only Authorization.
    """
    if urlsplit(request.url).netloc == urlsplit(probe.url).netloc:
        return dict(request.headers)
    secret = {name.lower() for name in probe.secret_headers}
    return {name: value for name, value in request.headers.items() if name.lower() not in secret}


def _auth(requests: Any, probe: Probe) -> Any:
    if not probe.username:
        return None
    if probe.auth_scheme == "digest":
        return requests.auth.HTTPDigestAuth(probe.username, probe.password)
    # requests encodes text as Latin-1, which servers of today take for UTF-8.
    return requests.auth.HTTPBasicAuth(probe.username.encode(), probe.password.encode())


def _read(response: Any, cap: int) -> bytes:
    """The body, up to ``cap`` bytes also when a compressed one grows."""
    body = bytearray()
    for piece in response.iter_content(_CHUNK):
        body += piece
        if len(body) >= cap:
            break
    return bytes(body[:cap])


def _failure(error: Exception, requests: Any, probe: Probe, trace: Trace) -> Exception:
    """What an exception of the request means; requests' own are OSErrors."""
    if trace.deadline.expired or isinstance(error, (socket.timeout, requests.exceptions.Timeout)):
        return DeadlineExceededError()
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return ProbeFailedError(
            f"more than {probe.max_redirects} redirects, the last one from {error.response.url}",
            "Look for a circle of redirects",
        )
    if trace.status_code is not None:
        return ProbeFailedError(
            f"answered {trace.status_code}, but the answer broke off after {trace.bytes_read} bytes",
            "Look at the log of the service and of the proxies before it",
        )
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return ProbeFailedError(
            f"{trace.address} closed the connection without an answer", "Look at the service's log: it may be crashing"
        )
    if isinstance(error, http.client.HTTPException):
        return ProbeFailedError(f"{trace.address} does not speak HTTP: {error!r}", "Check port and scheme of the URL")
    return ProbeFailedError(f"the request failed: {error}", "Check the URL and the service's log")


def _advice(code: int) -> str:
    """What to do about a status that was not expected."""
    if code in (502, 504):  # by these a proxy speaks of what is behind it
        return "A proxy answered in the service's place: see whether the service runs, then look at its log"
    if code >= 500:
        return "Look at the service's log, and at what it depends on"
    if code in (401, 403):
        return "Check the probe's credentials, or name this status in the probe's option status"
    return "Check the probe's URL, or name this status in the probe's option status"


def _judge(probe: Probe, trace: Trace, body: bytes) -> str:
    """What was answered. Raises ProbeFailedError when status or body are not as expected."""
    if not any(trace.status_code in codes for codes in parse_ranges(probe.status)):
        raise ProbeFailedError(
            f"answered {trace.status_code} after {trace.phases['ttfb'] * 1000:.0f} ms, "
            f"expected {', '.join(probe.status)}{said(body)}",
            _advice(trace.status_code or 0),
        )
    problems = list(body_problems(body, probe.regex, probe.json, len(body) < probe.max_bytes))
    if problems:
        raise ProbeFailedError(
            f"answered {trace.status_code} with {'; '.join(problems)}",
            "Look at what the service says of itself under this URL",
        )
    return f"answered {trace.status_code}"
