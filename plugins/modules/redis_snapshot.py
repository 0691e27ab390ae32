#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_snapshot
short_description: Take a snapshot of a Redis server into a file that can be trusted
version_added: 1.0.0
description:
  - Fetches an RDB from a local or remote server over the replication protocol, as a new replica would.
    Nothing is needed on the server's host, and the server's own C(dump.rdb) is not touched.
  - The CRC-64 of the RDB is checked while it arrives. Only a whole and sound snapshot gets its final name;
    until then it is a hidden temporary file with mode 0600 beside it, and an older snapshot stays untouched.
    Temporary files of runs that were killed are removed by the next run for the same O(dest).
  - A manifest beside the snapshot tells what is in it. The old manifest is removed before the new snapshot gets its
    name, and the new one follows; so a manifest never stands beside a snapshot that it does not describe.
  - A replica whose link to its master is down is refused, because its data may be old.
  - With O(sentinel_hosts) the snapshot is taken from the replica that is least behind its master, so that the master is
    spared. When none is within O(max_lag) and O(max_silence), it is taken from the master. The manifest says from which
    server, how far it was behind, and why this one.
  - On servers before Redis 6.2 the stream of commands is cut off after the snapshot; newer ones send none.
  - The number of keys is asked for right after the server forked. RV(snapshot.counted) is V(exact) when the
    replication offset shows that nothing was written in between. M(upkeep.ops.redis_verify) counts what is really in
    the file.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._redis_connection
  - upkeep.ops._redis_connection.sentinel
attributes:
  check_mode:
    support: full
    details: Connects, checks password, replication link and target folder, and transfers nothing.
  diff_mode:
    support: full
    details: Shows the main figures of the old and the new manifest; in check mode the expected ones.
  idempotent:
    support: partial
    details: With O(max_age) nothing is done while a sound snapshot of the same server is younger than that.
requirements:
  - zstandard >= 0.19 (Python library) or the program C(zstd), for O(compression=zstd)
options:
  dest:
    description: File to write. Its folder must exist.
    type: path
    required: true
  compression:
    description:
      - How to compress the file. The name of O(dest) does not matter.
      - Compressing runs beside receiving. V(zstd) keeps up with a server, V(gzip) hardly, higher levels do not.
    type: str
    choices: [zstd, gzip, none]
    default: zstd
  compression_level:
    description: V(1) to V(19) for zstd, V(1) to V(9) for gzip. The default is V(3) for zstd and V(1) for gzip.
    type: int
  manifest:
    description: File for the manifest, always with mode 0600. The default is O(dest) with C(.json) appended.
    type: path
  max_age:
    description:
      - Take no new snapshot while the one at O(dest) is younger than this, such as V(20h), was taken from the same
        server (or for the same O(sentinel_master)) with the same O(compression), and has the size and SHA-256 that its
        manifest says.
    type: str
  max_lag:
    description: How many bytes of the replication stream a replica may be behind, with O(sentinel_hosts).
    type: int
    default: 1048576
  max_silence:
    description:
      - How many seconds ago a replica must have heard of its master, with O(sentinel_hosts).
      - A master that has nothing to tell sends a sign of life each C(repl-ping-replica-period), 10 seconds by default.
    type: float
    default: 15
  mode:
    description: Mode of the snapshot file, four octal digits in quotes. It holds all data of the server.
    type: str
    default: "0600"
  progress_file:
    description:
      - File that gets a line of JSON about each second, with C(bytes), C(total) (null while the server does not know
        it) and C(seconds). Follow it with C(tail -f).
    type: path
  server_timeout:
    description:
      - Seconds that the server may stay silent during the transfer. While it prepares a snapshot it sends a sign of
        life each second.
    type: float
    default: 70
notes:
  - "The least rights of an ACL user: C(+psync +replconf +ping). With C(+info) the manifest has the number of keys, and
    a replica without its master is recognized before the transfer begins. It is needed with O(sentinel_hosts)."
  - "The least rights of an ACL user of the Sentinels: C(+sentinel|get-master-addr-by-name +sentinel|masters
    +sentinel|slaves)."
  - The server forks as for BGSAVE. Its C(repl-diskless-sync-delay), 5 seconds by default, is waited for first.
seealso:
  - module: upkeep.ops.redis_verify
"""

EXAMPLES = r"""
- name: Take a snapshot unless there is one of today
  upkeep.ops.redis_snapshot:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    dest: /var/backups/redis/cache.rdb.zst
    max_age: 20h

- name: Take a snapshot for a server that reads plain RDB files
  upkeep.ops.redis_snapshot:
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    dest: /var/backups/redis/dump.rdb
    compression: none
    progress_file: /var/backups/redis/progress.jsonl

