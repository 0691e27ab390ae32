#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_history
short_description: Keep the history of maintenance runs
version_added: 1.0.0
description:
  - Opens and closes runs in the history of the recorder, one SQLite database from which reports and alerts come.
  - When runs overlap, what was observed last stands, whichever run is closed last.
  - Closing a run turns the outcomes of its procedures into findings, notes which host or procedure left none as
    unknown, gives the verdict, and compares with what was known before.
  - The database is made when it is not there, with mode 0600, and an older schema is brought forward.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
    details: Computes the same result and writes nothing.
  diff_mode:
    support: none
    details: What is added is what is returned.
  idempotent:
    support: partial
    details: O(state=opened) always opens a new run. A run that is closed already stays as it is.
options:
  database:
    description: Path of the SQLite database.
    type: path
    required: true
  state:
    description:
      - V(opened) begins a run and returns its id. Runs of the same name that were begun more than twelve hours ago
        and never closed were killed; they are marked V(aborted).
      - V(closed) writes the result of a run.
      - V(read) only reads a run, by default the newest one of that name.
    type: str
    choices: [opened, closed, read]
    required: true
  run:
    description: Name of the run, such as V(daily).
    type: str
  run_id:
    description: Id of the run, as O(state=opened) returned it. Needed for O(state=closed).
    type: str
  site:
    description: Name of the site.
    type: str
    required: true
  expected:
    description: Which procedure should have run where, a list of inventory names for each name of a procedure.
    type: dict
    default: {}
  outcomes:
    description:
      - What came of it, for each host a dictionary with the outcome of each procedure.
      - An outcome has C(started_at), C(seconds), C(findings), C(changes), C(artifacts), C(failed) and C(error).
      - An outcome whose findings or figures are malformed becomes a failure of its procedure.
      - In C(artifacts) numbers of C(metrics) become trends; C(verifications), each with C(set), C(level), C(result),
        C(at) and C(reason), and C(drills), each with C(set), C(at), C(result), C(rto_seconds), C(rpo_seconds),
        C(rpo_bytes) and C(parts), say whether backups can be restored. A result is V(passed), V(failed) or V(unknown).
      - C(observations), each with C(subject), C(state) and C(at), say what was up; C(security_updates), each with
        C(package) and C(available), what waits to be installed on the host.
    type: dict
    default: {}
  open_incidents:
    description:
      - With O(state=closed) an incident is opened for each critical service that the run's health check found failing,
        and recovery is noted where it found all services of an open incident well again. What a planned maintenance
        window covers opens none.
    type: bool
    default: false
  trend_days:
    description: How many days the returned trends reach back. A series has 90 points at most, spread evenly.
    type: int
    default: 30
  recent_runs:
    description: How many earlier runs of the same name are returned.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Begin a run
  upkeep.ops.maintenance_history:
    database: /var/lib/upkeep/history.sqlite3
    state: opened
    run: daily
    site: example
  register: opened

- name: Write its result
  upkeep.ops.maintenance_history:
    database: /var/lib/upkeep/history.sqlite3
    state: closed
    run: daily
    run_id: "{{ opened.run_id }}"
    site: example
    expected:
      health_check: [localhost]
    outcomes:
      localhost:
        health_check:
          started_at: "2026-01-31T06:00:00Z"
          seconds: 1.5
          findings: []
          changes: []

- name: Read the newest daily run
  upkeep.ops.maintenance_history:
    database: /var/lib/upkeep/history.sqlite3
    state: read
    run: daily
    site: example
"""

RETURN = r"""
run_id:
  description: Id of the run.
  returned: success
  type: str
  sample: 20260131T060000Z-daily-1f2e
started_at:
  description: When it was opened.
  returned: when O(state=opened)
  type: str
aborted:
  description: Ids of earlier runs that were found never closed.
  returned: when O(state=opened)
  type: list
  elements: str
run:
  description: The run with its verdict.
  returned: when O(state=closed) or O(state=read)
  type: dict
  contains:
    id:
      description: Id of the run.
      type: str
    name:
      description: Name of the run.
      type: str
    site:
      description: Name of the site.
      type: str
    status:
      description: The worst status of its findings.
      type: str
    started_at:
      description: When it began, RFC 3339 in UTC.
      type: str
    ended_at:
      description: When it was closed.
      type: str
    seconds:
      description: Its duration.
      type: float
    counts:
      description: Number of findings of each status.
      type: dict
    outcomes:
      description: For each procedure and host its status, start, seconds, changes, artifacts and error.
      type: list
      elements: dict
    findings:
      description: All findings, worst first, each with the moment since when it has had its status.
      type: list
      elements: dict
    deliveries:
      description: Attempts to reach contacts with C(contact), C(target), C(sent_at), C(delivered), C(error).
      type: list
      elements: dict
