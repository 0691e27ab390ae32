#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_cleanup
short_description: Delete old documents of Firestore, so that nothing else is lost
version_added: 1.0.0
description:
  - Deletes documents of collection groups whose time field is older than an age. Unless O(state=cleaned) it only counts
    and tells what it would delete.
  - It demands a verified backup set of the database that is younger than O(backup_max_age), with the export still in
    its bucket, and deletes no document that was changed after that set was opened.
  - Each document is deleted on the condition that it was not changed since it was looked at, in one commit with all
    that lies below it. A document that changed meanwhile stays, and so does all that lies below it.
  - Killed at any moment, it leaves nothing half deleted. Run again, it goes on where it ended.
  - Documents without the time field, or with anything but a time in it, are never matched, and are counted.
  - Afterwards it counts again, and a finding tells when younger documents went missing meanwhile.
  - Counts cost one read for each thousand documents, a clean-up one read for each document that is deleted. Where
    documents of the group have others below them, it costs one more for each document of the group and below it, as
    long as these are not more than 100,000. Of more it asks for each old document what lies below it, which takes
    a call each. RV(groups[].reads_estimated) tells it beforehand.
  - In production a query over a collection group needs an index of that scope on the time field, which Firestore does
    not make by itself. Without it the task says so and deletes nothing.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Asks for the backup set and counts, but deletes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: The age moves with the clock.
options:
  state:
    description:
      - V(planned) counts and tells what would be deleted.
      - V(cleaned) deletes.
    type: str
    choices: [planned, cleaned]
    default: planned
  cleanup:
    description: What is cleaned up, one entry for each collection group.
    type: list
    elements: dict
    required: true
    suboptions:
      collection_group:
        description: Id of the collection group.
        type: str
        required: true
      time_field:
        description: Field that holds the time, such as V(created_at) or V(meta.created_at).
        type: str
        required: true
      older_than:
        description: Age from which on a document is deleted, such as V(365d). At least a day.
        type: str
        required: true
      subcollections:
        description: Whether to delete all documents below a document with it.
        type: bool
        default: false
      allow_orphans:
        description:
          - Whether to delete a document without what lies below it, which then nobody finds who goes from the top.
          - Without this and O(cleanup[].subcollections) a document with others below it stays.
        type: bool
        default: false
      limit:
        description: The most documents that are deleted by one run, those below included. The next run goes on.
        type: int
        default: 10000
  backup_root:
    description:
      - Folder with the backup sets, as M(upkeep.ops.backup_set) makes them. O(state=cleaned) needs it.
      - With O(state=planned) it is only told whether a clean-up would be refused.
    type: path
  backup_max_age:
    description: How old the newest verified set of the database may be. A duration.
    type: str
    default: 26h
  backup_part:
    description:
      - Name of the part of a set that holds the database, such as V(firestore:main).
      - Without it the part is found by the name of the database in the operation of its export.
    type: str
    default: ""
  name:
    description:
      - What to call the database in findings, whose subject is C(firestore:<name>).
      - The default is O(database).
    type: str
  threads:
    description: How many commits go on at a time.
    type: int
    default: 2
  timeout:
    description: Seconds that one request may take, repetitions included.
    type: float
    default: 30
  progress_file:
    description: File to which progress is written about once a second, one JSON object per line.
    type: path
seealso:
  - module: upkeep.ops.firestore_usage
  - module: upkeep.ops.backup_set
"""

EXAMPLES = r"""
- name: Tell what is older than a year
  upkeep.ops.firestore_cleanup:
    project: example-project
    cleanup:
      - collection_group: sessions
        time_field: created_at
        older_than: 365d

- name: Delete it, when there is a backup of today
  upkeep.ops.firestore_cleanup:
    project: example-project
    state: cleaned
    backup_root: /var/backups/upkeep
    backup_max_age: 24h
    cleanup:
      - collection_group: sessions
        time_field: created_at
        older_than: 365d
        limit: 100000
      - collection_group: orders
        time_field: created_at
        older_than: 730d
        subcollections: true
"""

RETURN = r"""
msg:
  description: What was done, would be done, or why nothing was.
  returned: always, but when the task fails by its findings it tells these
  type: str
  sample: deleted 4211 documents of sessions, orders
