#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_resources
short_description: Judge processor, memory, disks and inodes of a Linux host, with the time until disks are full
version_added: 1.0.0
author: The upkeep.ops authors (@upkeep-ops)
description:
  - Measures processor time between two samples, load per core, memory and swap, pressure, processes killed for lack of
    memory, the largest processes, and bytes and inodes of every file system that holds data.
  - Forecasts when a file system is full from samples of earlier days, which it keeps in O(samples_file) or is given as
    O(history). Growth is the median difference between the daily maxima of days one week apart, which log rotation
    and clean-ups do not mislead, or the Theil-Sen slope of the daily maxima while there is less than ten days of
    history. With less than three days it says that there is not enough.
  - Only the names of processes are returned, never their arguments, because these can hold secrets.
attributes:
  check_mode:
    support: full
    details: Measures and judges alike, but keeps no sample.
  diff_mode:
    support: none
    details: The only thing it changes is its own file of samples.
  idempotent:
    support: partial
    details: Keeps at most one sample an hour; within the hour it changes nothing.
options:
  sample_seconds:
    description: Seconds between the two samples of processor time.
    type: float
    default: 1
  processes:
    description: How many of the largest processes to return.
    type: int
    default: 10
  mounts:
    description: Mount points to look at. Empty is all that hold data.
    type: list
    elements: path
    default: []
  exclude_mounts:
    description: Mount points to leave out.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds that a file system may take to answer. A dead network file system never does.
    type: float
    default: 5
  samples_file:
    description:
      - File on the host in which samples of disk use are kept for 60 days, one JSON object a line. Its folder is
        created. Without it nothing is kept.
    type: path
  history:
    description: Samples of disk use from elsewhere, in addition to those of O(samples_file).
    type: list
    elements: dict
    default: []
    suboptions:
      at:
        description: When, such as V(2026-01-31T23:59:59Z).
        type: str
        required: true
      mount:
        description: The mount point.
        type: str
        required: true
      used_bytes:
        description: Bytes in use.
        type: int
        required: true
      used_inodes:
        description: Inodes in use.
        type: int
        default: 0
  thresholds:
    description:
      - From when on a figure is a warning or critical. A pair that is given takes the place of the whole default; a
        side of it that is left out is never reached.
    type: dict
    default: {}
    suboptions:
      cpu_percent:
        description: Processor time used. The default is a warning from 90.
        type: dict
        suboptions: &sides
          warning:
            description: From here on it is a warning.
            type: float
          critical:
            description: From here on it is critical.
            type: float
      load_per_core:
        description: Load over five minutes divided by the number of cores. The default is 2 and 8.
        type: dict
        suboptions: *sides
      iowait_percent:
        description: Processor time spent waiting for disks. The default is a warning from 30.
        type: dict
        suboptions: *sides
      steal_percent:
        description: Processor time that other virtual machines took. The default is a warning from 20.
        type: dict
        suboptions: *sides
      memory_percent:
        description: Memory that is not available. The default is 85 and 95.
        type: dict
        suboptions: *sides
      swap_percent:
        description: Swap used. The default is 50 and 90.
        type: dict
        suboptions: *sides
      oom_kills:
        description: Processes killed for lack of memory since boot. The default is a warning from 1.
        type: dict
        suboptions: *sides
      disk_percent:
        description: Bytes of a file system in use, as df reckons. The default is 80 and 90.
        type: dict
        suboptions: *sides
      inode_percent:
        description: Inodes of a file system in use. The default is 80 and 90.
        type: dict
        suboptions: *sides
      days_to_full:
        description: Days until a file system is full, bad when low. The default is 14 and 3.
        type: dict
        suboptions: *sides
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._checks
"""

EXAMPLES = r"""
- name: Judge the resources of the host and keep samples for the forecast
  upkeep.ops.host_resources:
    samples_file: /var/lib/upkeep/disk-samples.jsonl

