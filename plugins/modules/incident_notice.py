#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_notice
short_description: Tell contacts of an incident, by severity and stage
version_added: 1.0.0
description:
  - Tells those contacts of an incident who want to hear of its severity at this stage, each once, and notes that in its
    timeline.
  - A contact that could not be reached is told when the same is done again, and is a finding.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
  - upkeep.ops._contacts
attributes:
  check_mode:
    support: full
    details: Tells who would be told what, and sends nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Whoever was told of a stage is not told of it again, until the incident fails again.
requirements:
  - apprise >= 1.9 (Python library), for other targets than files
options:
  database:
    description: The history, as M(upkeep.ops.maintenance_history) writes it.
    type: path
    required: true
  site:
    description: Name of the site.
    type: str
    required: true
  id:
    description: Id of the incident.
    type: str
    required: true
  stage:
    description: What is told. It was looked at, contained, recovered from (or not), or is closed.
    type: str
    choices: [assess, contain, recover, closed]
    required: true
  contacts:
    description:
      - The contacts of the catalogue. A contact without C(urls) or without C(stages) is told nothing by this module.
  lines:
    description: What this stage found or did, for the message.
    type: list
    elements: str
    default: []
  link:
    description: Address for the end of the message, such as that of the status page.
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
  register: opened

- name: Tell the people on call
  upkeep.ops.incident_notice:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    id: "{{ opened.incident.id }}"
    stage: assess
    contacts:
      - name: DevOps Lead
        urls: ["file:///var/lib/upkeep/alerts.log"]
        stages: [assess, closed]
    lines: [The release of 05:45 is suspected]
"""

RETURN = r"""
told:
  description: Names of the contacts that were told, or would be in check mode.
  returned: success
  type: list
  elements: str
title:
  description: Title of the message.
  returned: success
  type: str
body:
  description: Text of the message.
  returned: success
  type: str
findings:
  description: Contacts that could not be reached.
  returned: success
  type: list
  elements: dict
status:
  description: The worst status of the findings.
  returned: success
  type: str
summary:
  description: Number of findings by status.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import masked, send
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_incidents import Call, IncidentError, Incidents
from ansible_collections.upkeep.ops.plugins.module_utils._incident_notices import (
    NOTICE_STAGES,
    Notice,
    compose,
    due,
    told_mark,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import (
    CONTACT_OPTIONS,
    FAIL_ON_OPTION,
    exit_with_findings,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_ARGUMENTS = {
    "database": {"type": "path", "required": True},
    "site": {"type": "str", "required": True},
    "id": {"type": "str", "required": True},
    "stage": {"type": "str", "required": True, "choices": list(NOTICE_STAGES)},
    "contacts": {"type": "list", "elements": "dict", "required": True, "options": CONTACT_OPTIONS},
    "lines": {"type": "list", "elements": "str", "default": []},
    "link": {"type": "str", "default": ""},
    "run_id": {"type": "str", "default": ""},
    "fail_on": FAIL_ON_OPTION,
}


def failures(urls: list[str], notice: Notice) -> list[str]:
    """Send to all targets of a contact; why those did not take it that did not."""
    found = []
    for url in urls:
        try:
            error = send(url, notice.title, notice.body, notice.status)
        except MissingDependencyError as missing:
            error = str(missing)
        if error:
            found.append(f"{masked(url)}: {error}")
    return found


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)
    params, call = module.params, Call(utc_now(), "upkeep", module.params["run_id"])
    found, reached = FindingsBuilder(call.now), []
    try:
        with opened(params["database"], write=False) as history:
            incident = Incidents(history.connection, params["site"]).get(params["id"])
        notice = compose(incident, params["stage"], params["lines"], params["link"])
        contacts = due(params["contacts"], incident, params["stage"])
        for contact in contacts:
            # Sent outside the transaction: a slow target must not lock the history.
            failed = [] if module.check_mode else failures(contact["urls"], notice)
            if failed:
                status = "critical" if len(failed) == len(contact["urls"]) else "warning"
                hint = "Mend the target; the same is told again when this is done again"
                found.add(
                    "incident_notice", contact["name"], status, f"not delivered to {'; '.join(failed)}", hint=hint
                )
            if len(failed) < len(contact["urls"]):
                reached.append(contact["name"])
        with opened(params["database"], write=not module.check_mode) as history:
            entries = [call.entry("communicate", told_mark(name, params["stage"])) for name in reached]
            Incidents(history.connection, params["site"]).note(params["id"], entries)
    except (HistoryError, IncidentError, KeyError) as error:
        module.fail_json(msg=f"who is told cannot be decided: {error}")
    told = {"told": reached, "title": notice.title, "body": notice.body}
    exit_with_findings(module, found.findings, changed=bool(reached), **told)


if __name__ == "__main__":
    main()
