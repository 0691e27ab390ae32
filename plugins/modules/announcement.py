#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: announcement
short_description: Tell contacts at once of something that goes on
version_added: 1.0.0
description:
  - Sends one message to all contacts of an area, while a run is still at work. What a run has found is told at its end
    by M(upkeep.ops.alert).
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
  - upkeep.ops._contacts
attributes:
  check_mode:
    support: full
    details: Returns who would be told.
  diff_mode:
    support: none
    details: Nothing but messages comes of it.
  idempotent:
    support: none
    details: Each call tells.
requirements:
  - apprise >= 1.9 (Python library), for other targets than files
options:
  contacts:
    description: Who may be told, as in C(upkeep_contacts). Those without C(urls) are not.
  area:
    description: Contacts that have this among their C(areas), or V(all), are told.
    type: str
    required: true
  title:
    description: First line of the message.
    type: str
    required: true
  text:
    description: The message.
    type: str
    required: true
  status:
    description: How bad it is. Only contacts with it among their C(severities) are told; of V(ok) all are.
    type: str
    choices: [ok, warning, unknown, critical]
    default: critical
"""

EXAMPLES = r"""
- name: Tell the people on call
  upkeep.ops.announcement:
    contacts:
      - name: Database Admin
        urls: ["file:///var/log/upkeep/database.log"]
        areas: [database]
    area: database
    title: "example: emergency recovery has begun"
    text: Set 20260131T235959Z is restored into redis:cache.
"""

RETURN = r"""
findings:
  description: One C(alert_delivery) for each contact that was not reached.
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of all findings.
  returned: always
  type: str
summary:
  description: How many findings have which status.
  returned: always
  type: str
told:
  description: Names of the contacts that were told, or would be.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import deliver, judge
from ansible_collections.upkeep.ops.plugins.module_utils._alerts import contact_from, distinct
from ansible_collections.upkeep.ops.plugins.module_utils._module import (
    CONTACT_OPTIONS,
    FAIL_ON_OPTION,
    exit_with_findings,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "contacts": {"type": "list", "elements": "dict", "required": True, "options": CONTACT_OPTIONS},
            "area": {"type": "str", "required": True},
            "title": {"type": "str", "required": True},
            "text": {"type": "str", "required": True},
            "status": {"type": "str", "choices": ["ok", "warning", "unknown", "critical"], "default": "critical"},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    params = module.params
    contacts = [
        contact
        for contact in distinct([contact_from(raw) for raw in params["contacts"] if raw.get("urls")])
        if {params["area"], "all"} & set(contact.areas) and params["status"] in ("ok", *contact.severities)
    ]
    sent = []
    if not module.check_mode:
        for contact in contacts:
            sent += deliver(contact, params["title"], params["text"], params["status"])
    reached = {delivery["contact"] for delivery in sent if delivery["delivered"]}
    told = [contact.name for contact in contacts if module.check_mode or contact.name in reached]
    exit_with_findings(module, judge(contacts, {"status": "ok"}, sent, utc_now()), changed=bool(told), told=told)


if __name__ == "__main__":
    main()
