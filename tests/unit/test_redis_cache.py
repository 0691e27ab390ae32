# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no server of a test shows at will: a past, a lot of fragmentation, another name, broken persistence."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _redis_figures as figures
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding, FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._redis_cache_findings import THRESHOLDS, CacheJudge
from ansible_collections.upkeep.ops.plugins.module_utils._warm_up import Limits, Pace, Warmed, shown, warm_urls

MB = 1_000_000
INFO: dict[str, Any] = {
    "run_id": "a",
    "role": "master",
    "redis_version": "7.2.4",
    "keyspace_hits": 1000,
    "keyspace_misses": 100,
    "evicted_keys": 5,
    "rejected_connections": 0,
    "used_memory": 300 * MB,
    "used_memory_rss": 330 * MB,
    "maxmemory": 1000 * MB,
    "maxmemory_policy": "allkeys-lru",
    "mem_fragmentation_ratio": 1.1,
    "mem_fragmentation_bytes": 30 * MB,
    "allocator_frag_ratio": 1.0,
    "allocator_rss_ratio": 1.0,
    "latest_fork_usec": 900,
    "rdb_last_bgsave_status": "ok",
    "expired_stale_perc": 0.0,
    "db0": {"keys": 1000, "expires": 900, "avg_ttl": 0},
    "db12": {"keys": 1, "expires": 0, "avg_ttl": 0},
}
KEYS = {
    "sampled": 1000,
    "expired_percent": 0.0,
    "without_expiry_percent": 10.0,
    "prefixes": [],
    "largest": [],
}


def judged(
    before: dict[str, Any] | None = None, use: str = "cache", keys: dict[str, Any] | None = None, **after: Any
) -> dict[str, Finding]:
    """Findings by check on a server with these figures, in which nothing else is remarkable."""
    last = {**INFO, **after}
    found = {
        "interval": figures.interval({**INFO, **(before or {})}, last, 5),
        "memory": figures.memory(last),
        "current": figures.state(last),
        "advice": ["High fragmentation"],
        "slow_log": [],
        "keys": {**KEYS, **(keys or {})},
        "missing": {},
    }
    builder = FindingsBuilder(datetime(2026, 1, 31, tzinfo=timezone.utc))
    CacheJudge("main", use, dict.fromkeys(THRESHOLDS), builder).judge(found)
    assert {finding.subject for finding in builder.findings} == {"redis:main"}
    return {finding.check: finding for finding in builder.findings}


def test_a_sound_server_is_well_in_every_respect() -> None:
    found = judged()
    assert {finding.status for finding in found.values()} == {"ok"} and all(not each.hint for each in found.values())
    assert "High fragmentation" in found["memory_fragmentation"].summary, "the doctor is told, and judges nothing"


