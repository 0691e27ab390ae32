#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_verify
short_description: Prove that a Firestore export is still whole
version_added: 1.0.0
description:
  - Holds an export in a bucket of Cloud Storage against the record of it that a backup set keeps.
  - "Level 1, check C(export_metadata): the overall metadata is in the bucket, and lists as many documents and bytes as
    were recorded."
  - "Level 2, check C(export_content): every file of the export is read back, every CRC32C is right, nothing is missing
    or there twice, and documents, bytes and collections are those that were recorded."
  - "Level 4, check C(export_live): the live database has about as many documents in each collection group. An export
    with a C(snapshot_time) is compared with what the database held at that very time, as long as it remembers, and then
    nothing may differ. A database that cannot be reached is unknown. One that differs by more than O(live_tolerance)
    is a warning, because it may be the database that has lost documents: the export is then needed most."
  - Only reads. Below level 4 the database is not asked.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._firestore_connection
  - upkeep.ops._checks
options:
  path:
    description: JSON file with the record of the export, as M(upkeep.ops.firestore_export) returned it in C(export).
    type: path
    required: true
  name:
    description: Name of the export in findings. The default is the name of the file.
    type: str
  level:
    description:
      - Up to which level to verify.
      - V(3) is done as V(2), because to load an export takes a database.
      - From V(2) on it reads as many bytes as the export has, and keeps one number for each document in memory.
      - V(4) counts documents in the database, for which Google bills a read for each 1,000 documents.
    type: int
    choices: [1, 2, 3, 4]
    default: 2
  live_tolerance:
    description:
      - By how many percent the documents of a collection group may differ on level 4.
      - Ten documents more or less are never a difference.
    type: float
    default: 20
  timeout:
    description: Seconds that one request to the bucket or to the database may take.
    type: float
    default: 30
seealso:
  - module: upkeep.ops.firestore_export
  - module: upkeep.ops.backup_set
"""

EXAMPLES = r"""
- name: Read the export of a backup set back
  upkeep.ops.firestore_verify:
    project: example-project
    path: /var/backups/upkeep/20260131T235959Z/firestore/main.json
    name: firestore:main

- name: Compare it with the database too
  upkeep.ops.firestore_verify:
    project: example-project
    path: /var/backups/upkeep/20260131T235959Z/firestore/main.json
    level: 4
"""

RETURN = r"""
findings:
  description: What was found, worst first. What cannot be reached is V(unknown), what is spoiled V(critical).
  returned: always
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
verification:
  description: What was found out about the export.
  returned: always
  type: dict
  contains:
    level:
      description: Highest level that the export passed; 0 for none.
      type: int
    documents:
      description: Documents that were read back. Null when it was not read back whole.
      type: int
    bytes:
      description: Bytes that were read back. Null like RV(verification.documents).
      type: int
    collections:
      description: Documents that were read back by collection group. Null like RV(verification.documents).
      type: dict
    live:
      description: Documents that the database has by collection group. Null when they were not counted.
      type: dict
    live_at:
      description: The past time at which the database had them. Null when they were counted now or not at all.
      type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_use import reading
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import Opener
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_storage import bucket_opener
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_verify import (
    Live,
    RecordError,
    Verification,
    read_record,
    verify_record,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "path": {"type": "path", "required": True},
            "name": {"type": "str"},
            "level": {"type": "int", "choices": [1, 2, 3, 4], "default": 2},
            "live_tolerance": {"type": "float", "default": 20},
            "timeout": {"type": "float", "default": 30},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    options = module.params
    subject = options["name"] or os.path.basename(options["path"])
    found = FindingsBuilder(utc_now())
    verification = Verification()
    try:
        target = Target.of(options, os.environ)

        def open_bucket(bucket: str) -> Opener:
            return bucket_opener(storage_client(target), bucket, target.storage_url, options["timeout"])

        live = Live(lambda moment: LiveCounts(target, options["timeout"], moment), options["live_tolerance"])
        with reading(options["path"]):
            record = read_record(options["path"])
            verification = verify_record(record, subject, options["level"], open_bucket, found, live)
    except (RecordError, OSError) as error:
        hint = "Do not restore it from this set; take a new one"
        found.add("export_metadata", subject, "critical", str(error), hint=hint)
    except (MissingDependencyError, FirestoreAccessError) as error:
        hint = "Remove the cause, then verify again"
        found.add("export_metadata", subject, "unknown", str(error), hint=hint)
    except ValueError as error:
        module.fail_json(msg=str(error))
    exit_with_findings(module, found.findings, verification=verification.as_dict())


if __name__ == "__main__":
    main()
