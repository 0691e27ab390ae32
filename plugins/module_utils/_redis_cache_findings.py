# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts on a Redis server: from when on a figure is worth a warning, and what to do then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._sizes import human

_MB = 1_000_000
#: Name of each threshold with its default.
THRESHOLDS: Mapping[str, float] = {
    "hit_ratio": 0.8,
    "hit_ratio_lookups": 1000,
    "memory_percent": 90,
    "fragmentation_ratio": 1.5,
    "fragmentation_bytes": 100 * _MB,
    "evicted_keys": 1,
    "rejected_connections": 1,
    "expired_percent": 10,
    "without_expiry_percent": 50,
    "key_bytes": 10 * _MB,
    "slow_ms": 100,
    "fork_ms": 100,
}
#: Below so much memory in use the ratios of the allocator say nothing.
_JUDGED_FROM = 100 * _MB


class CacheJudge:
    """Turns the figures of the module redis_cache into findings on ``redis:<name>``."""

    def __init__(self, name: str, use: str, thresholds: Mapping[str, float | None], builder: FindingsBuilder) -> None:
        self._subject = f"redis:{name}"
        self._cache = use == "cache"
        self._limits = {**THRESHOLDS, **{name: limit for name, limit in thresholds.items() if limit is not None}}
        self._builder = builder

    def judge(self, found: Mapping[str, Any]) -> None:
        """All findings on what was found; what could not be looked at is one unknown."""
        self._hit_ratio(found["interval"])
        self._counted(found["interval"])
        self._memory(found["memory"])
        self._fragmentation(found["memory"], found["advice"])
        self._policy(found["memory"], found["current"])
        self._fork(found["current"])
        self._saving(found["current"])
        if found["keys"] is not None:
            self._expired(found["keys"], found["current"], found["interval"])
            self._lasting(found["keys"], found["memory"])
            self._largest(found["keys"])
        if found["slow_log"] is not None:
            self._slow_log(found["slow_log"])
        if found["missing"]:
            self._missing(found["missing"])

    def judge_warm_up(self, answer: Mapping[str, Any]) -> None:
        """The finding on a warm-up."""
        came = answer["warm_up"]
        hint = "See errors of the result; the cache fills by itself as it is used, only more slowly"
        bad = came["failed"] or came["stopped"]
        self._add(
            "warm_up", "warning" if bad else "ok", answer["message"], value=came["answered"], hint=hint if bad else ""
        )

    def _hit_ratio(self, figures: Mapping[str, Any]) -> None:
        ratio, lookups, limit = figures["hit_ratio"], figures["lookups"], self._limits["hit_ratio"]
        while_ = f"of {lookups} look-ups in {figures['seconds']:g} s"
        if lookups is None:
            self._add("hit_ratio", "ok", "the server's counters began anew between the two samples")
        elif ratio is None or lookups < self._limits["hit_ratio_lookups"]:
            share = "" if ratio is None else f", {100 * ratio:.1f} % of them hits"
            fewest = f"{self._limits['hit_ratio_lookups']:g}"
            self._add(
                "hit_ratio",
                "ok",
                f"{lookups} look-ups in {figures['seconds']:g} s{share}; fewer than {fewest} are not judged",
                value=ratio,
            )
        else:
            bad = self._cache and ratio < limit
            hint = "See whether TTLs are too short, memory too small (evictions), or the wrong things are cached"
            self._add(
                "hit_ratio",
                "warning" if bad else "ok",
                f"{100 * ratio:.1f} % {while_} were hits",
                value=ratio,
                threshold=limit if self._cache else None,
                hint=hint if bad else "",
            )

    def _counted(self, figures: Mapping[str, Any]) -> None:
        texts = {
            "evicted_keys": ("keys were evicted", "Memory is short: raise maxmemory, or give keys shorter TTLs"),
            "rejected_connections": (
                "connections were rejected",
                "maxclients is reached: see CLIENT LIST for who holds them, then raise it or the clients' pools are",
            ),
        }
        for name, (what, hint) in texts.items():
            count, limit = figures[name], self._limits[name]
            if count is not None:
                bad = count >= limit
                summary = f"{count} {what} in {figures['seconds']:g} s"
                self._add(
                    name, "warning" if bad else "ok", summary, value=count, threshold=limit, hint=hint if bad else ""
                )

    def _memory(self, figures: Mapping[str, Any]) -> None:
        percent, limit = figures["used_percent"], self._limits["memory_percent"]
        used = human(figures["used_bytes"])
        if percent is None:
            self._add(
                "memory_used",
                "ok",
                f"{used} used, and maxmemory sets no limit",
                value=figures["used_bytes"],
                unit="bytes",
            )
            return
        bad = percent > limit
        hint = "Raise maxmemory, remove what is not needed, or see keys without expiry"
        self._add(
            "memory_used",
            "warning" if bad else "ok",
            f"{used} used, {percent} % of maxmemory {human(figures['limit_bytes'])}",
            value=percent,
            unit="%",
            threshold=limit,
            hint=hint if bad else "",
        )

    def _fragmentation(self, figures: Mapping[str, Any], advice: list[str] | None) -> None:
        ratio, more = figures["fragmentation_ratio"], figures["fragmentation_bytes"]
        if ratio is None or figures["rss_bytes"] is None:
            return
        doctor = f"; MEMORY DOCTOR: {', '.join(advice)}" if advice else ""
        told = (
            f"{human(figures['rss_bytes'])} taken for {human(figures['used_bytes'])} of data, ratio {ratio:g}{doctor}"
        )
        if figures["used_bytes"] <= _JUDGED_FROM:
            self._add("memory_fragmentation", "ok", f"{told}; not judged below {human(_JUDGED_FROM)}", value=ratio)
        elif figures["rss_bytes"] < figures["used_bytes"]:
            hint = "Part of the data is swapped out, which makes everything slow: give the host more memory"
            self._add("memory_fragmentation", "warning", told, value=ratio, threshold=1, hint=hint)
        else:
            bad = ratio > self._limits["fragmentation_ratio"] and (more or 0) > self._limits["fragmentation_bytes"]
            self._add(
                "memory_fragmentation",
                "warning" if bad else "ok",
                told,
                value=ratio,
                threshold=self._limits["fragmentation_ratio"],
                hint=_against_fragments(figures) if bad else "",
            )

    def _policy(self, figures: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        policy, limit = figures["policy"], figures["limit_bytes"]
        if policy is None:
            return
        told = f"maxmemory-policy is {policy}" + ("" if limit else ", and without maxmemory it does nothing")
        hint = ""
        if not self._cache and limit and policy != "noeviction":
            hint = "A store loses keys by this when memory is full: set noeviction unless every key can be made again"
        elif limit and policy.startswith("volatile-") and state["keys"] and state["expires"] < state["keys"] / 100:
            hint = "Hardly any key has an expiry, so that almost nothing can be evicted and writes fail when it is full"
        self._add("eviction_policy", "warning" if hint else "ok", told, value=policy, hint=hint)

    def _fork(self, state: Mapping[str, Any]) -> None:
        if state["fork_ms"] is not None:
            bad = state["fork_ms"] > self._limits["fork_ms"]
            hint = "Clients wait that long at every save: see transparent huge pages, and the size of the data"
            self._add(
                "fork_time",
                "warning" if bad else "ok",
                f"the last fork took {state['fork_ms']:g} ms",
                value=state["fork_ms"],
                unit="ms",
                threshold=self._limits["fork_ms"],
                hint=hint if bad else "",
            )

    def _saving(self, state: Mapping[str, Any]) -> None:
        failed = [
            name
            for name, status in (
                ("the snapshot", state["last_save_status"]),
                ("the append-only file", state["aof_status"]),
            )
            if status not in (None, "ok")
        ]
        if failed:
            hint = (
                "See the server's log: is the disk full, or its folder not writable? Until it is mended writes may fail"
            )
            self._add("persistence", "warning", f"the last writing of {' and '.join(failed)} failed", hint=hint)
        else:
            self._add("persistence", "ok", "what was saved last was saved well")

    def _expired(self, keys: Mapping[str, Any], state: Mapping[str, Any], interval: Mapping[str, Any]) -> None:
        percent, limit = keys["expired_percent"], self._limits["expired_percent"]
        told = f"{percent:g} % of {keys['sampled']} sampled keys were expired" if percent is not None else ""
        if percent is None:
            percent = state["stale_percent"] or 0
            told = f"the server takes {percent:g} % of the keys with an expiry for expired"
        behind = ", and its own clean-up ran out of time" if interval["expiry_out_of_time"] else ""
        bad = percent > limit
        hint = "Sweep: redis_cache with state=swept on the master, or raise active-expire-effort"
        self._add(
            "expired_present",
            "warning" if bad else "ok",
            told + behind,
            value=percent,
            unit="%",
            threshold=limit,
            hint=hint if bad else "",
        )

    def _lasting(self, keys: Mapping[str, Any], memory: Mapping[str, Any]) -> None:
        percent, limit = keys["without_expiry_percent"], self._limits["without_expiry_percent"]
        if percent is None:
            return
        evicts = bool(memory["limit_bytes"]) and str(memory["policy"]).startswith("allkeys-")
        judged = self._cache and not evicts
        bad = judged and percent > limit
        most = max(keys["prefixes"], key=lambda group: int(group["without_expiry"]), default=None)
        where = f", most of them {most['prefix']}" if most and most["without_expiry"] else ""
        hint = "They stay for ever: give them a TTL, or set maxmemory with an allkeys policy"
        self._add(
            "keys_without_expiry",
            "warning" if bad else "ok",
            f"{percent:g} % of the sampled keys have no expiry{where}",
            value=percent,
            unit="%",
            threshold=limit if judged else None,
            hint=hint if bad else "",
        )

    def _largest(self, keys: Mapping[str, Any]) -> None:
        if keys["largest"]:
            first, limit = keys["largest"][0], self._limits["key_bytes"]
            bad = first["bytes"] > limit
            hint = "Commands on it hold everybody up: split it, and remove it with UNLINK, never DEL"
            self._add(
                "largest_key",
                "warning" if bad else "ok",
                f"{first['key']} ({first['type']}, database "
                f"{first['database']}) takes {human(first['bytes'])}, the largest of {keys['sampled']} sampled keys",
                value=first["bytes"],
                unit="bytes",
                threshold=limit,
                hint=hint if bad else "",
            )

    def _slow_log(self, entries: list[Mapping[str, Any]]) -> None:
        limit = self._limits["slow_ms"]
        slow = [entry for entry in entries if entry["milliseconds"] >= limit]
        told = "no command is in the slow log of this time"
        if entries:
            first = entries[0]
            what = f"{first['command']} {first['key']}".strip()
            told = f"{len(entries)} commands in the slow log, the slowest {what} with {first['milliseconds']:g} ms"
        hint = "While it runs everybody waits: see slow_log of the result for the commands and keys"
        self._add(
            "slow_log",
            "warning" if slow else "ok",
            told,
            value=len(slow),
            unit="commands",
            threshold=limit,
            hint=hint if slow else "",
        )

    def _missing(self, missing: Mapping[str, str]) -> None:
        told = "; ".join(f"{what}: {reason}" for what, reason in missing.items())
        hint = (
            "Let the user do this (ACL SETUSER), see the notes of redis_cache; some hosted servers know no such command"
        )
        self._add("redis_rights", "unknown", f"could not look at {told}", hint=hint)

    def _add(self, check: str, status: str, summary: str, **details: Any) -> None:
        self._builder.add(check, self._subject, status, summary, **details)


def _against_fragments(figures: Mapping[str, Any]) -> str:
    """What helps: dirty pages can be given back, holes within pages cannot."""
    if (figures["allocator_rss_ratio"] or 0) > 1.1 and (figures["allocator_fragmentation_ratio"] or 0) <= 1.4:
        return "The allocator keeps pages that nobody uses: redis_cache with state=purged gives them back"
    return "There are holes between the data: turn activedefrag on where the server can, else restart it or fail over"
