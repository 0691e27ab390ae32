#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_window
short_description: Plan, start, end and find maintenance windows
version_added: 1.0.0
description:
  - Keeps maintenance windows in the history of the recorder. While one is open, M(upkeep.ops.alert) holds the alerts of
    its services, and what is down in a planned one is planned time for M(upkeep.ops.maintenance_metrics).
  - A window starts only when its checks are well, and ends only when its services are. A check that is not well is
    overridden by its name, with a reason that is recorded.
  - A window that was never ended is found with O(state=found). Its services' alerts are told again from its planned end
    on.
  - Two windows that share time and a service are refused, or merged into one.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Judges the checks and says what would be, writes nothing and tells nobody.
  diff_mode:
    support: full
    details: Shows the window before and after, and with O(state=ended) its document.
  idempotent:
    support: full
    details: A window is known by its title until it is ended or cancelled. Nobody is told the same twice.
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
      - V(planned) notes a window and tells O(contacts) of it. O(checks) that are given hold it up when not well.
      - V(started) begins it, planned before or not, when the checks V(backup_fresh), V(rollback_prepared),
        V(staging_run), V(contacts_reachable) and V(users_told) are well. V(staging_run) is made by the module from the
        history, V(users_told) from O(contacts), after all the others; the rest is given as O(checks).
      - V(ended) ends it when V(services_verified) and V(health_check), given as O(checks), are well, and writes its
        document to O(directory).
      - V(cancelled) gives up one that was planned.
      - V(found) changes nothing, and finds those that were never ended or never begun.
    type: str
    choices: [planned, started, ended, cancelled, found]
    required: true
  title:
    description: What the window is for. It names the window. May be left out for O(state=ended) when only one is open.
    type: str
    default: ""
  id:
    description: Id of the window, when its title is not enough.
    type: str
    default: ""
  planned:
    description: Whether its time is planned time. Unplanned ones only hold alerts.
    type: bool
    default: true
  services:
    description: The services under maintenance. The default is all of them.
    type: list
    elements: str
    default: []
  starts_at:
    description: When it is to begin, RFC 3339. The default is now.
    type: str
    default: ""
  ends_at:
    description: When it is to end, RFC 3339. For a window that began, this is its new planned end.
    type: str
    default: ""
  duration:
    description: How long it is to last, in place of O(ends_at). A new window lasts V(1h) without either.
    type: str
    default: ""
  overlap:
    description:
      - What to do with a new window that overlaps with another one, V(refuse) or V(merge). Merged they are one window,
        the other one, which lasts and covers what both do.
    type: str
    choices: [refuse, merge]
    default: refuse
  checks:
    description: What came of the checks that were made elsewhere.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the check.
        type: str
        required: true
      status:
        description: What came of it.
        type: str
        choices: [ok, warning, unknown, critical]
        required: true
      summary:
        description: One sentence for a person.
        type: str
        required: true
      hint:
        description: What to do.
        type: str
        default: ""
  overrides:
    description: Checks that hold nothing up though they are not well, each name with the reason.
    type: dict
    default: {}
  rollback:
    description: What there is to go back to, sentences for the record.
    type: list
    elements: str
    default: []
  way_back:
    description:
      - Of each host what there is to go back to, as M(upkeep.ops.release_rollback) recorded it. When a window that is
        open is started again, what was recorded at first stays.
    type: dict
    default: {}
  contacts:
    description: Who is told, when the window is announced, over or cancelled. Those without C(urls) are left out.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the contact.
        type: str
        required: true
      urls:
        description: Targets, as M(upkeep.ops.alert) takes them.
        type: list
        elements: str
        default: []
  staging_site:
    description: Name of the staging site in this history, or the path of another history.
    type: str
    default: ""
  staging_run:
    description: Name of the run that is to be made in the window, such as V(cache_maintenance).
    type: str
    default: ""
  staging_max_age:
    description: How long ago that run may have ended well in staging.
    type: str
    default: 7d
  figures:
    description: Figures measured after the work, C(p95_ms) and C(error_percent) for each host.
    type: dict
    default: {}
  tolerance:
    description:
      - By how many percent a figure may be higher than before, the median of the week before the window. Up to 50 ms
        and one percent of errors are never too much.
    type: float
    default: 50
  directory:
    description: Folder for the document of the window. Without it there is none.
    type: path
seealso:
  - module: upkeep.ops.alert
  - module: upkeep.ops.maintenance_metrics
"""

EXAMPLES = r"""
- name: Announce a window
  upkeep.ops.maintenance_window:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: planned
    title: New release of auth-service
    services: [auth-service]
    duration: 2h
    contacts:
      - name: Customer Support
        urls: ["file:///var/lib/upkeep/support.log"]

- name: Start it
  upkeep.ops.maintenance_window:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: started
    title: New release of auth-service
    checks:
      - {name: backup_fresh, status: ok, summary: set 20260131T060000Z is verified}
      - {name: rollback_prepared, status: ok, summary: release 41 of auth-service is there}
      - {name: contacts_reachable, status: ok, summary: all of them answer}
    overrides:
      staging_run: there is no staging for auth-service

- name: See what is open
  upkeep.ops.maintenance_window:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: found

