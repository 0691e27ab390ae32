#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_journal
short_description: Keep the journal of emergency recoveries
version_added: 1.0.0
description:
  - Notes on the recorder what a recovery of the platform plans, begins and ends, each step before it is begun. A
    recovery whose run was killed is found again, with the steps that are left and those that lead back.
  - One recovery at a time is under way. A second one is refused by name of the first. The owner of a recovery is gone
    when its process has ended or its host was restarted; where its process cannot be seen, when it has noted nothing
    for O(stale_after).
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: A journal is added to or removed, and never replaced.
  idempotent:
    support: none
    details: Each call notes what happens now. V(found) of O(state) changes nothing.
options:
  folder:
    description: Folder of the journals, made with mode 0700.
    type: path
    required: true
  state:
    description:
      - V(found) only reads.
      - V(opened) begins a recovery, or takes over the one that is unfinished. Where a worker of the run that was killed
        works on beside it, at services or gateways, and can be seen, it waits for that one's end.
      - V(noted) adds that O(step) was begun, has ended or failed.
      - V(closed) ends the recovery with O(result).
      - V(pruned) removes recoveries that came to their end longer than O(keep) ago.
    type: str
    choices: [found, opened, noted, closed, pruned]
    required: true
  owner:
    description:
      - Name of the run, the same in all its calls and different in any other run.
      - The default is made of user, host and process of C(ansible-playbook), or at random where that cannot be seen.
    type: str
  id:
    description: Id of the recovery, for V(noted) and V(closed) of O(state).
    type: str
  plan:
    description: What is to be done, for O(state=opened). A recovery that is taken over keeps its own.
    type: dict
    suboptions:
      set:
        description: Id of the backup set.
        type: str
        required: true
      set_at:
        description: When it was opened, RFC 3339.
        type: str
        required: true
      parts:
        description: Its parts that are restored, such as V(redis:cache).
        type: list
        elements: str
        required: true
      collections:
        description: Collection groups of Firestore that are restored; empty for all of the export.
        type: list
        elements: str
        default: []
      fresh:
        description:
          - Those of O(plan.parts) that go into a database of their own, each with the name of the one that is C(used)
            and stays as it is, and of the one that is C(restored).
        type: dict
        default: {}
      gateways:
        description: Whether the gateways are closed meanwhile.
        type: bool
        default: false
      services:
        description: Whether services are stopped meanwhile.
        type: bool
        default: false
      rollback:
        description: Whether this takes an earlier recovery back.
        type: bool
        default: false
  step:
    description: Name of the step, for O(state=noted).
    type: str
    default: ""
  phase:
    description: What became of the step.
    type: str
    choices: [begun, ended, failed]
    default: begun
  direction:
    description: Whether the step leads on or back.
    type: str
    choices: [forward, back]
    default: forward
  details:
    description: What else is to be known of the step. C(set) is the id of the safety set.
    type: dict
    default: {}
  result:
    description: What became of the recovery. V(open) leaves it to a later run, because going back has failed.
    type: str
    choices: [recovered, rolled_back, open]
    default: recovered
  summary:
    description: What became of it, in a sentence.
    type: str
    default: ""
  stale_after:
    description:
      - An owner whose process cannot be seen is taken for gone when it has noted nothing for that long. Longer than any
        step takes. A duration.
    type: str
    default: 12h
  hold:
    description: How long after its end a recovery may be taken back. A duration.
    type: str
    default: 7d
  keep:
    description:
      - For how long recoveries that came to their end are known, for O(state=pruned), but never shorter than O(hold). A
        duration.
    type: str
    default: 400d
  history:
    description:
      - The history of the recorder. O(state=found) tells from it how long the last drill and the last recovery took.
    type: path
  site:
    description: Name of the site in O(history).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Begin a recovery
  upkeep.ops.recovery_journal:
    folder: /var/lib/upkeep/recovery
    state: opened
    owner: control-4711
    plan:
      set: 20260131T235959Z
      set_at: "2026-01-31T23:59:59Z"
      parts: [redis:cache]
  register: opened

- name: Note that a step begins
  upkeep.ops.recovery_journal:
    folder: /var/lib/upkeep/recovery
    state: noted
    owner: control-4711
    id: "{{ opened.recovery.id }}"
    step: "{{ opened.recovery.left[0].name }}"

- name: Say that it went back
  upkeep.ops.recovery_journal:
    folder: /var/lib/upkeep/recovery
    state: closed
    owner: control-4711
    id: "{{ opened.recovery.id }}"
    result: rolled_back
    summary: the safety set could not be taken

- name: Forget what is long over
  upkeep.ops.recovery_journal:
    folder: /var/lib/upkeep/recovery
    state: pruned
    keep: 400d

- name: See whether a recovery was killed
  upkeep.ops.recovery_journal:
    folder: /var/lib/upkeep/recovery
    state: found
  register: found
"""

RETURN = r"""
recovery:
  description: The recovery that the call was about. With O(state=found) the unfinished one, null when there is none.
  returned: success, unless O(state=pruned)
  type: dict
  contains: &recovery
    id:
      description: Its id, the time at which it was begun.
      type: str
    state:
      description: V(open), V(recovered) or V(rolled_back).
      type: str
    begun_at:
      description: When it was begun.
      type: str
    ended_at:
      description: When it came to its end; empty when it did not.
      type: str
    summary:
      description: What became of it; empty when nothing was said.
      type: str
    plan:
      description: The plan, with its C(steps).
      type: dict
    entries:
      description: What was noted, oldest first, with C(at), C(step), C(phase), C(direction) and C(details).
      type: list
      elements: dict
    left:
      description:
        - The steps that have not ended, with C(name), C(act), C(to), C(part), and C(again) when they were begun.
      type: list
      elements: dict
    back:
      description: The steps that lead back and have not ended, alike.
      type: list
      elements: dict
    going_back:
      description: Whether it is on its way back.
      type: bool
    safety_set:
      description: Id of its safety set; empty when none was taken.
      type: str
    last_step:
      description: The last step that was noted, and what became of it; empty before the first.
      type: str
    figures:
      description: Of one that came to its end C(rto_seconds), C(downtime_seconds) and C(rpo_seconds).
      type: dict
