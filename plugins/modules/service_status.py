#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_status
short_description: Tell how a site stands, for its status page
version_added: 1.0.0
description:
  - Reads from the history how the services of a site stand, which incidents are open or were closed lately, and which
    maintenance is planned.
  - It holds what users may know, and nothing else. No summary of a check and no name of a host is in it, and of the
    timelines of incidents only what is C(public).
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
options:
  database:
    description: The history, as M(upkeep.ops.maintenance_history) writes it.
    type: path
    required: true
  site:
    description: Name of the site.
    type: str
    required: true
  services:
    description: The services to tell of, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service, as health checks call it.
        type: str
        required: true
      critical:
        description: Whether the site does not work without it.
        type: bool
        default: true
  past:
    description: How long closed incidents are shown, such as V(14d).
    type: str
    default: 14d
  max_age:
    description: A service that no health check looked at for so long is unknown.
    type: str
    default: 26h
"""

EXAMPLES = r"""
- name: See how the site stands
  upkeep.ops.service_status:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    services:
      - name: auth-service
      - name: news-service
        critical: false
  register: standing
"""

RETURN = r"""
page:
  description: What the status page tells.
  returned: success
  type: dict
  contains:
    site:
      description: Name of the site.
      type: str
    updated_at:
      description: When this was read.
      type: str
    status:
      description: One of C(operational), C(maintenance), C(unknown), C(degraded), C(partial_outage), C(outage).
      type: str
    headline:
      description: The status in a sentence.
      type: str
    services:
      description:
        - Each service with C(name), C(status), which is C(operational), C(maintenance), C(unknown), C(degraded) or
          C(outage), and C(since).
      type: list
      elements: dict
    incidents:
      description:
        - Open incidents with C(id), C(title), C(severity), C(status), C(services), C(began_at), C(recovered_at),
          C(closed_at), and C(updates), each with C(at) and C(text), newest first.
      type: list
      elements: dict
    past:
      description: Closed incidents in the same form.
      type: list
      elements: dict
    windows:
      description: >-
        Maintenance with C(title), C(services), C(starts_at), C(ends_at), and C(status), which is C(under_way) or
        C(planned).
      type: list
      elements: dict
"""

from datetime import timedelta

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._service_status import site_status
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now

_SERVICE = {"name": {"type": "str", "required": True}, "critical": {"type": "bool", "default": True}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "path", "required": True},
            "site": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "dict", "required": True, "options": _SERVICE},
            "past": {"type": "str", "default": "14d"},
            "max_age": {"type": "str", "default": "26h"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        past, max_age = (timedelta(seconds=parse_duration(params[name])) for name in ("past", "max_age"))
        with opened(params["database"], write=False) as history:
            page = site_status(history.connection, params["site"], params["services"], utc_now(), past, max_age)
    except (HistoryError, ValueError) as error:
        module.fail_json(msg=f"the status cannot be told: {error}")
    module.exit_json(changed=False, page=page)


if __name__ == "__main__":
    main()
