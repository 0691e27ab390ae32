# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real logrotate: what it refuses never replaces a good configuration, and what is told as rotated was rotated."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._logrotate import Logrotate, LogrotateError

from tests.examples import run_examples
from tests.harness import run_module


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """A private folder with one log, and arguments that rotate it by size."""
    (tmp_path / "logs").mkdir(mode=0o755)
    (tmp_path / "conf").mkdir(mode=0o755)
    (tmp_path / "logs" / "app.log").write_text("line\n" * 1000)
    return {
        "path": str(tmp_path / "conf" / "upkeep"),
        "state_file": str(tmp_path / "state" / "logrotate.state"),
        "max_size": "1k",
        "delay_compress": False,
        "logs": [{"name": "app", "paths": [str(tmp_path / "logs" / "*.log")], "archive_folder": str(tmp_path / "old")}],
        "run": True,
    }


def test_rotates_archives_and_compresses_and_nothing_the_second_time(tmp_path: Path, site: dict[str, Any]) -> None:
    answer = run_module("logrotate", site, diff=True)
    log = tmp_path / "logs" / "app.log"
    assert (answer["changed"], answer["config_changed"], answer["rotated"]) == (True, True, [str(log)])
    assert answer["diff"]["before"] == ""
    assert "maxsize 1k" in answer["diff"]["after"]
    (archived,) = (tmp_path / "old").iterdir()
    assert gzip.decompress(archived.read_bytes()) == b"line\n" * 1000
    assert log.stat().st_size == 0
    assert oct(log.stat().st_mode & 0o777) == "0o640"
    assert f'"{log}"' in Path(site["state_file"]).read_text()

    again = run_module("logrotate", site)
    assert (again["changed"], again["rotated"]) == (False, [])


def test_check_mode_says_what_would_rotate_and_touches_nothing(tmp_path: Path, site: dict[str, Any]) -> None:
    answer = run_module("logrotate", site, check=True, diff=True)
    assert answer["rotated"] == [str(tmp_path / "logs" / "app.log")]
    assert answer["changed"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["app.log", "conf", "logs"]
    assert (tmp_path / "logs" / "app.log").stat().st_size == 5000


def test_force_rotates_what_is_not_due(tmp_path: Path, site: dict[str, Any]) -> None:
    site["max_size"] = ""
    site["frequency"] = "yearly"
    run_module("logrotate", {**site, "run": False})
    assert run_module("logrotate", {**site, "force": True}, check=True)["rotated"] == [str(tmp_path / "logs/app.log")]
    assert run_module("logrotate", {**site, "force": True})["rotated"] == [str(tmp_path / "logs" / "app.log")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"owner": "nobody-here"}, "there is no user 'nobody-here'"),
        ({"owner": "root", "group": "no-such-group"}, "there is no group 'no-such-group'"),
        ({"max_size": "many"}, "no size for logrotate"),
        ({"paths": ['/var/log/a"b.log']}, "holds a quote"),
        ({"postrotate": "true\nendscript\nrotate 0"}, "endscript"),
        ({"archive_folder": "/var/log/old logs"}, "without spaces"),
        ({"frequency": "daily", "mode": "0888"}, "bad"),
        ({"mode": "640\nprerotate"}, "no mode"),
    ],
)
def test_a_bad_configuration_never_replaces_a_good_one(site: dict[str, Any], change: dict[str, Any], told: str) -> None:
    run_module("logrotate", {**site, "run": False})
    good = Path(site["path"]).read_bytes()
    for check in (True, False):
        answer = run_module("logrotate", {**site, "logs": [{**site["logs"][0], **change}]}, check=check)
        assert answer["failed"]
        assert not answer["changed"]
        assert told in answer["msg"]
    assert Path(site["path"]).read_bytes() == good
    assert [path.name for path in Path(site["path"]).parent.iterdir()] == ["upkeep"]


def test_an_error_counts_although_logrotate_ends_with_0(tmp_path: Path) -> None:
    def run(command: Sequence[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        return done.returncode, done.stdout, done.stderr

    program = Logrotate("/usr/sbin/logrotate", str(tmp_path / "state"), run)
    with pytest.raises(LogrotateError, match="upkeep:2 unknown option 'bogus'"):
        program.plan("/var/log/none.log {\nbogus 3\nmissingok\n}\n", "upkeep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is warned of folders that others may write to")
def test_a_folder_that_its_group_may_write_to_needs_su(tmp_path: Path, site: dict[str, Any]) -> None:
    os.chown(tmp_path / "logs", -1, 4)
    (tmp_path / "logs").chmod(0o775)
    answer = run_module("logrotate", site)
    assert answer["failed"]
    assert "insecure permissions" in answer["msg"]
    assert "set su_user" in answer["msg"]
    site["logs"][0].update(su_user="root", su_group="adm")
    assert run_module("logrotate", site)["rotated"]


def test_a_log_that_another_file_rotates_is_refused(tmp_path: Path, site: dict[str, Any]) -> None:
    other = tmp_path / "conf" / "app"
    other.write_text(f"{tmp_path}/logs/app.log {{\n  weekly\n}}\n")
    other.chmod(0o644)
    answer = run_module("logrotate", site)
    assert answer["failed"]
    assert f"duplicate log entry for {tmp_path}/logs/app.log, which {other} rotates already" in answer["msg"]
    assert "rotate it in one place" in answer["msg"]
    assert not Path(site["path"]).exists()


def test_a_failing_script_is_told_with_what_was_rotated_all_the_same(tmp_path: Path, site: dict[str, Any]) -> None:
    site["logs"][0]["postrotate"] = "exit 3"
    answer = run_module("logrotate", site)
    assert answer["failed"]
    assert "postrotate script" in answer["msg"]
    assert answer["changed"]
    assert answer["rotated"] == [str(tmp_path / "logs" / "app.log")]


def test_a_wrong_mode_is_put_right(site: dict[str, Any]) -> None:
    run_module("logrotate", site)
    Path(site["path"]).chmod(0o666)
    assert run_module("logrotate", site)["config_changed"]
    assert oct(Path(site["path"]).stat().st_mode & 0o777) == "0o644"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, site: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    answer = run_module("logrotate", {**site, "path": f"{tmp_path}/file/upkeep"})
    assert answer["failed"]
    assert f"{tmp_path}/file" in answer["msg"]


def test_examples(tmp_path: Path) -> None:
    for folder in ("nginx", "services", "logrotate.d"):
        (tmp_path / folder).mkdir(mode=0o755)
    (tmp_path / "nginx" / "access.log").write_text("x\n")
    run_examples(
        "logrotate",
        {
            "/var/log/": f"{tmp_path}/",
            "/etc/": f"{tmp_path}/",
            "    run: true": f"    run: true\n    state_file: {tmp_path}/state",
        },
    )
