#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_copy
short_description: Keep copies of backup sets elsewhere, encrypted if wanted, and prove them
version_added: 1.0.0
description:
  - Copies a verified backup set (see M(upkeep.ops.backup_set)) to a bucket of Cloud Storage, over SSH to another host,
    or to a folder, and reads every byte of the copy back. Only then it counts as a copy.
  - With O(recipients) every file is encrypted by the program C(age) before it leaves the host. The private keys are
    never needed there. So that it is proved nevertheless that the copy can be decrypted, it is encrypted to a key of
    its own as well, which lives in the memory of the module alone. What lies at the destination is read back, decrypted
    with it and compared with the manifest. Then the key is forgotten.
  - A copy that was cut off is not taken for one. Run again, files that were sent whole and unencrypted are not
    sent a second time, rsync goes on within a file, and encrypted ones are sent anew.
  - A run can be killed at any point and run again. Nothing is changed in the set.
  - "A copy is a folder named by the id of its set. It holds the files of the set, with C(.age) appended to their names
    if they are encrypted, and C(copy.json) with the sizes and sums of what lies there. That one is not encrypted; it
    tells names and sizes of files, the site, and the recipients."
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
attributes:
  check_mode:
    support: full
    details: Looks at the destination, and with O(read_back=true) reads the copy that is there.
  diff_mode:
    support: full
    details: Shows the ids of the copies.
  idempotent:
    support: full
    details: A copy that is there and good is not made again.
