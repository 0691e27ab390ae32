#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_restore
short_description: Restore a Redis snapshot, for practice
version_added: 1.0.0
description:
  - Restores a snapshot that M(upkeep.ops.redis_snapshot) took into a private server, on the very way of a real restore,
    compares, and measures how long it takes.
  - A first private server loads the snapshot, a second one copies it over the replication protocol and is promoted.
    Keys that expired since are kept on both, so that everything is counted.
  - Both listen on unix sockets in folders with mode 0700. The first one also listens on a port of loopback, behind a
    random password, because replication knows no unix sockets. Both are killed and their folder is removed, whatever
    happens.
  - The checks are C(snapshot_bytes), C(snapshot_format) and C(snapshot_load), as M(upkeep.ops.redis_verify) has them,
    C(snapshot_restore) with the recovery time, and C(recovery_point) with the age of the snapshot.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
  - upkeep.ops._redis_connection
requirements:
  - redis >= 4.3 (Python library) and C(redis-server)
  - zstandard >= 0.19 (Python library) or the program C(zstd), for snapshots compressed with zstd
options:
  state:
    description:
      - V(drilled) restores the snapshot for practice. No server of the platform is touched. The live one is asked how
        much was written since the snapshot when O(login_host) or O(login_unix_socket) is given.
    type: str
    choices: [drilled]
    required: true
  path:
    description: The snapshot file, compressed with zstd or gzip or not at all.
    type: path
    required: true
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
  server_binary:
    description:
      - The server program of the private servers, a name in C(PATH) or a path.
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
    description: Seconds that one answer of the live server may take.
    type: float
    default: 10
  login_host:
    description: Name or address of the live Redis server.
    type: str
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
"""

RETURN = r"""
findings:
  description: What was found, worst first.
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

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._memory import keep_large_blocks
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    CONNECTION_OPTIONS,
    Login,
    client,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._redis_drill import drill
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Order
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "login_host": {"type": "str"},
            "state": {"type": "str", "choices": ["drilled"], "required": True},
            "path": {"type": "path", "required": True},
            "manifest": {"type": "path"},
            "name": {"type": "str"},
            "expected_digest": {"type": "str", "default": ""},
            "server_binary": {"type": "str", "default": ""},
            "scratch_dir": {"type": "path"},
            "timeout": {"type": "float", "default": 600},
            "answer_timeout": {"type": "float", "default": 10},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    stop_by_exception()
    keep_large_blocks()
    options = module.params
    builder = FindingsBuilder(utc_now())
    try:
        drilled = drill(
            order_of(options),
            lambda: load("redis"),
            builder,
            Patience(options["timeout"]),
            live=live_info(options),
            now=utc_now(),
        )
    except MissingDependencyError as error:
        module.fail_json(msg=str(error))
    except StoppedError as error:
        module.fail_json(msg=f"The restore was not practised: {error}; the private servers were removed")
    exit_with_findings(module, builder.findings, drill=drilled.as_dict())


def order_of(options: dict[str, Any]) -> Order:
    """What is to be verified before it is restored."""
    return Order(
        path=options["path"],
        manifest=options["manifest"] or options["path"] + ".json",
        subject=options["name"] or os.path.basename(options["path"]),
        level=3,
        target_version="",
        server_binary=options["server_binary"],
        scratch_dir=options["scratch_dir"] or tempfile.gettempdir(),
        tolerance=1,
        digest=False,
        expected_digest=options["expected_digest"],
    )


def live_info(options: dict[str, Any]) -> Any:
    """What asks the live server for its INFO, None when there is none to be asked."""
    if not options["login_host"] and not options["login_unix_socket"]:
        return None
    login = Login.of({**options, "timeout": options["answer_timeout"]})

    def ask() -> Any:
        library = load("redis")
        with explained(library, login), client(library, login) as connection:
            return connection.info()

    return ask


if __name__ == "__main__":
    main()
