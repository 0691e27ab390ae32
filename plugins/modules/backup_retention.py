#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_retention
short_description: Remove backup sets that no rule keeps
version_added: 1.0.0
description:
  - Decides for each backup set below a folder whether it stays, tells why, and removes the others.
  - "Each rule keeps the newest verified set of each of the last so many hours, days, weeks (ISO), months or years that
    have one, in UTC. A set that any rule wants stays."
  - A set that was never proved fills no place. It stays until a newer one is verified, and so does one that failed.
  - Held sets, the newest verified one (when none is verified the newest complete one) and the newest one that was
    restored in a drill always stay. So does a set that is dated in the future. Without any rule nothing is removed.
  - Safety sets of recoveries fill no place. They go when their hold is over and another set is verified.
  - A set that a drill, a copy, a verification or a restore reads in this moment stays, and goes with a later run.
  - A set loses its name before its files are removed. A run that was killed leaves nothing that could be taken for a
    set, and the next one goes on where it stopped.
notes:
  - What a set only records, such as a Firestore export, lies elsewhere and stays there. Such a set is remembered and
    returned in RV(expired) until O(state=finished) is told that its exports are removed.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
    details: Returns what would go and what would stay, each with the reason.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  root:
    description: Folder that holds the backup sets.
    type: path
    required: true
  state:
    description:
      - V(applied) applies O(keep).
      - V(finished) forgets the sets O(ids), whose exports are removed.
    type: str
    choices: [applied, finished]
    default: applied
  keep:
    description: The rules.
    type: dict
    default: {}
    suboptions:
      last:
        description: Keep the last so many verified sets.
        type: int
        default: 0
      hourly:
        description: Keep one set for each of the last so many hours that have one.
        type: int
        default: 0
      daily:
        description: Keep one set for each of the last so many days that have one.
        type: int
        default: 0
      weekly:
        description: Keep one set for each of the last so many weeks that have one.
        type: int
        default: 0
      monthly:
        description: Keep one set for each of the last so many months that have one.
        type: int
        default: 0
      yearly:
        description: Keep one set for each of the last so many years that have one.
        type: int
        default: 0
      within:
        description:
          - Keep all sets that were made within this time before the newest verified one. A duration such as V(7d).
          - It is not counted from today. Where backups stopped, the last sets do not go one by one.
        type: str
        default: 0s
  ids:
    description: Ids of sets, for O(state=finished).
    type: list
    elements: str
    default: []
seealso:
  - module: upkeep.ops.backup_set
  - module: upkeep.ops.firestore_exports
"""

EXAMPLES = r"""
- name: Keep a week of days, a month of weeks and a year of months
  upkeep.ops.backup_retention:
    root: /var/backups/upkeep
    keep:
      daily: 7
      weekly: 4
      monthly: 12
  register: retention

- name: Forget the sets whose exports are removed
  upkeep.ops.backup_retention:
    root: /var/backups/upkeep
    state: finished
    ids: "{{ retention.expired | map(attribute='set') | unique | list }}"
"""

RETURN = r"""
msg:
  description: What was done.
  returned: success
  type: str
  sample: 12 backup sets are kept, 1 is removed
kept:
  description: The sets that stay, newest first.
  returned: success and O(state=applied)
  type: list
  elements: dict
  contains: &set
    id:
      description: Its id.
      type: str
    state:
      description: V(complete), V(verified) or V(failed).
      type: str
    bytes:
      description: Size of its files.
      type: int
    reason:
      description: Why it stays, or why it goes.
      type: str
      sample: the newest verified one; daily (2026-01-31)
removed:
  description: The sets that go, newest first.
  returned: success and O(state=applied)
  type: list
  elements: dict
  contains: *set
resumed:
  description: Ids of sets that an earlier run began to remove.
  returned: success and O(state=applied)
  type: list
  elements: str
in_use:
  description: Ids of sets that would go, and stay because somebody reads them.
  returned: success and O(state=applied)
  type: list
  elements: str
expired:
  description: Exports that are left in buckets of sets that are removed, now or by an earlier run.
  returned: success and O(state=applied)
  type: list
  elements: dict
  contains:
    set:
      description: Id of the set.
      type: str
    part:
      description: Name of the part, such as V(firestore:main).
      type: str
    uri:
      description: Address of the export.
      type: str
known:
  description: Ids of all sets that exports may belong to, unfinished and expired ones among them.
  returned: success and O(state=applied)
  type: list
  elements: str
finished:
  description: Ids of the sets that were still remembered.
  returned: success and O(state=finished)
  type: list
  elements: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_retention import apply_policy, finish, told
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSetError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import Store
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError
from ansible_collections.upkeep.ops.plugins.module_utils._retention import Policy
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_COUNT = {"type": "int", "default": 0}
_KEEP = dict.fromkeys(("last", "hourly", "daily", "weekly", "monthly", "yearly"), _COUNT)
_ARGUMENTS = {
    "root": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["applied", "finished"], "default": "applied"},
    "keep": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {**_KEEP, "within": {"type": "str", "default": "0s"}},
    },
    "ids": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)
    params = module.params
    store = Store(os.path.realpath(params["root"]), utc_now, time.sleep, 0, module.check_mode)
    try:
        if params["state"] == "finished":
            done = finish(store, params["ids"])
            module.exit_json(changed=bool(done), msg=f"{len(done)} sets are forgotten", finished=done)
        keep = params["keep"]
        retention = apply_policy(store, Policy(**{**keep, "within": parse_duration(keep["within"])}))
        module.exit_json(**told(retention))
    except (BackupSetError, LockError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the backup sets below {params['root']} cannot be worked on: {error}")


if __name__ == "__main__":
    main()
