#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_metrics
short_description: Compute uptime, MTTR, MTBF, planned windows and patch time from history
version_added: 1.0.0
description:
  - Computes from the history of the recorder what maintenance is held to, over any period, for each service and for
    the platform as a whole, and holds it against the objectives.
  - Uptime is weighted by time. Each observation of a health check vouches for the time until the next one, at most for
    O(max_gap); what nobody vouches for is unknown and belongs to no figure. What is not up inside a planned maintenance
    window is planned time, a class of its own.
  - "Mean time to recovery (MTTR) is the time down by the number of failures, mean time between failures (MTBF) the time
    up by the number of failures. Without failures there is neither."
  - The platform is down while any of its critical services is.
  - A security update waits from the first scan that saw it until the first that did not. Package managers know no
    severity, so each one counts as critical.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: O(textfile) holds times, so that it is another one after each run.
  idempotent:
    support: full
    details: Nothing is written but O(textfile), which is written anew when its figures changed.
options:
  database:
    description: Path of the history.
    type: path
    required: true
  site:
    description: Name of the site.
    type: str
    required: true
  period:
    description:
      - V(day), V(week), V(month), V(quarter) or V(year) is the present one up to now; with V(last_) before it, such as
        V(last_month), the whole one before that. In UTC, weeks begin on Monday.
    type: str
    default: month
  begin:
    description: Begin of the period, RFC 3339. Takes the place of O(period).
    type: str
  end:
    description: End of the period that O(begin) begins. The default is now.
    type: str
  services:
    description: The services to tell of. The default is everything that was ever observed, all of it critical.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name, the subject of its observations.
        type: str
        required: true
      critical:
        description: Whether the platform is down while it is.
        type: bool
        default: true
  objectives:
    description:
      - What the platform is held to, with C(uptime_percent) and the durations C(mttr), C(mtbf),
        C(planned_windows_per_month) and C(critical_patch_time), each of which may be left out.
    type: dict
    default: {}
  max_gap:
    description:
      - For how long one observation vouches at most. Somewhat more than the time between two health checks. A duration
        such as V(15m).
    type: str
    default: 15m
  events:
    description: Return RV(events) as well, what the report of a period tells beside the figures.
    type: bool
    default: false
  textfile:
    description:
      - File for the textfile collector of node_exporter (C(*.prom)), written with mode 0644, whole or not at all.
    type: path
seealso:
  - module: upkeep.ops.maintenance_history
"""

EXAMPLES = r"""
- name: Compute the figures of last month
  upkeep.ops.maintenance_metrics:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    period: last_month
    services:
      - name: auth-service
      - name: news-service
        critical: false
    objectives: {uptime_percent: 99.9, mttr: 30m, mtbf: 720h}
    fail_on: never
  register: figures

- name: Offer those of this month to Prometheus
  upkeep.ops.maintenance_metrics:
    database: /var/lib/upkeep/history.sqlite3
    site: example
    textfile: /var/lib/prometheus/node-exporter/upkeep.prom
    fail_on: never
"""

RETURN = r"""
metrics:
  description:
    - The figures. Each has C(value), C(unit), C(n), from how many things it was computed, C(how), C(target) and C(met).
      A C(value) is null when there is nothing to compute it from, and C(met) when that or the objective is missing.
  returned: success
  type: dict
  contains:
    period:
      description: Its C(begin), C(end) and C(seconds).
      type: dict
    platform:
      description:
        - Figures of all critical services together, with C(uptime), C(mttr), C(mtbf), C(error_budget), the C(seconds)
          in each state and the C(failures).
      type: dict
    services:
      description: The same for each service, with its C(name) and whether it is C(critical).
      type: list
      elements: dict
    planned_windows:
      description: Time in planned windows, in all (C(seconds)) and for each of the C(months).
      type: dict
    patch_time:
      description:
        - The longest time that a security update waited, the C(mean) of those that were C(installed), and how many are
          C(waiting).
      type: dict
events:
  description:
    - What happened in the period. C(runs) by name; C(troubles), each check that was not ok with how often and since
      when; C(incidents) and C(windows) that touched it; C(checklists) as they last stood in it; C(trends) in it;
      C(verifications) and C(drills) as they stood at its end.
  returned: success and O(events=true)
  type: dict
findings:
  description: A finding for each objective, worst first.
  returned: success
  type: list
  elements: dict
status:
  description: The worst status of the findings.
  returned: success
  type: str
summary:
  description: Number of findings of each status.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, text_of
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._history import History, HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_figures import record_of, subjects
from ansible_collections.upkeep.ops.plugins.module_utils._history_period import happened
from ansible_collections.upkeep.ops.plugins.module_utils._maintenance_metrics import (
    Period,
    judge_metrics,
    metrics,
    objectives_from,
    period_from,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._openmetrics import families, render
from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_duration, utc_now


def computed(history: History, params: dict[str, Any], period: Period) -> dict[str, Any]:
    """The figures of the period. Raises ValueError for options that make no sense."""
    max_gap = parse_duration(params["max_gap"])
    services = {service["name"]: service["critical"] for service in params["services"]}
    services = services or dict.fromkeys(subjects(history.connection, params["site"]), True)
    record = record_of(history.connection, params["site"], period, max_gap)
    return metrics(record, period, services, objectives_from(params["objectives"]), max_gap)


def exposition(history: History, params: dict[str, Any], told: dict[str, Any]) -> str:
    """The text for a monitoring system: the last run of each name, and the figures."""
    runs = [history.run(run_id) for run_id in history.latest_runs(params["site"])]
    return render(families(params["site"], runs, told, params["period"] if not params["begin"] else "chosen"))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "path", "required": True},
            "site": {"type": "str", "required": True},
            "period": {"type": "str", "default": "month"},
            "begin": {"type": "str"},
            "end": {"type": "str"},
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "critical": {"type": "bool", "default": True},
                },
            },
            "objectives": {"type": "dict", "default": {}},
            "max_gap": {"type": "str", "default": "15m"},
            "events": {"type": "bool", "default": False},
            "textfile": {"type": "path"},
            "fail_on": FAIL_ON_OPTION,
        },
        required_by={"end": ("begin",)},
        supports_check_mode=True,
    )
    params = module.params
    path, text, more = params["textfile"], None, {}
    try:
        period = period_from(params["period"], utc_now(), params["begin"] or "", params["end"] or "")
        with opened(params["database"], write=False) as history:
            told = computed(history, params, period)
            if params["events"]:
                more = {"events": happened(history, params["site"], period)}
            text = exposition(history, params, told) if path else None
        changed = text is not None and text_of(path) != text
        if changed and not module.check_mode:
            publish_text(path, text, 0o644)
    except (HistoryError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    found = FindingsBuilder(utc_now())
    judge_metrics(found, told)
    exit_with_findings(module, found.findings, metrics=told, changed=changed, **more)


if __name__ == "__main__":
    main()
