#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_log_stats
short_description: Response times and errors per route from nginx access logs
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Reads access logs once and tells for every route and for all together how many requests there were, how fast
    they were answered (p50, p95, p99, slowest) and how many failed.
  - Routes are requests with their identifiers folded, so that C(/api/orders/17) and C(/api/orders/18) are one route
    C(GET /api/orders/:id). Query strings are dropped everywhere, because they can hold secrets.
  - Percentiles are nearest-rank ones. Times are counted by value, exact to the millisecond below one second and to
    three significant digits above, so that memory stays bounded.
  - Files with the endings C(.gz), C(.bz2) and C(.xz) are decompressed. Of a plain file only the part is read that
    belongs to the period, found by bisection. Files last written to before the period are passed over.
notes:
  - The combined format of nginx has no response time. Without one there are only counts and errors, and a finding of
    status unknown says which C(log_format) to set.
options:
  paths:
    description: Files and glob patterns.
    type: list
    elements: path
    required: true
  missing_ok:
    description: Whether a path that names no file is passed over in silence. Else it is a finding of status unknown.
    type: bool
    default: false
  period:
    description: How far to look back from now, such as V(24h). Without it and O(since) everything is read.
    type: str
  since:
    description: Point in time from which on requests count, such as V(2026-01-31T00:00:00Z).
    type: str
  until:
    description: Point in time up to which requests count.
    type: str
  log_format:
    description:
      - The string of nginx's C(log_format), without its outer quotes. It needs C($status) and one of C($request),
        C($request_uri) and C($uri).
      - Without it and O(pattern) a file is read as JSON lines if its first line starts with a brace, else as the
        format combined, with C(rt=$request_time) and C(urt=$upstream_response_time) anywhere behind it.
      - The keys of JSON lines are the names of nginx's variables or common short ones.
    type: str
  pattern:
    description:
      - A Python regular expression for one line, with the named groups C(status) and C(path) or C(target) (method and
        path), and, where there are any, C(method), C(time), C(size), C(seconds) and C(upstream).
    type: str
  routes:
    description:
      - Templates of routes. C(:name) stands for one segment, C(*) for anything, and a method may stand in front.
        The first one that matches names the route. Others are folded.
    type: list
    elements: str
    default: []
  max_routes:
    description: Routes with the most requests that are told apart. The rest is one route V(other).
    type: int
    default: 50
  slowest:
    description: How many of the slowest requests to return.
    type: int
    default: 10
  max_bytes:
    description: The most that is read of one file, uncompressed. Of a larger plain file the newest part is read.
    type: int
    default: 4294967296
  min_requests:
    description: Routes with fewer requests are not judged.
    type: int
    default: 20
  p95_warning_ms:
    description: Milliseconds of the 95th percentile from which on a route is a warning.
    type: float
  p95_critical_ms:
    description: Milliseconds of the 95th percentile from which on a route is critical.
    type: float
  error_warning_percent:
    description: Share of answers with a 5xx status from which on a route is a warning.
    type: float
  error_critical_percent:
    description: Share of answers with a 5xx status from which on a route is critical.
    type: float
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
"""

EXAMPLES = r"""
- name: Judge the response times of the last day, rotated files included
  upkeep.ops.access_log_stats:
    paths: [/var/log/nginx/access.log, /var/log/nginx/access.log.*]
    period: 24h
    p95_warning_ms: 500
    p95_critical_ms: 2000
    error_warning_percent: 1
    error_critical_percent: 5

- name: Read a format of one's own and name the routes
  upkeep.ops.access_log_stats:
    paths: [/var/log/nginx/access.log]
    log_format: >-
      $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer"
      "$http_user_agent" rt=$request_time urt="$upstream_response_time"
    routes: ["GET /api/orders/:id", "/static/*"]
    fail_on: never
  register: stats

- name: Show the slowest requests
  ansible.builtin.debug:
    var: stats.slowest
"""

RETURN = r"""
findings:
  description: >-
    What was found, worst first. The checks are C(access_log) for each file, C(response_time) and C(error_rate) for
    all routes and for each route with at least O(min_requests) requests.
  returned: always
  type: list
  elements: dict
status:
  description: The most severe status of the findings.
  returned: always
  type: str
  sample: ok
summary:
  description: How many findings of each status there are.
  returned: always
  type: str
  sample: 1 warning, 12 ok
overall:
  description: The figures of all routes together, with the keys of RV(routes).
  returned: always
  type: dict
routes:
  description: The figures of each route, most requests first.
  returned: always
  type: list
  elements: dict
  contains:
    route:
      description: Method and path with identifiers folded.
      type: str
      sample: GET /api/orders/:id
    requests:
      description: Requests in the period.
      type: int
    rate:
      description: Requests a second, from the first to the last request of the period. It is null when that is no time.
      type: float
    timed:
      description: Requests that were logged with a response time.
      type: int
    p50_ms:
      description: Median of the response time in milliseconds, or null when no response times were logged.
      type: int
    p95_ms:
      description: 95th percentile of the response time, or null.
      type: int
    p99_ms:
      description: 99th percentile of the response time, or null.
      type: int
    max_ms:
      description: The longest response time, or null.
      type: int
    upstream_p95_ms:
      description: 95th percentile of the time that the service behind the gateway took, or null.
      type: int
    client_errors:
      description: Answers with a 4xx status.
      type: int
    errors:
      description: Answers with a 5xx status.
      type: int
    error_percent:
      description: Share of answers with a 5xx status.
      type: float
    bytes:
      description: Bytes sent.
      type: int