@pytest.mark.parametrize(
    ("after", "status", "words"),
    [
        ({"used_memory_rss": 480 * MB, "mem_fragmentation_ratio": 1.6, "mem_fragmentation_bytes": 180 * MB,
          "allocator_rss_ratio": 1.3}, "warning", "state=purged"),
        ({"used_memory_rss": 480 * MB, "mem_fragmentation_ratio": 1.6, "mem_fragmentation_bytes": 180 * MB,
          "allocator_frag_ratio": 1.5}, "warning", "holes"),
        ({"mem_fragmentation_ratio": 1.6, "mem_fragmentation_bytes": 99 * MB}, "ok", ""),
        ({"mem_fragmentation_ratio": 1.4, "mem_fragmentation_bytes": 180 * MB}, "ok", ""),
        ({"used_memory": MB, "mem_fragmentation_ratio": 112, "mem_fragmentation_bytes": 110 * MB}, "ok", ""),
        ({"used_memory_rss": 200 * MB, "mem_fragmentation_ratio": 0.66}, "warning", "swapped out"),
        ({"used_memory": MB, "used_memory_rss": MB // 2, "mem_fragmentation_ratio": 0.5}, "ok", ""),
    ],
)  # fmt: skip
def test_fragmentation_is_judged_only_where_it_costs_something(after: dict[str, Any], status: str, words: str) -> None:
    found = judged(**after)["memory_fragmentation"]
    assert found.status == status and words in found.hint


@pytest.mark.parametrize(
    ("hits", "misses", "use", "status"),
    [(799, 201, "cache", "warning"), (801, 199, "cache", "ok"), (0, 999, "cache", "ok"), (0, 5000, "store", "ok")],
)
def test_the_hit_ratio_of_a_cache_with_enough_look_ups(hits: int, misses: int, use: str, status: str) -> None:
    found = judged(use=use, keyspace_hits=1000 + hits, keyspace_misses=100 + misses)["hit_ratio"]
    assert found.status == status


@pytest.mark.parametrize("before", [{"run_id": "another"}, {"keyspace_hits": 5000}])
def test_counters_that_began_anew_tell_nothing(before: dict[str, Any]) -> None:
    assert figures.interval({**INFO, **before}, INFO, 5)["hit_ratio"] is None
    found = judged(before)["hit_ratio"]
    assert found.status == "ok" and "began anew" in found.summary


def test_what_happened_between_the_samples_is_a_warning() -> None:
    found = judged(evicted_keys=6, rejected_connections=1)
    assert found["evicted_keys"].value == 1 and found["evicted_keys"].status == "warning"
    assert found["rejected_connections"].status == "warning"


def test_saving_that_failed_is_a_warning() -> None:
    assert judged(rdb_last_bgsave_status="err")["persistence"].status == "warning"
    assert judged(aof_enabled=1, aof_last_write_status="err")["persistence"].status == "warning"
    assert judged(aof_enabled=0, aof_last_write_status="err")["persistence"].status == "ok"
    assert judged(latest_fork_usec=200_000)["fork_time"].status == "warning"


@pytest.mark.parametrize(
    ("use", "after", "words"),
    [
        ("store", {}, "store loses keys"),
        ("store", {"maxmemory_policy": "noeviction"}, ""),
        ("store", {"maxmemory": 0}, ""),
        ("cache", {"maxmemory_policy": "volatile-lru"}, ""),
        ("cache", {"maxmemory_policy": "volatile-lru", "db0": {"keys": 1000, "expires": 2}}, "Hardly any key"),
    ],
)
def test_policies_that_would_lose_data_or_evict_nothing(use: str, after: dict[str, Any], words: str) -> None:
    found = judged(use=use, **after)["eviction_policy"]
    assert (found.status == "warning") is bool(words) and words in found.hint


def test_keys_of_a_cache_that_stay_for_ever_are_a_warning_unless_they_can_be_evicted() -> None:
    lasting = {"without_expiry_percent": 80.0}
    assert judged(keys=lasting)["keys_without_expiry"].status == "ok"
    assert judged(keys=lasting, maxmemory=0)["keys_without_expiry"].status == "warning"
    assert judged(keys=lasting, maxmemory=0, use="store")["keys_without_expiry"].status == "ok"


def test_on_a_replica_the_servers_own_estimate_of_expired_keys_is_told() -> None:
    found = judged(keys={"expired_percent": None}, expired_stale_perc=12.5)["expired_present"]
    assert found.status == "warning" and found.value == 12.5


def test_valkey_is_called_by_its_name() -> None:
    told = figures.server({**INFO, "server_name": "valkey", "valkey_version": "8.1.1"})
    assert told == {"name": "valkey", "version": "8.1.1", "role": "master"}
    assert figures.server(INFO)["version"] == "7.2.4"
    assert figures.databases(INFO) == {0: {"keys": 1000, "expires": 900}, 12: {"keys": 1, "expires": 0}}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://user:pass@[::1]:8080/a?token=b", "http://[::1]:8080/a?..."),
        ("https://example.org/a", "https://example.org/a"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, told: str) -> None:
    assert shown(url) == told


def test_no_more_are_asked_for_than_the_rate_allows() -> None:
    now, asked, told = [0.0], [], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    warmed, limits = Warmed(10), Limits(rate=4, concurrency=2, latency_ms=1000, timeout=1)
    urls = [f"http://x/{number}" for number in range(10)]
    pace = Pace(limits.rate, lambda: now[0], sleep)
    warm_urls(urls, asked.append, limits, pace, warmed, lambda *counts: told.append(counts))
    assert sorted(asked) == sorted(urls) and told[-1] == (10, 10)
    assert warmed.answered == 10 and now[0] == pytest.approx(2.5)
