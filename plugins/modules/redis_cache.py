#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_cache
short_description: Judge a Redis server, sweep its expired keys, purge its memory, set its policy, warm it up
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - "O(state=checked) tells hit ratio, evictions and rejected connections between two samples, memory and its
    fragmentation, the slow log, and of a sample of keys those that are expired and still present, those without an
    expiry by prefix, and the largest. It judges them by O(thresholds)."
  - "O(state=swept) removes expired keys that are still present, which the server's own clean-up leaves up to a tenth
    of. It goes over all keys by C(SCAN) without C(MATCH), in which the server drops each expired key that it comes
    across. No command is sent that could remove a living key, and the user needs no right to write."
  - "O(state=purged) lets the allocator give back the memory that nobody uses (C(MEMORY PURGE)), and tells how much."
  - "O(state=configured) changes C(maxmemory-policy) and lets the server write that into its configuration file, with
    all else that was changed by C(CONFIG SET) before. It is refused when data or the change itself could be lost.
    A policy that is in force already and was only set by hand is written there, too, where the server is on this host
    and its file can be read."
  - "O(state=warmed) asks for URLs, or touches keys, no faster than O(rate) and O(concurrency) allow. It stops when of
    the last five answers half took longer than O(latency_limit_ms), or when five requests in succession failed."
  - Nothing that is done here holds the server up; C(KEYS) is never used.
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._redis_connection
  - upkeep.ops._redis_connection.sentinel
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: >-
      O(state=swept) estimates from a sample of O(sample_keys) keys how many are expired and present; the expired ones
      that the sample comes across go, as they would with any look at them. O(state=purged) estimates what would be
      given back. O(state=warmed) asks for nothing.
  diff_mode:
    support: partial
    details: Shows C(maxmemory-policy). Neither expired keys nor unused memory can be seen by a client.
  idempotent:
    support: partial
    details: >-
      O(state=swept) is changed only when expired keys were removed by it, O(state=purged) only when the server's memory
      fell by more than 1 %. O(state=warmed) is changed when a URL was answered, for only that can fill a cache.
