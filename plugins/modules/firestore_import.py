#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_import
short_description: Import an export into a Firestore database and prove the result
version_added: 1.0.0
description:
  - Starts a managed import through Firestore's Admin API, waits for it, and judges it by the documents that are there
    in the end.
  - B(An import merges.) It writes every document of the export over the one of the same name, brings back those that
    were deleted, and leaves all that the export does not hold. A database that was imported into is therefore not what
    it was when it was exported, unless O(exact) says how it becomes so. What would stay is told in check mode, and
    what stayed in the result.
  - Before anything is written or deleted the export is read back whole, and the CRC of each record, counts, sizes,
    duplicates and missing files are checked. After the import documents are counted and held against the export.
  - Run again while an import of the same export goes on, the module resumes waiting for it, also when an earlier
    run was killed. Of other operations that go on in the database O(running_operations) says what becomes.
  - An import costs one write for each document. The account needs the role C(roles/datastore.importExportAdmin) and
    read access to the objects of the bucket; for V(fresh_database) C(roles/datastore.owner) and for V(delete_first)
    C(roles/datastore.bulkAdmin). The bucket must be in or near the location of the database.
  - Values that are references may go on naming the database that was exported. Where one is restored under another name
    for good, look at them.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
attributes:
  check_mode:
    support: full
    details: Reads the export back and counts documents; tells how many would stay that the export does not hold.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - An import that goes on is resumed. With O(exact=fresh_database) one that is done is found.
      - Otherwise documents may have changed since, and the import is made again.
options:
  input_uri_prefix:
    description:
      - Folder of the export in a bucket of Cloud Storage, as M(upkeep.ops.firestore_export) returned it in
        C(output_uri_prefix).
      - Either this or O(path) is needed.
    type: str
  path:
    description: >-
      Record of the export in a backup set, such as V(/var/backups/upkeep/20260131T235959Z/firestore/main.json).
    type: path
  collection_ids:
    description:
      - Collection groups to import. Without any the whole export is imported.
      - Firestore takes parts only of an export that was made with collection ids. Of another one they are refused.
    type: list
    elements: str
    default: []
  exact:
    description:
      - How the database becomes what was exported.
      - V(merge) does not make it so - what the export does not hold stays.
      - V(fresh_database) imports into a database that is created for it in O(location), or is there and empty. One that
        holds documents is refused.
      - V(delete_first) deletes all documents of the groups O(delete_collections) before it imports. Between the two the
        database is without them, so stop what uses it, and export it first.
    type: str
    choices: [merge, fresh_database, delete_first]
    default: merge
  delete_collections:
    description:
      - Collection groups whose documents are deleted, at any depth, with O(exact=delete_first). There is no way to name
        all of them at once.
      - A group that the export does not hold is empty afterwards.
    type: list
    elements: str
    default: []
  confirm:
    description: The name of the database once more, needed for O(exact=delete_first).
    type: str
    default: ""
  running_operations:
    description:
      - What becomes of other imports into the database and other deletions of its documents that go on, begun by others
        or by a run that was killed. Beside one of them no import ends with what it should.
      - V(refuse) leaves them alone and fails, V(wait) waits for their end, V(cancel) cancels them and waits for it.
      - An import or deletion that is the same as this one is resumed in any case.
    type: str
    choices: [refuse, wait, cancel]
    default: refuse
  lock_file:
    description:
      - File on this host that keeps modules apart which import into the database. One that works on after its run was
        killed is waited for; with V(cancel) of O(running_operations) the operation that it waits for is cancelled.
      - Its folder is made with mode 0700.
    type: path
  location:
    description: Where a database is created for O(exact=fresh_database), such as V(eur3). It can never be changed.
    type: str
    default: ""
  count_tolerance:
    description:
      - By how many percent the documents of a collection group may differ from the export after the import.
      - After a merge there may be more in any case.
    type: float
    default: 0
  timeout:
    description:
      - How long to wait for each operation, such as V(30m) or V(4h). It goes on when the time is over.
      - One request takes at most 30 seconds of it.
    type: str
    default: 4h
  poll_interval:
    description: Longest pause between two looks at the operation. The first pauses are shorter.
    type: str
    default: 10s
  progress_file:
    description: File to which progress is written about once a second, one JSON object per line.
    type: path
seealso:
  - module: upkeep.ops.firestore_export
  - module: upkeep.ops.firestore_database
"""

EXAMPLES = r"""
- name: Write the documents of a backup set over those of the database
  upkeep.ops.firestore_import:
    project: example-project
    path: /var/backups/upkeep/20260131T235959Z/firestore/main.json

- name: Restore into a new database, which is then exactly what was exported
  upkeep.ops.firestore_import:
    project: example-project
    database: restored-20260131
    input_uri_prefix: gs://example-backups/firestore/20260131T235959Z/main
    exact: fresh_database
    location: eur3

- name: Put two collection groups back exactly, on services that were stopped
  upkeep.ops.firestore_import:
    project: example-project
    input_uri_prefix: gs://example-backups/firestore/users-20260131
    collection_ids: [users, orders]
    exact: delete_first
    delete_collections: [users, orders]
    confirm: (default)
"""

RETURN = r"""
msg:
  description: What was done, in one sentence, with what stayed that the export does not hold.
  returned: always
  type: str
  sample: >-
    imported 48211 documents from gs://example-backups/firestore/20260131T235959Z/main into
    projects/example-project/databases/(default); at least 12 documents that the export does not hold stayed (users 12):
    an import merges, it removes nothing
action:
  description:
    - What was, or in check mode would be, done. V(started) a new import, V(resumed) one that was going, or V(found) a
      finished one in a fresh database.
  returned: success
  type: str
  sample: started
