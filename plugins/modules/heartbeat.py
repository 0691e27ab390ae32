#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: heartbeat
short_description: Give a sign of life to a dead man's switch
version_added: 1.0.0
description:
  - Asks the URL of a service that raises the alarm when a sign of life stays away, such as healthchecks.io, a Cronitor
    or an Uptime Kuma. So somebody learns of a backup that never ran, which no run can tell of itself.
  - It never fails for a sign that did not arrive. That is a finding of status V(warning), for what the sign is about
    has been done all the same.
  - What the service answers is looked at. healthchecks.io says 200 with C(OK (not found)) for an address that it does
    not know; that is not taken for an arrival.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Nothing is sent.
  diff_mode:
    support: N/A
    details: There is nothing to compare.
  idempotent:
    support: N/A
    details: A sign is sent each time, and nothing is changed on the host.
options:
  signal:
    description: What to tell.
    type: str
    choices: [start, success, failure]
    required: true
  url:
    description:
      - Base URL of the switch. V(start) is sent to it with C(/start) appended to its path, V(failure) with C(/fail),
        and V(success) to itself. healthchecks.io has it so.
      - It is a secret and never shown; messages name its host.
    type: str
  start_url:
    description: URL for O(signal=start), instead of one made of O(url).
    type: str
  success_url:
    description: URL for O(signal=success), instead of one made of O(url).
    type: str
  failure_url:
    description: URL for O(signal=failure), instead of one made of O(url).
    type: str
  name:
    description: Subject of the finding.
    type: str
    default: heartbeat
  timeout:
    description: Seconds that one try may take, whatever it waits for.
    type: float
    default: 10
  tries:
    description: How often to try when the service cannot be reached, has an error of its own, or asks for patience.
    type: int
    default: 3
  ca_certs:
    description: PEM file with the authorities to trust, instead of the system's.
    type: path
notes:
  - The proxies of the environment (C(https_proxy), C(no_proxy)) are used.
"""

EXAMPLES = r"""
- name: Tell that the backup begins
  upkeep.ops.heartbeat:
    signal: start
    url: "{{ vault_backup_switch }}"

- name: Tell a service with an address of its own for each signal that it is done
  upkeep.ops.heartbeat:
    signal: success
    success_url: "{{ vault_backup_switch }}/done"
    name: backup
"""

RETURN = r"""
sent:
  description: Whether the sign arrived. False in check mode, and when there is no URL for this signal.
  returned: always
  type: bool
findings:
  description:
    - One finding of the check C(heartbeat), V(ok) or V(warning). None in check mode, and when there is no URL for this
      signal.
  returned: always
  type: list
  elements: dict
status:
  description: Its status.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._heartbeat import HeartbeatError, Patience, address, send
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_SIGNALS = ("start", "success", "failure")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "signal": {"type": "str", "choices": list(_SIGNALS), "required": True},
            "url": {"type": "str", "no_log": True},
            **{f"{signal}_url": {"type": "str", "no_log": True} for signal in _SIGNALS},
            "name": {"type": "str", "default": "heartbeat"},
            "timeout": {"type": "float", "default": 10},
            "tries": {"type": "int", "default": 3},
            "ca_certs": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    options = module.params
    signal = options["signal"]
    found = FindingsBuilder(utc_now())
    sent = False
    try:
        url = address(signal, options["url"] or "", {each: options[f"{each}_url"] or "" for each in _SIGNALS})
        if url and not module.check_mode:
            tries = send(url, Patience(options["timeout"], options["tries"], time.sleep), options["ca_certs"] or "")
            told = f"the sign for {signal} arrived" + (f" at try {tries}" if tries > 1 else "")
            found.add("heartbeat", options["name"], "ok", told)
            sent = True
    except HeartbeatError as error:
        hint = "Mend the way to the switch or its address; until then it raises the alarm for nothing"
        found.add("heartbeat", options["name"], "warning", f"the sign for {signal} did not arrive: {error}", hint=hint)
    exit_with_findings(module, found.findings, sent=sent)


if __name__ == "__main__":
    main()