options:
  name:
    description: What to call the server in findings, whose subject is C(redis:<name>). The default is its address.
    type: str
  use:
    description:
      - Whether its content can be made again (V(cache)) or not (V(store)), as that of queues, sessions and locks.
      - Only a cache is judged by its hit ratio and its keys without expiry, and is given another policy without
        O(force).
    type: str
    choices: [cache, store]
    default: store
  state:
    description: What to do.
    type: str
    choices: [checked, swept, purged, configured, warmed]
    default: checked
  interval:
    description: Seconds between the two samples.
    type: float
    default: 5
  sample_keys:
    description: How many keys to look at. V(0) looks at none.
    type: int
    default: 5000
  sample_seconds:
    description: How long to look at keys at most.
    type: float
    default: 10
  sample_elements:
    description: >-
      How many elements of a key its size is reckoned from. V(0) is all of them, which is exact and keeps the server
      busy while it counts a large key.
    type: int
    default: 5
  prefixes:
    description: How many groups of keys to tell, by what stands before the first colon. The others are one group.
    type: int
    default: 20
  largest:
    description: How many of the largest sampled keys to tell.
    type: int
    default: 10
  slow_log_entries:
    description: How many of the newest entries of the slow log to look at.
    type: int
    default: 128
  slow_log_age:
    description: Older entries of the slow log are left out.
    type: str
    default: 7d
  thresholds:
    description: From when on a figure is a warning. Only those that are given replace the defaults.
    type: dict
    default: {}
    suboptions:
      hit_ratio:
        description: Hits among look-ups, below which it is a warning. The default is V(0.8).
        type: float
      hit_ratio_lookups:
        description: Fewer look-ups between the two samples are not judged. The default is V(1000).
        type: float
      memory_percent:
        description: Percent of C(maxmemory) in use. The default is V(90).
        type: float
      fragmentation_ratio:
        description: >-
          Memory of the process by memory of the data, judged above 100 MB of data together with
          O(thresholds.fragmentation_bytes). The default is V(1.5).
        type: float
      fragmentation_bytes:
        description: Bytes lost by fragmentation. The default is 100 MB.
        type: float
      evicted_keys:
        description: Keys evicted between the two samples. The default is V(1).
        type: float
      rejected_connections:
        description: Connections rejected between the two samples. The default is V(1).
        type: float
      expired_percent:
        description: Percent of the sampled keys that were expired. The default is V(10).
        type: float
      without_expiry_percent:
        description: >-
          Percent of the sampled keys without an expiry, of a cache that cannot evict all keys. The default is V(50).
        type: float
      key_bytes:
        description: Size of the largest sampled key. The default is 10 MB.
        type: float
      slow_ms:
        description: Milliseconds of a command in the slow log. The default is V(100).
        type: float
      fork_ms:
        description: Milliseconds of the last fork. The default is V(100).
        type: float
  pause:
    description: Seconds to pause after each thousand keys of a sweep, to leave the server time for others.
    type: float
    default: 0.001
  maxmemory_policy:
    description: What the server evicts when its memory is full, for O(state=configured).
    type: str
    choices: [noeviction, allkeys-lru, allkeys-lfu, allkeys-random, volatile-lru, volatile-lfu, volatile-random,
              volatile-ttl]
  force:
    description:
      - Change the policy also of a store, without C(maxmemory), to a C(volatile) one where hardly any key has an
        expiry, or where the server cannot write it into its configuration file and will lose it at its restart.
    type: bool
    default: false
  urls:
    description:
      - What to ask for with C(GET), in this order, for O(state=warmed). O(timeout) is the time for a whole answer,
        O(ca_certs) and O(validate_certs) hold here too.
    type: list
    elements: str
    default: []
  keys:
    description: What to touch (C(TOUCH)), so that it counts as used a moment ago, for O(state=warmed).
    type: list
    elements: str
    default: []
  database:
    description: Number of the database with O(keys).
    type: int
    default: 0
  rate:
    description: How many URLs and keys a second at most.
    type: float
    default: 50
  concurrency:
    description: How many URLs at a time at most.
    type: int
    default: 4
  latency_limit_ms:
    description: The warm-up stops when of the last five answers half took longer.
    type: float
    default: 1000
  progress_file:
    description:
      - File that gets a line of JSON about each second of a sweep or warm-up, with what was done (C(keys)
        or C(requests)), C(total) and C(seconds). Follow it with C(tail -f).
    type: path
notes:
  - "The least rights of an ACL user: C(+info +select +multi +exec +scan) for O(state=swept), C(+info +memory|purge
    +memory|malloc-stats) for O(state=purged), C(+info +config|set +config|rewrite) for O(state=configured), C(+info
    +select +touch ~*) for O(state=warmed), and for O(state=checked) C(+info +select +multi +exec +scan +pttl +type
    +memory|usage +memory|stats +memory|doctor +slowlog|get ~*). What of this C(checked) may not look at is one finding,
    V(unknown); before Redis 7 C(+memory) and C(+slowlog) stand for their parts."
  - Looking at the expiry of the sampled keys counts as a look-up of each in the server's totals, after the interval.
seealso:
  - module: upkeep.ops.redis_snapshot
"""

EXAMPLES = r"""
- name: Judge the cache
  upkeep.ops.redis_cache:
    name: cache
    use: cache
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    interval: 10
    thresholds:
      hit_ratio: 0.9

- name: Remove what is expired
  upkeep.ops.redis_cache:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    state: swept

- name: Give unused memory back
  upkeep.ops.redis_cache:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    state: purged

- name: Let the cache evict what was used least, and keep that over a restart
  upkeep.ops.redis_cache:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    use: cache
    state: configured
    maxmemory_policy: allkeys-lru

