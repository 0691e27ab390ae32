#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: contact_check
short_description: Check that contacts can be reached, without sending anything
version_added: 1.0.0
description:
  - Checks each address of each contact. The domain of a mail address must have a mail server (MX) or an address, the
    host of an Apprise URL must answer on its port, and a C(file:///) target must be writable.
  - Where the environment sends connections through a proxy, it is the proxy that has to answer.
  - Nothing is sent, so that a contact that answers may still be the wrong one.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
requirements:
  - apprise >= 1.9 (Python library), for other targets than files
options:
  contacts:
    description: The contacts.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the contact.
        type: str
        required: true
      email:
        description: Its mail address.
        type: str
        default: ""
      urls:
        description: Its targets, as M(upkeep.ops.alert) takes them.
        type: list
        elements: str
        default: []
  timeout:
    description: How many seconds to wait for each answer.
    type: float
    default: 3
  resolvers:
    description: Name servers to ask, as V(address) or V(address:port). The default is those of the host.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: See who can be reached
  upkeep.ops.contact_check:
    contacts:
      - name: DevOps Lead
        email: devops-lead@company.com
        urls: ["file:///var/log/upkeep/alerts.log"]
    fail_on: never
"""

RETURN = r"""
findings:
  description: A finding C(contact_reachable) for each contact.
  returned: always
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._contacts_reachable import judge_contacts
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "contacts": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "email": {"type": "str", "default": ""},
                    "urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
                },
            },
            "timeout": {"type": "float", "default": 3},
            "resolvers": {"type": "list", "elements": "str", "default": []},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    found = FindingsBuilder(utc_now())
    judge_contacts(found, module.params["contacts"], module.params["timeout"], module.params["resolvers"])
    exit_with_findings(module, found.findings)


if __name__ == "__main__":
    main()
