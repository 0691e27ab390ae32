#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_restore
short_description: Restore a Redis snapshot as a transaction, or for practice
version_added: 1.0.0
description:
  - Gives a live Redis server the data of a snapshot that M(upkeep.ops.redis_snapshot) took. All of it, or what the
    server held before.
  - "First the snapshot is proved: its bytes, its format, and by loading it into a private server. Then everything that
    speaks against the restore is looked for, and each refusal is a finding: a snapshot that was not proved, too few
    C(databases), too little C(maxmemory), a cluster, a replica, Sentinels that would fail over, rights that the user
    lacks, a disk that is too full, an append-only file that is not sound. Nothing was touched until then."
  - Then a safety snapshot of the server is taken, proved and kept. Its writers are held (C(CLIENT PAUSE WRITE)), and
    if they have written since, a second safety snapshot is taken.
  - "Online: the server copies the private server over the replication protocol and is promoted. Clients stay connected.
    Writers wait and their writes go into the restored data; readers get C(LOADING) while the server reads it in."
  - "Offline: the server is stopped, its files are moved aside, the snapshot takes their place, also as the base of an
    append-only file, and the server is started. Clients fail meanwhile."
  - Then keys in each database, function libraries and a sample of values are compared. When they differ, or anything
    else fails, the server gets back what it held before, and that is proved too.
  - A journal below O(state_dir) knows every step. Run again after it was killed, the module brings the server into
    order and goes on.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
  - upkeep.ops._redis_connection
  - upkeep.ops._redis_connection.sentinel
attributes:
  check_mode:
    support: full
    details: Proves the snapshot, looks for refusals and tells the plan. The server is only asked.
  diff_mode:
    support: full
    details: Shows the number of keys in each database before and after.
  idempotent:
    support: partial
    details:
      - Nothing is done when the server holds the data of the snapshot and its replication offset shows that nothing was
        written since. It shows that only while the server keeps a replication backlog, and not while replicas are
        attached.
      - Otherwise a restore always changes, because equal numbers and samples do not prove that all values are equal.
requirements:
  - redis >= 4.3 (Python library) and C(redis-server), not newer than the server to restore into
  - zstandard >= 0.19 (Python library) or the program C(zstd), for snapshots compressed with zstd
  - Redis 7.0 or newer to restore into
options:
  state:
    description:
      - V(restored) restores the snapshot into the server.
      - V(rolled_back) gives the server what it held before the last restore, from the safety snapshot of that. A run
        that was killed is taken back.
      - V(confirmed) removes the safety snapshots, when the restored data is as it should be, and the old files of the
        offline way where the server is on this host.
      - V(drilled) restores the snapshot for practice, into a second private server, and measures. No server of the
        platform is touched. The live one is asked how much was written since the snapshot when O(login_host),
        O(login_unix_socket) or O(sentinel_hosts) is given.
    type: str
    choices: [restored, rolled_back, confirmed, drilled]
    required: true
  path:
    description:
      - The snapshot file, compressed with zstd or gzip or not at all.
      - Needed for V(restored) and V(drilled) of O(state).
    type: path
  manifest:
    description: Its manifest. The default is O(path) with C(.json) appended.
    type: path
  name:
    description: Name of the snapshot in findings. The default is the name of the file.
    type: str
  expected_digest:
    description: The digest that an earlier load of the same file told, on whatever server. Another one is critical.
    type: str
    default: ""
  unverified:
    description: Restore a snapshot that has no manifest to compare it with.
    type: bool
    default: false
  mode:
    description:
      - How to restore. V(auto) chooses V(online) where that can be done, and tells why.
      - V(offline) must run on the server's host, as a user who may write into its data folder.
    type: str
    choices: [auto, online, offline]
    default: auto
  service:
    description: The server's systemd unit, such as V(redis-server), for the offline way.
    type: str
  stop_command:
    description: Command that stops the server, for hosts without systemd. It must not start again by itself.
    type: list
    elements: str
    default: []
  start_command:
    description: Command that starts the server, for hosts without systemd.
    type: list
    elements: str
    default: []
  digest:
    description:
      - Compare all values by C(DEBUG DIGEST) instead of a sample only.
      - The server answers nobody for some seconds per million keys. It must allow DEBUG (C(enable-debug-command)).
    type: bool
    default: false
  sample_size:
    description: How many keys to compare by value, chosen at random in all databases.
    type: int
    default: 500
  hold_timeout:
    description:
      - Seconds after which the server itself lets its writers go on when this module has died. While it lives it holds
        them as long as it takes.
      - It must be longer than the server may be busy with removing its old data.
    type: float
    default: 30
  scratch_address:
    description:
      - Address of this host under which the server reaches the private server, which listens on it behind a random
        password. The server gets the password as its C(masterauth) for the time.
      - The default is loopback when the server is on this host, else the address from which this host reaches it.
    type: str
  scratch_port:
    description: Port of the private server, for firewalls. V(0) takes a free one.
    type: int
    default: 0
  sentinel_hosts:
    description:
      - All Sentinels that watch the server, each as C(host:port), port 26379 when there is none. The server is the
        master that they name, whatever O(login_host), O(login_port) and O(login_unix_socket) are.
      - They are told not to fail over meanwhile, and afterwards to wait as long as before.
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Folder for journals and safety snapshots, made with mode 0700. Must be the same when the module is run again.
    type: path
    default: /var/lib/upkeep/redis_restore
  progress_file:
    description:
      - File that gets a line of JSON about each second while a safety snapshot is taken or the data is copied, with
        C(bytes), C(total) (null while nobody knows it) and C(seconds). Each step is in the system log and in the
        journal too.
    type: path
  server_binary:
    description:
      - The private servers, a name in C(PATH) or a path.
      - The default is C(redis-server) or C(valkey-server), the first that is there and can load the snapshot.
    type: str
    default: ""
  scratch_dir:
    description:
      - Folder for the private servers. A compressed snapshot is unpacked there, which is checked for beforehand.
      - The default is the system's folder for temporary files.
    type: path
  timeout:
    description: Seconds that each long step may take, such as loading, copying or comparing all data.
    type: float
    default: 600
  answer_timeout:
    description: Seconds that one answer of the server may take.
    type: float
    default: 10
  login_host:
    description:
      - Name or address of the Redis server. One of this, O(login_unix_socket) and O(sentinel_hosts) is needed, except
        with O(state=drilled).
    type: str
    default: ~