- name: Look at two file systems only, with limits of one's own
  upkeep.ops.host_resources:
    mounts: [/, /var]
    thresholds:
      disk_percent: {warning: 85, critical: 95}
      days_to_full: {warning: 30, critical: 7}
    fail_on: never
  register: resources

- name: Show the largest processes
  ansible.builtin.debug:
    var: resources.processes
"""

RETURN = r"""
findings:
  description: >-
    What was found, worst first. The checks are C(cpu), C(load), C(cpu_iowait), C(cpu_steal), C(memory), C(swap) and
    C(oom_kills) of the host, and C(disk_space), C(disk_inodes) and C(disk_forecast) of each file system.
  returned: always
  type: list
  elements: dict
status:
  description: The most severe status of the findings.
  returned: always
  type: str
  sample: ok
summary:
  description: How many findings of each status there are.
  returned: always
  type: str
  sample: 1 warning, 9 ok
cpu:
  description: Shares of processor time in percent (C(used_percent), C(iowait_percent), C(steal_percent)), the C(load)
    averages of 1, 5 and 15 minutes, the number of C(cores) and C(load_per_core).
  returned: always
  type: dict
  sample: {used_percent: 12.5, iowait_percent: 0, steal_percent: 0, load: [0.5, 0.4, 0.3], cores: 4, load_per_core: 0.1}
memory:
  description: Bytes of memory and swap, and their use in percent.
  returned: always
  type: dict
  contains:
    total_bytes:
      description: Memory of the host.
      type: int
    available_bytes:
      description: Memory that can be had without swapping.
      type: int
    used_percent:
      description: Share of the memory that is not available.
      type: float
    swap_total_bytes:
      description: Swap of the host.
      type: int
    swap_used_bytes:
      description: Swap in use.
      type: int
    swap_percent:
      description: Share of the swap in use.
      type: float
pressure:
  description: Percent of the last minute in which some, or all, tasks were held up by C(cpu), C(memory) and C(io).
    Empty where the kernel does not measure it.
  returned: always
  type: dict
  sample: {cpu: {some_percent: 0.4}, io: {some_percent: 0.1, full_percent: 0.0}}
oom_kills:
  description: Processes killed for lack of memory since boot. It is null where the kernel does not count them.
  returned: always
  type: int
uptime_seconds:
  description: Seconds since boot.
  returned: always
  type: int
processes:
  description: The processes with the most resident memory, largest first.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: Process id.
      type: int
    name:
      description: Name of the program.
      type: str
    user:
      description: Name of the user, or the number of one without a name.
      type: str
    rss_bytes:
      description: Resident memory.
      type: int
    percent:
      description: Share of the host's memory.
      type: float
    threads:
      description: Number of threads.
      type: int
disks:
  description: The file systems that hold data.
  returned: always
  type: list
  elements: dict
  contains:
    mount:
      description: Where it is mounted.
      type: str
    source:
      description: Its device or server.
      type: str
    type:
      description: Its type, such as ext4.
      type: str
    total_bytes:
      description: Its size.
      type: int
    used_bytes:
      description: Bytes in use.
      type: int
    available_bytes:
      description: Bytes that users other than root can still write.
      type: int
    used_percent:
      description: Use as df reckons it. It is null when it could not be measured.
      type: float
    total_inodes:
      description: Number of inodes, 0 when the file system has no fixed number.
      type: int
    used_inodes:
      description: Inodes in use.
      type: int
    inode_percent:
      description: Share of the inodes in use. It is null when their number is not fixed or could not be measured.
      type: float
    problem:
      description: Why it could not be measured. Empty when it could.
      type: str
    forecast:
      description: When it will be full.
      type: dict
      contains:
        days_to_full:
          description: Days until bytes or inodes run out. It is null when that is not in sight or not known.
          type: float
        bytes_per_day:
          description: Growth. It is null with less than three days of history.
          type: int
        inodes_per_day:
          description: Growth of the inodes in use. It is null with less than three days of history.
          type: int
        method:
          description: How growth was reckoned, V(weekly differences), V(theil-sen) or V(none).
          type: str
        days_of_history:
          description: Days of which there are samples.
          type: int
        explanation:
          description: The forecast in words.
          type: str
          sample: full in about 41.5 days by 30 days of history
