#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alert
short_description: Tell the right people what has changed
version_added: 1.0.0
description:
  - Decides from a closed run and the history which contact has to hear of what, and sends each of them one message.
  - Changes of state are told, repeats are not. Reminders come after O(reminder_after). Recovery is always told.
  - A check that failed because of another one is told under that one and not by itself, unless the contact hears
    nothing of that one. A message names 50 problems of a kind at most.
  - A finding that a later run has replaced is not told any more, as when a long run ends after a shorter one.
  - What is about services under maintenance, or fails because of them, is held while their window is open, recorded all
    the same, and told by the first run after the window that still finds it. A window that should have ended holds
    nothing any more.
  - A contact counts as told once one of its targets took the message. Else the same is tried again by the next run.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
  - upkeep.ops._contacts
attributes:
  check_mode:
    support: full
    details: Returns the messages that would be sent, and sends none.
  diff_mode:
    support: full
    details: Shows the text of each message.
  idempotent:
    support: full
    details: The same run again finds everybody told.
requirements:
  - apprise >= 1.9 (Python library), for other targets than files
options:
  database:
    description: The history, as M(upkeep.ops.maintenance_history) writes it.
    type: path
    required: true
  run:
    description: The run to tell of, as M(upkeep.ops.maintenance_history) returned it when closing it.
    type: dict
    required: true
  contacts:
    description:
      - Who may be told. A contact without C(urls) is never told anything by this module.
      - What a contact was told is remembered under its name. A second contact of the same name is told under that name
        with a number, and noted as a finding.
  reminder_after:
    description: After which time a lasting problem is told again, such as V(24h). V(0) means never.
    type: str
    default: 24h
  report:
    description: Address or path of the report, told at the end of each message.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Close the run
  upkeep.ops.maintenance_history:
    database: /var/lib/upkeep/history.sqlite3
    state: closed
    run: daily
    run_id: 20260131T060000Z-daily-1f2e
    site: example
  register: closed

- name: Tell the people on call
  upkeep.ops.alert:
    database: /var/lib/upkeep/history.sqlite3
    run: "{{ closed.run }}"
    contacts:
      - name: DevOps Lead
        urls: ["file:///var/log/upkeep/alerts.log"]
        severities: [critical, unknown]
      - name: Database Admin
        urls: ["file:///var/log/upkeep/database.log"]
        areas: [database]
    reminder_after: 12h
"""

RETURN = r"""
messages:
  description: What was sent, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    contact:
      description: Name of the contact.
      type: str
    title:
      description: Title of the message.
      type: str
    body:
      description: Text of the message.
      type: str
deliveries:
  description: Each attempt to deliver a message to a target.
  returned: success, and when messages were sent and could not be noted
  type: list
  elements: dict
  contains:
    contact:
      description: Name of the contact.
      type: str
    target:
      description: The target without its secrets.
      type: str
    delivered:
      description: Whether the target took the message.
      type: bool
    error:
      description: Why it did not.
      type: str
held:
  description: What was not told because its service is under maintenance.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What it is about.
      type: str
    procedure:
      description: Which procedure found it.
      type: str
    status:
      description: How bad it is.
      type: str
    summary:
      description: What was found.
      type: str
    window:
      description: Title of the maintenance window.
      type: str
findings:
  description: Contacts that could not be reached, and problems that nobody is told of.
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

from datetime import datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._alert_delivery import deliver, judge
from ansible_collections.upkeep.ops.plugins.module_utils._alerts import (
    Contact,
    Message,
    compose,
    contact_from,
    decide,
    distinct,
    under_maintenance,
)
from ansible_collections.upkeep.ops.plugins.module_utils._findings import Finding
from ansible_collections.upkeep.ops.plugins.module_utils._history import (
    History,
    HistoryError,
    Identity,
    State,
    identity,
    opened,
)
from ansible_collections.upkeep.ops.plugins.module_utils._history_windows import held_services
from ansible_collections.upkeep.ops.plugins.module_utils._module import (
    CONTACT_OPTIONS,
    FAIL_ON_OPTION,
    exit_with_findings,
)
from ansible_collections.upkeep.ops.plugins.module_utils._runs import finding_from
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat, parse_duration, utc_now

