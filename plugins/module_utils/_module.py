# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few lines that modules share: options that several of them have, and how a checking module ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FAIL_ON, Finding, failure_message, result

#: The option of every checking module; documented in the fragment ``upkeep.ops.checks``.
FAIL_ON_OPTION = {"type": "str", "choices": list(FAIL_ON), "default": "critical"}

#: What one of ``upkeep_contacts`` may hold, for every module that takes contacts as the catalogue has them.
CONTACT_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "group": {"type": "str"},
    "email": {"type": "str"},
    "urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "severities": {
        "type": "list",
        "elements": "str",
        "choices": ["warning", "unknown", "critical"],
        "default": ["critical", "unknown"],
    },
    "areas": {"type": "list", "elements": "str", "default": ["all"]},
    "stages": {
        "type": "list",
        "elements": "str",
        "choices": ["assess", "contain", "recover", "closed"],
        "default": [],
    },
}


def exit_with_findings(module: AnsibleModule, findings: Iterable[Finding], **returned: Any) -> NoReturn:
    """End the task with its findings: failed when ``fail_on`` says so, with the same data either way."""
    found = list(findings)
    answer = {"changed": False, **result(found), **returned}
    message = failure_message(found, module.params["fail_on"])
    if message is not None:
        module.fail_json(msg=message, **answer)
    module.exit_json(**answer)
    raise AssertionError("exit_json does not return")
