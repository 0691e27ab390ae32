#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_export
short_description: Export a Firestore database to Cloud Storage and prove the export
version_added: 1.0.0
description:
  - Starts a managed export through Firestore's Admin API, waits for it, and judges it by what is there in the end.
  - An export is good when its operation is done without an error in the state SUCCESSFUL, its overall metadata is in
    the bucket, it holds documents, it was read back whole (O(verify)) and its counts are those of the database.
  - The folder in the bucket is the identity of an export. Run again with the same folder, the module finds a finished
    export and changes nothing, and resumes waiting for one that is still going, also when an earlier run was killed.
    After a failed export it starts a new one.
  - An export costs one read for each document. Unless O(snapshot_time) is given it is not a snapshot - documents
    that are written meanwhile may be in it or not.
  - The account needs the role C(roles/datastore.importExportAdmin) and read access to the objects of the bucket.
    Firestore's service agent needs write access to the bucket.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
attributes:
  check_mode:
    support: full
    details: Looks for an export and counts documents, but starts no export and waits for none.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: A finished export to the same folder is found.
options:
  output_uri_prefix:
    description: Folder of this one export in a bucket of Cloud Storage, such as V(gs://backups/firestore/20260131T235959Z).
    type: str
    required: true
  collection_ids:
    description:
      - Collection groups to export. Without any the whole database is exported.
      - Name subcollections too. They are groups of their own, and are not exported with their parent.
      - Parts of an export can be imported only when it was made with O(collection_ids).
    type: list
    elements: str
    default: []
  namespace_ids:
    description: Namespaces to export. Without any all are exported. The empty string is the default namespace.
    type: list
    elements: str
    default: []
  snapshot_time:
    description:
      - Export the state of this moment, a whole minute of the past seven days, such as V(2026-01-31T23:59:00Z).
      - Needs point-in-time recovery to be enabled for the database when it is older than one hour.
    type: str
  wait:
    description:
      - Whether to wait until the export is done, and to prove it.
      - Without it a started export is returned as it is. Run the task again with O(wait=true) to have it proved.
    type: bool
    default: true
  timeout:
    description:
      - How long to wait for the operation, such as V(30m) or V(4h). It goes on when the time is over.
      - One request takes at most 30 seconds of it.
    type: str
    default: 1h
  poll_interval:
    description: Longest pause between two looks at the operation. The first pauses are shorter.
    type: str
    default: 10s
  allow_empty:
    description: Whether an export without documents is good.
    type: bool
    default: false
  verify:
    description:
      - Whether to read the whole export back and check the CRC of each record, counts, sizes, duplicates and
        missing files.
      - It reads as many bytes as the export has, and keeps one number for each document in memory.
    type: bool
    default: true
  count_tolerance:
    description:
      - By how many percent the exported and the live documents of a collection group may differ.
      - Counted are the groups of O(collection_ids). Without these, with O(verify), those of the export and those at the
        root of the database.
      - V(100) takes no counts.
    type: float
    default: 5
  progress_file:
    description: File to which progress is written about once a second, one JSON object per line.
    type: path
seealso:
  - module: upkeep.ops.backup_set
"""

EXAMPLES = r"""
- name: Export the database into a backup set
  upkeep.ops.firestore_export:
    project: example-project
    output_uri_prefix: gs://example-backups/firestore/20260131T235959Z/main
    timeout: 2h
  register: exported

- name: Export two collection groups
  upkeep.ops.firestore_export:
    project: example-project
    output_uri_prefix: gs://example-backups/firestore/users-20260131
    collection_ids: [users, orders]
    count_tolerance: 1

- name: Start an export and go on
  upkeep.ops.firestore_export:
    project: example-project
    output_uri_prefix: gs://example-backups/firestore/nightly-20260131
    wait: false

- name: Wait for it and have it proved
  upkeep.ops.firestore_export:
    project: example-project
    output_uri_prefix: gs://example-backups/firestore/nightly-20260131
    poll_interval: 30s
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: exported 48211 documents to gs://example-backups/firestore/20260131T235959Z/main
action:
  description:
    - What was, or in check mode would be, done. V(started) a new export, V(resumed) one that was going, or V(found) a
      finished one.
  returned: success
  type: str
  sample: started
export:
  description: The export. On failure, what is known of it.
  returned: success, except in check mode when there is none; on failure when an operation is known
  type: dict
  contains:
    operation:
      description: Full name of the operation. Empty when Firestore no longer remembers it.
      type: str
      sample: projects/example-project/databases/(default)/operations/ASA1MTAwNDQxNQ
    output_uri_prefix:
      description: Where the export lies, as the operation says. Import from here.
      type: str
      sample: gs://example-backups/firestore/20260131T235959Z/main
    metadata_uri:
      description: The overall metadata, without which the export could not be imported.
      type: str
      sample: gs://example-backups/firestore/20260131T235959Z/main/main.overall_export_metadata
    documents:
      description: Documents in the export. So far, while it is going.
      type: int
      sample: 48211
    bytes:
      description: Size of the output files in bytes. So far, while it is going.
      type: int
      sample: 31457280
    collections:
      description: Documents per collection group. Empty when the export was made of all groups and was not read back.
      type: dict
      sample: {orders: 40000, users: 8211}
    started_at:
      description: When the export began. Null when nobody knows any more.
      type: str
      sample: "2026-01-31T23:59:59Z"
    ended_at:
      description: When the export ended. Null while it is going.
      type: str
      sample: "2026-02-01T00:03:11Z"
    seconds:
      description: How long the export took. Null while it is going.
      type: float
      sample: 192.4
    snapshot_time:
      description: The moment whose state was exported. Null when the export is not a snapshot.
      type: str
      sample: "2026-01-31T23:59:00Z"
    state:
      description: State of the operation.
      type: str
      sample: SUCCESSFUL
    verified:
      description: Whether the export was read back by this task and found whole.
      type: bool
      sample: true
counts:
  description: The counts that the export was held against.
  returned: success, when the export was waited for, and in check mode
  type: dict
  contains:
    compared:
      description: Whether counts were compared.
      type: bool
    reason:
      description: Why they were not. Empty when they were.
      type: str
    tolerance:
      description: The tolerance in percent.
      type: float
    groups:
      description: One entry for each collection group that was counted.
      type: list
      elements: dict
      contains:
        collection:
          description: Id of the collection group.
          type: str
        live:
          description: Documents in the database.
          type: int
        exported:
          description: Documents in the export. Null when it has no such group.
          type: int
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AdminApi,
    ExportOperation,
    ExportRequest,
    LiveCounts,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export import Exporter, Rules
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import ExportFormatError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import (
    FOUND,
    STARTED,
    ExportFailedError,
    Patience,
    Plan,
    must_be_snapshot_time,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener, split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, parse_time, utc_now

_LONGEST_REQUEST = 30.0  # seconds


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "output_uri_prefix": {"type": "str", "required": True},
            "collection_ids": {"type": "list", "elements": "str", "default": []},
            "namespace_ids": {"type": "list", "elements": "str", "default": []},
            "snapshot_time": {"type": "str"},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "str", "default": "1h"},
            "poll_interval": {"type": "str", "default": "10s"},
            "allow_empty": {"type": "bool", "default": False},
            "verify": {"type": "bool", "default": True},
            "count_tolerance": {"type": "float", "default": 5.0},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except ExportFailedError as error:
        known = {"export": error.export} if error.export else {}
        module.fail_json(msg=str(error), **known)
    except (ValueError, OSError, MissingDependencyError, FirestoreAccessError, ExportFormatError) as error:
        module.fail_json(msg=str(error))


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module returns."""
    options = module.params
    target = Target.of(options, os.environ)
    request = request_of(options)
    timeout = parse_duration(options["timeout"])
    one_request = min(timeout, _LONGEST_REQUEST)
    bucket = split_uri(request.uri)[0]
    what = f"export of {target.name} to {request.uri}"
    progress_file = "" if module.check_mode else options["progress_file"] or ""
    with Progress(what, progress_file, time.monotonic, module.log) as progress:

        def tell(operation: ExportOperation) -> None:
            progress(operation.bytes, operation.bytes_expected or None)

        exporter = Exporter(
            request,
            Rules(options["allow_empty"], options["count_tolerance"], options["verify"]),
            AdminApi(target, one_request),
            LiveCounts(target, one_request, request.snapshot_time),
            bucket_opener(storage_client(target), bucket, target.storage_url, one_request),
            Patience(timeout, parse_duration(options["poll_interval"]), time.monotonic, time.sleep),
            tell,
        )
        plan = exporter.plan()
        if module.check_mode and plan.action != FOUND:
            answer = exporter.predict(plan)
        else:
            answer = exporter.carry_out(plan, options["wait"])
            progress.finish(answer["export"]["bytes"])
    return {**answer, "action": plan.action, **_diff(request, plan)}


def request_of(options: dict[str, Any]) -> ExportRequest:
    """Raises ValueError when an option is not what it should be."""
    uri = "gs://" + "/".join(split_uri(options["output_uri_prefix"]))
    snapshot_time = parse_time(options["snapshot_time"]) if options["snapshot_time"] else None
    if snapshot_time is not None:
        must_be_snapshot_time(snapshot_time, utc_now())
    return ExportRequest(uri, options["collection_ids"], options["namespace_ids"], snapshot_time)


def _diff(request: ExportRequest, plan: Plan) -> dict[str, Any]:
    if plan.action != STARTED:
        return {}
    what = ", ".join(request.collection_ids) or "all collections"
    return {"diff": {"before": "", "after": f"{request.uri}: {what}\n"}}


if __name__ == "__main__":
    main()