- name: Take a snapshot from a replica that Sentinel knows
  upkeep.ops.redis_snapshot:
    sentinel_hosts: [sentinel1.example.org:26379, sentinel2.example.org:26379]
    sentinel_master: mymaster
    login_password: "{{ redis_password }}"
    dest: /var/backups/redis/store.rdb.zst
"""

RETURN = r"""
file:
  description: The snapshot file.
  returned: success
  type: str
manifest:
  description: The file with the manifest.
  returned: success
  type: str
message:
  description: What was done, or would be in check mode, in one sentence.
  returned: success
  type: str
snapshot:
  description: The content of the manifest. Without one in check mode, when a snapshot would be taken.
  returned: success, unless a snapshot would be taken in check mode
  type: dict
  contains:
    source:
      description: The server, as a URL without user and password.
      type: str
    taken_at:
      description: When the server began the snapshot.
      type: str
    seconds:
      description: How long it took from there.
      type: float
    file:
      description: Name of the file without its folder.
      type: str
    compression:
      description: How it is compressed.
      type: str
    bytes:
      description: Size of the file.
      type: int
    sha256:
      description: SHA-256 of the file.
      type: str
    rdb_bytes:
      description: Size of the RDB in it.
      type: int
    rdb_version:
      description: Version of the RDB format.
      type: int
    crc64:
      description: CRC-64 of the RDB. Null when the server writes none (C(rdbchecksum no)).
      type: str
    redis_version:
      description: Version of the server.
      type: str
    used_memory:
      description: Bytes of memory that the server used for its data. Null when the RDB does not tell.
      type: int
    replication_id:
      description: Replication id of the data. Null when the server knows only SYNC.
      type: str
    replication_offset:
      description: Offset in the replication stream up to which the snapshot goes. Null when the server knows only SYNC.
      type: int
    databases:
      description: Number of C(keys) and C(expires) (keys with a TTL) by number of the database.
      type: dict
      sample: {"0": {"keys": 2001, "expires": 280}}
    counted:
      description: >-
        How good these numbers are. V(exact), V(near) when the server was writing meanwhile, or V(no) when the user may
        not ask for them.
      type: str
    functions:
      description: Number of function libraries. Null when the server does not tell.
      type: int
    role:
      description: V(master) or V(replica). Null when the server does not tell.
      type: str
    master:
      description: The master, as a URL. Null when the server does not tell.
      type: str
    lag_bytes:
      description: How many bytes of the replication stream the server was behind it. Null without O(sentinel_hosts).
      type: int
    sentinel_master:
      description: The name by which the Sentinels know the master. Null without O(sentinel_hosts).
      type: str
    chosen:
      description: Why the snapshot was taken from this server. Null without O(sentinel_hosts).
      type: str
