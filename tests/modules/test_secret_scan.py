# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""secret_scan on projects with planted secrets; grep is the judge of where they are."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import ansible
import pytest

from tests.examples import run_examples
from tests.harness import ROOT, run_module

# Put together here, so that this file itself holds no secret.
_AWS = "AKIA" + "IOSFODNN7EXAMPL1"
_GITHUB = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"
_REDIS, _CURL, _KEYWORD = "s3cr3t-of-redis", "s3cr3t-of-curl", "hunter2-hunter2"
_SECRETS = (_AWS, _GITHUB, _REDIS, _CURL, _KEYWORD)
_WITHOUT_GITLEAKS = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with five secrets in four files, and some where they are not looked for."""
    folder = tmp_path / "auth-service"
    (folder / "src").mkdir(parents=True)
    (folder / "src/config.js").write_text(
        f'const name = "auth";\nconst password = "{_KEYWORD}";\nconst token = process.env.TOKEN;\n'
    )
    (folder / "src/aws.js").write_text(f'\n\nmodule.exports = {{id: "{_AWS}"}};\nconst gh = "{_GITHUB}";\n')
    (folder / "redis.conf").write_text(f"port 6379\nrequirepass {_REDIS}\n# requirepass foobared\n")
    (folder / "deploy.sh").write_text(
        f"curl -fsS -u deploy:{_CURL} https://example.org/\ncurl -u deploy:$PASSWORD https://example.org/\n"
        "redis-cli -a {{ redis_password }} ping\n"
    )
    for hidden in ("node_modules/left-pad", ".git"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / "config.js").write_text(f'const password = "{_KEYWORD}";\n')
    (folder / "logo.png").write_bytes(b"\x89PNG\0" + _AWS.encode())
    return folder


def scan(*paths: Path, env: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    arguments = {"paths": [str(path) for path in paths], "fail_on": "never", **options}
    answer = run_module("secret_scan", arguments, env=env or _WITHOUT_GITLEAKS)
    assert not [secret for secret in _SECRETS if secret in json.dumps(answer)], "the answer tells a secret"
    return answer


def places(answer: dict[str, Any]) -> set[tuple[str, int]]:
    return {(each["path"], each["line"]) for each in answer["secrets"]}


def grep(project: Path, words: tuple[str, ...]) -> set[tuple[str, int]]:
    expressions = [argument for word in words for argument in ("-e", word)]
    skip = ["--exclude-dir=node_modules", "--exclude-dir=.git", "--binary-files=without-match"]
    told = subprocess.run(["grep", "-rnF", *skip, *expressions, project], capture_output=True, text=True, check=True)
    return {(line.split(":")[0], int(line.split(":")[1])) for line in told.stdout.splitlines()}


def test_every_planted_secret_is_found_and_none_is_told(project: Path) -> None:
    answer = scan(project)
    assert places(answer) == grep(project, _SECRETS)
    assert answer["status"] == "critical" and answer["scanner"] == "detect-secrets" and answer["files"] == 4
    assert run_module("secret_scan", {"paths": [str(project)]}, env=_WITHOUT_GITLEAKS)["failed"]


def test_what_is_allowed_stays_allowed_wherever_it_moves(project: Path, tmp_path: Path) -> None:
    first = scan(project)
    marks = [each["fingerprint"] for each in first["secrets"]]
    for name in ("redis.conf", "src/config.js"):
        (project / name).write_text("\n\n\n" + (project / name).read_text())
    baseline = tmp_path / "allowed.txt"
    baseline.write_text("# examples of the manual\n" + "".join(f"{mark} an example\n" for mark in marks[1:]))
    assert scan(project, allowed=marks[:1], baseline=str(baseline))["status"] == "ok"
    (project / "redis.conf").write_text("requirepass another-one\n")
    assert [each["kind"] for each in scan(project, allowed=marks)["secrets"]] == ["Redis password"]


def test_a_baseline_that_is_not_there(project: Path) -> None:
    answer = scan(project, baseline="/nowhere")
    assert answer["failed"] and "the baseline /nowhere cannot be read: " in answer["msg"]


def test_a_clean_project_is_ok_and_large_files_are_told(project: Path) -> None:
    for path in project.rglob("*"):
        if path.is_file() and path.name != "logo.png":
            path.write_text("nothing to hide\n")
    (project / "large.log").write_text("x" * 3000)
    answer = scan(project, max_file_size=2000)
    assert answer["status"] == "ok"
    assert answer["findings"][0]["summary"] == "4 files read by detect-secrets, 0 secrets found; 1 are too large"


def test_without_a_scanner_nothing_is_ok(project: Path, tmp_path: Path) -> None:
    if (
        subprocess.run(["/usr/bin/python3", "-c", "import detect_secrets"], capture_output=True, check=False).returncode
        == 0
    ):
        pytest.skip("the system's Python has detect-secrets")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ansible").symlink_to(Path(ansible.__file__).parent)
    env = {**_WITHOUT_GITLEAKS, "PYTHONPATH": f"{ROOT / 'collections'}:{tmp_path / 'lib'}"}
    arguments = {"paths": [str(project / "src")], "fail_on": "never"}
    answer = run_module("secret_scan", arguments, python="/usr/bin/python3", env=env)
    assert answer["status"] == "unknown" and answer["scanner"] == ""
    assert "gitleaks is not on the PATH" in answer["findings"][0]["summary"]
    assert "detect-secrets" in answer["findings"][0]["summary"]
    answer = run_module("secret_scan", {**arguments, "paths": [str(project)]}, python="/usr/bin/python3", env=env)
    assert places(answer) == grep(project, (_REDIS, _CURL)), "the rules of its own need no library"


def test_a_folder_that_is_not_there_is_unknown_and_the_others_are_scanned(project: Path) -> None:
    answer = scan(Path("/nowhere"), project / "redis.conf")
    assert answer["summary"] == "1 critical, 1 unknown, 1 ok"
    assert [each["summary"] for each in answer["findings"] if each["subject"] == "/nowhere"] == [
        "cannot be read: No such file or directory"
    ]
    assert places(answer) == {(str(project / "redis.conf"), 2)}


class TestGitleaks:
    """The command lines and the report of gitleaks, with a program in its place that keeps to its documentation."""

    @staticmethod
    def program(folder: Path, version: str, act: str) -> dict[str, str]:
        folder.mkdir()
        path = folder / "gitleaks"
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = version ]; then echo {version}; exit; fi\necho "$@" > {folder}/argv\n'
            f'while [ $# -gt 1 ]; do [ "$1" = --report-path ] && report=$2; shift; done\n{act}\n'
        )
        path.chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}

    @pytest.mark.parametrize(("version", "words"), [("8.18.4", "detect --no-git --source"), ("v8.21.2", "dir")])
    def test_its_report_is_read_and_removed(self, project: Path, tmp_path: Path, version: str, words: str) -> None:
        entry = {"RuleID": "aws-access-token", "StartLine": 3, "File": str(project / "src/aws.js"), "Secret": _AWS}
        elsewhere = {**entry, "File": str(project / "node_modules/left-pad/config.js")}
        report = json.dumps([entry, elsewhere])
        env = self.program(tmp_path / "bin", version, f"cat > $report <<'END'\n{report}\nEND")
        answer = scan(project, env=env)
        assert places(answer) == grep(project, (_AWS, _REDIS, _CURL)) and answer["scanner"] == "gitleaks"
        assert (tmp_path / "bin/argv").read_text().startswith(f"{words} {project} ")
        assert not list((tmp_path / "bin").glob("upkeep-*")), "its report holds secrets and must not stay"

    @pytest.mark.parametrize(
        ("act", "cause"),
        [
            ("echo 'config is broken' >&2; exit 1", "gitleaks failed: config is broken"),
            ("echo '[{' > $report", "report of gitleaks cannot be read"),
            ("exec sleep 30", "did not end within 0.5 s"),
            (":", "report of gitleaks cannot be read"),
        ],
    )
    def test_its_failure_is_unknown_and_never_ok(self, project: Path, tmp_path: Path, act: str, cause: str) -> None:
        answer = scan(project / "src", env=self.program(tmp_path / "bin", "8.21.2", act), timeout=0.5)
        assert answer["status"] == "unknown" and cause in answer["findings"][0]["summary"]


def test_examples(project: Path) -> None:
    clean = project / "src"
    for path in clean.iterdir():
        path.write_text("nothing to hide\n")
    (clean / ".secrets.allowed").write_text("# none\n")
    run_examples("secret_scan", {"/srv/auth-service": str(clean), "/srv/order-service": str(clean)})
