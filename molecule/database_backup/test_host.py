# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set on disk, judged by Redis' own tools."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["ansible://database-backup"]


def _sets(host: Host) -> list[str]:
    """Folders of the sets: the one that was made for the spoilt one, which retention has removed since."""
    sets = sorted(host.check_output("find /var/backups/upkeep -mindepth 1 -maxdepth 1 -name '*Z*'").split())
    assert len(sets) == 1, f"one set, and nothing half-made or half-removed: {sets}"
    return sets


def test_redis_finds_every_key_in_the_snapshot(host: Host) -> None:
    host.check_output(f"zstd -qdc {_sets(host)[-1]}/redis/cache.rdb.zst >/root/loaded.rdb")
    told = host.check_output("redis-check-rdb /root/loaded.rdb")
    assert "RDB looks OK" in told
    assert "1000 keys read" in told


def test_the_manifest_is_complete_and_verified(host: Host) -> None:
    folder = _sets(host)[-1]
    assert json.loads(host.file(f"{folder}/manifest.json").content_string)["parts"]
    assert host.file(f"{folder}/verification.json").exists


def test_others_cannot_read_the_data(host: Host) -> None:
    readable = host.check_output("find /var/backups/upkeep -type f -perm /077")
    assert readable == ""


def test_no_private_server_is_left(host: Host) -> None:
    assert len(host.process.filter(comm="redis-server")) == 1


def test_the_data_is_untouched(host: Host) -> None:
    assert host.check_output("redis-cli --no-auth-warning -a not-a-secret dbsize") == "1000"