notes:
  - "The rights that an ACL user needs: C(+psync +replconf +ping +info +select +pubsub|numsub +replicaof +client|pause
    +client|unpause +config|get +config|set +dump +pexpiretime), on all keys (C(%R~*))."
  - Users, settings and modules are not part of a snapshot.
seealso:
  - module: upkeep.ops.redis_snapshot
  - module: upkeep.ops.redis_verify
"""

EXAMPLES = r"""
- name: Practise a restore and measure it
  upkeep.ops.redis_restore:
    state: drilled
    path: /var/backups/redis/cache.rdb.zst
    login_host: redis.example.org
    login_password: "{{ redis_password }}"

- name: Restore the snapshot, without stopping the server where that can be done
  upkeep.ops.redis_restore:
    state: restored
    path: /var/backups/redis/cache.rdb.zst
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
    service: redis-server

- name: Take the restore back
  upkeep.ops.redis_restore:
    state: rolled_back
    login_host: redis.example.org
    login_password: "{{ redis_password }}"

- name: Keep what the server holds now and remove the safety snapshots
  upkeep.ops.redis_restore:
    state: confirmed
    login_host: redis.example.org
    login_password: "{{ redis_password }}"
"""

RETURN = r"""
findings:
  description:
    - What was found, worst first.
    - "Checks are C(snapshot_bytes), C(snapshot_format) and C(snapshot_load), as M(upkeep.ops.redis_verify) has them;
      C(restore), one for each refusal or one for what was done; and of a drill C(snapshot_restore), with the recovery
      time, and C(recovery_point), with the age of the snapshot."
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of all findings.
  returned: always
  type: str
summary:
  description: How many findings of each status there are.
  returned: always
  type: str
restore:
  description: What was done, or would be in check mode.
  returned: not with O(state=drilled)
  type: dict
  contains:
    message:
      description: It in one sentence.
      type: str
    mode:
      description: The way, V(online) or V(offline). Null when it did not come to that.
      type: str
    why:
      description: Why this way. Null like RV(restore.mode).
      type: str
    snapshot:
      description: The file that was restored; empty when none was.
      type: str
    taken_at:
      description: When it was taken. Null when no manifest tells.
      type: str
    age_seconds:
      description: How old it is. Null when no manifest tells.
      type: float
    before:
      description: Number of C(keys) and C(expires) by number of the database, before. Null when nobody looked.
      type: dict
    after:
      description: The same afterwards. Null when nobody looked.
      type: dict
    refusals:
      description: What speaks against it.
      type: list
      elements: str
    safety:
      description: The safety snapshot. Null when none was taken.
      type: str
    continued:
      description: What became of a run before that was killed. Null when there was none.
      type: str
    held_seconds:
      description: How long writers were held. Null when they were not.
      type: float
    seconds:
      description: How long it took in all. Null when it did not come to that.
      type: float
    rolled_back:
      description: Whether the server was given back what it held before.
      type: bool
