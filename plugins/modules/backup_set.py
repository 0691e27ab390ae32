#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_set
short_description: Keep backup sets that were proved
version_added: 1.0.0
description:
  - A backup set is a folder C(<root>/<id>) that holds everything that was backed up at one time, with one manifest. Its
    id is the time at which it was opened, in UTC, such as V(20260131T235959Z).
  - A set is built in C(<root>/<id>.partial) and takes its final name only when everything is in it and on disk. Until
    then nobody can mistake it for a backup.
  - A set is first V(complete), and V(verified) once a verification of level 2 or higher was recorded in it with
    O(state=judged). A drill that passed, recorded with O(state=drilled), proves more than any verification, and gives
    it RV(set.drilled_at). One that fails is V(failed); it is kept, and never chosen for recovery.
  - A run can be killed at any point and run again.
notes:
  - One run at a time makes a set. It holds the lock C(<root>/.lock) from O(state=open) to O(state=complete) or
    O(state=abandoned), over all tasks in between. The lock names the run's O(owner), host and user, and the process of
    C(ansible-playbook) where it can be seen, which is so with local connections.
  - A lock whose owner is gone is taken over, with a warning. The owner is gone when its process has ended or its host
    was restarted. Where its process cannot be seen, as over SSH, it is taken for gone after O(stale_after).
  - Of two sets the one that was opened later is the newer one.
  - "The levels of verification: 1 the bytes are those that were written, 2 the formats and checksums of the parts hold,
    3 the parts were loaded, 4 they are like the live servers but for a tolerance."
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: With O(state=complete) it looks whether every part is there, and reads no file.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(state=open) makes a new set each time unless O(max_age) is given, or the same O(owner) has one open.
options:
  root:
    description: Folder that holds the backup sets. O(state=open) makes it with mode 0700 when it is not there.
    type: path
    required: true
  state:
    description:
      - V(open) takes the lock and makes the folder of a new set, with the empty folders C(redis) and C(firestore).
      - V(complete) checks that every one of O(parts) is there, writes the manifest, puts all on disk, gives the set its
        final name, releases the lock, and removes what dead runs left behind.
      - V(abandoned) removes an unfinished set and releases its lock.
      - V(judged) records in the set what a verification of O(level) found, and what follows from it.
      - V(drilled) records in the set what a drill found, in which it was restored, and its figures O(drill).
      - V(checked) verifies level 1 of a set. Without O(id) this is the newest set, and it is judged too whether it is
        there, young enough, with all its parts, and as large as its predecessors.
      - V(found) returns the sets and who holds the lock. O(id), O(accept_state), O(max_age) and O(before) say which.
      - V(held) protects a set from removal, for O(hold_for) or until V(unheld) ends that.
      - V(absent) removes one set. It refuses a held one, the newest verified one (when none is verified the newest
        complete one), the newest drilled one, and one that somebody reads now, unless O(force=true).
    type: str
    choices: [open, complete, abandoned, judged, drilled, checked, found, held, unheld, absent]
    required: true
  id:
    description:
      - Id of the set. V(complete), V(judged), V(drilled), V(held), V(unheld) and V(absent) of O(state) need it.
      - Without it V(abandoned) takes the set that O(owner) has open, and V(found) returns all.
    type: str
  owner:
    description:
      - Name of the run that makes the set. Must be the same from O(state=open) to O(state=complete), and different in
        any other run. O(state=open) returns it.
      - The default is made of user, host and process of C(ansible-playbook), or at random where that cannot be seen.
    type: str
  max_age:
    description:
      - With O(state=open) a set of O(accept_state) that is younger makes a new one needless. It is returned with
        RV(due=false).
      - With O(state=checked) the newest good set is critical when it is older.
      - With O(state=found) older sets are left out.
      - A duration such as V(26h).
    type: str
  warning_age:
    description: With O(state=checked) the newest good set is a warning when it is older. A duration.
    type: str
  accept_state:
    description:
      - With O(state=open) what a set must be at least to make a new one needless, by default V(verified).
      - With O(state=found) what a set must be at least to be found, by default anything.
      - A set that failed is none of these.
    type: str
    choices: [complete, verified, drilled]
  before:
    description:
      - With O(state=found) only sets that were completed before this point in time, in RFC 3339. What a set holds was
        written before it was completed.
    type: str
  verification:
    description:
      - "With O(state=checked) how often each level of verification is due, such as V({1: 1d, 3: 7d}). RV(due_level)
        tells the highest one that is due, and the bytes of the set are read only when one is."
      - Levels 1 and 2 are due when this very set did not pass them within the period, levels 3 and 4 when no set did.
        A level at which the set failed is due until it passes. Each is due a tenth of its period early, so that a
        daily run that begins a minute earlier than the day before does not put it off by a day.
    type: dict
  lock_timeout:
    description: How long O(state=open) waits for another run to release the lock. A duration.
    type: str
    default: 0s
  stale_after:
    description: Age from which on the owner of a lock is taken for gone when its process cannot be seen. A duration.
    type: str
    default: 12h
  leftover_age:
    description: How long nothing must have changed in an unfinished set before it is removed. A duration.
    type: str
    default: 24h
  parts:
    description: What O(state=complete) finds in the set, at least one part.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the part, such as V(redis:cache) or V(firestore:main).
        type: str
        required: true
      path:
        description: Its file, relative to the folder of the set.
        type: str
        required: true
      manifest:
        description: A JSON file that describes it, relative to the folder of the set. Its content enters the manifest.
        type: str
      record:
        description: Data that is written to O(parts[].path) as JSON, for a part that lies elsewhere.
        type: dict
  site:
    description: Name of the site, for the manifest.
    type: str
    default: ""
  level:
    description: Level of the verification that O(state=judged) records.
    type: int
    choices: [1, 2, 3, 4]
  drill:
    description: The figures of a drill, for O(state=drilled).
    type: dict
    suboptions:
      rto_seconds:
        description: How long it took until the restored data could be used (recovery time).
        type: float
      rpo_seconds:
        description: How much older the restored data was than the moment of the loss (recovery point).
        type: float
      rpo_bytes:
        description: How many bytes of changes that were.
        type: float
      parts:
        description:
          - What was restored, names of parts such as V(redis:cache), or dictionaries with C(name) and whatever else is
            to be recorded of a part.
          - A part that is named neither here nor by one of O(findings) was not drilled, and the set neither.
        type: list
        elements: raw
        default: []
  findings:
    description:
      - What the verification or the drill found, as O(state=checked), M(upkeep.ops.redis_verify) and others return it.
      - A V(critical) one fails the set. An V(unknown) one, or none at all about one of the parts, leaves open what was
        to be proved. Otherwise the set has passed.
      - From O(level=2) on the findings of O(state=checked) alone prove nothing about a part. On O(level=4) only
        C(snapshot_live) and C(export_live) do, and a V(warning) of these leaves it open.
    type: list
    elements: dict
    default: []
  digests:
    description:
      - With O(state=judged) the digest of the data in each part, by its name, as M(upkeep.ops.redis_verify) returns it.
      - RV(set.digests) tells them to later verifications and drills, which have to find the same.
    type: dict
    default: {}
  required_parts:
    description: Names of parts that the newest set must hold, for O(state=checked).
    type: list
    elements: str
    default: []
  max_shrink:
    description:
      - With O(state=checked) a part is a warning when it is smaller by more than this percentage than the median of its
        five predecessors, by bytes or by number of documents.
    type: float
    default: 50
  reason:
    description: Why a set is held, for O(state=held).
    type: str
    default: ""
  hold_for:
    description:
      - For how long from now on a set is held, for O(state=held). Without it until somebody ends it. A duration.
    type: str
  safety:
    description:
      - With O(state=held) that the set holds what a recovery was to replace. It stays known as that, also when it is
        not held any more. It never counts as the newest set, makes no new one needless, fills no place of any rule of
        M(upkeep.ops.backup_retention), and goes once its hold is over.
    type: bool
    default: false
  force:
    description: Remove with O(state=absent) or abandon what is protected otherwise.
    type: bool
    default: false