incident_changes:
  description: What was done about incidents, a sentence each.
  returned: when O(state=closed)
  type: list
  elements: str
recent_runs:
  description: Earlier runs of the same name with C(id), C(started_at), C(status) and C(seconds), oldest first.
  returned: when O(state=closed) or O(state=read)
  type: list
  elements: dict
trends:
  description: Series of figures with C(host), C(name) and C(points), pairs of time and value.
  returned: when O(state=closed) or O(state=read)
  type: list
  elements: dict
verifications:
  description:
    - The last verification of backup sets for each host and level with C(host), C(set), C(level), C(result), C(at) and
      C(reason). A pass of a higher level counts for the lower ones.
  returned: when O(state=closed) or O(state=read)
  type: list
  elements: dict
drills:
  description:
    - The last drills, newest first, with C(host), C(set), C(at), C(result), C(rto_seconds), C(rpo_seconds),
      C(rpo_bytes) and C(details), which holds C(parts).
  returned: when O(state=closed) or O(state=read)
  type: list
  elements: dict
"""

import secrets
from datetime import timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._findings import worst
from ansible_collections.upkeep.ops.plugins.module_utils._history import History, HistoryError, opened
from ansible_collections.upkeep.ops.plugins.module_utils._history_incidents import follow_health
from ansible_collections.upkeep.ops.plugins.module_utils._runs import Outcome, outcome_from, presence_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, utc_now

_MOST_POINTS = 90
_MOST_DRILLS = 5


def begin(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Open a new run."""
    now = utc_now()
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{params['run']}-{secrets.token_hex(2)}"
    aborted = history.open_run(run_id, params["run"], params["site"], now)
    return {"changed": True, "run_id": run_id, "started_at": isoformat(now), "aborted": aborted}


def end(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Write the result of a run, unless it has one already."""
    run_id = params["run_id"]
    changed, now = not history.is_closed(run_id), utc_now()
    if changed:
        outcomes = [
            sound_outcome(procedure, host, raw)
            for host, procedures in params["outcomes"].items()
            for procedure, raw in procedures.items()
        ]
        findings = presence_findings(params["expected"], outcomes, now)
        findings += [finding for outcome in outcomes for finding in outcome.findings]
        status = worst(finding.status for finding in findings)
        history.close_run(run_id, params["run"], params["site"], now, status, outcomes, findings)
    answer = {"changed": changed, "incident_changes": [], **told(history, params, run_id)}
    if changed and params["open_incidents"]:
        answer["incident_changes"] = follow_health(history.connection, params["site"], answer["run"], now)
    return answer


def sound_outcome(procedure: str, host: str, raw: dict[str, Any]) -> Outcome:
    """An outcome. One that breaks the contract becomes a failure of its procedure: the others must still be told."""
    try:
        return outcome_from(procedure, host, raw)
    except ValueError as error:
        return outcome_from(procedure, host, {**raw, "findings": [], "artifacts": {}, "failed": True, "error": error})


def read(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """A run as it stands in the history."""
    run_id = params["run_id"] or history.latest_run(params["site"], params["run"])
    if run_id is None:
        raise HistoryError(f"the history holds no closed run of {params['site']} yet: run a playbook first")
    return {"changed": False, **told(history, params, run_id)}


def told(history: History, params: dict[str, Any], run_id: str) -> dict[str, Any]:
    """A run with its past, as reports need it."""
    run = history.run(run_id)
    since = isoformat(utc_now() - timedelta(days=params["trend_days"]))
    return {
        "run_id": run_id,
        "run": run,
        "recent_runs": history.recent_runs(run["site"], run["name"], params["recent_runs"]),
        "trends": history.trends(run["site"], since, _MOST_POINTS),
        **history.proofs(run["site"], _MOST_DRILLS),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "path", "required": True},
            "state": {"type": "str", "required": True, "choices": ["opened", "closed", "read"]},
            "run": {"type": "str"},
            "run_id": {"type": "str"},
            "site": {"type": "str", "required": True},
            "expected": {"type": "dict", "default": {}},
            "outcomes": {"type": "dict", "default": {}},
            "open_incidents": {"type": "bool", "default": False},
            "trend_days": {"type": "int", "default": 30},
            "recent_runs": {"type": "int", "default": 30},
        },
        required_if=[("state", "opened", ("run",)), ("state", "closed", ("run", "run_id"))],
        supports_check_mode=True,
    )
    act = {"opened": begin, "closed": end, "read": read}[module.params["state"]]
    writes = module.params["state"] != "read" and not module.check_mode
    try:
        with opened(module.params["database"], write=writes) as history:
            answer = act(history, module.params)
    except (HistoryError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