slowest:
  description: The slowest requests, slowest first, without query strings.
  returned: always
  type: list
  elements: dict
  contains:
    route:
      description: The route of the request.
      type: str
      sample: GET /api/orders/:id
    request:
      description: Method and path.
      type: str
      sample: GET /api/orders/17
    status:
      description: Status of the answer, 0 when it is no number.
      type: int
    ms:
      description: Response time in milliseconds.
      type: int
    at:
      description: When it was logged, in UTC. Empty when the log has no time.
      type: str
      sample: "2026-01-31T23:59:59Z"
files:
  description: What was read of each file.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file, or a pattern that matches none.
      type: str
    format:
      description: The format it was read as. Empty when it was not read.
      type: str
    requests:
      description: Requests of the period.
      type: int
    timed:
      description: How many of them have a response time.
      type: int
    malformed:
      description: Lines that are not in the format.
      type: int
    bytes_read:
      description: Bytes that were read, uncompressed.
      type: int
    complete:
      description: Whether all of the period was read.
      type: bool
    missing:
      description: Whether there is no such file.
      type: bool
    problem:
      description: Why it could not be read. Empty when it could.
      type: str
period:
  description: Times of the first and the last request that was counted. Empty when there is none.
  returned: always
  type: dict
  sample: {first: "2026-01-30T23:59:59Z", last: "2026-01-31T23:59:59Z"}
metrics:
  description: Figures for trends. A figure that could not be measured is left out.
  returned: always
  type: dict
  sample: {p95_ms: 210, error_percent: 0.1, requests_per_second: 12.5}
"""

import math
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._access_log import (
    AccessLogCounter,
    RouteNames,
    Thresholds,
    judge_logs,
    metrics,
    read_logs,
)
from ansible_collections.upkeep.ops.plugins.module_utils._access_log_format import (
    Format,
    from_log_format,
    from_pattern,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_duration, parse_time, utc_now

_THRESHOLDS = (
    "p95_warning_ms",
    "p95_critical_ms",
    "error_warning_percent",
    "error_critical_percent",
    "min_requests",
)


def _period(params: dict[str, Any], now: datetime) -> tuple[float, float]:
    """Seconds since the epoch between which requests count. Raises ValueError."""
    since = parse_time(params["since"]).timestamp() if params["since"] else -math.inf
    if params["period"]:
        since = now.timestamp() - parse_duration(params["period"])
    return since, parse_time(params["until"]).timestamp() if params["until"] else math.inf


def _line_format(params: dict[str, Any]) -> Format | None:
    if params["log_format"]:
        return from_log_format(params["log_format"])
    return from_pattern(params["pattern"]) if params["pattern"] else None


def _moment(seconds: float) -> str:
    return isoformat(datetime.fromtimestamp(seconds, timezone.utc)) if math.isfinite(seconds) else ""


def main() -> None:
    number = {"type": "float"}
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "missing_ok": {"type": "bool", "default": False},
            "period": {"type": "str"},
            "since": {"type": "str"},
            "until": {"type": "str"},
            "log_format": {"type": "str"},
            "pattern": {"type": "str"},
            "routes": {"type": "list", "elements": "str", "default": []},
            "max_routes": {"type": "int", "default": 50},
            "slowest": {"type": "int", "default": 10},
            "max_bytes": {"type": "int", "default": 4294967296},
            "min_requests": {"type": "int", "default": 20},
            "p95_warning_ms": number,
            "p95_critical_ms": number,
            "error_warning_percent": number,
            "error_critical_percent": number,
            "fail_on": FAIL_ON_OPTION,
        },
        mutually_exclusive=[("period", "since"), ("log_format", "pattern")],
        supports_check_mode=True,
    )
    params = module.params
    now = utc_now()
    try:
        since, until = _period(params, now)
        line_format = _line_format(params)
    except ValueError as error:
        module.fail_json(msg=str(error))
    counter = AccessLogCounter(RouteNames(params["routes"]), since, until, params["max_routes"], params["slowest"])
    reports = read_logs(params["paths"], counter, line_format, since, params["max_bytes"])
    if params["missing_ok"]:
        reports = [report for report in reports if not report.missing]
    result = counter.result()
    findings = judge_logs(result, reports, Thresholds(**{name: params[name] for name in _THRESHOLDS}), now)
    exit_with_findings(
        module,
        findings,
        **result,
        files=[asdict(report) for report in reports],
        period={"first": _moment(counter.first), "last": _moment(counter.last)},
        metrics=metrics(result["overall"]),
    )


if __name__ == "__main__":
    main()