seealso:
  - module: upkeep.ops.redis_snapshot
  - module: upkeep.ops.redis_verify
  - module: upkeep.ops.firestore_export
"""

EXAMPLES = r"""
- name: Open a backup set unless a verified one is younger than twelve hours
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: open
    max_age: 12h
  register: opened

- name: Put something into it
  ansible.builtin.copy:
    content: '{"documents": 12}'
    dest: "{{ opened.set.path }}/redis/notes.json"
    mode: "0600"
  when: opened.due

- name: Complete it
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: complete
    id: "{{ opened.set.id }}"
    owner: "{{ opened.owner }}"
    site: example
    parts:
      - name: redis:notes
        path: redis/notes.json
  when: opened.due

- name: Look at the newest set
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: checked
    max_age: 26h
    required_parts: [redis:notes]
  register: checked

- name: Record in it what was found
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: judged
    id: "{{ checked.set.id }}"
    level: 1
    findings: "{{ checked.findings }}"

- name: Record that it was restored in a drill
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: drilled
    id: "{{ checked.set.id }}"
    drill:
      rto_seconds: 340
      rpo_seconds: 7200
      parts: [redis:notes]
    findings:
      - check: drill_keys
        subject: redis:notes
        status: ok
        summary: all 12 keys are there

- name: Keep it whatever happens
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: held
    id: "{{ checked.set.id }}"
    reason: before the great migration