ARGUMENT_SPEC: dict[str, Any] = {
    "database": {"type": "path", "required": True},
    "run": {"type": "dict", "required": True},
    "contacts": {"type": "list", "elements": "dict", "required": True, "options": CONTACT_OPTIONS},
    "reminder_after": {"type": "str", "default": "24h"},
    "report": {"type": "str", "default": ""},
    "fail_on": FAIL_ON_OPTION,
}


def prepare(
    history: History, contacts: list[Contact], params: dict[str, Any], now: datetime
) -> tuple[list[Message], list[tuple[Finding, str]]]:
    """The messages that are due, and what is held because of a maintenance window, with its title."""
    run = params["run"]
    findings, states = present(history, run, now)
    windows = held_services(history.connection, run["site"], now)
    held = under_maintenance(findings, [(window.title, window.services) for window in windows])
    findings = [item for item in findings if all(item is not other for other, _title in held)]
    reminder = timedelta(seconds=parse_duration(params["reminder_after"]))
    messages = []
    for contact in contacts:
        notices = decide(contact, findings, states, history.notifications(run["site"], contact.name), now, reminder)
        if notices:
            messages.append(compose(contact, notices, run["site"], run["name"], now, params["report"]))
    return messages, held


def present(history: History, run: dict[str, Any], now: datetime) -> tuple[list[Finding], dict[Identity, State]]:
    """The run's findings that no later run has replaced, and where all checks stand (in check mode, would stand)."""
    states = history.states(run["site"])
    findings = []
    for item in run["findings"]:
        finding = finding_from(item["procedure"], item["host"], item)
        key = identity(finding)
        if key in states and states[key].is_newer_than(finding.observed_at, isoformat(now)):
            continue
        findings.append(finding)
        states[key] = State(finding.status, item.get("since") or finding.observed_at, finding.summary)
    return findings, states


def record(
    history: History, message: Message, deliveries: list[dict[str, Any]], run: dict[str, Any], now: datetime
) -> None:
    """Write down each attempt and, when one of them arrived, what the contact knows now."""
    contact = message.contact.name
    for item in deliveries:
        history.add_delivery(run["id"], contact, item["target"], now, item["error"], message.title)
    if not any(item["delivered"] for item in deliveries):
        return
    for notice in message.notices:
        if notice.kind == "recovered":
            history.note_recovered(run["site"], contact, notice.key)
        else:
            history.note_told(run["site"], contact, notice.key, notice.state, now)


def send_due(
    module: AnsibleModule, now: datetime
) -> tuple[list[Message], list[dict[str, Any]], list[Finding], list[tuple[Finding, str]]]:
    """Send what is due and note it: messages, attempts to deliver them, what is wrong with alerting, what is held."""
    params, run = module.params, module.params["run"]
    contacts = distinct([contact_from(raw) for raw in params["contacts"] if raw["urls"]])
    try:
        with opened(params["database"], write=False) as history:
            messages, held = prepare(history, contacts, params, now)
    except KeyError as error:
        module.fail_json(msg=f"alerts cannot be decided: run lacks {error}; give it what maintenance_history returned")
    except (HistoryError, ValueError) as error:
        module.fail_json(msg=f"alerts cannot be decided: {error}")
    # Sent outside the transaction: a slow target must not lock the history.
    sent = (
        []
        if module.check_mode
        else [(message, deliver(message.contact, message.title, message.body, message.status)) for message in messages]
    )
    deliveries = [item for _message, items in sent for item in items]
    findings = judge(contacts, run, deliveries, now)
    if module.check_mode:
        return messages, deliveries, findings, held
    try:
        with opened(params["database"], write=True) as history:
            for message, items in sent:
                record(history, message, items, run, now)
            history.add_alert_findings(run["id"], findings)
    except HistoryError as error:
        module.fail_json(msg=f"who was told what is not noted, so it is told again: {error}", deliveries=deliveries)
    return messages, deliveries, findings, held


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    messages, deliveries, findings, held = send_due(module, utc_now())
    told = [{"contact": item.contact.name, "title": item.title, "body": item.body} for item in messages]
    exit_with_findings(
        module,
        findings,
        changed=any(item["delivered"] for item in deliveries) or (module.check_mode and bool(told)),
        messages=told,
        deliveries=deliveries,
        held=[
            {**{name: getattr(item, name) for name in ("subject", "procedure", "status", "summary")}, "window": title}
            for item, title in held
        ],
        diff={
            "before": "",
            "after": "\n".join(f"To {item['contact']}: {item['title']}\n{item['body']}" for item in told),
        },
    )


if __name__ == "__main__":
    main()
