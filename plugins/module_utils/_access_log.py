# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Response times and errors per route from access logs, in one pass and bounded memory.

Response times are counted by value: exact to the millisecond below one second and to three significant digits
above, so that a percentile is exact or within half a percent however many requests there are.
"""

from __future__ import annotations

import heapq
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._access_log_files import (
    DAMAGED,
    blocks,
    enter,
    expand,
    is_compressed,
    open_log,
    seek_to,
)
from ansible_collections.upkeep.ops.plugins.module_utils._access_log_format import (
    SUGGESTED_LOG_FORMAT,
    Format,
    Record,
    detect,
    epoch,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder, judge
from ansible_collections.upkeep.ops.plugins.module_utils._statistics import percentile
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

#: The subject of findings over all routes, and the name of the routes beyond the cap.
ALL_ROUTES = "all routes"
OTHER = "other"

_NO_REQUEST = "(no request)"
_REMEMBERED = 100_000
_LONGEST_ROUTE = 200

#: A path segment that identifies one thing: number, UUID, long hex, id like Firestore's, or mail address.
_IDENTIFIER = re.compile(
    rb"/(?:\d+"
    rb"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    rb"|[0-9a-fA-F]{16,}"
    rb"|(?=[A-Za-z]*\d)[0-9A-Za-z]{20,}"
    rb"|[^/]*(?:@|%40)[^/]*)(?=/|$)"
)

#: The fingerprint in the name of a built asset, such as ``app.3f2a9c1b.js``.
_FINGERPRINT = re.compile(rb"[.-](?=[a-f]*\d)[0-9a-f]{6,}(?=\.)")


class RouteNames:
    """Names the route of a request: by the templates given, else by folding identifiers to ``:id``."""

    def __init__(self, templates: Sequence[str]) -> None:
        self._templates = [(template, _template_regex(template)) for template in templates]

    def name(self, target: bytes) -> str:
        """Route of ``GET /path`` without query string, such as ``GET /api/orders/:id``."""
        if self._templates:
            text = target.decode("utf-8", "replace")
            method, _space, path = text.partition(" ")
            for template, regex in self._templates:
                if regex.fullmatch(text if " " in template else path):
                    return template if " " in template else f"{method} {template}"
        folded = _IDENTIFIER.sub(b"/:id", target)
        if b"." in folded:
            folded = _FINGERPRINT.sub(b".:id", folded)
        return folded.decode("utf-8", "replace")[:_LONGEST_ROUTE] or _NO_REQUEST


def _template_regex(template: str) -> re.Pattern[str]:
    """``:name`` stands for one segment and ``*`` for anything."""
    pieces = re.split(r"(:\w+|\*)", template)
    return re.compile(
        "".join(".*" if piece == "*" else "[^/]+" if piece[:1] == ":" else re.escape(piece) for piece in pieces)
    )


@dataclass
class Route:
    """What was counted of one route. Times are milliseconds -> requests, statuses are codes as logged."""

    name: str
    requests: int = 0
    size: int = 0
    statuses: dict[bytes, int] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    upstream: dict[int, int] = field(default_factory=dict)
    longest: int = 0

    def add_status(self, status: bytes, count: int) -> None:
        """Count requests by their status."""
        self.requests += count
        self.statuses[status] = self.statuses.get(status, 0) + count

    def add_time(self, milliseconds: int, count: int) -> None:
        """Count response times; a negative one is none."""
        if milliseconds >= 0:
            self.longest = max(self.longest, milliseconds)
            self.times[rounded(milliseconds)] = self.times.get(rounded(milliseconds), 0) + count

    def add_upstream(self, milliseconds: int, count: int) -> None:
        """Count response times of the service behind; a negative one is none."""
        if milliseconds >= 0:
            self.upstream[rounded(milliseconds)] = self.upstream.get(rounded(milliseconds), 0) + count

    def merge(self, other: Route) -> None:
        """Add the counts of another route to this one's."""
        self.requests += other.requests
        self.size += other.size
        self.longest = max(self.longest, other.longest)
        for mine, theirs in ((self.times, other.times), (self.upstream, other.upstream)):
            for milliseconds, count in theirs.items():
                mine[milliseconds] = mine.get(milliseconds, 0) + count
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count

    def figures(self, seconds: float) -> dict[str, Any]:
        """The route's line of the result; the rate is over ``seconds``, None when they are unknown."""
        errors = self._of_class(b"5")
        return {
            "route": self.name,
            "requests": self.requests,
            "rate": round(self.requests / seconds, 3) if seconds > 0 else None,
            "timed": sum(self.times.values()),
            "p50_ms": percentile(self.times, 50),
            "p95_ms": percentile(self.times, 95),
            "p99_ms": percentile(self.times, 99),
            "max_ms": self.longest if self.times else None,
            "upstream_p95_ms": percentile(self.upstream, 95),
            "client_errors": self._of_class(b"4"),
            "errors": errors,
            "error_percent": round(100 * errors / self.requests, 3) if self.requests else 0.0,
            "bytes": self.size,
        }

    def _of_class(self, digit: bytes) -> int:
        return sum(count for status, count in self.statuses.items() if status[:1] == digit)


