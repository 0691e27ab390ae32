#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_exports
short_description: Remove Firestore exports whose backup sets are gone
version_added: 1.0.0
description:
  - Removes exports from a bucket of Cloud Storage together with the backup sets that recorded them, and finds those
    that belong to no set.
  - An export loses its C(.overall_export_metadata) first. One that is half removed cannot be imported, and the next
    run removes the rest.
  - Exports are expected at C(<folder>/<set id>/<name>), where the role P(upkeep.ops.database_backup#role) puts them.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: What would be removed is returned with its size.
  idempotent:
    support: full
options:
  folder:
    description: Folder of all exports in the bucket, such as V(gs://example-backups/firestore).
    type: str
    required: true
  name:
    description: Name of the database in the exports' addresses.
    type: str
    required: true
  absent:
    description:
      - Exports to remove. One that is gone already is no error.
      - An export that does not lie in a folder with the id of its set is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      set:
        description: Id of the set that recorded it.
        type: str
        required: true
      uri:
        description: Its address.
        type: str
        required: true
      part:
        description: Name of the part that it is, as M(upkeep.ops.backup_retention) returns it. Nothing depends on it.
        type: str
  known:
    description: Ids of all sets that there are. An export of any other set is an orphan.
    type: list
    elements: str
    default: []
  orphans:
    description:
      - Whether orphans are V(ignored), V(listed), or V(removed).
      - Where several hosts put their exports into one folder, the exports of the others look like orphans here.
    type: str
    choices: [ignored, listed, removed]
    default: listed
  orphan_age:
    description: What was written within this time may still be in the making, and is no orphan. A duration.
    type: str
    default: 24h
  timeout:
    description: Seconds that one request may take, with all its tries.
    type: float
    default: 30
seealso:
  - module: upkeep.ops.backup_retention
  - module: upkeep.ops.firestore_export
"""

EXAMPLES = r"""
- name: Remove the export of a set that is gone
  upkeep.ops.firestore_exports:
    project: example-project
    folder: gs://example-backups/firestore
    name: main
    orphans: ignored
    absent:
      - set: 20260131T235959Z
        uri: gs://example-backups/firestore/20260131T235959Z/main

- name: List what belongs to no set
  upkeep.ops.firestore_exports:
    project: example-project
    folder: gs://example-backups/firestore
    name: main
    known: [20260201T235959Z]
  register: exports
"""

RETURN = r"""
removed:
  description: The exports that were removed, or would be in check mode; orphans among them.
  returned: success
  type: list
  elements: dict
  contains: &export
    set:
      description: Id of the set that it belonged to.
      type: str
    uri:
      description: Its address.
      type: str
    objects:
      description: Number of its objects.
      type: int
    bytes:
      description: Their size.
      type: int
    changed_at:
      description: When the last of them was written, RFC 3339 in UTC.
      type: str
orphans:
  description: The exports that belong to no set, oldest first, also when they were removed.
  returned: success
  type: list
  elements: dict
  contains: *export
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSetError
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
    storage_client,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_exports import (
    Exports,
    old_enough,
    require_own_folder,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_EXPORT = {
    "set": {"type": "str", "required": True},
    "uri": {"type": "str", "required": True},
    "part": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "folder": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "absent": {"type": "list", "elements": "dict", "default": [], "options": _EXPORT},
            "known": {"type": "list", "elements": "str", "default": []},
            "orphans": {"type": "str", "choices": ["ignored", "listed", "removed"], "default": "listed"},
            "orphan_age": {"type": "str", "default": "24h"},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        target = Target.of(params, os.environ)
        age = parse_duration(params["orphan_age"])
        for wanted in params["absent"]:
            require_own_folder(wanted["set"], wanted["uri"])
        exports = Exports(lambda: storage_client(target), target.storage_url, params["timeout"])
        gone = {wanted["set"] for wanted in params["absent"]}
        found = [exports.look(wanted["set"], wanted["uri"]) for wanted in params["absent"]]
        doomed = [export for export in found if export is not None]
        orphans = []
        if params["orphans"] != "ignored":
            every = exports.orphans(params["folder"], params["name"], gone.union(params["known"]))
            orphans = [export for export in every if old_enough(export, utc_now(), age)]
        if params["orphans"] == "removed":
            doomed += orphans
        for export in doomed if not module.check_mode else []:
            exports.remove(export)
    except (MissingDependencyError, FirestoreAccessError, BackupSetError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(doomed),
        removed=[export.as_dict() for export in doomed],
        orphans=[export.as_dict() for export in orphans],
    )


if __name__ == "__main__":
    main()