groups:
  description: One entry for each of O(cleanup). On failure those that were begun.
  returned: when documents were counted
  type: list
  elements: dict
  contains:
    collection_group:
      description: Id of the collection group.
      type: str
    time_field:
      description: The field that holds the time.
      type: str
    cutoff:
      description: What is older than this moment was to be deleted.
      type: str
      sample: "2026-01-31T23:59:59Z"
    total:
      description: Documents of the group before.
      type: int
    old:
      description: Those that are older than RV(groups[].cutoff).
      type: int
    young:
      description: Those that are younger.
      type: int
    without_field:
      description: Those that lack the field.
      type: int
    other_type:
      description: Those that have something else than a time in it.
      type: int
    below_at_most:
      description:
        - Documents of other groups below the same roots. Whatever lies below the old ones is among them.
        - Null when they could not be counted.
      type: int
    reads_estimated:
      description: Reads that the clean-up costs at most, beside counts. Null when that cannot be told.
      type: int
    deleted:
      description: Documents of the group that were deleted.
      type: int
    deleted_below:
      description: Documents below them that were deleted.
      type: int
    gone:
      description: Documents that somebody else deleted meanwhile.
      type: int
    kept:
      description: Old documents that stay, by the reason.
      type: dict
      contains:
        changed:
          description: They changed after they were looked at, or something below them did.
          type: int
        changed_since_backup:
          description: They, or something below them, changed after the backup set was opened.
          type: int
        with_subcollections:
          description: Others lie below them, and neither may these be deleted nor be left.
          type: int
        not_in_backup:
          description: Documents of a group lie below them that the export does not hold.
          type: int
        too_large:
          description: More documents lie below them than can be deleted at once.
          type: int
    limited:
      description: Whether the limit ended it.
      type: bool
    left:
      description: Old documents that are left.
      type: int
    seconds:
      description: How long deleting took.
      type: float
backup_set:
  description: The set that is fallen back to. Null when none was asked for, or none will do.
  returned: success
  type: dict
  contains:
    id:
      description: Its id.
      type: str
      sample: 20260131T235959Z
    age:
      description: Seconds since it was opened.
      type: int
findings:
  description:
    - What was found, worst first. Checks are C(firestore_cleanup), C(firestore_cleanup_loss) and
      C(firestore_cleanup_backup), subjects C(firestore:<name>), some with C(/<collection group>).
  returned: when documents were counted
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: when documents were counted
  type: str
summary:
  description: Number of findings of each status.
  returned: when documents were counted
  type: str
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup_run import CleanupError, Request, Services
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_RULE = {
    "collection_group": {"type": "str", "required": True},
    "time_field": {"type": "str", "required": True},
    "older_than": {"type": "str", "required": True},
    "subcollections": {"type": "bool", "default": False},
    "allow_orphans": {"type": "bool", "default": False},
    "limit": {"type": "int", "default": 10000},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "state": {"type": "str", "choices": ["planned", "cleaned"], "default": "planned"},
            "cleanup": {"type": "list", "elements": "dict", "required": True, "options": _RULE},
            "backup_root": {"type": "path"},
            "backup_max_age": {"type": "str", "default": "26h"},
            "backup_part": {"type": "str", "default": ""},
            "name": {"type": "str"},
            "threads": {"type": "int", "default": 2},
            "timeout": {"type": "float", "default": 30},
            "progress_file": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        required_if=[("state", "cleaned", ("backup_root",))],
        supports_check_mode=True,
    )
    stop_by_exception()
    try:
        findings, answer = run(module)
    except CleanupError as error:
        module.fail_json(msg=str(error), groups=error.groups, changed=error.changed)
    except (ValueError, OSError, MissingDependencyError, FirestoreAccessError, StoppedError) as error:
        module.fail_json(msg=f"nothing was deleted: {error}")
    exit_with_findings(module, findings, **answer)


def run(module: AnsibleModule) -> tuple[list[Any], dict[str, Any]]:
    """The findings and the rest of the answer."""
    options = module.params
    target = Target.of(options, os.environ)
    request = Request.of(options, target, module.check_mode, utc_now())
    progress_file = "" if module.check_mode else options["progress_file"] or ""
    what = f"clean-up of {target.name}"
    with Progress(what, progress_file, time.monotonic, module.log, "documents") as progress:
        return request.carry_out(Services.of(target, options["timeout"], utc_now, time.monotonic, progress))


if __name__ == "__main__":
    main()