samples:
  description: What became of O(samples_file).
  returned: always
  type: dict
  contains:
    kept:
      description: Samples it holds now, or would without check mode.
      type: int
    damaged:
      description: Lines that could not be read and were passed over.
      type: int
metrics:
  description: Figures for trends.
  returned: always
  type: dict
  sample: {cpu_percent: 12.5, memory_percent: 41.0, "disk_percent:/": 63.2}
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils import _host_resources as resources
from ansible_collections.upkeep.ops.plugins.module_utils._capacity import (
    forecast,
    read_samples,
    record,
    sample_from,
    write_samples,
)
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._resource_findings import THRESHOLDS, Judge, metrics
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def _specification() -> dict[str, Any]:
    pair = {"type": "dict", "options": {"warning": {"type": "float"}, "critical": {"type": "float"}}}
    sample = {
        "at": {"type": "str", "required": True},
        "mount": {"type": "str", "required": True},
        "used_bytes": {"type": "int", "required": True},
        "used_inodes": {"type": "int", "default": 0},
    }
    return {
        "sample_seconds": {"type": "float", "default": 1},
        "processes": {"type": "int", "default": 10},
        "mounts": {"type": "list", "elements": "path", "default": []},
        "exclude_mounts": {"type": "list", "elements": "path", "default": []},
        "timeout": {"type": "float", "default": 5},
        "samples_file": {"type": "path"},
        "history": {"type": "list", "elements": "dict", "default": [], "options": sample},
        "thresholds": {"type": "dict", "default": {}, "options": {name: dict(pair) for name in THRESHOLDS}},
        "fail_on": FAIL_ON_OPTION,
    }


def _measure(params: dict[str, Any]) -> dict[str, Any]:
    """The figures of the host, without forecasts. Raises OSError where there is no /proc."""
    before = resources.cpu_ticks(resources.read("/proc/stat"))
    time.sleep(params["sample_seconds"])
    after = resources.cpu_ticks(resources.read("/proc/stat"))
    memory = resources.memory(resources.read("/proc/meminfo"))
    mounts = resources.parse_mounts(resources.read("/proc/self/mountinfo"))
    load = resources.load(resources.read("/proc/loadavg"), os.cpu_count() or 1)
    return {
        "cpu": {**resources.cpu_shares(before, after), **load},
        "memory": memory,
        "pressure": resources.pressures("/proc/pressure"),
        "oom_kills": resources.numbers(resources.read("/proc/vmstat")).get("oom_kill"),
        "uptime_seconds": int(float(resources.read("/proc/uptime").split()[0])),
        "processes": resources.largest_processes("/proc", params["processes"], memory["total_bytes"]),
        "disks": list(
            resources.usage(
                resources.wanted(mounts, params["mounts"], params["exclude_mounts"]),
                params["timeout"],
            )
        ),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=_specification(), supports_check_mode=True)
    params = module.params
    now = utc_now()
    path = params["samples_file"]
    try:
        history = [sample_from(sample) for sample in params["history"]]
        host = _measure(params)
        old, damaged = read_samples(path) if path else ([], 0)
        samples = record(old, host["disks"], now)
        changed = bool(path) and samples != old
        if changed and not module.check_mode:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            write_samples(path, samples)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the resources of the host could not be measured: {error}")
    for disk in host["disks"]:
        disk["forecast"] = forecast([*history, *samples], disk)
    findings = Judge(params["thresholds"], now).findings(host)
    kept = {"kept": len(samples) if path else 0, "damaged": damaged}
    exit_with_findings(module, findings, **host, samples=kept, metrics=metrics(host), changed=changed)


if __name__ == "__main__":
    main()