- name: Keep what a recovery replaces for a week
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: held
    id: "{{ checked.set.id }}"
    reason: before the recovery of the night
    hold_for: 7d
    safety: true

- name: Find the newest verified set from before something went wrong
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: found
    accept_state: verified
    before: 2026-01-31T14:30:00Z
  register: from_before

- name: List all sets
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: found
  register: found

- name: Remove it nevertheless
  upkeep.ops.backup_set:
    root: /var/backups/upkeep
    state: absent
    id: "{{ found.sets[0].id }}"
    force: true
"""

RETURN = r"""
msg:
  description: What was done, or what is wrong.
  returned: always, but with O(state=checked) only when the task fails
  type: str
  sample: 'set 20260131T235959Z is complete: 3 files, 91827 bytes'
busy:
  description: Whether it failed only because another run works on a set.
  returned: failure, but not of the file system
  type: bool
set:
  description:
    - The set that the task was about; null when there is none.
    - In check mode it is the set as it would be.
  returned: success
  type: dict
  contains: &set
    id:
      description: Its id.
      type: str
      sample: 20260131T235959Z
    path:
      description: Its folder.
      type: str
      sample: /var/backups/upkeep/20260131T235959Z
    state:
      description: V(partial), V(complete), V(verified) or V(failed).
      type: str
    site:
      description: The site that it is of.
      type: str
    created_at:
      description: When it was opened, RFC 3339 in UTC.
      type: str
    completed_at:
      description: When it was completed; empty when it was not.
      type: str
    age:
      description: Seconds since it was opened.
      type: int
    bytes:
      description: Size of its files.
      type: int
    files:
      description: Number of its files.
      type: int
    parts:
      description: What it holds.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the part.
          type: str
          sample: redis:cache
        path:
          description: Its file, relative to the folder of the set.
          type: str
          sample: redis/cache.rdb.zst
        manifest:
          description: The file that describes it, relative to the folder of the set; empty when there is none.
          type: str
        details:
          description: What that file says.
          type: dict
    verified_level:
      description: Highest level of verification that holds, 5 after a drill; 0 when there is none.
      type: int
    verified_at:
      description: When that was recorded; empty when it was not.
      type: str
    verifications:
      description: What was last found of each level. A pass of a higher level counts for the lower ones.
      type: list
      elements: dict
      contains:
        level:
          description: The level.
          type: int
        result:
          description: V(passed), V(failed) or V(unknown).
          type: str
        at:
          description: When that was recorded.
          type: str
        reason:
          description: Why it did not pass; empty when it did.
          type: str
    drilled_at:
      description: When it was last restored in a drill that passed; empty when it was not, or failed since.
      type: str
    drill:
      description: The last drill; null when there was none.
      type: dict
      contains:
        result:
          description: V(passed), V(failed) or V(unknown).
          type: str
        at:
          description: When that was recorded.
          type: str
        reason:
          description: Why it did not pass; empty when it did.
          type: str
        rto_seconds:
          description: Recovery time; null when it was not measured.
          type: float
        rpo_seconds:
          description: Recovery point; null when it was not measured.
          type: float
        rpo_bytes:
          description: The same in bytes; null when it was not measured.
          type: float
        parts:
          description: What was restored.
          type: list
          elements: raw
    digests:
      description: Digest of the data in each part, by its name, as the first verification that passed and told one did.
      type: dict
    held:
      description: Whether it is protected from removal.
      type: bool
    hold_reason:
      description: Why it is or was.
      type: str
    hold_until:
      description: When its hold ends, or has ended by itself; empty when it does not.
      type: str
    safety:
      description: Whether it is a safety set of a recovery.
      type: bool
    problem:
      description: Why it failed; empty when it did not.
      type: str
due:
  description: Whether a new set is due, and therefore open now.
  returned: success and O(state=open)
  type: bool
owner:
  description: Name of the run that holds the lock.
  returned: success and O(state=open)
  type: str
sets:
  description: The sets, newest first; unfinished ones as well.
  returned: success and O(state=found)
  type: list
  elements: dict
  contains: *set
newest:
  description: Id of the newest complete or verified set that is no safety set; empty when there is none.
  returned: success and O(state=found)
  type: str
newest_verified:
  description: Id of the newest verified set; empty when there is none.
  returned: success and O(state=found)
  type: str
