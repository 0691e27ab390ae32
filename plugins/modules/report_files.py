#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report_files
short_description: Publish the files of a report together
version_added: 1.0.0
description:
  - Writes all forms of a report in one call, each of them whole or not at all, and points a link to the newest one.
  - The folder is made when it is not there.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Names the files that would be written, not their text.
  idempotent:
    support: full
options:
  directory:
    description: Folder of the reports.
    type: path
    required: true
  files:
    description: The text of each file by its name, without a folder.
    type: dict
    required: true
  mode:
    description: Mode of the files, octal.
    type: str
    default: "0640"
  directory_mode:
    description: Mode of O(directory) when it is made here, octal.
    type: str
    default: "0750"
  links:
    description: Symbolic links to make or turn, the name of the file that each points to by the name of the link.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Publish a report
  upkeep.ops.report_files:
    directory: /var/lib/upkeep/reports
    files:
      20260131T060000Z-daily-1f2e.html: "<p>All is well.</p>"
      20260131T060000Z-daily-1f2e.md: All is well.
    links:
      daily-latest.html: 20260131T060000Z-daily-1f2e.html
"""

RETURN = r"""
files:
  description: Paths of the files, in the order given.
  returned: success
  type: list
  elements: str
written:
  description: Names of the files and links that were written or turned.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, published_link, text_of


def publish(
    directory: str, files: dict[str, str], links: dict[str, str], modes: tuple[int, int], *, write: bool
) -> list[str]:
    """Names of what is not yet as it should be, written unless ``write`` is false."""
    stale = [name for name, text in files.items() if text_of(os.path.join(directory, name)) != text]
    turned = [name for name, target in links.items() if _target(os.path.join(directory, name)) != target]
    if write:
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o700)
            os.chmod(directory, modes[1])
        for name in stale:
            publish_text(os.path.join(directory, name), files[name], modes[0])
        for name in turned:
            published_link(os.path.join(directory, name), links[name])
    return stale + turned


def _target(path: str) -> str | None:
    return os.readlink(path) if os.path.islink(path) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0640"},
            "directory_mode": {"type": "str", "default": "0750"},
            "links": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    directory, files, links = (module.params[name] for name in ("directory", "files", "links"))
    foreign = [name for name in (*files, *links) if os.path.basename(name) != name]
    if foreign:
        module.fail_json(msg=f"these are no names of files in {directory}: {', '.join(foreign)}")
    try:
        modes = int(module.params["mode"], 8), int(module.params["directory_mode"], 8)
        written = publish(directory, files, links, modes, write=not module.check_mode)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the report cannot be written to {directory}: {error}")
    module.exit_json(
        changed=bool(written),
        files=[os.path.join(directory, name) for name in files],
        written=written,
        diff={"before": "", "after": "".join(f"{name}\n" for name in written)},
    )


if __name__ == "__main__":
    main()
