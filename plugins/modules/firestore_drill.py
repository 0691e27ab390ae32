#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_drill
short_description: Restore a Firestore export into a scratch database, for practice
version_added: 1.0.0
description:
  - Restores the export of a backup set into a database that is created for it, on the way of
    M(upkeep.ops.firestore_import) with V(fresh_database), compares, measures how long that takes, and deletes the
    database. O(database) and every other one is left alone.
  - Compared are the documents of each collection group by their number, and documents one by one with what the export
    holds, which is read without Firestore (O(compare_documents)).
  - The scratch database is called V(upkeep-drill-20260131t235959z-0a1b2c-3d4e5f) - the id of the set, a number that
    stands for this host and O(root), and one that is drawn. It is deleted whatever happens. One that a drill left that
    was killed is deleted by the next drill on the same host. No database with another name is ever deleted.
  - One drill at a time works on the sets in O(root).
  - It costs one write, and up to two reads, for each document. The account needs the roles C(roles/datastore.owner) and
    C(roles/datastore.importExportAdmin), and read access to the objects of the bucket.
  - The checks are C(export_restore) with the recovery time, C(recovery_point) with the age of the export,
    C(drill_leftovers) and C(drill_cleanup). What says that the export is no good is critical, what kept the drill from
    being made is unknown.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
  - upkeep.ops._firestore_connection
attributes:
  check_mode:
    support: full
    details: Reads the export back, creates no database and restores nothing.
  diff_mode:
    support: N/A
    details: Leaves nothing behind that could be shown.
  idempotent:
    support: full
    details: Each drill is made anew and leaves nothing behind.
options:
  root:
    description: Folder that holds the backup sets.
    type: path
    required: true
  id:
    description: Id of the set.
    type: str
    required: true
  path:
    description: Record of the export, relative to the folder of the set, such as V(firestore/main.json).
    type: str
    required: true
  name:
    description: Name of the export in findings. The default is O(path).
    type: str
  location:
    description: Where the scratch database lives. The default is where O(database) does.
    type: str
    default: ""
  compare_documents:
    description:
      - How many documents are compared one by one at most. Of a larger export as many are taken, evenly spread, and
        others each time.
    type: int
    default: 100000
  timeout:
    description: How long to wait for each operation of Firestore, such as V(30m) or V(4h).
    type: str
    default: 4h
  poll_interval:
    description: Longest pause between two looks at an operation. The first pauses are shorter.
    type: str
    default: 10s
  progress_file:
    description: File to which the progress of the import is written about once a second, one JSON object per line.
    type: path
seealso:
  - module: upkeep.ops.firestore_import
  - module: upkeep.ops.redis_restore
  - module: upkeep.ops.backup_set
"""

EXAMPLES = r"""
- name: Practise the restore of an export and measure it
  upkeep.ops.firestore_drill:
    project: example-project
    root: /var/backups/upkeep
    id: 20260131T235959Z
    path: firestore/main.json
    name: firestore:main
"""

RETURN = r"""
findings:
  description: What was found, worst first.
  returned: always, except when the task fails for its options
  type: list
  elements: dict
status:
  description: The worst status of all findings.
  returned: always, except when the task fails for its options
  type: str
summary:
  description: How many findings of each status there are.
  returned: always, except when the task fails for its options
  type: str
drill:
  description: What the drill measured.
  returned: always, except when the task fails for its options
  type: dict
  contains:
    database:
      description: Name of the scratch database, which is gone.
      type: str
      sample: upkeep-drill-20260131t235959z-0a1b2c-3d4e5f
    create_seconds:
      description: Creating the database. Null when it did not come to that.
      type: float
    restore_seconds:
      description: Reading the export back, importing and counting. Null when it did not come to that.
      type: float
    compare_seconds:
      description: Comparing documents. Null when it did not come to that.
      type: float
    rto_seconds:
      description: All of it, until it was proved that the documents are there. Null when the drill failed.
      type: float
    documents:
      description: Documents that were restored. Null when the drill failed.
      type: int
    collections:
      description: Documents per collection group, as recorded. Null when the drill failed.
      type: dict
      sample: {orders: 40000, users: 8211}
    compared:
      description: Documents that were compared one by one. Null when it did not come to that.
      type: int
    digest:
      description: A fingerprint of the documents that were compared, as restored. Null when the drill failed.
      type: str
    rpo_seconds:
      description: Age of the export. Null when its record does not tell.
      type: float
"""

import os
import secrets
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import Operation
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import CONNECTION_OPTIONS, Target
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_drill import Access, Drill, Driller, Names, Order
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_LONGEST_REQUEST = 30.0  # seconds


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "root": {"type": "path", "required": True},
            "id": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "name": {"type": "str"},
            "location": {"type": "str", "default": ""},
            "compare_documents": {"type": "int", "default": 100000},
            "timeout": {"type": "str", "default": "4h"},
            "poll_interval": {"type": "str", "default": "10s"},
            "progress_file": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    stop_by_exception()
    found = FindingsBuilder(utc_now())
    try:
        drilled = drill(module, found)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    except StoppedError as error:
        left = "; ".join(finding.summary for finding in found.findings if finding.status == "warning")
        told = left or "the scratch database was deleted"
        module.fail_json(msg=f"The restore was not practised: {error}; {told}")
    exit_with_findings(module, found.findings, drill=drilled.as_dict())


def drill(module: AnsibleModule, found: FindingsBuilder) -> Drill:
    """Raises ValueError when an option is not what it should be."""
    options = module.params
    target = Target.of(options, os.environ)
    location, most = options["location"], options["compare_documents"]
    order = Order(options["root"], options["id"], options["path"], options["name"] or options["path"], location, most)
    order.check()
    timeout = parse_duration(options["timeout"])
    patience = Patience(timeout, parse_duration(options["poll_interval"]), time.monotonic, time.sleep)
    access = Access(target, min(timeout, _LONGEST_REQUEST), patience)
    names = Names.of(socket.gethostname(), order.root, secrets.token_hex(3))
    progress_file = "" if module.check_mode else options["progress_file"] or ""
    with Progress(f"drill of {order.subject}", progress_file, time.monotonic, module.log) as progress:

        def tell(operation: Operation) -> None:
            progress(operation.bytes, operation.bytes_expected or None)

        start = secrets.randbelow(1 << 32)
        with reading(order.record):
            return Driller(order, names, access, found, utc_now(), start, tell).drill(module.check_mode)


if __name__ == "__main__":
    main()
