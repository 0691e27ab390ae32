# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a Redis or Valkey server does: figures of an interval between two answers to INFO, memory and slow log.

Totals since the start of a server say little of today, so that what is counted is told as the difference between two
samples. All answers are those of redis-py, RESP2, with text decoded. Nothing here keeps the server busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

Info = Mapping[str, Any]

#: Commands whose first argument is a key. Of all others nothing but the name is told: it could be a secret.
_KEY_COMMANDS = """
    append bitcount bitfield bitfield_ro bitpos copy decr decrby del dump exists expire expireat expiretime geoadd
    geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore get
    getbit getdel getex getrange getset hdel hexists hexpire hget hgetall hgetex hincrby hincrbyfloat hkeys hlen hmget
    hmset hpersist hrandfield hscan hset hsetex hsetnx hstrlen httl hvals incr incrby incrbyfloat lindex linsert llen
    lmove lpop lpos lpush lpushx lrange lrem lset ltrim mget mset msetnx move persist pexpire pexpireat pexpiretime
    pfadd pfcount pfmerge psetex pttl rename renamenx restore rpop rpoplpush rpush rpushx sadd scard sdiff sdiffstore
    set setbit setex setnx setrange sinter sinterstore sismember smembers smismember smove sort sort_ro spop
    srandmember srem sscan strlen substr sunion sunionstore touch ttl type unlink xack xadd xautoclaim xclaim xdel xlen
    xpending xrange xrevrange xtrim zadd zcard zcount zincrby zlexcount zmscore zpopmax zpopmin zrandmember zrange
    zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange
    zrevrangebylex zrevrangebyscore zrevrank zscan zscore"""
#: Commands whose first argument is the name of a subcommand.
_CONTAINERS = "acl client cluster command config debug function latency memory object script xgroup"
_SHOWN_KEY = 120  # characters


def databases(info: Info) -> dict[int, dict[str, int]]:
    """Keys and expires of every database that is not empty. Expired keys that are still present count too."""
    return {
        int(name[2:]): {"keys": int(counts["keys"]), "expires": int(counts["expires"])}
        for name, counts in info.items()
        if re.fullmatch(r"db\d+", name)
    }


def is_replica(info: Info) -> bool:
    """Whether the server follows another one, which alone removes expired keys."""
    return bool(info.get("role") == "slave")


def server(info: Info) -> dict[str, Any]:
    """What the server is. Valkey calls itself so, and tells a redis_version of the past besides."""
    name = str(info.get("server_name", "redis"))
    return {
        "name": name,
        "version": str(info.get(f"{name}_version") or info.get("redis_version", "")),
        "role": "replica" if is_replica(info) else "master",
    }


def interval(before: Info, after: Info, seconds: float) -> dict[str, Any]:
    """What happened between two samples. A figure is None when the server does not tell it or began anew meanwhile."""
    anew = before.get("run_id") != after.get("run_id")

    def grown(name: str) -> int | None:
        if anew or name not in before or name not in after or after[name] < before[name]:
            return None
        return int(after[name]) - int(before[name])

    hits, misses = grown("keyspace_hits"), grown("keyspace_misses")
    lookups = None if hits is None or misses is None else hits + misses
    return {
        "seconds": round(seconds, 1),
        "lookups": lookups,
        "hit_ratio": round(hits / lookups, 4) if hits is not None and lookups else None,
        "hit_ratio_since_start": _ratio(after),
        "evicted_keys": grown("evicted_keys"),
        "expired_keys": grown("expired_keys"),
        "rejected_connections": grown("rejected_connections"),
        "expiry_out_of_time": grown("expired_time_cap_reached_count"),
        "commands": grown("total_commands_processed"),
    }


def _ratio(info: Info) -> float | None:
    hits, misses = int(info.get("keyspace_hits", 0)), int(info.get("keyspace_misses", 0))
    return round(hits / (hits + misses), 4) if hits + misses else None