- name: End it
  upkeep.ops.maintenance_window:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    state: ended
    title: New release of auth-service
    checks:
      - {name: services_verified, status: ok, summary: auth-service is up}
      - {name: health_check, status: ok, summary: all 7 services are up}
    directory: /var/lib/upkeep/reports
"""

RETURN = r"""
message:
  description: What was done or stands in the way.
  returned: success, and when checks hold the window up
  type: str
window:
  description: The window; null when there is none.
  returned: O(state) is not V(found), and success or when checks hold the window up
  type: dict
  contains: &window
    id:
      description: Its id.
      type: str
    site:
      description: The site that it is of.
      type: str
    title:
      description: What it is for.
      type: str
    planned:
      description: Whether its time is planned time.
      type: bool
    services:
      description: The services under maintenance; empty for all.
      type: list
      elements: str
    starts_at:
      description: When it was to begin.
      type: str
    ends_at:
      description: When it is to end.
      type: str
    started_at:
      description: When it began; empty before.
      type: str
    ended_at:
      description: When it ended; empty before.
      type: str
    status:
      description: V(planned), V(started), V(ended) or V(cancelled).
      type: str
    record:
      description: >-
        What was recorded of it, among that C(checks_before), C(checks_after), C(announced), C(rollback), C(way_back),
        C(changes), C(health), C(performance) and C(document).
      type: dict
windows:
  description: Those that are planned or open, and those of the last 90 days, oldest first.
  returned: success and O(state=found)
  type: list
  elements: dict
  contains: *window
at_work:
  description: >-
    What goes on in each open window. C(changes) that runs noted, C(health) of its services, C(performance) so far.
  returned: success and O(state=found)
  type: list
  elements: dict
findings:
  description: >-
    A finding for each check, critical for one that holds the window up, a warning for one that is overridden; with
    O(state=found) for each window that is planned or open. Subject is the title.
  returned: success, and when checks hold the window up
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: success, and when checks hold the window up
  type: str
summary:
  description: Number of findings of each status.
  returned: success, and when checks hold the window up
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import tell
from ansible_collections.upkeep.ops.plugins.module_utils._alerts import contact_from, distinct
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._history import HistoryError
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_windows import (
    WindowError,
    judge_checks,
    judge_open,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now
from ansible_collections.upkeep.ops.plugins.module_utils._window_stages import Stages, request_from

_CHECK = {
    "name": {"type": "str", "required": True},
    "status": {"type": "str", "choices": ["ok", "warning", "unknown", "critical"], "required": True},
    "summary": {"type": "str", "required": True},
    "hint": {"type": "str", "default": ""},
}
_CONTACT = {
    "name": {"type": "str", "required": True},
    "urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
}
_ARGUMENTS = {
    "database": {"type": "path", "required": True},
    "site": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["planned", "started", "ended", "cancelled", "found"], "required": True},
    "title": {"type": "str", "default": ""},
    "id": {"type": "str", "default": ""},
    "planned": {"type": "bool", "default": True},
    "services": {"type": "list", "elements": "str", "default": []},
    "starts_at": {"type": "str", "default": ""},
    "ends_at": {"type": "str", "default": ""},
    "duration": {"type": "str", "default": ""},
    "overlap": {"type": "str", "choices": ["refuse", "merge"], "default": "refuse"},
    "checks": {"type": "list", "elements": "dict", "default": [], "options": _CHECK},
    "overrides": {"type": "dict", "default": {}},
    "rollback": {"type": "list", "elements": "str", "default": []},
    "way_back": {"type": "dict", "default": {}},
    "contacts": {"type": "list", "elements": "dict", "default": [], "options": _CONTACT},
    "staging_site": {"type": "str", "default": ""},
    "staging_run": {"type": "str", "default": ""},
    "staging_max_age": {"type": "str", "default": "7d"},
    "figures": {"type": "dict", "default": {}},
    "tolerance": {"type": "float", "default": 50},
    "directory": {"type": "path"},
    "fail_on": FAIL_ON_OPTION,
}


def main() -> None:
    module = AnsibleModule(argument_spec=_ARGUMENTS, supports_check_mode=True)
    contacts = {item.name: item for item in distinct([contact_from(raw) for raw in module.params["contacts"]])}
    stages = Stages(
        module.params["database"],
        utc_now,
        lambda name, title, body: tell(contacts[name], title, body),
        module.check_mode,
    )
    found = FindingsBuilder(utc_now())
    try:
        request = request_from(module.params, [name for name, item in contacts.items() if item.urls])
        if module.params["state"] == "found":
            windows, at_work = stages.found(request)
            judge_open(found, [item for item in windows if item.status in ("planned", "started")], utc_now())
            told = [item.as_dict() for item in windows]
            exit_with_findings(module, found.findings, windows=told, at_work=at_work, message=f"{len(told)} windows")
        act = stages.carry_out(module.params["state"], request)
    except (HistoryError, WindowError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the document of the window cannot be written, so it is not ended: {error}")
    judge_checks(found, module.params["title"] or (act.window.title if act.window else ""), act.checks, act.blocking)
    exit_with_findings(
        module,
        found.findings,
        changed=act.changed,
        window=act.window.as_dict() if act.window else None,
        message=act.message,
        diff={"before": act.before, "after": act.after},
    )


if __name__ == "__main__":
    main()
