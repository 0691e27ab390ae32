#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checklist
short_description: Check checklists and sign their items
version_added: 1.0.0
description:
  - Tells of each item of each checklist whether it is done, open, overdue or failed. An automatic item is done by the
    last outcome of a procedure, by a check of a maintenance window, or by credentials that are young enough. A manual
    one is done when somebody signs for it, and so is any other.
  - An item of a month or quarter is overdue when the time that the list gives is over, or when it was signed for
    neither this period nor the one before. Periods in which the site had no history yet count from its first run on.
  - Tells as well how old credentials are, and which maintenance windows should have ended.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Says what would be signed, and writes nothing.
  diff_mode:
    support: full
    details: Shows the sign-off before and after.
  idempotent:
    support: full
    details: A sign-off that says the same again keeps the time of the first one.
options:
  database:
    description: Path of the history.
    type: path
    required: true
  site:
    description: Name of the site.
    type: str
    required: true
  state:
    description:
      - V(checked) judges the lists.
      - V(signed) signs one item.
      - V(withdrawn) takes that back; who did it and why is kept as O(signed_by) and O(evidence).
    type: str
    choices: [checked, signed, withdrawn]
    default: checked
  lists:
    description: The checklists. A second list of the same name adds its items to the first one, or replaces them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the list.
        type: str
        required: true
      title:
        description: Its title, for people.
        type: str
      period:
        description: Whether it is to be done each month, each quarter, or for each maintenance window.
        type: str
        choices: [monthly, quarterly, window]
      due_after:
        description:
          - How long after the begin of the period, or the end of the window, its items are overdue. The default is
            V(21d), for windows V(7d).
        type: str
      items:
        description:
          - Its items, each with C(id) and C(text). With C(automatic) it is done by itself, by a C(procedure) whose last
            outcome is at most C(max_age) old, by a C(check) of the window, or by O(credentials) with
            C(credentials=true).
        type: list
        elements: dict
        required: true
  credentials:
    description: Credentials with C(name), C(owner), C(rotated_at) and C(max_age), and never the secret itself.
    type: list
    elements: dict
    default: []
  checklist:
    description: The list of the item to be signed.
    type: str
    default: ""
  item:
    description: Id of the item to be signed.
    type: str
    default: ""
  period:
    description:
      - What it is signed for, such as V(2026-01), V(2026-Q1), or the id or title of a window. The default is the
        present one, or the newest window that began.
    type: str
    default: ""
  signed_by:
    description: Who signs.
    type: str
    default: ""
  evidence:
    description: What shows it, such as the address of a document or ticket, or why a sign-off is withdrawn.
    type: str
    default: ""
  outcome:
    description: What came of the item.
    type: str
    choices: [done, not_needed, failed]
    default: done
"""

EXAMPLES = r"""
- name: Judge a list
  upkeep.ops.checklist:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    lists: &lists
      - name: monthly
        period: monthly
        items:
          - {id: security_policies, text: Review and update security policies}
          - {id: recovery_test, text: Test the recovery, automatic: {procedure: disaster_recovery_test, max_age: 35d}}
          - {id: api_keys, text: Review and rotate API keys, automatic: {credentials: true}}
    credentials:
      - {name: npm registry token, owner: DevOps Lead, rotated_at: "2026-01-15T00:00:00Z", max_age: 90d}
    fail_on: never

- name: Sign an item
  upkeep.ops.checklist:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: signed
    lists: *lists
    checklist: monthly
    item: security_policies
    signed_by: Security Team
    evidence: https://wiki.example.org/policies
"""

RETURN = r"""
message:
  description: What was signed, or how many items are done.
  returned: success
  type: str
items:
  description: Where each item stands, those of lists for windows once for each window.
  returned: O(state=checked)
  type: list
  elements: dict
  contains:
    checklist:
      description: Name of its list.
      type: str
    title:
      description: Title of its list.
      type: str
    item:
      description: Its id.
      type: str
    text:
      description: What is to be done.
      type: str
    kind:
      description: V(automatic) or V(manual).
      type: str
    period:
      description: The month, the quarter or the id of the window.
      type: str
    about:
      description: Title of the window; empty for others.
      type: str
    state:
      description: V(done), V(open), V(overdue) or V(failed).
      type: str
    summary:
      description: Why, or by whom it was signed.
      type: str
    signed_by:
      description: Who signed it for this period; empty when nobody did.
      type: str
    signed_at:
      description: When, RFC 3339; empty when nobody did.
      type: str
    outcome:
      description: What was signed, V(done), V(not_needed) or V(failed); empty when nobody did.
      type: str
    evidence:
      description: What shows it; may be empty.
      type: str