def memory(info: Info) -> dict[str, Any]:
    """Memory of the data and of the process, and how it is fragmented."""
    limit, used = int(info.get("maxmemory", 0)), int(info["used_memory"])
    return {
        "used_bytes": used,
        "rss_bytes": info.get("used_memory_rss"),
        "peak_bytes": info.get("used_memory_peak"),
        "limit_bytes": limit,
        "used_percent": round(100 * used / limit, 1) if limit else None,
        "policy": info.get("maxmemory_policy"),
        "fragmentation_ratio": info.get("mem_fragmentation_ratio"),
        "fragmentation_bytes": info.get("mem_fragmentation_bytes"),
        "allocator_fragmentation_ratio": info.get("allocator_frag_ratio"),
        "allocator_rss_ratio": info.get("allocator_rss_ratio"),
        "purgeable_bytes": purgeable(info),
    }


def purgeable(info: Info) -> int | None:
    """About what MEMORY PURGE could give back: pages that the allocator holds and nothing uses."""
    resident, active = info.get("allocator_resident"), info.get("allocator_active")
    return None if resident is None or active is None else max(0, int(resident) - int(active))


def state(info: Info) -> dict[str, Any]:
    """The other figures of one sample."""
    found = databases(info)
    return {
        "keys": sum(counts["keys"] for counts in found.values()),
        "expires": sum(counts["expires"] for counts in found.values()),
        "databases": {str(number): counts for number, counts in found.items()},
        "stale_percent": info.get("expired_stale_perc"),
        "clients": info.get("connected_clients"),
        "blocked_clients": info.get("blocked_clients"),
        "fork_ms": round(info["latest_fork_usec"] / 1000, 1) if "latest_fork_usec" in info else None,
        "last_save": isoformat(_moment(info["rdb_last_save_time"])) if info.get("rdb_last_save_time") else None,
        "last_save_status": info.get("rdb_last_bgsave_status"),
        "aof_status": _aof_status(info),
    }


def _aof_status(info: Info) -> str | None:
    """The worse one of writing and rewriting; None when there is no append-only file."""
    if not int(info.get("aof_enabled", 0)):
        return None
    told = {str(info.get(name, "ok")) for name in ("aof_last_write_status", "aof_last_bgrewrite_status")}
    return "ok" if told == {"ok"} else "err"


def memory_parts(client: Any) -> dict[str, Any]:
    """What MEMORY STATS tells more than INFO does."""
    told = client.memory_stats()
    return {
        "dataset_bytes": told.get("dataset.bytes"),
        "overhead_bytes": told.get("overhead.total"),
        "bytes_per_key": told.get("keys.bytes-per-key"),
        "clients_bytes": told.get("clients.normal"),
        "replication_bytes": told.get("replication.backlog"),
    }


def memory_advice(client: Any) -> list[str]:
    """What MEMORY DOCTOR finds, by its names such as High fragmentation."""
    told = str(client.execute_command("MEMORY", "DOCTOR"))
    return re.findall(r"^ \* ([^:\n]+)", told, re.MULTILINE)


def slow_log(client: Any, count: int) -> list[dict[str, Any]]:
    """The newest entries of the slow log, slowest first: the command and its key, and no other argument."""
    # As two words: what redis-py makes of SLOWLOG GET differs between versions and loses where arguments end.
    entries = client.execute_command("SLOWLOG", "GET", count)
    told = [
        {
            **_command(words),
            "milliseconds": round(microseconds / 1000, 2),
            "at": isoformat(_moment(at)),
        }
        for _number, at, microseconds, words, *_client in entries
    ]
    return sorted(told, key=lambda entry: -float(entry["milliseconds"]))


def _command(words: list[Any]) -> dict[str, str]:
    name = str(words[0]).lower()
    if name in _CONTAINERS.split() and len(words) > 1:
        return {"command": f"{name} {str(words[1]).lower()[:20]}".upper(), "key": ""}
    key = shown(str(words[1]))[:_SHOWN_KEY] if name in _KEY_COMMANDS.split() and len(words) > 1 else ""
    return {"command": name.upper(), "key": key}


def shown(key: str) -> str:
    """The name of a key as text, also when its bytes are none (they were decoded with surrogateescape)."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), timezone.utc)


def tried(library: ModuleType, what: str, ask: Callable[[], Any], missing: dict[str, str]) -> Any:
    """The answer, or None with the reason in ``missing`` when the user may not ask or the server does not know how.

    Raises redis-py's other errors: a server that does not answer will not answer the next question either.
    """
    try:
        return ask()
    except library.exceptions.ResponseError as error:
        missing[what] = str(error)
        return None
