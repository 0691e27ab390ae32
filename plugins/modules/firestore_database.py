#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firestore_database
short_description: Create, find and delete Firestore databases
version_added: 1.0.0
description:
  - Creates a database for a restore or a test, and deletes one that was named twice. Both are waited for.
  - A deleted database is gone with all its documents, and its name cannot be used again for some minutes.
  - The account needs the role C(roles/datastore.owner).
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._firestore_connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) creates O(database) in native mode unless it is there. Nothing of one that is there is changed.
      - V(absent) deletes it with everything in it.
      - V(found) returns the databases of the project.
    type: str
    choices: [present, absent, found]
    default: present
  location:
    description: Where a new database lives, such as V(eur3). It can never be changed.
    type: str
  confirm:
    description: The name of the database once more, for O(state=absent).
    type: str
    default: ""
  timeout:
    description: How long to wait for Firestore. It goes on when the time is over.
    type: str
    default: 10m
  poll_interval:
    description: Longest pause between two looks at the operation. The first pauses are shorter.
    type: str
    default: 5s
seealso:
  - module: upkeep.ops.firestore_import
"""

EXAMPLES = r"""
- name: Create a database for a test
  upkeep.ops.firestore_database:
    project: example-project
    database: restore-test
    location: eur3

- name: Look which databases there are
  upkeep.ops.firestore_database:
    project: example-project
    state: found
  register: databases

- name: Delete it again
  upkeep.ops.firestore_database:
    project: example-project
    database: restore-test
    state: absent
    confirm: restore-test
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: created projects/example-project/databases/restore-test in eur3
databases:
  description:
    - The database that the task was about, or with O(state=found) all of the project. Empty when there is none.
    - In check mode it is what would be there.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its name, the last part of its full name.
      type: str
      sample: restore-test
    location:
      description: Where it lives.
      type: str
      sample: eur3
    created_at:
      description:
        - When it was created, RFC 3339 in UTC. Null when Firestore does not tell, and for one that would be created.
      type: str
      sample: "2026-01-31T23:59:59Z"
    protected:
      description: Whether Firestore refuses to delete it.
      type: bool
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    CONNECTION_OPTIONS,
    FirestoreAccessError,
    Target,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_databases import (
    Database,
    DatabaseError,
    Databases,
    must_be_confirmed,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration

_LONGEST_REQUEST = 30.0  # seconds


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "state": {"type": "str", "choices": ["present", "absent", "found"], "default": "present"},
            "location": {"type": "str"},
            "confirm": {"type": "str", "default": ""},
            "timeout": {"type": "str", "default": "10m"},
            "poll_interval": {"type": "str", "default": "5s"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (ValueError, MissingDependencyError, FirestoreAccessError, DatabaseError) as error:
        module.fail_json(msg=str(error))


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module returns."""
    options = module.params
    target = Target.of(options, os.environ)
    if options["state"] == "absent":
        must_be_confirmed(target.database, options["confirm"])
    timeout = parse_duration(options["timeout"])
    patience = Patience(timeout, parse_duration(options["poll_interval"]), time.monotonic, time.sleep)
    databases = Databases(target, min(timeout, _LONGEST_REQUEST), patience)
    if options["state"] == "found":
        found = databases.all()
        return _answer(False, f"{len(found)} databases in the project {target.project}", found)
    there = databases.find(target.database)
    if options["state"] == "absent":
        return _absent(databases, target, there, module.check_mode)
    return _present(databases, target, there, options["location"], module.check_mode)


def _present(
    databases: Databases, target: Target, there: Database | None, location: str | None, check_mode: bool
) -> dict[str, Any]:
    if there is not None:
        settled = there if check_mode else databases.await_creation(target.database)
        return _answer(False, f"{target.name} is there, in {settled.location}", [settled])
    if not location:
        raise ValueError(f"{target.name} is not there: set location to have it created")
    if check_mode:
        made, done = Database(target.database, location, None, False), "would create"
    else:
        made, done = databases.create(target.database, location), "created"
    return {**_answer(True, f"{done} {target.name} in {location}", [made]), "diff": _diff("", target.name)}


def _absent(databases: Databases, target: Target, there: Database | None, check_mode: bool) -> dict[str, Any]:
    if there is None:
        return _answer(False, f"{target.name} is not there", [])
    if there.protected:
        raise DatabaseError(f"{target.name} is protected against deletion: take the protection away first")
    if not check_mode:
        databases.delete(target.database)
    done = "would delete" if check_mode else "deleted"
    return {**_answer(True, f"{done} {target.name}", []), "diff": _diff(target.name, "")}


def _answer(changed: bool, message: str, found: list[Database]) -> dict[str, Any]:
    return {"changed": changed, "msg": message, "databases": [database.as_dict() for database in found]}


def _diff(before: str, after: str) -> dict[str, str]:
    return {"before": before and f"{before}\n", "after": after and f"{after}\n"}


if __name__ == "__main__":
    main()
