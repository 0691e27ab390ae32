# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""recent_changes on real release folders, clones of git and logs; and what is made of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.filter.suspects import suspects
from ansible_collections.upkeep.ops.plugins.module_utils._log_errors import time_of
from ansible_collections.upkeep.ops.plugins.module_utils._secrets import masked_line
from ansible_collections.upkeep.ops.plugins.module_utils._time import isoformat

from tests.examples import run_examples
from tests.fixtures.docker import docker
from tests.harness import run_module

NOW = datetime.now(timezone.utc).replace(microsecond=0)
BEGAN = NOW - timedelta(minutes=10)


def at(minutes: float) -> datetime:
    """So many minutes after the start of the failure."""
    return BEGAN + timedelta(minutes=minutes)


def look(**arguments: Any) -> dict[str, Any]:
    return run_module("recent_changes", {"began_at": isoformat(BEGAN), "package_logs": [], **arguments})


def test_releases_and_commits(tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    for name, minutes in (("1.4.1", -3000.0), ("1.4.2", -6.0)):
        (releases / name).mkdir(parents=True)
        os.utime(releases / name, (at(minutes).timestamp(),) * 2)
    link = tmp_path / "current"
    link.symlink_to("releases/1.4.2")
    os.utime(link, (at(-5).timestamp(),) * 2, follow_symlinks=False)
    project = tmp_path / "project"
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    for minutes, text in ((-9000, "old"), (-20, "Use redis://app:s3cretpass@cache")):
        dated = {"GIT_COMMITTER_DATE": isoformat(at(minutes)), "GIT_AUTHOR_DATE": isoformat(at(minutes))}
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(
            ["git", "-C", str(project), *identity, "commit", "-q", "--allow-empty", "-m", text],
            check=True, env={**os.environ, **dated},
        )  # fmt: skip
    answer = look(services=[{"name": "auth", "releases": str(releases), "project": str(project)}, {"name": "bare"}])
    told = [(change["kind"], change["at"]) for change in answer["changes"] if change["service"] == "auth"]
    assert told == [("release", isoformat(at(-5))), ("upload", isoformat(at(-6))), ("commit", isoformat(at(-20)))]
    texts = json.dumps(answer["changes"])
    assert "release 1.4.2 went live" in texts and "redis://app:***@cache" in texts and "s3cretpass" not in texts


def test_packages_by_the_log_of_dpkg(tmp_path: Path) -> None:
    log = tmp_path / "dpkg.log"
    local = at(-30).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    log.write_text(
        f"{local} upgrade nginx:amd64 1.22.1-9 1.22.1-9+deb12u1\n{local} status unpacked nginx:amd64 1.22.1-9\n"
        "2020-01-01 00:00:00 install old:amd64 <none> 1.0\n"
    )
    found = [change for change in look(package_logs=[str(log)])["changes"] if change["kind"] == "package"]
    assert [(item["subject"], item["at"], item["summary"]) for item in found] == [
        ("nginx", isoformat(at(-30)), "nginx: 1.22.1-9 to 1.22.1-9+deb12u1")
    ]


@pytest.fixture
def small() -> Iterator[Path]:
    """A control group that holds 32 MiB, whichever version of them this system has."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    group = (first if (first / "memory.limit_in_bytes").exists() else second) / f"upkeep-test-{os.getpid()}"
    if os.geteuid() != 0 or subprocess.run(["dmesg"], capture_output=True).returncode != 0:
        pytest.skip("only root reads the log of the kernel, and in a container not even root")
    try:
        group.mkdir()
        limit = next(path for name in ("memory.limit_in_bytes", "memory.max") if (path := group / name).exists())
        limit.write_text(str(32 << 20))
        if (group / "memory.swap.max").exists():
            (group / "memory.swap.max").write_text("0")
    except (OSError, StopIteration):
        if group.exists():
            group.rmdir()
        pytest.skip("this system lets nobody make a control group with a limit of memory")
    yield group
    group.rmdir()


def test_memory_that_ran_out_by_the_words_of_the_kernel(small: Path, tmp_path: Path) -> None:
    # The kernel knows it by the name of its program. All runs of this test are one suspect to whoever looks later.
    greedy = tmp_path / "upkeep-greedy"
    greedy.symlink_to("/bin/sh")
    script = 'echo $$ >"$1"; text=x; while :; do text=$text$text; done'
    process = subprocess.Popen([str(greedy), "-c", script, "sh", str(small / "cgroup.procs")])
    assert process.wait(timeout=60) == -9, "the kernel ended it"
    ended = datetime.now(timezone.utc)
    answer = look(began_at=isoformat(ended))
    (told,) = [trouble for trouble in answer["troubles"] if trouble["subject"] == greedy.name]
    assert told["kind"] == "oom" and f"out of memory: Killed process {process.pid} ({greedy.name})" in told["summary"]
    assert abs((datetime.fromisoformat(told["at"].replace("Z", "+00:00")) - ended).total_seconds()) < 600
    troubles = {"troubles": [told]}
    (first, *_others) = suspects(health(auth="critical"), told["at"], {"app1": troubles}, SERVICES)
    assert (first["kind"], first["subject"]) == ("oom", greedy.name)


def test_containers_and_images(docker_image: str) -> None:
    name = f"upkeep-test-{os.getpid()}-shop"
    docker("run", "-d", "--network=none", "--name", name, docker_image, "/bin/sleep", "600")
    try:
        answer = look(began_at=isoformat(datetime.now(timezone.utc)))
        told = {(change["kind"], change["subject"]): change for change in answer["changes"]}
        made, built = told["container", name], told["image", f"{docker_image}:latest"]
        assert f"container {name} was made of {docker_image}; Up" in made["summary"]
        assert built["summary"] == f"image {docker_image}:latest was built" and built["at"] <= made["at"]
        assert not [subject for kind, subject in told if kind == "image" and "<none>" in subject]
    finally:
        docker("rm", "-f", name)


def test_errors_in_logs_are_counted_before_and_since(tmp_path: Path) -> None:
    log = tmp_path / "auth.log"
    lines = [f"{isoformat(at(-minutes))} ERROR timeout after 30 s" for minutes in (90, 50, 40)]
    lines += [
        f"{isoformat(at(1))} ERROR password=hunter22 refused for id {number}\n  File x, line 3" for number in range(9)
    ]
    lines += [f"{isoformat(at(2))} INFO all is well", f'{{"level":"error","time":"{isoformat(at(3))}","msg":"x"}}']
    log.write_text("\n".join(lines) + "\n")
    access = tmp_path / "access.log"
    when = at(1).strftime("%d/%b/%Y:%H:%M:%S +0000")
    access.write_text(
        f'::1 - - [{when}] "GET / HTTP/1.1" 502 157 "-" "-"\n::1 - - [{when}] "GET /500 HTTP/1.1" 200 9 "-"\n'
    )
    answer = look(logs=[str(tmp_path / "*.log"), str(tmp_path / "none.log")])
    first, second = answer["logs"]
    assert (first["path"], first["before"], first["after"]) == (str(log), 2, 10)
    assert first["lines"][0]["count"] == 9 and "password=*** refused" in first["lines"][0]["text"]
    assert (second["after"], "hunter22" in json.dumps(answer)) == (1, False)
    assert any("none.log: there is no such log" in text for text in answer["unread"])
    assert look(logs=[str(log)], log_bytes=100)["logs"][0]["after"] == 1, "only the end of a log is read"


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ('{"token": "abcdef123"}', "abcdef123"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("requirepass s3cret", "s3cret"),
        ("GET /?api_key=k3y&x=1", "k3y"),
        ("postgres://u:p4ss@db/x", "p4ss"),
    ],
)
def test_secrets_are_masked(line: str, hidden: str) -> None:
    assert hidden in line and hidden not in masked_line(line) and "***" in masked_line(line)
    assert masked_line("auth-service answered 503 in 12 ms") == "auth-service answered 503 in 12 ms"


def test_times_of_lines() -> None:
    assert time_of(b"2026-01-31T12:00:00.123+02:00 x") == datetime(2026, 1, 31, 10, tzinfo=timezone.utc).timestamp()
    assert (
        time_of(b"::1 - - [31/Jan/2026:12:00:00 -0130] x")
        == datetime(2026, 1, 31, 13, 30, tzinfo=timezone.utc).timestamp()
    )
    assert time_of(b"2026/01/31 12:00:00 [error]") == datetime(2026, 1, 31, 12).timestamp()
    assert time_of(b"no time at all") is None and time_of(b"2026-13-31 12:00:00") is None


def health(**statuses: str) -> list[dict[str, Any]]:
    return [
        {"subject": name, "status": status, "summary": f"is {status}", "parent": ""}
        for name, status in statuses.items()
    ]


SERVICES = [{"name": "auth", "hosts": ["app1"], "depends_on": ["redis:cache"]}, {"name": "news", "hosts": ["app1"]}]


def change(kind: str, subject: str, minutes: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "subject": subject,
        "service": subject,
        "at": isoformat(at(minutes)),
        "summary": f"{kind} changed",
    }


def ranked(seen: list[dict[str, Any]], /, **host: Any) -> list[tuple[str, str]]:
    told = suspects(seen, isoformat(BEGAN), {"app1": host}, SERVICES)
    assert [item["weight"] for item in told] == sorted((item["weight"] for item in told), reverse=True)
    assert all(item["evidence"] and item["told"] for item in told)
    return [(item["kind"], item["subject"]) for item in told]


def test_a_dependency_that_is_down_comes_first() -> None:
    findings = [*health(auth="critical", news="ok"), {**health(redis="critical")[0], "subject": "redis:cache"}]
    findings[0]["parent"] = "redis:cache"
    assert ranked(findings, changes=[change("release", "news", -5)])[0] == ("dependency", "redis:cache")


def test_what_changed_right_before_comes_before_what_looks_bad() -> None:
    log = {"path": "/var/log/auth.log", "before": 0, "after": 90, "lines": [{"count": 90, "text": "no"}]}
    disk = {"check": "disk_percent", "subject": "/", "status": "warning", "summary": "81 % used"}
    changes = [change("release", "auth", -4), change("release", "news", -4), change("package", "curl", -1200)]
    late = change("commit", "auth", 5)
    order = ranked(health(auth="critical"), changes=[*changes, late], logs=[log], findings=[disk])
    assert order[0] == ("release", "auth")
    assert ("commit", "auth") not in order, "what changed after the start did not cause it"
    assert order.index(("release", "auth")) < order.index(("release", "news")) < order.index(("package", "packages"))


def test_memory_that_ran_out_and_a_full_disk() -> None:
    oom = {"kind": "oom", "subject": "node", "at": isoformat(at(-1)), "summary": "Out of memory"}
    disk = {"check": "disk_percent", "subject": "/", "status": "critical", "summary": "100 % used"}
    assert ranked(health(auth="critical"), troubles=[oom], findings=[disk])[:2] == [
        ("resource", "disk_percent /"),
        ("oom", "node"),
    ]
    assert ranked(health(auth="ok")) == []


def test_examples_run(tmp_path: Path) -> None:
    run_examples("recent_changes", {"/srv/auth-service": str(tmp_path), "/var/log/services": str(tmp_path)})