- name: Warm the cache up
  upkeep.ops.redis_cache:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    state: warmed
    urls:
      - http://www.example.org/api/news
    keys:
      - settings:all
    rate: 20
"""

RETURN = r"""
findings:
  description: What was found, worst first.
  returned: with O(state=checked) and O(state=warmed)
  type: list
  elements: dict
status:
  description: The worst status of all findings.
  returned: with O(state=checked) and O(state=warmed)
  type: str
summary:
  description: How many findings of each status there are.
  returned: with O(state=checked) and O(state=warmed)
  type: str
server:
  description: The C(name), C(version) and C(role) of the server.
  returned: success
  type: dict
  sample: {"name": "redis", "version": "7.0.15", "role": "master"}
message:
  description: What was done, or would be in check mode, in one sentence.
  returned: with every other O(state) than V(checked)
  type: str
interval:
  description: What happened between the two samples. A figure is null when the server does not tell it.
  returned: with O(state=checked)
  type: dict
  contains:
    seconds: {description: Time between them., type: float}
    lookups: {description: Look-ups of keys. Null when the counters began anew., type: int}
    hit_ratio: {description: Hits among them. Null without any., type: float}
    hit_ratio_since_start: {description: The same since the server's start. Null without any., type: float}
    evicted_keys: {description: Keys evicted. Null when not known., type: int}
    expired_keys: {description: Keys that expired. Null when not known., type: int}
    rejected_connections: {description: Connections rejected. Null when not known., type: int}
    expiry_out_of_time:
      description: How often the server's own clean-up ran out of time. Null when not known.
      type: int
    commands: {description: Commands. Null when not known., type: int}
memory:
  description: Memory. A figure is null when the server does not tell it.
  returned: with O(state=checked)
  type: dict
  contains:
    used_bytes: {description: Memory of the data., type: int}
    rss_bytes: {description: Memory of the process. Or null., type: int}
    peak_bytes: {description: The most there was of data. Or null., type: int}
    limit_bytes: {description: "C(maxmemory), 0 is none.", type: int}
    used_percent: {description: Percent of the limit in use. Null without a limit., type: float}
    policy: {description: "C(maxmemory-policy). Or null.", type: str}
    fragmentation_ratio: {description: Memory of the process by memory of the data. Or null., type: float}
    fragmentation_bytes: {description: The difference. Or null., type: int}
    allocator_fragmentation_ratio: {description: Above 1.4 there are holes between the data. Or null., type: float}
    allocator_rss_ratio: {description: Above 1.1 a purge gives something back. Or null., type: float}
    purgeable_bytes: {description: At most so much can be given back. Or null., type: int}
memory_parts:
  description: Bytes by C(MEMORY STATS). Null when it cannot be asked.
  returned: with O(state=checked)
  type: dict
  sample: {"dataset_bytes": 562392, "overhead_bytes": 2098512, "bytes_per_key": 92, "clients_bytes": 24320,
           "replication_bytes": 0}
advice:
  description: What C(MEMORY DOCTOR) names, such as C(High fragmentation). Null when it cannot be asked.
  returned: with O(state=checked)
  type: list
  elements: str
current:
  description: Other figures. A figure is null when the server does not tell it.
  returned: with O(state=checked)
  type: dict
  contains:
    keys: {description: Keys of all databases., type: int}
    expires: {description: Keys with an expiry., type: int}
    databases: {description: The same by number of the database., type: dict}
    stale_percent:
      description: Percent of the keys with an expiry that the server takes for expired. Or null.
      type: float
    clients: {description: Connected clients. Or null., type: int}
    blocked_clients: {description: Clients that wait in a blocking command. Or null., type: int}
    fork_ms: {description: Milliseconds of the last fork. Or null., type: float}
    last_save: {description: When a snapshot was saved last. Or null., type: str}
    last_save_status: {description: What came of it. Or null., type: str}
    aof_status: {description: State of the append-only file. Null without one., type: str}
keys:
  description: >-
    What a sample of keys tells. Null when they cannot be asked for, or with O(sample_keys=0). In templates write
    C(result['keys']), because C(result.keys) is a method.
  returned: with O(state=checked)
  type: dict
  contains:
    sampled: {description: Keys that were met., type: int}
    out_of_time: {description: Whether O(sample_seconds) were over before there were enough., type: bool}
    expired: {description: Expired ones among them. Null on a replica., type: int}
    expired_percent: {description: Their share. Null on a replica., type: float}
    expired_present: {description: About how many of all keys are expired and present. Null on a replica., type: int}
    without_expiry_percent: {description: Share of the living ones without an expiry. Null without any., type: float}
    prefixes:
      description: Groups of sampled keys, by what stands before the first colon, those with the most bytes first.
      type: list
      elements: dict
      contains:
        prefix: {description: Name of the group., type: str}
        keys: {description: Keys., type: int}
        without_expiry: {description: Those without an expiry., type: int}
        bytes: {description: Memory of them., type: int}
    largest:
      description: The largest ones, largest first.
      type: list
      elements: dict
      contains:
        key: {description: Name of the key., type: str}
        database: {description: Number of its database., type: int}
        type: {description: Type of its value., type: str}
        bytes: {description: Its memory., type: int}
missing:
  description: What could not be looked at, with the reason that the server gave.
  returned: with O(state=checked)
  type: dict
  sample: {"MEMORY DOCTOR": "this user has no permissions to run the 'memory|doctor' command"}
slow_log:
  description: Commands of the slow log, slowest first, without any argument but the key. Null when it cannot be asked.
  returned: with O(state=checked)
  type: list
  elements: dict
  contains:
    command: {description: The command., type: str}
    key: {description: Its first key. Empty when it has none., type: str}
    milliseconds: {description: How long it took., type: float}
    at: {description: When., type: str}
sweep:
  description: What the sweep did. In check mode an estimate.
  returned: with O(state=swept)
  type: dict
  contains:
    expired: {description: Expired keys that it removed. In check mode about how many there are., type: int}
    estimated: {description: Whether this is an estimate., type: bool}
    seconds: {description: How long it took., type: float}
    databases:
      description: >-
        By number of the database the keys C(expired) by the sweep, C(seen) living by it, and all that the server
        counted as C(keys_before) and C(keys_after) it, in which other clients may write. Empty in check mode.
      type: dict
      sample: {"0": {"keys_before": 20001, "keys_after": 19226, "expired": 775, "seen": 19226}}
purge:
  description: What the purge did. In check mode an estimate.
  returned: with O(state=purged)
  type: dict
  contains:
    before_bytes: {description: Memory of the process before., type: int}
    after_bytes: {description: And after., type: int}
    given_back_bytes: {description: The difference. Less than 0 when it grew meanwhile., type: int}
    estimated: {description: Whether this is an estimate., type: bool}
    worthwhile: {description: Whether it was more than 1 %., type: bool}
policy:
  description: What came of the change of C(maxmemory-policy).
  returned: with O(state=configured)
  type: dict
  contains:
    before: {description: The policy before., type: str}
    after: {description: The policy that was asked for., type: str}
    persisted:
      description: >-
        Whether the server's configuration file says so, too. Null when that cannot be told from here, because the
        server is on another host or its file cannot be read, and in check mode when the policy would be changed.
      type: bool
    obstacles: {description: What spoke against the change and was overruled by O(force)., type: list, elements: str}
warm_up:
  description: What came of the warm-up.
  returned: with O(state=warmed)
  type: dict
  contains:
    total: {description: URLs and keys., type: int}
    answered: {description: URLs answered well and keys touched., type: int}
    missing: {description: Keys that are not there., type: int}
    failed: {description: URLs that failed., type: int}
    not_reached: {description: Those that were not asked for because it was stopped., type: int}
    stopped: {description: Why it was stopped. Null when it was not., type: str}
    errors:
      description: The first twenty failures, each with C(what) failed and the C(error).
      type: list
      elements: dict
    seconds: {description: How long it took., type: float}
    median_ms: {description: Half of the answers took longer. Null without any., type: float}
    slowest_ms: {description: The slowest answer. Null without any., type: float}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils import _redis_cache as cache
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._redis_cache_findings import THRESHOLDS, CacheJudge
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    CONNECTION_OPTIONS,
    Login,
    RedisAccessError,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_policy import POLICIES, RefusedError, Wish
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import SENTINEL_OPTIONS, SentinelError
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

STATES = ["checked", "swept", "purged", "configured", "warmed"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            **SENTINEL_OPTIONS,
            "name": {"type": "str"},
            "use": {"type": "str", "choices": ["cache", "store"], "default": "store"},
            "state": {"type": "str", "choices": STATES, "default": "checked"},
            **cache.SCOPE_OPTIONS,
            "thresholds": {
                "type": "dict",
                "default": {},
                "options": {name: {"type": "float", "no_log": False} for name in THRESHOLDS},
            },
            "pause": {"type": "float", "default": 0.001},
            "maxmemory_policy": {"type": "str", "choices": list(POLICIES)},
            "force": {"type": "bool", "default": False},
            "urls": {"type": "list", "elements": "str", "default": []},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "database": {"type": "int", "default": 0},
            "rate": {"type": "float", "default": 50},
            "concurrency": {"type": "int", "default": 4},
            "latency_limit_ms": {"type": "float", "default": 1000},
            "progress_file": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        required_if=[("state", "configured", ["maxmemory_policy"])],
        supports_check_mode=True,
    )
    stop_by_exception()
    login = Login.of(module.params)
    builder = FindingsBuilder(utc_now())
    try:
        library = load("redis")
        server = cache.Server.found(library, login, module.params)
        login = server.login
        with explained(library, login):
            answer = run(module, server, builder)
    except (RedisAccessError, MissingDependencyError, SentinelError) as error:
        module.fail_json(msg=str(error))
    except (RefusedError, ValueError) as error:
        module.fail_json(msg=f"{login.url}: {error}")
    except StoppedError as error:
        module.fail_json(msg=f"{login.url}: {error}; no living key was touched, and it can be run again")
    if not builder.findings:
        module.exit_json(**answer)
    exit_with_findings(module, builder.findings, **answer)


def run(module: AnsibleModule, server: cache.Server, builder: FindingsBuilder) -> dict[str, Any]:
    """Do what the state says; the module's answer, and the findings into the builder."""
    options, dry = module.params, module.check_mode
    name = options["name"] or server.login.url.split("://", 1)[1]
    judge = CacheJudge(name, options["use"], options["thresholds"], builder)
    if options["state"] == "checked":
        answer = cache.look(server, cache.Scope.of(options), utc_now(), time.monotonic, time.sleep)
        judge.judge(answer)
        return answer
    if options["state"] == "purged":
        return cache.purged(server, time.sleep, dry)
    if options["state"] == "configured":
        wish = Wish(options["maxmemory_policy"], options["use"] == "store", options["force"])
        return cache.configured(server, wish, dry)
    if options["state"] == "swept":
        if dry:
            return cache.sweep_estimate(server, cache.Scope.of(options), time.monotonic)
        with cache.progress(server, options, "keys", time.monotonic, module.log) as progress:
            return cache.swept(server, lambda: time.sleep(options["pause"]), progress, time.monotonic)
    plan = cache.WarmUp.of(options)
    requests = load("requests") if plan.urls else None
    if dry:
        return cache.warm_up_foretold(server, plan)
    with cache.progress(server, options, "requests", time.monotonic, module.log) as progress:
        answer = cache.warmed(server, plan, requests, progress, time.monotonic, time.sleep)
    judge.judge_warm_up(answer)
    return answer


if __name__ == "__main__":
    main()
