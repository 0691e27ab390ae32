#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_rollback
short_description: Note what a service runs, and go back to it
version_added: 1.0.0
description:
  - Notes which release, image, versions of packages and configuration files a service uses, before something is
    changed, and goes back to them afterwards; or goes back to what the host itself knows to be the one before.
  - Nothing is turned before all of it is known to be possible. Restart the service with
    M(upkeep.ops.service_control) afterwards; but for a container that is made anew it is not restarted here.
notes:
  - Of containers the tag of the image is turned back, and the container is made anew of that image with all its
    settings, its networks and its volumes; it is started when it ran. What it wrote outside of volumes is not in the
    new one. The container before is kept as C(<name>.before), stopped, until the next time. One that removes itself
    (C(--rm)), or in whose network others live, is refused. A killed call is put right by the next one.
  - For that the daemon must be on this host.
  - Configuration files are compared and told, never written. Packages are those of Debian, and keep the configuration
    files that are there.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: V(previous) of O(state) goes back by one more release each time.
options:
  state:
    description:
      - V(recorded) returns what is in use now, and keeps it in O(records).
      - V(previous) goes back to what was in use before that; for packages that is the version before their last
        upgrade, for images the newest other one in O(records).
      - V(returned) goes back to O(record).
    type: str
    choices: [recorded, previous, returned]
    default: recorded
  releases:
    description: Folder with a folder for each release.
    type: path
  link:
    description: The link to the release in use. The default is C(current) beside O(releases).
    type: path
  order:
    description:
      - Whether the release before is found by its name, in which numbers count, or by the time of its folder. That
        changes when something is written into the folder.
    type: str
    choices: [name, time]
    default: name
  mark_bad:
    description:
      - Whether the release that is left is marked bad, with a file C(<release>.bad) beside it. A release that is
        marked so is never gone back to.
    type: bool
    default: true
  container:
    description: Container whose image is noted.
    type: str
  packages:
    description: Names of packages.
    type: list
    elements: str
    default: []
  files:
    description: Configuration files whose checksums are noted.
    type: list
    elements: path
    default: []
  records:
    description:
      - JSON file on the host, in which V(recorded) of O(state) keeps what is in use, up to twenty of them. Without it
        the image before is not known.
    type: path
  record:
    description: The RV(release) of an earlier call, for V(returned) of O(state).
    type: dict
  apt_history:
    description: Where apt notes what it upgraded.
    type: path
    default: /var/log/apt/history.log
seealso:
  - module: upkeep.ops.service_control
"""

EXAMPLES = r"""
- name: Note what is in use before a change
  upkeep.ops.release_rollback:
    state: recorded
    releases: /srv/auth-service/releases
    files: [/etc/auth-service.conf]
  register: before

- name: Keep on the host with what it serves well; for a container with container instead of releases
  upkeep.ops.release_rollback:
    releases: /srv/auth-service/releases
    records: /var/lib/upkeep/releases/auth-service.json

- name: Go back to it
  upkeep.ops.release_rollback:
    state: returned
    releases: /srv/auth-service/releases
    record: "{{ before.release }}"

- name: Go back to the release before this one
  upkeep.ops.release_rollback:
    state: previous
    releases: /srv/auth-service/releases
"""

RETURN = r"""
release:
  description: What is in use now, or would be after check mode. A later call goes back to it.
  returned: success
  type: dict
  contains:
    release:
      description: Name of the release; empty without O(releases).
      type: str
    image:
      description: The container's image with C(name) and C(id); empty without O(container).
      type: dict
    packages:
      description: Version by name of the package.
      type: dict
    files:
      description: SHA-256 by path; empty for a file that is not there.
      type: dict
turned:
  description: What was turned, or would be, in words.
  returned: success
  type: list
  elements: str
differing_files:
  description: Configuration files that are not as they were recorded. They are left as they are.
  returned: success
  type: list
  elements: str
msg:
  description: What was done, or what is wrong.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._containers import ContainerError
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program
from ansible_collections.upkeep.ops.plugins.module_utils._release_records import Records, RecordsError
from ansible_collections.upkeep.ops.plugins.module_utils._releases import Folder, Host, ReleaseError
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_ARGUMENTS = {
    "state": {"type": "str", "choices": ["recorded", "previous", "returned"], "default": "recorded"},
    "releases": {"type": "path"},
    "link": {"type": "path"},
    "order": {"type": "str", "choices": ["name", "time"], "default": "name"},
    "mark_bad": {"type": "bool", "default": True},
    "container": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "path", "default": []},
    "records": {"type": "path"},
    "record": {"type": "dict"},
    "apt_history": {"type": "path", "default": "/var/log/apt/history.log"},
}


def host_of(params: dict[str, Any]) -> Host:
    """What the parameters name."""
    folder = Folder(params["releases"], params["link"], params["order"]) if params["releases"] else None
    names = ("packages", "files")
    records = Records(params["records"]) if params["records"] else None
    return Host(folder, params["container"] or "", *(params[name] for name in names), run_program,
                params["apt_history"], records)  # fmt: skip


def go_back(host: Host, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Go back as ``state`` says; the module's answer. Raises ReleaseError."""
    before = host.record()
    if params["state"] == "recorded":
        return _recorded(before, params["records"], check)
    wanted = params["record"] if params["state"] == "returned" else host.before()
    turned, differing = host.plan(wanted), host.differing_files(wanted)
    if turned and not check:
        host.turn(wanted)
        after = host.record()
        if params["mark_bad"] and host.folder and after["release"] != before["release"]:
            host.folder.mark_bad(before["release"], f"left for {after['release']}")
    else:
        after = {name: wanted.get(name) or before[name] for name in before}
    told = f"{'would go' if check else 'went'} back: {', '.join(turned)}" if turned else "everything is as wanted"
    told += f"; changed since it was recorded: {', '.join(differing)}" if differing else ""
    return _answer(before, after, turned, differing, told)


def _recorded(release: dict[str, Any], path: str | None, check: bool) -> dict[str, Any]:
    """Keep what is in use, where a file is given for it; the module's answer."""
    new = path is not None and Records(path).lacks(release)
    if path is not None and new and not check:
        Records(path).add(release, utc_now())
    return {**_answer(release, release, [], [], f"noted what is in use{f' in {path}' if new else ''}"), "changed": new}


def _answer(
    before: dict[str, Any], after: dict[str, Any], turned: list[str], differing: list[str], message: str
) -> dict[str, Any]:
    return {
        "changed": bool(turned),
        "release": after,
        "turned": turned,
        "differing_files": differing,
        "msg": message,
        "diff": {"before": before, "after": after},
    }


def main() -> None:
    module = AnsibleModule(
        _ARGUMENTS, required_if=[("state", "returned", ["record"])], supports_check_mode=True
    )  # fmt: skip
    try:
        answer = go_back(host_of(module.params), module.params, module.check_mode)
    except (ReleaseError, ContainerError, RecordsError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
