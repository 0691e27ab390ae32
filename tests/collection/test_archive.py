# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive that users install holds what they need and nothing else, and its playbooks run from there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.harness import ROOT

_TOP_LEVEL = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "inventories",
    "meta",
    "playbooks",
    "plugins",
    "requirements-controller.txt",
    "requirements-managed.txt",
    "roles",
}
_PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


def _ansible(tool: str, *arguments: str, cwd: Path, collections: str | None = None) -> None:
    """Run one of Ansible's programs with the configuration of ``cwd`` alone; its exit code must be 0."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    if collections:
        env["ANSIBLE_COLLECTIONS_PATH"] = collections
    done = subprocess.run(
        [str(Path(sys.executable).with_name(tool)), *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "couldn't resolve" not in done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    _ansible("ansible-galaxy", "collection", "build", "--output-path", str(folder), cwd=ROOT)
    (built,) = folder.glob("upkeep-ops-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return [member.name for member in opened.getmembers()]


def test_the_top_level_is_as_listed(names: list[str]) -> None:
    assert {name.split("/")[0] for name in names} == _TOP_LEVEL


def test_nothing_of_development_is_in_it(names: list[str]) -> None:
    unwanted = ("__pycache__", ".pyc", ".orig", ".rej", ".swp", "changelogs/fragments", "inventories/demo")
    assert not [name for name in names if any(part in name for part in unwanted)]
    assert not [name for name in names if "tests" in name.split("/") or Path(name).name.startswith(".")]


def test_no_link_leads_out_or_round(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        assert not [member.name for member in opened.getmembers() if not (member.isfile() or member.isdir())]


def test_every_plugin_role_and_playbook_is_in_it(names: list[str]) -> None:
    wanted = [*ROOT.glob("plugins/*/*.py"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")]
    assert wanted
    assert {str(path.relative_to(ROOT)) for path in wanted} <= set(names)


def test_it_is_small_enough_to_install_anywhere(archive: Path) -> None:
    assert archive.stat().st_size < 2_000_000


def test_playbooks_run_from_the_installed_archive(archive: Path, tmp_path: Path) -> None:
    collections = str(tmp_path / "collections")
    _ansible("ansible-galaxy", "collection", "install", str(archive), "-p", collections, "--offline", cwd=tmp_path)
    playbooks = [f"upkeep.ops.{name}" for name in _PLAYBOOKS]
    _ansible("ansible-playbook", "--syntax-check", *playbooks, cwd=tmp_path, collections=collections)


def test_playbooks_run_from_the_clone() -> None:
    _ansible("ansible-playbook", "--syntax-check", *[f"upkeep.ops.{name}" for name in _PLAYBOOKS], cwd=ROOT)
    _ansible("ansible-playbook", "--syntax-check", *[f"playbooks/{name}.yml" for name in _PLAYBOOKS], cwd=ROOT)


def test_the_changelog_names_every_module_of_the_version() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    releases = yaml.safe_load((ROOT / "changelogs" / "changelog.yaml").read_text(encoding="utf-8"))["releases"]
    told = {module["name"] for release in releases.values() for module in release.get("modules", [])}
    assert version in releases
    assert {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")} == told, "run `make changelog`"
