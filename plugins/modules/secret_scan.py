#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_scan
short_description: Finds secrets in project folders
version_added: 1.0.0
description:
  - Scans the text files of project folders with C(gitleaks) when it is on the PATH, else with the Python library
    C(detect-secrets), and with rules of its own for passwords of Redis and of C(curl) commands.
  - "Each secret is a critical finding C(secret_in_file), each folder a finding C(secret_scan). Without a scanner, or
    when files could not be read, the latter is C(unknown): the rules of its own alone prove nothing."
  - Secrets themselves are never returned or printed, only their file, line, kind and a short fingerprint.
  - "A line with C(pragma: allowlist secret) or C(gitleaks:allow) is passed over. So are links and binary files."
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
options:
  paths:
    description: Project folders, or single files.
    type: list
    elements: path
    required: true
  exclude:
    description:
      - Patterns of files and folders to pass over. Each is compared with the name, and with the path relative to the
        project folder.
    type: list
    elements: str
    default: [.git, node_modules, .venv, __pycache__, package-lock.json, yarn.lock, pnpm-lock.yaml]
  allowed:
    description: Fingerprints of findings that are no secrets.
    type: list
    elements: str
    default: []
  baseline:
    description: File with further fingerprints, one in a line; what follows a blank is a comment.
    type: path
  scanner:
    description: Which scanner to use. V(auto) takes gitleaks when it is there, else detect-secrets.
    type: str
    choices: [auto, gitleaks, detect_secrets]
    default: auto
  max_file_size:
    description: Larger files are not read, in bytes. How many these are is told.
    type: int
    default: 1048576
  timeout:
    description: Seconds that gitleaks may take for one folder.
    type: float
    default: 300
requirements:
  - gitleaks, or detect-secrets >= 1.4 (Python library)
"""

EXAMPLES = r"""
- name: Look for secrets in the projects of this host
  upkeep.ops.secret_scan:
    paths:
      - /srv/auth-service
      - /srv/order-service
    allowed:
      - 3f1c0d2b9a77

- name: Use the fingerprints that are kept with the project
  upkeep.ops.secret_scan:
    paths:
      - /srv/auth-service
    baseline: /srv/auth-service/.secrets.allowed
    scanner: detect_secrets
    fail_on: warning
"""

RETURN = r"""
secrets:
  description: The secrets that were found.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Path of the file.
      type: str
    line:
      description: Number of the line, from 1.
      type: int
    kind:
      description: What kind of secret it is, as the scanner calls it.
      type: str
    fingerprint:
      description: Stands for the secret in O(allowed) and O(baseline). The same wherever in the file it moves.
      type: str
scanner:
  description: C(gitleaks), C(detect-secrets), or empty when there is none.
  returned: always
  type: str
files:
  description: Number of files that were read.
  returned: always
  type: int
findings:
  description: What was found, worst first.
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of the findings.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
"""

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program
from ansible_collections.upkeep.ops.plugins.module_utils._secrets import (
    Scanner,
    detect_secrets_scanner,
    gitleaks_scanner,
    judge_tree,
    list_files,
    read_baseline,
)
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

EXCLUDED = [".git", "node_modules", ".venv", "__pycache__", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"]


def chosen_scanner(choice: str, timeout: float) -> Scanner | str:
    """The scanner to use, or why there is none."""
    program = shutil.which("gitleaks") if choice != "detect_secrets" else None
    if program:
        return gitleaks_scanner(program, run_program, timeout)
    if choice == "gitleaks":
        return "gitleaks is not on the PATH"
    try:
        return detect_secrets_scanner()
    except MissingDependencyError as error:
        return str(error) if choice == "detect_secrets" else f"gitleaks is not on the PATH, and {error}"


def scanned(params: dict[str, Any], allowed: list[str]) -> dict[str, Any]:
    """What is in all the folders, without the fingerprints that are allowed."""
    scanner = chosen_scanner(params["scanner"], params["timeout"])
    builder = FindingsBuilder(utc_now())
    secrets: list[dict[str, Any]] = []
    files = 0
    for root in params["paths"]:
        try:
            tree = list_files(root, params["exclude"], params["max_file_size"])
        except OSError as error:
            builder.add("secret_scan", root, "unknown", f"cannot be read: {error.strerror}", hint="Correct the path")
            continue
        files += len(tree.files)
        for secret in judge_tree(builder, tree, scanner, allowed):
            path = os.path.join(root, secret.path) if secret.path else root
            secrets.append({"path": path, **{name: getattr(secret, name) for name in ("line", "kind", "fingerprint")}})
    name = scanner.name if isinstance(scanner, Scanner) else ""
    return {"findings": builder.findings, "secrets": secrets, "files": files, "scanner": name}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "exclude": {"type": "list", "elements": "str", "default": EXCLUDED},
            "allowed": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "baseline": {"type": "path"},
            "scanner": {"type": "str", "choices": ["auto", "gitleaks", "detect_secrets"], "default": "auto"},
            "max_file_size": {"type": "int", "default": 1048576},
            "timeout": {"type": "float", "default": 300},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    path = module.params["baseline"]
    try:
        baseline = read_baseline(path) if path else []
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"the baseline {path} cannot be read: {error}")
    exit_with_findings(module, **scanned(module.params, module.params["allowed"] + baseline))


if __name__ == "__main__":
    main()