"""

import re
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._compression import (
    COMPRESSIONS,
    CompressionError,
    checked_level,
)
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._memory import keep_large_blocks
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._rdb import RdbError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    CONNECTION_OPTIONS,
    Login,
    RedisAccessError,
    client,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import Manifest, ManifestError, read_manifest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_replication import ReplicationError, SnapshotLink
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import (
    SENTINEL_OPTIONS,
    Limits,
    SentinelError,
    Sentinels,
    choose_source,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_snapshot import (
    Plan,
    ServerState,
    SnapshotError,
    check_dest,
    check_source,
    server_state,
    take,
    young_snapshot,
)
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_MAIN_FIGURES = ("source", "taken_at", "bytes", "sha256", "replication_offset", "databases")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            **SENTINEL_OPTIONS,
            "dest": {"type": "path", "required": True},
            "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "zstd"},
            "compression_level": {"type": "int"},
            "manifest": {"type": "path"},
            "max_age": {"type": "str"},
            "max_lag": {"type": "int", "default": 1 << 20},
            "max_silence": {"type": "float", "default": 15},
            "mode": {"type": "str", "default": "0600"},
            "progress_file": {"type": "path"},
            "server_timeout": {"type": "float", "default": 70},
        },
        supports_check_mode=True,
    )
    stop_by_exception()
    keep_large_blocks()
    errors = (ReplicationError, RdbError, CompressionError, SnapshotError)
    server = ""
    try:
        plan, login = plan_of(module.params)
        server = login.url
        answer = young(module, plan)
        if answer is None:
            check_dest(plan)
            plan, login = located(module.params, plan, login)
            server = login.url
            answer = run(module, plan, login)
    except (RedisAccessError, MissingDependencyError, SentinelError) as error:
        module.fail_json(msg=f"No snapshot was taken: {error}")
    except errors as error:
        module.fail_json(msg=f"No snapshot of {server} was taken: {error}")
    except OSError as error:
        module.fail_json(msg=f"No snapshot of {server} was taken, writing {module.params['dest']} failed: {error}")
    except ValueError as error:
        module.fail_json(msg=str(error))
    except StoppedError as error:
        module.fail_json(msg=f"No snapshot of {server} was taken: {error}; nothing was left behind")
    module.exit_json(**answer)


def young(module: AnsibleModule, plan: Plan) -> dict[str, Any] | None:
    """The answer when the snapshot that is there makes a new one needless."""
    max_age = module.params["max_age"]
    found = young_snapshot(plan, parse_duration(max_age), utc_now()) if max_age else None
    if found is None:
        return None
    message = f"the snapshot of {found.taken_at} is younger than {max_age} and sound"
    return {**where(plan), "changed": False, "message": message, "snapshot": found.as_dict()}


def located(options: dict[str, Any], plan: Plan, login: Login) -> tuple[Plan, Login]:
    """The plan and login for the server that Sentinel leads to, where there is one."""
    sentinels = Sentinels.of(options, login)
    if sentinels is None:
        return plan, login
    choice = choose_source(load("redis"), sentinels, login, Limits(options["max_lag"], options["max_silence"]))
    return plan.at(choice), choice.login


def run(module: AnsibleModule, plan: Plan, login: Login) -> dict[str, Any]:
    """Take the snapshot, or in check mode tell of it; the module's answer."""
    before = figures(plan.manifest)
    library = load("redis")
    with client(library, login) as observer:

        def sample() -> ServerState | None:
            with explained(library, login):
                return server_state(library, observer)

        state = sample()
        check_source(state)
        with SnapshotLink(library, client(library, login), module.params["server_timeout"]) as link:
            with explained(library, login):
                link.greet()
            if module.check_mode:
                return {**where(plan), "changed": True, **expectation(plan, state, before)}
            manifest = transfer(module, plan, link, sample)
    message = f"took a snapshot of {plan.source} to {plan.dest}: {manifest.rdb_bytes} bytes in {manifest.seconds} s"
    message += f"; {manifest.chosen}" if manifest.chosen else ""
    difference = {"before": before, "after": figures(plan.manifest)}
    return {**where(plan), "changed": True, "message": message, "snapshot": manifest.as_dict(), "diff": difference}


def where(plan: Plan) -> dict[str, str]:
    """The files of a plan, as every answer tells them."""
    return {"file": plan.dest, "manifest": plan.manifest}


def expectation(plan: Plan, state: ServerState | None, before: dict[str, Any]) -> dict[str, Any]:
    """What check mode tells."""
    keys = f"{state.keys} keys" if state else "all keys"
    after = {"source": plan.source, "databases": state.databases if state else {}}
    message = f"would take a snapshot of {keys} of {plan.source} to {plan.dest}"
    message += f"; {plan.choice.reason}" if plan.choice else ""
    return {"message": message, "diff": {"before": before, "after": after}}


def plan_of(options: dict[str, Any]) -> tuple[Plan, Login]:
    """The plan that the options ask for, and who we are. Raises ValueError and CompressionError when they make no
    sense. Behind Sentinel its source is not known yet."""
    login = Login.of(options)
    if not re.fullmatch(r"0[0-7]{3}", options["mode"]):
        raise ValueError(f"mode is {options['mode']!r}; write four octal digits in quotes, such as '0600'")
    plan = Plan(
        source=login.url,
        dest=options["dest"],
        manifest=options["manifest"] or options["dest"] + ".json",
        compression=options["compression"],
        level=checked_level(options["compression"], options["compression_level"]),
        mode=int(options["mode"], 8),
        sentinel_master=options["sentinel_master"] if Sentinels.of(options, login) else "",
    )
    return plan, login


def transfer(module: AnsibleModule, plan: Plan, link: SnapshotLink, sample: Any) -> Manifest:
    """Take the snapshot and tell of its progress."""
    what = f"snapshot of {plan.source}"
    with Progress(what, module.params["progress_file"] or "", time.monotonic, module.log) as progress:
        manifest = take(plan, link, sample, clock=utc_now, progress=progress)
        progress.finish(manifest.rdb_bytes)
    return manifest


def figures(manifest: str) -> dict[str, Any]:
    """The main figures of a manifest for a diff, none when there is no valid one."""
    try:
        content = read_manifest(manifest).as_dict()
    except ManifestError:
        return {}
    return {name: content[name] for name in _MAIN_FIGURES}


if __name__ == "__main__":
    main()
