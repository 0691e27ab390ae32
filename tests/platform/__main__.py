# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform from the command line: ``python -m tests.platform ACTION --root DIR``.

The actions are up, down, remove, status, heal, ``fault NAME`` and ``judge REPORT``; ``-h`` tells more. Answers are in
JSON: ``changes`` says what was done, one sentence each; an empty list means that nothing had to be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.platform import faults
from tests.platform.miniature import DEFAULT_PORT, Miniature, PlatformError
from tests.platform.parts.process import PartError


def main(words: list[str] | None = None) -> int:
    """Do what the words say; 0, or 1 with the reason on standard error."""
    arguments = _parser().parse_args(words)
    try:
        platform = Miniature(arguments.root, arguments.port, arguments.backups)
        json.dump(_act(platform, arguments), sys.stdout, indent=2)
    except (PlatformError, PartError) as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


def _act(platform: Miniature, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.action == "status":
        return {"parts": platform.status(), "faults": faults.active(platform), "ports": platform.settings.ports}
    if arguments.action == "fault":
        return {"changes": faults.switch(platform, arguments.name)}
    if arguments.action == "judge":
        return faults.judge(platform, json.loads(arguments.report.read_text()))
    acts: dict[str, Callable[[], list[str]]] = {
        "up": platform.up,
        "down": platform.down,
        "remove": platform.remove,
        "heal": lambda: faults.switch(platform, "none"),
    }
    return {"changes": acts[arguments.action]()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.platform", description="The platform in miniature.")
    actions = parser.add_subparsers(dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, required=True, help="the folder that holds everything")
    common.add_argument("--port", type=int, help=f"the gateway's port, {DEFAULT_PORT} at first")
    common.add_argument("--backups", type=Path, help="the folder of the backup sets, for the fault corrupt-backup")
    helps = {
        "up": "start what does not run",
        "down": "stop all parts and keep their data",
        "remove": "stop all parts and delete the folder",
        "status": "state of each part, faults that are on, ports",
        "heal": "mend every fault",
    }
    for name, text in helps.items():
        actions.add_parser(name, parents=[common], help=text)
    fault = actions.add_parser("fault", parents=[common], help="have exactly this fault; none heals all")
    fault.add_argument("name", help=", ".join([*faults.FAULTS, "none"]))
    judge = actions.add_parser("judge", parents=[common], help="hold a run's report against the faults that are on")
    judge.add_argument("report", type=Path, help="the report of the run, in JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