import:
  description: The import.
  returned: success when one was made or waited for, and on failure when its documents are not what was wanted
  type: dict
  contains:
    operation:
      description: Full name of the operation.
      type: str
      sample: projects/example-project/databases/(default)/operations/ASA1MTAwNDQxNQ
    input_uri_prefix:
      description: Where the export lies.
      type: str
      sample: gs://example-backups/firestore/20260131T235959Z/main
    documents:
      description: Documents that Firestore says it imported.
      type: int
      sample: 48211
    bytes:
      description: Bytes that Firestore says it imported.
      type: int
      sample: 31457280
    started_at:
      description: When the import began. Null when Firestore does not tell.
      type: str
      sample: "2026-01-31T23:59:59Z"
    ended_at:
      description: When the import ended. Null when Firestore does not tell.
      type: str
      sample: "2026-02-01T00:03:11Z"
    seconds:
      description: How long the import took. Null when Firestore does not tell.
      type: float
      sample: 192.4
    state:
      description: State of the operation.
      type: str
      sample: SUCCESSFUL
others:
  description: Names of other operations that were cancelled or waited for first, or would be in check mode.
  returned: success when there were any
  type: list
  elements: str
  sample: ["projects/example-project/databases/(default)/operations/ASA1MTAwNDQxNQ"]
counts:
  description:
    - Documents of each collection group that the export holds, that is deleted, or that is at the root of the database.
  returned: success, and on failure when documents are not what was wanted
  type: list
  elements: dict
  contains:
    collection:
      description: Id of the collection group.
      type: str
      sample: users
    exported:
      description: Documents in the export.
      type: int
      sample: 8211
    before:
      description: Documents in the database before the import. In check mode after the deletion that would come first.
      type: int
      sample: 8220
    after:
      description: Documents in the database after the import. Null when none was made.
      type: int
      sample: 8223
    beyond:
      description: How many more there are, or would be, than the export holds. There may be more of them than this.
      type: int
      sample: 12
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import Operation
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_databases import (
    DatabaseError,
    must_be_confirmed,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import ExportFormatError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_import import (
    DELETE_FIRST,
    FRESH_DATABASE,
    MERGE,
    ImportFailedError,
    ImportRequest,
    importer_of,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_running import (
    CANCEL,
    REFUSE,
    WAIT,
    RunningError,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import split_uri
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_verify import RecordError, read_record
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration

_LONGEST_REQUEST = 30.0  # seconds


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "input_uri_prefix": {"type": "str"},
            "path": {"type": "path"},
            "collection_ids": {"type": "list", "elements": "str", "default": []},
            "exact": {"type": "str", "choices": [MERGE, FRESH_DATABASE, DELETE_FIRST], "default": MERGE},
            "delete_collections": {"type": "list", "elements": "str", "default": []},
            "confirm": {"type": "str", "default": ""},
            "running_operations": {"type": "str", "choices": [REFUSE, WAIT, CANCEL], "default": REFUSE},
            "lock_file": {"type": "path"},
            "location": {"type": "str", "default": ""},
            "count_tolerance": {"type": "float", "default": 0.0},
            "timeout": {"type": "str", "default": "4h"},
            "poll_interval": {"type": "str", "default": "10s"},
            "progress_file": {"type": "path"},
        },
        required_one_of=[["input_uri_prefix", "path"]],
        mutually_exclusive=[["input_uri_prefix", "path"]],
        supports_check_mode=True,
    )
    try:
        with reading(module.params["path"]):
            answer = run(module)
        module.exit_json(**answer)
    except ImportFailedError as error:
        module.fail_json(msg=str(error), **(error.told or {}))
    except (
        ValueError, OSError, MissingDependencyError, FirestoreAccessError, DatabaseError, ExportFormatError,
        RecordError, RunningError, LockError,
    ) as error:  # fmt: skip
        module.fail_json(msg=str(error))


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module returns."""
    options = module.params
    target = Target.of(options, os.environ)
    request = request_of(options, target)
    timeout = parse_duration(options["timeout"])
    patience = Patience(timeout, parse_duration(options["poll_interval"]), time.monotonic, time.sleep)
    one_request = min(timeout, _LONGEST_REQUEST)
    progress_file = "" if module.check_mode else options["progress_file"] or ""
    with Progress(f"import of {request.uri}", progress_file, time.monotonic, module.log) as progress:

        def tell(operation: Operation) -> None:
            progress(operation.bytes, operation.bytes_expected or None)

        policy = options["running_operations"]
        importer = importer_of(request, target, one_request, patience, policy, tell)
        with importer.alone("" if module.check_mode else options["lock_file"] or ""):
            plan = importer.plan()
            answer = importer.predict(plan) if module.check_mode else importer.carry_out(plan)
        progress.finish(answer.get("import", {}).get("bytes", 0))
    return {**answer, **({"diff": {"before": "", "after": f"{answer['msg']}\n"}} if answer["changed"] else {})}


def request_of(options: dict[str, Any], target: Target) -> ImportRequest:
    """Raises ValueError when an option is not what it should be, RecordError and OSError for a bad record."""
    if options["exact"] == DELETE_FIRST:
        must_be_confirmed(target.database, options["confirm"])
    uri = options["input_uri_prefix"] or read_record(options["path"]).uri
    given = {name: options[name] for name in ("collection_ids", "delete_collections", "location", "count_tolerance")}
    request = ImportRequest("gs://" + "/".join(split_uri(uri)), target.name, mode=options["exact"], **given)
    request.check()
    return request


if __name__ == "__main__":
    main()
