#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_verify
short_description: Prove that a Redis snapshot can be restored
version_added: 1.0.0
description:
  - Checks a snapshot that M(upkeep.ops.redis_snapshot) took, or any other RDB, in up to four levels.
  - "Level 1, check C(snapshot_bytes): the file has the size and the SHA-256 of its manifest, and nobody changed that."
  - "Level 2, check C(snapshot_format): it decompresses, is an RDB of a version that O(target_version) can load, its
    CRC-64 is right, its end mark is there and nothing follows it."
  - "Level 3, check C(snapshot_load): a private C(redis-server) loads it, and holds what the manifest says. The server
    listens on a unix socket in a folder with mode 0700 and on no TCP port. It is a replica of nobody, so that keys
    which expired since are counted too. It is killed and its folder removed, whatever happens."
  - "Level 4, check C(snapshot_live): the live server can load it, has about as many keys in each database, and of a
    sample of the keys of both sides most are equal: type, value, and whether there is a time to live. A live server
    that cannot be asked is unknown. One that differs by more than O(live_tolerance) is a warning, because it may be
    the live server that has lost data: the snapshot is then needed most. Nothing is written there, it is asked in
    small batches, and of values above 128 KiB only the length is compared."
  - Below level 4 no server of the platform is asked or touched.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._redis_connection
  - upkeep.ops._checks
requirements:
  - redis >= 4.3 (Python library) and C(redis-server) or C(valkey-server), from O(level=3) on
  - zstandard >= 0.19 (Python library) or the program C(zstd), for snapshots compressed with zstd
options:
  path:
    description: The snapshot file, compressed with zstd or gzip or not at all.
    type: path
    required: true
  manifest:
    description:
      - Its manifest. The default is O(path) with C(.json) appended.
      - Without one there is nothing to compare with, and C(snapshot_bytes) is unknown.
    type: path
  name:
    description: Name of the snapshot in findings. The default is the name of the file.
    type: str
  level:
    description: Up to which level to check. Each includes the ones before.
    type: int
    choices: [1, 2, 3, 4]
    default: 3
  target_version:
    description: Version of the server that is to load the snapshot one day, such as V(7.0.15) or V(valkey 8.1.1).
    type: str
    default: ""
  server_binary:
    description:
      - The server of level 3, a name in C(PATH) or a path.
      - The default is C(redis-server) or C(valkey-server), the first that is there and can load the snapshot.
    type: str
    default: ""
  scratch_dir:
    description:
      - Folder for the private server. A compressed snapshot is unpacked there, which is checked for beforehand.
      - The default is the system's folder for temporary files.
    type: path
  digest:
    description:
      - Let the private server compute a digest of all data (C(DEBUG DIGEST)), to compare with another server's.
        It takes some seconds for each million keys.
    type: bool
    default: true
  expected_digest:
    description: The digest that an earlier load of the same file told, on whatever server. Another one is critical.
    type: str
    default: ""
  tolerance:
    description:
      - By how many percent the number of keys may differ from a manifest whose numbers are not exact. A hundred keys
        are always allowed to.
    type: float
    default: 1
  timeout:
    description: Seconds that loading, and then the digest, may take.
    type: float
    default: 600
  sample:
    description: How many keys of the snapshot, and of the live server, level 4 looks at.
    type: int
    default: 500
  live_tolerance:
    description:
      - By how many percent the live server may differ on level 4 - in the number of keys of a database, and in the keys
        of the sample that were changed, deleted or added since.
      - A hundred keys more or less in a database are never a difference, nor are keys whose time to live has passed.
    type: float
    default: 20
  answer_timeout:
    description: Seconds that one answer of the live server may take.
    type: float
    default: 10
seealso:
  - module: upkeep.ops.redis_snapshot
"""

EXAMPLES = r"""
- name: Prove that the snapshot can be restored
  upkeep.ops.redis_verify:
    path: /var/backups/redis/cache.rdb.zst