requirements:
  - C(age) and C(age-keygen), for O(recipients)
  - C(ssh) and C(rsync), for a destination of C(ssh://); the other host needs a shell, C(rsync) and GNU find
  - google-cloud-storage >= 2.14 and google-crc32c >= 1.5 (Python libraries), for a destination of C(gs://)
options:
  root:
    description: Folder that holds the backup sets.
    type: path
    required: true
  destination:
    description:
      - Where copies lie, C(gs://bucket/folder), C(ssh://user@host:port/folder) or C(/folder). It must be there, so that
        nothing is copied into the folder of a disk that is not mounted.
      - One root at a time copies there, and nothing else should lie there.
    type: str
    required: true
  state:
    description:
      - V(present) copies a set unless a good copy of it is there, and removes what runs that were killed left.
      - V(checked) judges the copies.
      - V(absent) removes the copy of one set. It refuses the newest good one unless O(force=true).
    type: str
    choices: [present, checked, absent]
    default: present
  id:
    description:
      - Id of the set. O(state=absent) needs it.
      - Without it O(state=present) takes the newest verified set. One that is not verified is refused.
    type: str
  recipients:
    description:
      - Public keys of C(age) (V(age1...)) or of SSH (V(ssh-ed25519 ...)) to encrypt to. Without any nothing is
        encrypted.
      - A copy for other recipients than these is made anew.
    type: list
    elements: str
    default: []
  name:
    description: Subject of the findings. The default is O(destination).
    type: str
  max_age:
    description:
      - With O(state=checked) the newest good copy is critical when its set is older. A duration such as V(30h).
    type: str
  read_back:
    description:
      - Read every byte of a copy that is there already, that of the set with O(state=present) and the newest one with
        O(state=checked). Otherwise names and sizes are looked at. A copy that is made is always read back.
      - Providers of buckets may charge for it.
    type: bool
    default: true
  prune_after:
    description:
      - With O(state=present) copies of sets that are not at O(root) any more are removed when they are older than this.
        A duration such as V(90d). Without it no copy is removed.
      - The newest good copy is never removed by this. Choose it long, for a root that was lost or emptied looks the
        same as one whose sets were removed.
    type: str
  force:
    description: Remove with O(state=absent) also the newest good copy.
    type: bool
    default: false
  ssh_key_file:
    description: Private key for C(ssh://). The default are those of the user's own settings.
    type: path
  ssh_known_hosts_file:
    description:
      - File with the key of the host for C(ssh://). The default is the user's own.
      - A host that is not in it, or has another key, is refused.
    type: path
  storage_endpoint:
    description: URL of a stand-in for Cloud Storage, for C(gs://). It is asked without credentials.
    type: str
  service_account_file:
    description: JSON key file of a service account, for C(gs://). The default are application default credentials.
    type: path
  impersonate_service_account:
    description: Account whose credentials are taken on, for C(gs://).
    type: str
  timeout:
    description: Seconds that the destination may stay silent.
    type: float
    default: 60
  progress_file:
    description:
      - File that gets a line of JSON about each second while copies are read back, with C(bytes) and C(seconds). Follow
        it with C(tail -F).
    type: path
notes:
  - One run at a time copies from a root. A file is prepared in the hidden folder C(.copy) at O(root) while it is
    encrypted, so there must be room for the largest one.
  - An export of Firestore lies in a bucket and not in the set. The copy holds the record of it and not the export.
seealso:
  - module: upkeep.ops.backup_set
"""

EXAMPLES = r"""
- name: Keep an encrypted copy of the newest set in a bucket
  upkeep.ops.backup_copy:
    root: /var/backups/upkeep
    destination: gs://example-offsite/upkeep
    recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]

- name: Keep one on another host, and remove copies of sets that have been gone for long
  upkeep.ops.backup_copy:
    root: /var/backups/upkeep
    destination: ssh://backup@vault.example.org/srv/copies
    ssh_key_file: /root/.ssh/copies
    prune_after: 90d

- name: See whether the copies are good and young
  upkeep.ops.backup_copy:
    root: /var/backups/upkeep
    destination: ssh://backup@vault.example.org/srv/copies
    ssh_key_file: /root/.ssh/copies
    state: checked
    max_age: 30h
"""

RETURN = r"""
msg:
  description: What was done, or what is wrong.
  returned: always, but with O(state=checked) only when the task fails
  type: str
copy:
  description: The copy of the set; null when there is none, as in check mode.
  returned: success, unless O(state=checked)
  type: dict
  contains: &copy
    id:
      description: Id of the set.
      type: str
      sample: 20260131T235959Z
    state:
      description: V(whole) by names and sizes, V(damaged) or V(incomplete).
      type: str
    age:
      description: Seconds since the set was opened.
      type: int
    bytes:
      description: Size of its files as they lie there.
      type: int
    files:
      description: Number of its files.
      type: int
    encrypted:
      description: Whether it is encrypted.
      type: bool
    copied_at:
      description: When it was made, RFC 3339 in UTC; empty when it is not whole.
      type: str
    problem:
      description: What is damaged; empty when nothing is.
      type: str
reason:
  description: Why a copy was made, or would be in check mode; empty when it was not.
  returned: success, unless O(state=checked)
  type: str
removed:
  description: Ids of the sets whose copies were removed.
  returned: success, unless O(state=checked)
  type: list
  elements: str
copies:
  description: All copies, newest first.
  returned: O(state=checked)
  type: list
  elements: dict
  contains: *copy
findings:
  description:
    - What was found, worst first. Checks are C(backup_copy_age), C(backup_copy_bytes) and C(backup_copy_leftovers).
  returned: O(state=checked)
  type: list
  elements: dict
status:
  description: Worst status among the findings.
  returned: O(state=checked)
  type: str
summary:
  description: Number of findings of each status.
  returned: O(state=checked)
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._age import EncryptionError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_changes import BackupCopyError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_places import PlaceError
from ansible_collections.upkeep.ops.plugins.module_utils._backup_copy_requests import carry_out, check
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress
from ansible_collections.upkeep.ops.plugins.module_utils._signals import StoppedError, stop_by_exception
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now

_ARGUMENTS = {
    "root": {"type": "path", "required": True},
    "destination": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "checked", "absent"], "default": "present"},
    "id": {"type": "str"},
    "recipients": {"type": "list", "elements": "str", "default": []},
    "name": {"type": "str"},
    "max_age": {"type": "str"},
    "read_back": {"type": "bool", "default": True},
    "prune_after": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "ssh_key_file": {"type": "path", "no_log": False},
    "ssh_known_hosts_file": {"type": "path"},
    "storage_endpoint": {"type": "str"},
    "service_account_file": {"type": "path"},
    "impersonate_service_account": {"type": "str"},
    "timeout": {"type": "float", "default": 60},
    "progress_file": {"type": "path"},
    "fail_on": FAIL_ON_OPTION,
}


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, required_if=[("state", "absent", ("id",))], supports_check_mode=True)
    stop_by_exception()
    params = module.params
    try:
        what = f"copy at {params['destination']}"
        with Progress(what, params["progress_file"] or "", time.monotonic, module.log) as progress:
            if params["state"] == "checked":
                findings, copies = check(params, utc_now, progress)
                exit_with_findings(module, findings, copies=copies)
            module.exit_json(**carry_out(params, utc_now, progress, module.check_mode))
    except (BackupCopyError, PlaceError, EncryptionError, MissingDependencyError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the sets below {params['root']} cannot be copied: {error}")
    except StoppedError as error:
        module.fail_json(msg=f"{error}: what is not whole at the destination is no copy; run it again")


if __name__ == "__main__":
    main()