class AccessLogCounter:
    """Counts records. ``since`` and ``until`` are seconds since the epoch; what has no time counts as inside.

    Whole blocks are counted by column, in C, with the figures still as the text they were logged as; what was
    counted is folded into the routes now and then.
    """

    def __init__(
        self, names: RouteNames, since: float = -math.inf, until: float = math.inf, max_routes: int = 50, keep: int = 10
    ) -> None:
        self._names = names
        self._since = since
        self._until = until
        self._max_routes = max_routes
        self._keep = keep
        self._routes: dict[str, Route] = {}
        self._known: dict[bytes, str] = {}
        self._milliseconds: dict[bytes, int] = {}
        self._slowest: list[tuple[int, int, dict[str, Any]]] = []
        self._met = 0
        self._answers: Counter[tuple[str, bytes, bytes]] = Counter()
        self._upstreams: Counter[tuple[str, bytes]] = Counter()
        self.midnights: dict[bytes, int] = {}
        self.first = math.inf
        self.last = -math.inf

    def add(self, records: Sequence[Record]) -> tuple[int, int]:
        """Count the records that are inside the period; return how many these were, and how many had a time taken."""
        records = self._inside(records)
        if not records:
            return 0, 0
        _at, targets, statuses, sizes, seconds, upstreams = zip(*records)
        known = self._known
        names = [known.get(target) or self._name(target) for target in targets]
        self._answers.update(zip(names, statuses, seconds))
        self._upstreams.update(zip(names, upstreams))
        self._add_sizes(names, sizes)
        if self._keep:
            self._note_slowest(records, names, seconds)
        if len(self._answers) + len(self._upstreams) > 2 * _REMEMBERED:
            self._fold()
        return len(records), len(records) - seconds.count(b"") - seconds.count(b"-")

    def _inside(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records of the period, which widen the time from the first to the last one."""
        moments = {at: epoch(at, self.midnights) for at in {record[0] for record in records}}
        outside = {
            at for at, moment in moments.items() if moment is not None and not self._since <= moment <= self._until
        }
        inside = [moment for at, moment in moments.items() if moment is not None and at not in outside]
        self.first = min([self.first, *inside])
        self.last = max([self.last, *inside])
        return [record for record in records if record[0] not in outside] if outside else records

    def _name(self, target: bytes) -> str:
        name = self._names.name(target)
        if name not in self._routes:
            name = name if len(self._routes) < 20 * self._max_routes else OTHER
            self._routes.setdefault(name, Route(name))
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[target] = name
        return name

    def _parse(self, token: bytes) -> int:
        """Milliseconds of seconds, or of nginx's list of the upstreams that were tried; -1 when it is neither."""
        try:
            parts = [float(part) for part in re.split(rb"[,: ]+", token.strip()) if part != b"-"]
            milliseconds = round(sum(parts) * 1000) if parts else -1
        except (ValueError, OverflowError):
            milliseconds = -1
        if len(self._milliseconds) >= _REMEMBERED:
            self._milliseconds.clear()
        self._milliseconds[token] = milliseconds
        return milliseconds

    def _note_slowest(self, records: Sequence[Record], names: Sequence[str], seconds: Sequence[bytes]) -> None:
        """Keep the slowest requests; as a rule a block has none that is slower than those already kept."""
        known = self._milliseconds
        floor = self._slowest[0][0] if len(self._slowest) == self._keep else -1
        slow = set()
        for token in set(seconds):
            exact = known.get(token)
            if (self._parse(token) if exact is None else exact) > floor:
                slow.add(token)
        if slow:
            for record, name in zip(records, names):
                if record[4] in slow:
                    self._remember(record, name)

    def _remember(self, record: Record, name: str) -> None:
        """Keep a request among the slowest ones, without its query string, which may hold secrets."""
        at, target, status, _size, seconds, _upstream = record
        exact = self._milliseconds.get(seconds)
        if exact is None:
            exact = self._parse(seconds)
        if len(self._slowest) == self._keep and exact <= self._slowest[0][0]:
            return
        self._met += 1
        moment = epoch(at, self.midnights)
        request = {
            "route": name,
            "request": target.decode("utf-8", "replace")[:_LONGEST_ROUTE],
            "status": int(status) if status.isdigit() else 0,
            "ms": exact,
            "at": "" if moment is None else isoformat(datetime.fromtimestamp(moment, timezone.utc)),
        }
        heapq.heappush(self._slowest, (exact, -self._met, request))
        if len(self._slowest) > self._keep:
            heapq.heappop(self._slowest)

    def _fold(self) -> None:
        """Bring what was counted as text into the routes."""
        for (name, status, token), count in self._answers.items():
            self._routes[name].add_status(status, count)
            self._routes[name].add_time(self._parse(token), count)
        for (name, token), count in self._upstreams.items():
            self._routes[name].add_upstream(self._parse(token), count)
        self._answers.clear()
        self._upstreams.clear()

    def _add_sizes(self, names: Sequence[str], sizes: Sequence[bytes]) -> None:
        sums = dict.fromkeys(names, 0)
        for name, size in zip(names, sizes):
            if size.isdigit():
                sums[name] += int(size)
        for name, size_of_route in sums.items():
            self._routes[name].size += size_of_route

    def result(self) -> dict[str, Any]:
        """All figures: overall, per route (most requests first, the rest as one) and the slowest requests."""
        self._fold()
        seconds = max(0.0, self.last - self.first)
        everything = Route(ALL_ROUTES)
        for route in self._routes.values():
            everything.merge(route)
        return {
            "overall": everything.figures(seconds),
            "routes": [route.figures(seconds) for route in self._largest()],
            "slowest": [request for _ms, _order, request in sorted(self._slowest, reverse=True, key=lambda s: s[:2])],
        }

    def _largest(self) -> list[Route]:
        routes = [route for route in self._routes.values() if route.name != OTHER]
        routes.sort(key=lambda route: (-route.requests, route.name))
        rest = Route(OTHER)
        for route in [*routes[self._max_routes :], *(self._routes[name] for name in (OTHER,) if name in self._routes)]:
            rest.merge(route)
        return routes[: self._max_routes] + ([rest] if rest.requests else [])


def rounded(milliseconds: int) -> int:
    """Three significant digits of a number of milliseconds."""
    step = int(10 ** (len(str(milliseconds)) - 3)) if milliseconds >= 1000 else 1
    return (milliseconds + step // 2) // step * step


@dataclass
class FileReport:
    """What became of one file. ``problem`` is why it could not be read, or not to its end."""

    path: str
    format: str = ""
    requests: int = 0
    timed: int = 0
    malformed: int = 0
    bytes_read: int = 0
    complete: bool = True
    missing: bool = False
    problem: str = ""


def read_logs(
    patterns: Sequence[str], counter: AccessLogCounter, line_format: Format | None, since: float, limit: int
) -> list[FileReport]:
    """Feed the files of all patterns to the counter; ``limit`` is the most bytes that are read of each.

    Files last written to before ``since`` are passed over. A file that cannot be read is a report with a problem,
    never an exception.
    """
    files, missing = expand(patterns)
    reports = [FileReport(pattern, problem="no such file", complete=False, missing=True) for pattern in missing]
    for path in files:
        report = FileReport(path)
        reports.append(report)
        try:
            if os.stat(path).st_mtime >= since:
                _read_log(report, counter, line_format, since, limit)
        except (OSError, *DAMAGED) as error:
            report.problem = getattr(error, "strerror", None) or str(error)
            report.complete = False
    return reports


def _read_log(
    report: FileReport, counter: AccessLogCounter, line_format: Format | None, since: float, limit: int
) -> None:
    with open_log(report.path) as stream:
        used = line_format or detect(stream.read(4096))
        report.format = used.name
        stream.seek(0)
        if not is_compressed(report.path):
            _skip(stream, report, counter, used, since, limit)
        for block in blocks(stream, limit):
            report.bytes_read += len(block)
            records, malformed = used.records(block)
            counted, timed = counter.add(records)
            report.requests += counted
            report.timed += timed
            report.malformed += malformed
        if stream.read(1):
            report.complete = False


def _skip(stream: Any, report: FileReport, counter: AccessLogCounter, used: Format, since: float, limit: int) -> None:
    """Move a plain file to where the period begins, but never further back than the limit allows."""
    size = os.fstat(stream.fileno()).st_size
    start = 0
    if since > -math.inf:
        start = seek_to(stream, size, since, lambda lines: _first_time(used, lines, counter.midnights))
    if size - start > limit:
        enter(stream, size - limit)
        report.complete = False


def _first_time(used: Format, lines: bytes, midnights: dict[bytes, int]) -> float | None:
    for record in used.records(lines)[0]:
        moment = epoch(record[0], midnights)
        if moment is not None:
            return moment
    return None


@dataclass(frozen=True)
class Thresholds:
    """When a route is slow or failing. None is never; fewer requests than the minimum are not judged."""

    p95_warning_ms: float | None = None
    p95_critical_ms: float | None = None
    error_warning_percent: float | None = None
    error_critical_percent: float | None = None
    min_requests: int = 1


def judge_logs(
    result: Mapping[str, Any], reports: Iterable[FileReport], thresholds: Thresholds, now: datetime
) -> list[Finding]:
    """Findings on the files, on all routes together and on each route that had requests enough."""
    builder = FindingsBuilder(now)
    for report in reports:
        _judge_file(builder, report)
    for figures in (result["overall"], *result["routes"]):
        if figures["requests"] >= max(1, thresholds.min_requests):
            _judge_errors(builder, figures, thresholds)
            _judge_times(builder, figures, thresholds)
    return builder.findings


def _judge_file(builder: FindingsBuilder, report: FileReport) -> None:
    lines = report.requests + report.malformed
    if report.problem:
        summary = f"{report.path} could not be read: {report.problem}"
        if lines:
            summary = f"{report.path} could be read only in part ({report.requests} requests): {report.problem}"
        hint = "Check the path and that the user of the task may read it"
        builder.add("access_log", report.path, "unknown", summary, hint=hint)
    elif report.malformed and report.malformed >= lines / 20:
        builder.add(
            "access_log",
            report.path,
            "unknown" if not report.requests else "warning",
            f"{report.malformed} of {lines} lines of {report.path} are not in the format {report.format}",
            value=report.malformed,
            unit="lines",
            hint="Give the log_format of nginx.conf, or a pattern",
        )
    elif not report.complete:
        summary = f"{report.path} is larger than max_bytes, only {report.bytes_read} bytes of it were read"
        builder.add("access_log", report.path, "warning", summary, hint="Raise max_bytes or shorten the period")
    else:
        summary = f"{report.requests} requests of the period in {report.path}"
        builder.add("access_log", report.path, "ok", summary, value=report.requests, unit="requests")


def _judge_errors(builder: FindingsBuilder, figures: Mapping[str, Any], thresholds: Thresholds) -> None:
    percent = figures["error_percent"]
    status, limit = judge(percent, thresholds.error_warning_percent, thresholds.error_critical_percent)
    builder.add(
        "error_rate",
        figures["route"],
        status,
        f"{figures['errors']} of {figures['requests']} requests failed with 5xx ({percent:g} %)",
        value=percent,
        unit="%",
        threshold=limit,
        hint="" if status == "ok" else "Read the error logs of the gateway and of the service behind the route",
    )


def _judge_times(builder: FindingsBuilder, figures: Mapping[str, Any], thresholds: Thresholds) -> None:
    if figures["p95_ms"] is None:
        if figures["route"] == ALL_ROUTES:
            builder.add(
                "response_time",
                ALL_ROUTES,
                "unknown",
                f"none of {figures['requests']} requests was logged with a response time",
                hint=f"Log it in nginx: {SUGGESTED_LOG_FORMAT}",
            )
        return
    status, limit = judge(figures["p95_ms"], thresholds.p95_warning_ms, thresholds.p95_critical_ms)
    builder.add(
        "response_time",
        figures["route"],
        status,
        f"p95 {figures['p95_ms']} ms, p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, "
        f"slowest {figures['max_ms']} ms of {figures['timed']} requests",
        value=figures["p95_ms"],
        unit="ms",
        threshold=limit,
        hint="" if status == "ok" else "See the slowest requests; upstream_p95_ms tells how much is the service's own",
    )


def metrics(overall: Mapping[str, Any]) -> dict[str, float]:
    """Figures for trends; what was not measured is left out."""
    figures = {"p95_ms": overall["p95_ms"], "requests_per_second": overall["rate"]}
    if overall["requests"]:
        figures["error_percent"] = overall["error_percent"]
    return {name: value for name, value in figures.items() if value is not None}