drill:
  description: What the drill measured.
  returned: O(state=drilled)
  type: dict
  contains:
    load_seconds:
      description: Reading, checking and loading the snapshot.
      type: float
    restore_seconds:
      description: Copying it to the other server and promoting that. Null when it did not come to that.
      type: float
    compare_seconds:
      description: Comparing counts and digest of both. Null when it did not come to that.
      type: float
    rto_seconds:
      description: All of it, from the call to the proof that the data is there. Null when the drill failed.
      type: float
    keys:
      description: Keys in all databases that were restored. Null when the drill failed.
      type: int
    databases:
      description: Number of C(keys) and C(expires) by number of the database. Null when the drill failed.
      type: dict
      sample: {"0": {"keys": 2001, "expires": 280}}
    digest:
      description: C(DEBUG DIGEST) of the restored data. Null when the drill failed.
      type: str
    rpo_seconds:
      description: Age of the snapshot. Null when no manifest tells, or the snapshot could not be loaded.
      type: float
    rpo_bytes:
      description:
        - How much was written to the live server since the snapshot, in bytes of its replication stream.
        - Null when no live server was asked, or its replication history is another one than the snapshot's.
      type: int
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError
from ansible_collections.upkeep.ops.plugins.module_utils._memory import keep_large_blocks
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import CONNECTION_OPTIONS, RedisAccessError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_drill import drill, live_info
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore import (
    Restoration,
    RestoreError,
    order_of,
    request_of,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_restore_journal import JournalError
from ansible_collections.upkeep.ops.plugins.module_utils._redis_sentinel import SENTINEL_OPTIONS, SentinelError
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_ARGUMENTS = {
    **CONNECTION_OPTIONS,
    **SENTINEL_OPTIONS,
    "login_host": {"type": "str"},
    "state": {"type": "str", "choices": ["restored", "rolled_back", "confirmed", "drilled"], "required": True},
    "path": {"type": "path"},
    "manifest": {"type": "path"},
    "name": {"type": "str"},
    "expected_digest": {"type": "str", "default": ""},
    "unverified": {"type": "bool", "default": False},
    "mode": {"type": "str", "choices": ["auto", "online", "offline"], "default": "auto"},
    "service": {"type": "str"},
    "stop_command": {"type": "list", "elements": "str", "default": []},
    "start_command": {"type": "list", "elements": "str", "default": []},
    "digest": {"type": "bool", "default": False},
    "sample_size": {"type": "int", "default": 500},
    "hold_timeout": {"type": "float", "default": 30},
    "scratch_address": {"type": "str"},
    "scratch_port": {"type": "int", "default": 0},
    "state_dir": {"type": "path", "default": "/var/lib/upkeep/redis_restore"},
    "progress_file": {"type": "path"},
    "server_binary": {"type": "str", "default": ""},
    "scratch_dir": {"type": "path"},
    "timeout": {"type": "float", "default": 600},
    "answer_timeout": {"type": "float", "default": 10},
    "fail_on": FAIL_ON_OPTION,
}
_ERRORS = (
    JournalError,
    LockError,
    MissingDependencyError,
    RedisAccessError,
    RestoreError,
    SentinelError,
    ValueError,
)
_REQUIRED_IF = [("state", "restored", ("path",)), ("state", "drilled", ("path",))]


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, required_if=_REQUIRED_IF, supports_check_mode=True)
    stop_by_exception()
    keep_large_blocks()
    builder = FindingsBuilder(utc_now())
    answer: dict[str, Any] = {}
    try:
        with reading(module.params["path"]):
            answer = drilled(module, builder) if module.params["state"] == "drilled" else restored(module, builder)
    except _ERRORS as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Nothing was restored: {error}")
    except StoppedError as error:
        module.fail_json(msg=f"Nothing was restored: {error}; the private servers were removed")
    exit_with_findings(module, builder.findings, **answer)


def drilled(module: AnsibleModule, builder: FindingsBuilder) -> dict[str, Any]:
    """Restore for practice; the module's answer."""
    options, patience = module.params, Patience(module.params["timeout"])
    live = live_info(options, lambda: load("redis"))
    done = drill(order_of(options), lambda: load("redis"), builder, patience, live=live, now=utc_now())
    return {"drill": done.as_dict()}


def restored(module: AnsibleModule, builder: FindingsBuilder) -> dict[str, Any]:
    """Restore, go back or confirm; the module's answer."""
    library, patience = load("redis"), Patience(module.params["timeout"])
    request = request_of(module.params, order_of(module.params), module.check_mode, library)
    what, path = f"restore into {request.login.url}", module.params["progress_file"] or ""
    with Progress(what, path, time.monotonic, module.log) as progress:
        restoration = Restoration(request, library, builder, patience, utc_now, module.log, progress)
        restoration.run(module.params["state"])
    outcome = restoration.outcome
    difference = {"before": outcome.before or {}, "after": outcome.after or {}}
    return {"changed": restoration.changed, "restore": outcome.as_dict(), "diff": difference}


if __name__ == "__main__":
    main()