last:
  description: The last recovery that ended with V(recovered); null when there is none.
  returned: success and O(state=found)
  type: dict
  contains: *recovery
last_expired:
  description: Whether it ended longer than O(hold) ago.
  returned: success and O(state=found)
  type: bool
busy:
  description: Who is at work, and what to do about it; empty when nobody is.
  returned: success and O(state=found)
  type: str
killed:
  description: Why the owner of the unfinished recovery is gone; empty when nobody is known to be.
  returned: success and O(state=found)
  type: str
expected:
  description: How long a recovery may take, as far as the history knows.
  returned: success and O(state=found)
  type: dict
  contains:
    drill:
      description:
        - The last drill that passed and was measured, with C(host), C(set), C(at) and C(rto_seconds); null when there
          was none.
      type: dict
    recovery:
      description: The last recovery with C(at), C(rto_seconds) and C(downtime_seconds); null when there was none.
      type: dict
    problem:
      description: Why the history cannot be read; empty when it can, or is not there.
      type: str
removed:
  description: Ids of the recoveries that were removed.
  returned: success and O(state=pruned)
  type: list
  elements: str
over:
  description: Ids of the recoveries that came to their end longer than O(hold) ago, the removed ones among them.
  returned: success and O(state=pruned)
  type: list
  elements: str
taken_over:
  description: Whether the recovery is one that an earlier run has begun.
  returned: success and O(state=opened)
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError, default_owner
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_expectation import expectation
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_journal import RecoveryError, RecoveryJournal
from ansible_collections.upkeep.ops.plugins.module_utils._recovery_steps import forward
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_PLAN = {
    "set": {"type": "str", "required": True},
    "set_at": {"type": "str", "required": True},
    "parts": {"type": "list", "elements": "str", "required": True},
    "collections": {"type": "list", "elements": "str", "default": []},
    "fresh": {"type": "dict", "default": {}},
    "gateways": {"type": "bool", "default": False},
    "services": {"type": "bool", "default": False},
    "rollback": {"type": "bool", "default": False},
}
_ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["found", "opened", "noted", "closed", "pruned"], "required": True},
    "owner": {"type": "str"},
    "id": {"type": "str"},
    "plan": {"type": "dict", "options": _PLAN},
    "step": {"type": "str", "default": ""},
    "phase": {"type": "str", "choices": ["begun", "ended", "failed"], "default": "begun"},
    "direction": {"type": "str", "choices": ["forward", "back"], "default": "forward"},
    "details": {"type": "dict", "default": {}},
    "result": {"type": "str", "choices": ["recovered", "rolled_back", "open"], "default": "recovered"},
    "summary": {"type": "str", "default": ""},
    "stale_after": {"type": "str", "default": "12h"},
    "hold": {"type": "str", "default": "7d"},
    "keep": {"type": "str", "default": "400d"},
    "history": {"type": "path"},
    "site": {"type": "str", "default": ""},
}
_REQUIRED_IF = [
    ("state", "opened", ("plan",)),
    ("state", "noted", ("id", "step")),
    ("state", "closed", ("id",)),
]


def act(journal: RecoveryJournal, params: dict[str, Any]) -> dict[str, Any]:
    """Carry out what was asked for; the module's answer. Raises RecoveryError and LockError."""
    if params["state"] == "found":
        standing = journal.look()
        told: dict[str, Any] = {"last": standing.last, "busy": standing.busy, "killed": standing.killed}
        expired = journal.ended_before(standing.last, parse_duration(params["hold"]))
        told["expected"] = expectation(params["history"] or "", params["site"])
        return {"changed": False, "recovery": standing.unfinished, "last_expired": expired, **told}
    if params["state"] == "pruned":
        hold = parse_duration(params["hold"])
        removed, over = journal.prune(max(hold, parse_duration(params["keep"])), hold)
        return {"changed": bool(removed), "removed": removed, "over": over}
    if params["state"] == "opened":
        plan = params["plan"]
        steps = forward(plan["parts"], plan["gateways"], plan["services"])
        recovery, taken_over = journal.open({**plan, "steps": steps})
        return {"changed": True, "recovery": recovery, "taken_over": taken_over}
    if params["state"] == "noted":
        how = (params["phase"], params["direction"], params["details"])
        return {"changed": True, "recovery": journal.note(params["id"], params["step"], *how)}
    return {"changed": True, "recovery": journal.close(params["id"], params["result"], params["summary"])}


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, required_if=_REQUIRED_IF, supports_check_mode=True)
    params = module.params
    try:
        journal = RecoveryJournal(
            params["folder"],
            params["owner"] or default_owner(),
            utc_now,
            time.sleep,
            parse_duration(params["stale_after"]),
            not module.check_mode,
        )
        module.exit_json(**act(journal, params))
    except (RecoveryError, LockError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the journal below {params['folder']} cannot be used: {error}")


if __name__ == "__main__":
    main()
