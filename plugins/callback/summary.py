# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: summary
type: aggregate
short_description: Print what a run found, changed and wants done at its end
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Prints a short table after the recap - procedure, host, status, what to do - of a run that the role C(run) closed.
  - Prints nothing for other playbooks.
requirements:
  - enabled in C(callbacks_enabled)
"""

import shutil
from typing import Any

from ansible import constants as C  # noqa: N812
from ansible.plugins.callback import CallbackBase
from ansible.utils.color import stringc
from ansible_collections.upkeep.ops.plugins.module_utils._summary import summary_lines

_COLORS = {
    "ok": C.COLOR_OK,
    "warning": C.COLOR_CHANGED,
    "unknown": C.COLOR_UNREACHABLE,
    "critical": C.COLOR_ERROR,
}


class CallbackModule(CallbackBase):
    """Waits for the fact ``upkeep_run_summary`` and prints it when all is over."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "upkeep.ops.summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._summary: dict[str, Any] | None = None

    def v2_runner_on_ok(self, result: Any) -> None:
        facts = result.result.get("ansible_facts") or {}
        self._summary = facts.get("upkeep_run_summary", self._summary)

    def v2_playbook_on_stats(self, _stats: Any) -> None:
        if self._summary is None:
            return
        width = shutil.get_terminal_size((120, 24)).columns
        self._display.banner("UPKEEP")
        for line in summary_lines(self._summary, width, lambda text, status: stringc(text, _COLORS[status])):
            self._display.display(line)
