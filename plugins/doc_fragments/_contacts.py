# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The contacts of the catalogue, which one module tells of alerts and another of incidents."""

    DOCUMENTATION = r"""
options:
  contacts:
    description: Who may be told.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the contact.
        type: str
        required: true
      group:
        description: Technical, business or vendor. For people; it decides nothing.
        type: str
      email:
        description: Address of the contact. For people; messages go to O(contacts[].urls).
        type: str
      urls:
        description: Targets, each an Apprise URL such as V(mailtos://...), V(slack://...), or V(file:///var/log/alerts.log).
        type: list
        elements: str
        default: []
      severities:
        description: Which statuses, and incidents of which severities, the contact is told of.
        type: list
        elements: str
        choices: [warning, unknown, critical]
        default: [critical, unknown]
      areas:
        description:
          - Which procedures the contact is told of, by their names or by their areas.
          - Areas are V(services), V(database), V(security), V(performance), V(platform), and V(all).
        type: list
        elements: str
        default: [all]
      stages:
        description: Which stages of an incident the contact is told of, by M(upkeep.ops.incident_notice).
        type: list
        elements: str
        choices: [assess, contain, recover, closed]
        default: []
"""
