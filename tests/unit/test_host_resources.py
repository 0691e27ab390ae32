# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers of /proc, the choice of file systems, samples and verdicts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _capacity as capacity
from ansible_collections.upkeep.ops.plugins.module_utils import _host_resources as resources
from ansible_collections.upkeep.ops.plugins.module_utils._sizes import human
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)

MOUNTINFO = r"""
20 1 254:0 / / rw,relatime - ext4 /dev/vda rw
21 20 0:5 / /proc rw - proc proc rw
22 20 0:6 / /run rw - tmpfs tmpfs rw
23 20 254:16 / /var\040data rw - xfs /dev/vdb rw
24 20 254:16 /www /srv/www rw - xfs /dev/vdb rw
25 20 254:0 /home /mnt/bind rw - ext4 /dev/vda rw
26 20 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
27 20 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
28 20 0:51 /@a /pool/a rw - btrfs /dev/vdc rw
29 20 0:52 /@b /pool/b rw - btrfs /dev/vdc rw
30 20 0:53 / /nfs rw shared:1 master:2 - nfs4 server:/export rw
31 20 0:54 / /odd rw - fuse.lxcfs lxcfs rw
"""


def test_file_systems_that_hold_data_are_told_once() -> None:
    found = resources.parse_mounts(MOUNTINFO)
    assert [(mount.path, mount.kind) for mount in found] == [
        ("/", "ext4"),
        ("/nfs", "nfs4"),
        ("/pool/a", "btrfs"),
        ("/var data", "xfs"),
    ]


def test_the_root_of_a_container_is_watched() -> None:
    (mount,) = resources.parse_mounts("1 0 0:9 / / rw - overlay overlay rw,lowerdir=/x")
    assert mount.path == "/"


@given(st.text())
def test_no_line_breaks_the_parsers(text: str) -> None:
    resources.parse_mounts(text)
    resources.numbers(text)
    resources.pressure(text)


def test_one_file_system_that_is_gone_does_not_hide_the_others() -> None:
    mounts = [resources.Mount("/", "/dev/vda", "ext4"), resources.Mount("/no/such/place", "server:/x", "nfs4")]
    root, gone = resources.usage(mounts, 1)
    assert (root["problem"], gone["problem"]) == ("", "No such file or directory")


def test_shares_of_processor_time() -> None:
    before = resources.cpu_ticks("cpu  100 0 100 1000 50 0 0 10 0 0\ncpu0 1 2 3\n")
    after = resources.cpu_ticks("cpu  130 0 110 1040 60 0 0 20 0 0\n")
    assert resources.cpu_shares(before, after) == {
        "used_percent": 50.0,
        "iowait_percent": 10.0,
        "steal_percent": 10.0,
    }
    assert resources.cpu_shares(after, after)["used_percent"] == 0.0


def disk(**figures: object) -> dict[str, object]:
    plain = {"mount": "/", "used_bytes": 100, "used_inodes": 5, "available_bytes": 70, "total_inodes": 100}
    return {**plain, "problem": "", **figures}


def days_of(count: int, per_day: int) -> list[capacity.Sample]:
    return [
        capacity.Sample(f"{NOW - timedelta(days=count - day):%Y-%m-%dT%H:%M:%SZ}", "/", day * per_day, 5)
        for day in range(count)
    ]


@pytest.mark.parametrize(
    ("samples", "days", "explanation"),
    [
        (days_of(20, 7), 10.0, "full in about 10 days by 20 days of history"),
        (days_of(5, 7), 10.0, "full in about 10 days by 5 days of history"),
        (days_of(20, 0), None, "not filling up by 20 days of history"),
        (days_of(20, -3), None, "not filling up by 20 days of history"),
        (days_of(2, 7), None, "time to full unknown, not enough history (2 of 3 days)"),
        ([], None, "time to full unknown, not enough history (0 of 3 days)"),
    ],
)
def test_forecast(samples: list[capacity.Sample], days: float | None, explanation: str) -> None:
    found = capacity.forecast(samples, disk())
    assert (found["days_to_full"], found["explanation"]) == (days, explanation)


def test_inodes_run_out_first() -> None:
    samples = [capacity.Sample(sample.at, "/", 50, sample.used_bytes) for sample in days_of(20, 1)]
    assert capacity.forecast(samples, disk(used_inodes=95))["days_to_full"] == 5.0


def test_samples_of_other_file_systems_do_not_count() -> None:
    samples = [capacity.Sample(sample.at, "/var", sample.used_bytes, 1) for sample in days_of(20, 7)]
    assert capacity.forecast(samples, disk())["days_of_history"] == 0


def test_a_damaged_file_loses_only_its_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    capacity.write_samples(str(path), days_of(3, 1))
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(data[0] + b"\xff\xfe{\n" + b"[]\n" + b"null\n" + data[1] + data[2][:20])
    assert capacity.read_samples(str(path)) == (days_of(3, 1)[:2], 4)


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reading(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "samples"
    path.write_bytes(data)
    capacity.read_samples(str(path))


def test_a_full_hour_lies_between_samples_and_a_new_file_system_is_taken_at_once() -> None:
    first = capacity.record([], [disk()], NOW)
    assert capacity.record(first, [disk()], NOW + timedelta(minutes=59)) == first
    both = capacity.record(first, [disk(), disk(mount="/var")], NOW + timedelta(minutes=30))
    assert [sample.mount for sample in both] == ["/", "/var"]
    assert len(capacity.record(both, [disk()], NOW + timedelta(days=61))) == 1


@pytest.mark.parametrize(
    ("size", "told"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB"), (-1536, "-1.5 KiB")]
)
def test_bytes_for_people(size: int, told: str) -> None:
    assert human(size) == told
