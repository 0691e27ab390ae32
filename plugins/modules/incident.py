#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident
short_description: Keep the record of incidents
version_added: 1.0.0
description:
  - Opens an incident, adds to its timeline, notes its recovery and closes it, in the history of the recorder.
  - As long as an incident is open, it is the one of every service that it names. Opening it again widens it by the
    services that it does not name yet, and one that had recovered has failed again.
  - Only what has recovered can be closed.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
    details: Computes the same result and writes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: What a run has noted already is not noted again, and without O(run_id) not twice in a row.
options:
  database:
    description: The history, as M(upkeep.ops.maintenance_history) writes it.
    type: path
    required: true
  site:
    description: Name of the site.
    type: str
    required: true
  state:
    description:
      - V(opened) opens an incident of O(services), or finds the open one.
      - V(noted) adds O(events) to the timeline. V(recovered) notes that users are served again. V(closed) ends it.
      - V(found) only reads.
    type: str
    choices: [opened, noted, recovered, closed, found]
    required: true
  id:
    description:
      - Id of the incident, such as V(INC-20260131-1). Without it the open one of O(services) is meant, and without
        those the only one that is open.
    type: str
  services:
    description: Names of the services that are affected. None means the whole site.
    type: list
    elements: str
    default: []
  title:
    description: What it is about, in a few words that users may read as well. The default names the services.
    type: str
    default: ""
  severity:
    description: How bad it is. An open incident only gets worse.
    type: str
    choices: [warning, critical]
    default: critical
  began_at:
    description: Start of the failure, RFC 3339. The default is now.
    type: str
  actor:
    description: Who does this, a person or a run.
    type: str
    default: upkeep
  events:
    description: What happened, for the timeline. Added with every O(state) but V(found).
    type: list
    elements: dict
    default: []
    suboptions:
      text:
        description: What happened, in a sentence.
        type: str
        required: true
      stage:
        description: What it belongs to. V(public) entries are shown on the status page, others are not.
        type: str
        choices: [assess, contain, recover, communicate, public, note]
        default: note
      at:
        description: When, RFC 3339. The default is now.
        type: str
      actor:
        description: Who, when it was somebody else than O(actor).
        type: str
  cause:
    description: What caused it, for O(state=closed).
    type: str
    default: ""
  summary:
    description: What happened, for reports, with O(state=closed).
    type: str
    default: ""
  run_id:
    description: The run that all this happens in.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Open an incident
  upkeep.ops.incident:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: opened
    services: [auth-service]
    title: Nobody can sign in
    began_at: "2026-01-31T05:50:00Z"
    actor: DevOps Lead
  register: opened

- name: Tell users
  upkeep.ops.incident:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: noted
    id: "{{ opened.incident.id }}"
    events:
      - {stage: public, text: We have found the cause and are mending it.}

- name: Note that users are served again
  upkeep.ops.incident:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: recovered
    id: "{{ opened.incident.id }}"

- name: Close it
  upkeep.ops.incident:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: closed
    id: "{{ opened.incident.id }}"
    cause: A release with a wrong password
"""

RETURN = r"""
incident:
  description: The incident, or null when O(state=found) and none or several are open.
  returned: success
  type: raw
  sample:
    id: INC-20260131-1
    site: example
    title: Nobody can sign in
    severity: critical
    services: [auth-service]
    status: open
    began_at: "2026-01-31T05:50:00Z"
    opened_at: "2026-01-31T06:00:00Z"
    recovered_at: ""
    closed_at: ""
    opened_by: DevOps Lead
    cause: ""
    summary: ""
    seconds_to_notice: 600.0
    seconds_to_recovery: null
    events:
      - {at: "2026-01-31T06:00:00Z", stage: opened, actor: DevOps Lead, text: Nobody can sign in, run_id: ""}
incidents:
  description: All incidents of the site that are not closed, oldest first, each like RV(incident).
  returned: success
  type: list
  elements: dict
changes:
  description: What was done, a sentence each.
  returned: success
  type: list
  elements: str
"""

from datetime import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_incidents import (
    SEVERITIES,
    Call,
    Entry,
    IncidentError,
    Incidents,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_time, utc_now

_EVENT = {
    "text": {"type": "str", "required": True},
    "stage": {
        "type": "str",
        "choices": ["assess", "contain", "recover", "communicate", "public", "note"],
        "default": "note",
    },
    "at": {"type": "str"},
    "actor": {"type": "str"},
}
_ARGUMENTS = {
    "database": {"type": "path", "required": True},
    "site": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "required": True,
        "choices": ["opened", "noted", "recovered", "closed", "found"],
    },
    "id": {"type": "str"},
    "services": {"type": "list", "elements": "str", "default": []},
    "title": {"type": "str", "default": ""},
    "severity": {"type": "str", "choices": list(SEVERITIES), "default": "critical"},
    "began_at": {"type": "str"},
    "actor": {"type": "str", "default": "upkeep"},
    "events": {"type": "list", "elements": "dict", "default": [], "options": _EVENT},
    "cause": {"type": "str", "default": ""},
    "summary": {"type": "str", "default": ""},
    "run_id": {"type": "str", "default": ""},
}


def meant(incidents: Incidents, params: dict[str, Any]) -> str:
    """Id of the incident that is spoken of. Raises IncidentError when that is not clear."""
    if params["id"]:
        return str(incidents.get(params["id"])["id"])
    standing = [incidents.about(params["services"])] if params["services"] else incidents.standing()
    known = [item["id"] for item in standing if item is not None]
    if len(known) == 1:
        return str(known[0])
    if params["state"] == "found":
        return ""
    raise IncidentError(f"say which incident by id: open are {', '.join(known)}" if known else "no incident is open")


def act(incidents: Incidents, params: dict[str, Any], now: datetime) -> tuple[str, list[str]]:
    """Id of the incident, and what was done. Raises IncidentError and ValueError."""
    call, state = Call(now, params["actor"], params["run_id"]), params["state"]
    began = parse_time(params["began_at"]) if params["began_at"] else now
    entries = [
        Entry(
            isoformat(parse_time(event["at"]) if event["at"] else now),
            event["stage"],
            event["actor"] or params["actor"],
            event["text"],
            params["run_id"],
        )
        for event in params["events"]
    ]
    changes: list[str] = []
    if state == "opened" and not params["id"]:
        incident, changes = incidents.open(params["services"], params["title"], params["severity"], began, call)
    else:
        incident = meant(incidents, params)
    if state != "found":
        changes += [f"{incident}: {text}" for text in incidents.note(incident, entries)]
    if state == "recovered":
        changes += incidents.recover(incident, call)
    if state == "closed":
        changes += incidents.close(incident, call, params["cause"], params["summary"])
    return incident, changes


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)
    params = module.params
    writes = params["state"] != "found" and not module.check_mode
    try:
        with opened(params["database"], write=writes) as history:
            incidents = Incidents(history.connection, params["site"])
            incident, changes = act(incidents, params, utc_now())
            told = {"incident": incidents.get(incident) if incident else None, "incidents": incidents.standing()}
    except (HistoryError, IncidentError, ValueError) as error:
        module.fail_json(msg=str(error))
    difference = {"before": "", "after": "".join(f"{change}\n" for change in changes)}
    module.exit_json(changed=bool(changes), changes=changes, diff=difference, **told)


if __name__ == "__main__":
    main()