newest_drilled:
  description: Id of the newest set that was restored in a drill that passed; empty when there is none.
  returned: success and O(state=found)
  type: str
lock:
  description: Who holds the lock; null when nobody does.
  returned: success and O(state=found)
  type: dict
  contains:
    set:
      description: Id of the set that is being made.
      type: str
    owner:
      description: Name of the run.
      type: str
    host:
      description: Its host.
      type: str
    pid:
      description: Its process; 0 when it could not be seen.
      type: int
    taken_at:
      description: When it took the lock, RFC 3339 in UTC.
      type: str
    age:
      description: Seconds since then.
      type: int
    gone:
      description: Why its owner is gone; empty while it may be at work.
      type: str
due_level:
  description: The level of verification that is due by O(verification); 0 when none is.
  returned: O(state=checked)
  type: int
result:
  description: What follows from the findings, V(passed), V(failed) or V(unknown).
  returned: success and O(state=judged) or O(state=drilled)
  type: str
findings:
  description:
    - What was found, worst first. Checks are C(backup_present), C(backup_age), C(backup_part), C(backup_size),
      C(backup_leftovers), C(backup_manifest) and C(backup_bytes), subjects C(backup) and the names of the parts.
  returned: O(state=checked)
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: O(state=checked)
  type: str
summary:
  description: Number of findings of each status.
  returned: O(state=checked)
  type: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import BackupSetError, BusyError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_changes import Store
from ansible_collections.upkeep.ops.plugins.module_utils._backup_set_requests import carry_out, check, find
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError, default_owner
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_PART = {
    "name": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
    "manifest": {"type": "str"},
    "record": {"type": "dict"},
}
_DRILL = {
    "rto_seconds": {"type": "float"},
    "rpo_seconds": {"type": "float"},
    "rpo_bytes": {"type": "float"},
    "parts": {"type": "list", "elements": "raw", "default": []},
}
_STATES = ("open", "complete", "abandoned", "judged", "drilled", "checked", "found", "held", "unheld", "absent")
_ARGUMENTS = {
    "root": {"type": "path", "required": True},
    "state": {"type": "str", "choices": list(_STATES), "required": True},
    "id": {"type": "str"},
    "owner": {"type": "str"},
    "max_age": {"type": "str"},
    "warning_age": {"type": "str"},
    "accept_state": {"type": "str", "choices": ["complete", "verified", "drilled"]},
    "before": {"type": "str"},
    "verification": {"type": "dict"},
    "lock_timeout": {"type": "str", "default": "0s"},
    "stale_after": {"type": "str", "default": "12h"},
    "leftover_age": {"type": "str", "default": "24h"},
    "parts": {"type": "list", "elements": "dict", "default": [], "options": _PART},
    "site": {"type": "str", "default": ""},
    "level": {"type": "int", "choices": [1, 2, 3, 4]},
    "drill": {"type": "dict", "options": _DRILL},
    "findings": {"type": "list", "elements": "dict", "default": []},
    "digests": {"type": "dict", "default": {}},
    "required_parts": {"type": "list", "elements": "str", "default": []},
    "max_shrink": {"type": "float", "default": 50},
    "reason": {"type": "str", "default": ""},
    "hold_for": {"type": "str"},
    "safety": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "fail_on": FAIL_ON_OPTION,
}
_REQUIRED_IF = [
    ("state", "complete", ("id",)),
    ("state", "judged", ("id", "level")),
    ("state", "drilled", ("id", "drill")),
    ("state", "held", ("id",)),
    ("state", "unheld", ("id",)),
    ("state", "absent", ("id",)),
]


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, required_if=_REQUIRED_IF, supports_check_mode=True)
    params = module.params
    try:
        stale_after = parse_duration(params["stale_after"])
        store = Store(os.path.realpath(params["root"]), utc_now, time.sleep, stale_after, module.check_mode)
        if params["state"] == "found":
            module.exit_json(**find(store, params))
        if params["state"] == "checked":
            look = check(store, params)
            exit_with_findings(module, look.findings, set=look.backup_set, due_level=look.due_level)
        tools = {"ansible-core": module.ansible_version or ""}
        answer, warnings = carry_out(store, params, params["owner"] or default_owner(), tools)
        for warning in warnings:
            module.warn(warning)
        module.exit_json(**answer)
    except (BackupSetError, LockError, ValueError) as error:
        module.fail_json(msg=str(error), busy=isinstance(error, BusyError))
    except OSError as error:
        module.fail_json(msg=f"the backup sets below {params['root']} cannot be worked on: {error}")


if __name__ == "__main__":
    main()
