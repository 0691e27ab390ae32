#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_usage
short_description: Count the documents of Firestore, and judge growth, indexes and orphans
version_added: 1.0.0
description:
  - Counts documents per collection group, at a cost of one read for each thousand of them, and says how the groups grew
    since an earlier run (O(samples_file)).
  - Holds C(firestore.indexes.json) against the indexes and TTL policies of the database, and with an emulator against
    the indexes that the queries needed which it was asked.
  - On request it searches orphans, documents below one that is not there. That costs a read for each document of the
    database. What it would cost is always told, and it is not done when that is more than O(orphans_max_reads).
  - Firestore tells nobody how long queries take, nor which of its indexes serve them. A missing index makes a query
    fail rather than slow, and for the rest there is Query Insights in Google's console. So what this module can say of
    queries is which indexes they need.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Counts, but keeps no sample and searches no orphans.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: A sample is added at most once an hour.
options:
  collections:
    description:
      - Collection groups to count. Firestore lists only those at the root. What lies in others is a warning with its
        number of documents.
      - Without any these are the collections at the root and those that have indexes or TTL policies.
    type: list
    elements: str
    default: []
  name:
    description:
      - What to call the database in metrics and findings, whose subject is C(firestore:<name>).
      - The default is O(database).
    type: str
  samples_file:
    description:
      - File on this host in which the counts are kept for the next run, one JSON object per line. Several databases may
        share it.
      - Without it growth is not judged.
    type: path
  growth_warning_percent:
    description: Growth of a group in percent a day from which on it is a warning.
    type: float
    default: 10
  growth_min_documents:
    description: Growth by fewer documents a day is never a warning.
    type: float
    default: 1000
  indexes_file:
    description: A C(firestore.indexes.json) on this host. Without it only the state of indexes is judged.
    type: path
  orphans:
    description:
      - Whether to search orphans.
      - In check mode the price is told and nothing is searched. Otherwise the system log and O(progress_file) tell it
        before the search begins.
    type: bool
    default: false
  orphans_max_reads:
    description: How many reads the search may cost at most.
    type: int
    default: 50000
  timeout:
    description: Seconds that one request may take, repetitions included.
    type: float
    default: 30
  progress_file:
    description: File to which the progress of the search is written about once a second, one JSON object per line.
    type: path
seealso:
  - module: upkeep.ops.firestore_cleanup
"""

EXAMPLES = r"""
- name: Count, and hold the indexes against those of the repository
  upkeep.ops.firestore_usage:
    project: example-project
    collections: [users, orders, items, sessions]
    samples_file: /var/lib/upkeep/firestore.jsonl
    indexes_file: /srv/platform/firestore.indexes.json

- name: Search orphans, when that costs no more than 200000 reads
  upkeep.ops.firestore_usage:
    project: example-project
    orphans: true
    orphans_max_reads: 200000
"""

RETURN = r"""
msg:
  description: Why nothing could be told, or the worst findings.
  returned: failure
  type: str
documents:
  description: Documents of the database.
  returned: success, and when the task fails by its findings
  type: int
  sample: 48211
uncounted:
  description: Documents in collection groups that were not named. Null when that could not be counted.
  returned: success, and when the task fails by its findings
  type: int
groups:
  description: The collection groups, largest first.
  returned: success, and when the task fails by its findings
  type: list
  elements: dict
  contains:
    collection_group:
      description: Its id.
      type: str
      sample: sessions
    documents:
      description: Documents in it.
      type: int
      sample: 40000
    before:
      description: Documents in it about a day ago or earlier. Null without such a sample.
      type: int
    before_at:
      description: When that was. Null without such a sample.
      type: str
      sample: "2026-01-30T23:59:59Z"
    per_day:
      description: Growth a day since then. Null without such a sample.
      type: float
indexes:
  description: The indexes of the database but for those that Firestore makes by itself.
  returned: success, and when the task fails by its findings
  type: list
  elements: dict
  contains:
    index:
      description: Collection group and fields.
      type: str
      sample: users (active ascending, created_at descending)
    state:
      description: State of the index.
      type: str
      sample: READY
    queries:
      description: Queries that needed it since the emulator was started. Null when there is no emulator, or none did.
      type: int
ttl_policies:
  description: The TTL policies.
  returned: success, and when the task fails by its findings
  type: list
  elements: dict
  contains:
    collection_group:
      description: Whose documents expire.
      type: str
    field:
      description: Field with the time at which they do.
      type: str
    state:
      description: State of the policy.
      type: str
      sample: ACTIVE
orphans:
  description: Documents below one that is not there.
  returned: success, and when the task fails by its findings
  type: dict
  contains:
    searched:
      description: Whether they were searched.
      type: bool
    reason:
      description: Why not; empty when they were.
      type: str
    reads_estimated:
      description: Reads that the search costs.
      type: int
    count:
      description: How many there are.
      type: int
    groups:
      description: How many in which collection group.
      type: dict
      sample: {orders: 3}
    examples:
      description: Paths of some.
      type: list
      elements: str
metrics:
  description: Figures for trends.
  returned: success, and when the task fails by its findings
  type: dict
  sample: {"firestore_documents:main": 48211, "firestore_documents:main/sessions": 40000}
findings:
  description:
    - What was found, worst first. Checks are C(firestore_documents), C(firestore_growth), C(firestore_orphans),
      C(firestore_indexes_built), C(firestore_indexes_missing), C(firestore_indexes_unused),
      C(firestore_indexes_missing_by_queries) and C(firestore_indexes_unused_by_queries).
  returned: success, and when the task fails by its findings
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: success, and when the task fails by its findings
  type: str
summary:
  description: Number of findings of each status.
  returned: success, and when the task fails by its findings
  type: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import Documents
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_indexes import IndexesFileError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_usage_run import Look
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "collections": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str"},
            "samples_file": {"type": "path"},
            "growth_warning_percent": {"type": "float", "default": 10},
            "growth_min_documents": {"type": "float", "default": 1000},
            "indexes_file": {"type": "path"},
            "orphans": {"type": "bool", "default": False},
            "orphans_max_reads": {"type": "int", "default": 50000},
            "timeout": {"type": "float", "default": 30},
            "progress_file": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    try:
        look = run(module)
    except (ValueError, OSError, MissingDependencyError, FirestoreAccessError, IndexesFileError) as error:
        module.fail_json(msg=str(error))
    exit_with_findings(module, look.found.findings, **look.answer)


def run(module: AnsibleModule) -> Look:
    """The look at the database, with its findings and the rest of the answer."""
    options = {**module.params, "check_mode": module.check_mode}
    target, now = Target.of(options, os.environ), utc_now()
    look = Look(target, options, now, FindingsBuilder(now))
    heard_of = look.indexes()
    usage = look.count(LiveCounts(target, options["timeout"]), heard_of)
    progress_file = options["progress_file"] if options["orphans"] and not module.check_mode else ""
    what = f"search for orphans in {target.name}"
    with Progress(what, progress_file or "", time.monotonic, module.log, "documents") as progress:
        look.orphans(usage, Documents(target, options["timeout"]), progress, module.log)
    return look


if __name__ == "__main__":
    main()
