# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Warms a cache up: asks for URLs or touches keys, no faster than allowed, and stops when that does harm."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.upkeep.ops.plugins.module_utils._deadline import Deadline, DeadlineExceededError, call_within

Clock = Callable[[], float]
Progress = Callable[[int, int], None]

_LATEST = 5  # so many answers are looked at to see whether it does harm
_ERRORS = 20  # so many are told
_BATCH = 100  # keys in one pipeline
_CHUNK = 65536


@dataclass(frozen=True)
class Limits:
    """The load that the warm-up may cause. ``rate`` is per second, ``timeout`` in seconds."""

    rate: float
    concurrency: int
    latency_ms: float
    timeout: float

    def check(self) -> None:
        """Raises ValueError when a limit makes no sense."""
        for name in ("rate", "concurrency", "latency_ms", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"the limit {name} of the warm-up is {getattr(self, name)}; it must be more than 0")


@dataclass
class Warmed:
    """What came of it. ``stopped`` is the reason why not all was done."""

    total: int
    answered: int = 0
    missing: int = 0
    failed: int = 0
    stopped: str | None = None
    latencies: list[float] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    _in_a_row: int = 0

    @property
    def done(self) -> int:
        """URLs and keys that were asked for."""
        return self.answered + self.missing + self.failed

    def note(self, milliseconds: float, limits: Limits) -> None:
        """How long an answer took; too long too often ends the warm-up."""
        self.latencies.append(milliseconds)
        latest = self.latencies[-_LATEST:]
        if len(latest) == _LATEST and statistics.median(latest) > limits.latency_ms:
            told = f"of the last {_LATEST} answers half took longer than {limits.latency_ms:g} ms"
            self.stopped = self.stopped or told

    def fail(self, what: str, reason: str, harmful: bool) -> None:
        """One that did not succeed; several in succession that show the server in trouble end the warm-up."""
        self.failed += 1
        self._in_a_row = self._in_a_row + 1 if harmful else 0
        if len(self.errors) < _ERRORS:
            self.errors.append({"what": what, "error": reason})
        if self._in_a_row >= _LATEST:
            self.stopped = self.stopped or f"{_LATEST} requests in succession failed"

    def succeed(self) -> None:
        """One that succeeded."""
        self.answered += 1
        self._in_a_row = 0

    def as_dict(self, seconds: float) -> dict[str, Any]:
        """As the module returns it."""
        return {
            **{name: getattr(self, name) for name in ("total", "answered", "missing", "failed", "stopped", "errors")},
            "not_reached": self.total - self.done,
            "seconds": round(seconds, 1),
            "median_ms": round(statistics.median(self.latencies), 1) if self.latencies else None,
            "slowest_ms": round(max(self.latencies), 1) if self.latencies else None,
        }


class RequestFailedError(Exception):
    """A URL was not answered well. ``harmful``: it shows that the server is in trouble."""

    def __init__(self, reason: str, harmful: bool) -> None:
        super().__init__(reason)
        self.harmful = harmful


@dataclass(frozen=True)
class Pace:
    """Never faster than so many per second, and nothing is made up for."""

    rate: float
    clock: Clock
    sleep: Callable[[float], None]

    def after(self, begun: float, count: int) -> None:
        """Wait until ``count`` that were begun then have had their time."""
        left = begun + count / self.rate - self.clock()
        if left > 0:
            self.sleep(left)


def check_urls(urls: Sequence[str]) -> None:
    """Raises ValueError when one of them is no URL that can be asked for."""
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"{shown(url)} is no URL such as https://www.example.org/news")


def shown(url: str) -> str:
    """A URL for messages: without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{host}{parts.path}{'?...' if parts.query else ''}"


def fetcher(requests: ModuleType, timeout: float, verify: bool | str) -> Callable[[str], None]:
    """A function that asks for a URL and reads all of the answer. It raises RequestFailedError."""

    def get(url: str) -> int:
        with requests.Session() as session:
            session.trust_env = False
            with session.get(url, timeout=timeout, stream=True, verify=verify) as response:
                for _chunk in response.iter_content(_CHUNK):
                    pass
                return int(response.status_code)

    def fetch(url: str) -> None:
        try:
            status = call_within(Deadline(timeout), lambda: get(url))
        except (DeadlineExceededError, requests.exceptions.Timeout):
            raise RequestFailedError(f"no whole answer within {timeout:g} s", harmful=True) from None
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            raise RequestFailedError(_reason(error), harmful=True) from error
        if status >= 400:
            raise RequestFailedError(f"HTTP status {status}", harmful=status >= 500)

    return fetch


def _reason(error: Exception) -> str:
    """The innermost cause: those around it repeat the URL, with its query."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return str(cause) or type(cause).__name__


def warm_urls(
    urls: Sequence[str], fetch: Callable[[str], None], limits: Limits, pace: Pace, warmed: Warmed, progress: Progress
) -> None:
    """Ask for the URLs in their order, so many at a time as allowed; ``warmed`` takes up what came of it."""

    def timed(url: str) -> tuple[str, float, RequestFailedError | None]:
        begun, failure = pace.clock(), None
        try:
            fetch(url)
        except RequestFailedError as error:
            failure = error
        return url, 1000 * (pace.clock() - begun), failure

    running: set[Future[tuple[str, float, RequestFailedError | None]]] = set()

    def collect(most: int) -> None:
        """Take up answers until at most so many are out."""
        nonlocal running
        while len(running) > most:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for url, milliseconds, failure in (future.result() for future in ended):
                warmed.note(milliseconds, limits)
                if failure:
                    warmed.fail(shown(url), str(failure), failure.harmful)
                else:
                    warmed.succeed()
                progress(warmed.done, warmed.total)

    pool = ThreadPoolExecutor(limits.concurrency)
    try:
        for url in urls:
            begun = pace.clock()
            collect(limits.concurrency - 1)
            if warmed.stopped:
                break
            running.add(pool.submit(timed, url))
            pace.after(begun, 1)
        collect(0)
    finally:
        pool.shutdown(cancel_futures=True)


def warm_keys(
    client: Any, database: int, keys: Sequence[str], limits: Limits, pace: Pace, warmed: Warmed, progress: Progress
) -> None:
    """Touch the keys, so that they count as used a moment ago; those that are not there are counted."""
    size = max(1, min(_BATCH, int(limits.rate / 10)))
    for start in range(0, len(keys), size):
        if warmed.stopped:
            return
        batch, begun = keys[start : start + size], pace.clock()
        with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("SELECT", database)
            for key in batch:
                pipeline.execute_command("TOUCH", key)
            _selected, *there = pipeline.execute()
        warmed.note(1000 * (pace.clock() - begun), limits)
        warmed.answered += sum(there)
        warmed.missing += len(batch) - sum(there)
        progress(warmed.done, warmed.total)
        pace.after(begun, len(batch))