findings:
  description: >-
    With O(state=checked) C(checklist_overdue) for each list, under it C(checklist_item) for each item that is overdue
    or failed, C(credential_age) for each credential, and what M(upkeep.ops.maintenance_window) finds of windows.
  returned: success, and when O(fail_on) fails the task
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: success, and when O(fail_on) fails the task
  type: str
summary:
  description: Number of findings of each status.
  returned: success, and when O(fail_on) fails the task
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._checklists import (
    ChecklistError,
    checklists_from,
    judge_credentials,
    judge_lists,
    states,
    to_sign,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_checklists import known_of, sign
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import judge_open
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_LIST = {
    "name": {"type": "str", "required": True},
    "title": {"type": "str"},
    "period": {"type": "str", "choices": ["monthly", "quarterly", "window"]},
    "due_after": {"type": "str"},
    "items": {"type": "list", "elements": "dict", "required": True},
}
_ARGUMENTS = {
    "database": {"type": "path", "required": True},
    "site": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["checked", "signed", "withdrawn"], "default": "checked"},
    "lists": {"type": "list", "elements": "dict", "required": True, "options": _LIST},
    "credentials": {"type": "list", "elements": "dict", "default": []},
    **{name: {"type": "str", "default": ""} for name in ("checklist", "item", "period", "signed_by", "evidence")},
    "outcome": {"type": "str", "choices": ["done", "not_needed", "failed"], "default": "done"},
    "fail_on": FAIL_ON_OPTION,
}


def check(module: AnsibleModule, found: FindingsBuilder) -> None:
    """Judge lists, credentials and open windows, and end the task."""
    params, now = module.params, utc_now()
    with opened(params["database"], write=False) as history:
        known = known_of(history.connection, params["site"], now)
    checklists = checklists_from(params["lists"])
    old = judge_credentials(found, params["credentials"], now)
    told = [item for checklist in checklists for item in states(checklist, known, now, old)]
    judge_lists(found, checklists, told)
    judge_open(found, [item for item in known.windows if item.status in ("planned", "started")], now)
    done = sum(1 for item in told if item["state"] == "done")
    exit_with_findings(module, found.findings, items=told, message=f"{done} of {len(told)} items are done")


def main() -> None:
    signing = [("state", state, ("checklist", "item", "signed_by")) for state in ("signed", "withdrawn")]
    module = AnsibleModule(argument_spec=_ARGUMENTS, required_if=signing, supports_check_mode=True)
    params, found = module.params, FindingsBuilder(utc_now())
    try:
        if params["state"] == "checked":
            check(module, found)
        missing = [name for name in ("checklist", "item", "signed_by") if not params[name].strip()]
        if missing:
            raise ChecklistError(f"a sign-off needs {', '.join(missing)}")
        outcome = params["outcome"] if params["state"] == "signed" else "withdrawn"
        with opened(params["database"], write=not module.check_mode) as history:
            known = known_of(history.connection, params["site"], utc_now())
            key = to_sign(checklists_from(params["lists"]), known, utc_now(), params)
            before = known.signed.get(key, {})
            if outcome == "withdrawn" and before.get("outcome", outcome) == outcome:
                raise ChecklistError(f"{' '.join(key)} is not signed, so nothing can be withdrawn")
            words = (params["signed_by"], params["evidence"], outcome)
            changed = sign(history.connection, params["site"], key, *words, utc_now())
    except (ChecklistError, HistoryError, ValueError) as error:
        module.fail_json(msg=str(error))
    old = " by ".join([before["outcome"], before["signed_by"]]) if before else "not signed"
    exit_with_findings(
        module,
        [],
        changed=changed,
        message=f"{key[0]}, {key[1]} for {key[2]}: {outcome.replace('_', ' ')} by {params['signed_by']}",
        diff={"before": f"{old}\n", "after": f"{outcome} by {params['signed_by']}: {params['evidence']}\n"},
    )


if __name__ == "__main__":
    main()