- name: Look only whether the file is still what it was
  upkeep.ops.redis_verify:
    path: /var/backups/redis/cache.rdb.zst
    level: 1
    fail_on: warning

- name: Compare it with the server that it was taken of
  upkeep.ops.redis_verify:
    path: /var/backups/redis/cache.rdb.zst
    level: 4
    login_host: redis1.example.org
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
verification:
  description: What was found out about the snapshot.
  returned: always
  type: dict
  contains:
    level:
      description: The highest level that the snapshot passed, 0 for none.
      type: int
    keys_loaded:
      description: Keys in all databases. Null when the snapshot was not loaded.
      type: int
    databases:
      description: Number of C(keys) and C(expires) by number of the database. Null when it was not loaded.
      type: dict
      sample: {"0": {"keys": 2001, "expires": 280}}
    functions:
      description: Number of function libraries. Null when it was not loaded, or before Redis 7.
      type: int
    digest:
      description: C(DEBUG DIGEST) of the data. Null when it was not asked for or not loaded.
      type: str
    rdb_version:
      description: Version of the RDB format. Null when the format was not checked or is not sound.
      type: int
    redis_version:
      description: Version of the server that wrote it. Null like RV(verification.rdb_version).
      type: str
    spot_check:
      description: How many keys of the sample are what. Null when nothing was compared with the live server.
      type: dict
      contains:
        compared:
          description: Keys that were looked at, none of which has expired.
          type: int
        equal:
          description: Keys that are alike on both sides.
          type: int
        changed:
          description: Keys that are on both sides and differ.
          type: int
        gone:
          description: Keys that only the snapshot has.
          type: int
        new:
          description: Keys that only the live server has.
          type: int
    seconds:
      description: How long the verification took.
      type: float
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._memory import keep_large_blocks
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import CONNECTION_OPTIONS, Login
from ansible_collections.upkeep.ops.plugins.module_utils._redis_spot_check import Live
from ansible_collections.upkeep.ops.plugins.module_utils._redis_verify import Order, verify
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_PASSED_ON = ("level", "target_version", "server_binary", "tolerance", "digest", "expected_digest")


def _live(options: dict[str, Any]) -> Live:
    login = Login.of({**options, "timeout": options["answer_timeout"]})
    return Live(login, options["sample"], options["live_tolerance"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "path": {"type": "path", "required": True},
            "manifest": {"type": "path"},
            "name": {"type": "str"},
            "level": {"type": "int", "choices": [1, 2, 3, 4], "default": 3},
            "target_version": {"type": "str", "default": ""},
            "server_binary": {"type": "str", "default": ""},
            "scratch_dir": {"type": "path"},
            "digest": {"type": "bool", "default": True},
            "expected_digest": {"type": "str", "default": ""},
            "tolerance": {"type": "float", "default": 1},
            "timeout": {"type": "float", "default": 600},
            "sample": {"type": "int", "default": 500},
            "live_tolerance": {"type": "float", "default": 20},
            "answer_timeout": {"type": "float", "default": 10},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    stop_by_exception()
    keep_large_blocks()
    options = module.params
    order = Order(
        path=options["path"],
        manifest=options["manifest"] or options["path"] + ".json",
        subject=options["name"] or os.path.basename(options["path"]),
        scratch_dir=options["scratch_dir"] or tempfile.gettempdir(),
        live=_live(options) if options["level"] == 4 else None,
        **{name: options[name] for name in _PASSED_ON},
    )
    builder = FindingsBuilder(utc_now())
    try:
        with reading(order.path):
            verification = verify(order, lambda: load("redis"), builder, Patience(options["timeout"]))
    except MissingDependencyError as error:
        module.fail_json(msg=str(error))
    except StoppedError as error:
        module.fail_json(msg=f"The snapshot was not verified: {error}; the private server was removed")
    exit_with_findings(module, builder.findings, verification=verification.as_dict())


if __name__ == "__main__":
    main()
