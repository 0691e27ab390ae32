# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""release_rollback on folders of releases, and on real packages of a dpkg and an apt of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.fixtures.docker import Shop, docker
from tests.harness import run_module


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """Three releases, of which the newest is in use; by name their order is another one than by time."""
    folder = tmp_path / "releases"
    for age, name in enumerate(["v10", "v2", "v9"]):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (1000 + age, 1000 + age))
    (tmp_path / "current").symlink_to("releases/v9")
    return folder


def call(state: str, folder: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("release_rollback", {"state": state, "releases": str(folder), **options}, check=check, diff=True)


def in_use(folder: Path) -> str:
    return (folder.parent / "current").resolve().name


def test_the_link_is_turned_to_the_release_before_and_never_to_a_bad_one(releases: Path) -> None:
    planned = call("previous", releases, check=True, order="time")
    assert planned["changed"] and planned["release"]["release"] == "v2" and in_use(releases) == "v9"
    answer = call("previous", releases, order="time")
    assert answer["turned"] == ["release v9 -> v2"] and in_use(releases) == "v2"
    assert (releases.parent / "current").readlink() == Path("releases/v2"), "a relative link stays one"
    assert (releases / "v9.bad").read_text() == "left for v2\n"
    (releases / "v10.bad").touch()
    refused = call("previous", releases, order="time")
    assert refused["failed"] and "all before it are marked bad: v10" in refused["msg"] and in_use(releases) == "v2"


def test_the_history_of_apt_is_not_needed_for_a_link(releases: Path, tmp_path: Path) -> None:
    # It is not there where apt never upgraded anything, nor on the day after it was rotated.
    assert call("previous", releases, apt_history=str(tmp_path / "none"))["release"]["release"] == "v2"


def test_by_name_numbers_count(releases: Path) -> None:
    (releases.parent / "current").unlink()
    (releases.parent / "current").symlink_to(releases / "v10")
    assert call("previous", releases)["release"]["release"] == "v9"
    assert (releases.parent / "current").readlink() == releases / "v9"


def test_a_record_is_gone_back_to(releases: Path, tmp_path: Path) -> None:
    config = tmp_path / "auth.conf"
    config.write_text("workers 2\n")
    before = call("recorded", releases, files=[str(config), str(tmp_path / "none")])
    assert not before["changed"] and before["release"]["release"] == "v9"
    assert before["release"]["files"][str(config)] == hashlib.sha256(b"workers 2\n").hexdigest()
    (releases / "v11").mkdir()
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("releases/v11")
    config.write_text("workers 4\n")
    answer = call("returned", releases, record=before["release"], mark_bad=False)
    assert answer["changed"] and in_use(releases) == "v9" and not (releases / "v11.bad").exists()
    assert answer["differing_files"] == [str(config)] and config.read_text() == "workers 4\n"
    assert not call("returned", releases, record=before["release"])["changed"]


def test_what_cannot_be_gone_back_to_is_told_and_nothing_is_turned(releases: Path) -> None:
    record = call("recorded", releases)["release"]
    assert "removed meanwhile" in call("returned", releases, record={**record, "release": "v1"})["msg"]
    (releases / "v2.bad").touch()
    assert "marked bad" in call("returned", releases, record={**record, "release": "v2"})["msg"]
    assert in_use(releases) == "v9"
    shutil.rmtree(releases / "v9")
    assert "which is no release below" in call("previous", releases)["msg"]
    (releases.parent / "current").unlink()
    assert "is no link" in call("previous", releases)["msg"]


# --- packages --------------------------------------------------------------------------------------------------------

_VERSIONS = ("1.0", "2.0")
_APT = """\
Dir "{root}";
Dir::State::status "{root}/var/lib/dpkg/status";
Dir::Etc::SourceList "{root}/etc/apt/sources.list";
Dir::Bin::Methods "/usr/lib/apt/methods";
Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Sandbox::User "root";
APT::Architecture "{architecture}";
DPkg::Options {{ "--root={root}"; "--force-not-root"; "--force-script-chrootless"; "--force-bad-path"; }}
"""


class Debian:
    """A root folder with a dpkg and an apt of its own, and a source with two versions of the package ``shop``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "root"
        self.source = root / "source"
        for folder in ("var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/apt/lists/partial", "etc/apt",
                       "var/cache/apt/archives/partial", "var/log/apt", "etc/apt/preferences.d"):  # fmt: skip
            (self.root / folder).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        self.source.mkdir()
        architecture = self._text("dpkg", "--print-architecture")
        (root / "apt.conf").write_text(_APT.format(root=self.root, architecture=architecture))
        (self.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{self.source} ./\n")
        self.env = {"APT_CONFIG": str(root / "apt.conf"), "DPKG_ADMINDIR": str(self.root / "var/lib/dpkg")}
        self.offer(*_VERSIONS)
        for version in _VERSIONS:
            self.apt("install", f"shop={version}")

    def offer(self, *versions: str) -> None:
        """Let the source have just these versions."""
        entries = [self._entry(version) for version in versions]
        (self.source / "Packages").write_text("\n".join(entries))
        self.apt("update")

    def apt(self, *arguments: str) -> None:
        command = ["apt-get", "--yes", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.env})
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def installed(self) -> str:
        return self._text("dpkg-query", "--show", "--showformat=${Version}", "shop")

    @property
    def options(self) -> dict[str, Any]:
        return {"packages": ["shop"], "apt_history": str(self.root / "var/log/apt/history.log")}

    def _entry(self, version: str) -> str:
        path = self.source / f"shop_{version}.deb"
        control = f"Package: shop\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        control += "Description: a shop\n"
        if not path.exists():
            tree = self.source.parent / f"shop-{version}"
            (tree / "DEBIAN").mkdir(parents=True)
            (tree / "DEBIAN" / "control").write_text(control)
            subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return f"{control}Filename: ./{path.name}\nSize: {len(content)}\nSHA256: {digest}\n"

    def _text(self, *command: str) -> str:
        env = {**os.environ, **getattr(self, "env", {})}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


@pytest.fixture
def debian(tmp_path: Path) -> Debian:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("packages are installed by root on Debian")
    return Debian(tmp_path)


def test_a_package_goes_back_to_the_version_before_its_upgrade(debian: Debian) -> None:
    assert debian.installed == "2.0"
    planned = run_module("release_rollback", {"state": "previous", **debian.options}, check=True, env=debian.env)
    assert planned["turned"] == ["package shop -> 1.0"] and debian.installed == "2.0"
    record = run_module("release_rollback", debian.options, env=debian.env)["release"]
    answer = run_module("release_rollback", {"state": "previous", **debian.options}, env=debian.env)
    assert answer["changed"] and answer["release"]["packages"] == {"shop": "1.0"} and debian.installed == "1.0"
    options = {**debian.options, "state": "returned", "record": record}
    assert run_module("release_rollback", options, env=debian.env)["changed"] and debian.installed == "2.0"
    assert not run_module("release_rollback", options, env=debian.env)["changed"]


def test_a_version_that_no_source_has_any_more_is_told(debian: Debian) -> None:
    debian.offer("2.0")
    answer = run_module("release_rollback", {"state": "previous", **debian.options}, env=debian.env)
    assert answer["failed"] and "shop 1.0 can be had from no source of apt any more: there is 2.0" in answer["msg"]
    assert debian.installed == "2.0"
    unknown = run_module("release_rollback", {"packages": ["nothing-of-this-name"]}, env=debian.env)
    assert unknown["failed"] and "nothing-of-this-name" in unknown["msg"]


# --- images ----------------------------------------------------------------------------------------------------------


def test_a_container_is_made_anew_of_the_image_before(shop: Shop, tmp_path: Path) -> None:
    records = {"container": shop.name, "records": str(tmp_path / "records.json")}
    unknown = run_module("release_rollback", {**records, "state": "previous"})
    assert unknown["failed"] and "no record tells of it: use state=recorded" in unknown["msg"]
    (tmp_path / "records.json").write_text(json.dumps([{"at": "2026-01-01T00:00:00Z", "release": shop.first}]))
    assert run_module("release_rollback", records, check=True)["changed"]
    assert run_module("release_rollback", records)["changed"] and not run_module("release_rollback", records)["changed"]
    before, data = shop.settings(), shop.data()
    planned = run_module("release_rollback", {**records, "state": "previous"}, check=True)
    assert len(planned["turned"]) == 2 and shop.settings() == before
    answer = run_module("release_rollback", {**records, "state": "previous"})
    assert answer["turned"] == planned["turned"] and answer["release"]["image"] == shop.first["image"], answer
    assert docker("image", "inspect", "--format", "{{.Id}}", f"{shop.image}:live") == shop.first["image"]["id"]
    after = shop.settings()
    assert after.pop("version") == "1" and before.pop("version") == "2", "what the image brings along is of the image"
    assert after == before and shop.data() == data, "all else, its data too, is what it was"
    assert shop.inspect()["State"]["Running"]
    kept = shop.inspect(".before")
    assert not kept["State"]["Running"] and kept["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert not run_module("release_rollback", {**shop.options, "state": "returned", "record": shop.first})["changed"]


def test_one_that_does_not_start_of_the_image_before_is_the_old_one_again(shop: Shop) -> None:
    broken = docker("commit", "--change", 'CMD ["/none"]', shop.name, f"{shop.image}:broken")
    record = {**shop.first, "image": {"name": f"{shop.image}:broken", "id": broken}}
    before = shop.inspect()
    answer = run_module("release_rollback", {**shop.options, "state": "returned", "record": record})
    assert answer["failed"] and "/none" in answer["msg"], answer
    after = shop.inspect()
    assert after["Id"] == before["Id"] and after["State"]["Running"]
    assert after["HostConfig"]["RestartPolicy"] == before["HostConfig"]["RestartPolicy"]
    assert docker("ps", "-aq", "--filter", f"name={shop.name}.next") == ""


@pytest.mark.parametrize("step", ["made", "stopped", "renamed"])
def test_one_that_was_killed_midway_is_put_right(shop: Shop, step: str) -> None:
    """Each state that a killed call leaves, made by hand: the next call comes to the same end."""
    before = shop.settings()
    docker("create", "--name", f"{shop.name}.next", "--restart", "always", f"{shop.image}:live")
    if step != "made":
        docker("stop", "-t", "1", shop.name)
        docker("update", "--restart", "no", shop.name)
    if step == "renamed":
        docker("rename", shop.name, f"{shop.name}.before")
    answer = run_module("release_rollback", {**shop.options, "state": "returned", "record": shop.first})
    assert answer["changed"], answer
    assert {**shop.settings(), "version": "2"} == before
    assert shop.inspect()["State"]["Running"] == (step == "made"), "one that was stopped is started by service_control"


def test_one_that_would_be_lost_is_refused(shop: Shop) -> None:
    docker("run", "-d", "--name", f"{shop.name}-side", "--network", f"container:{shop.name}", f"{shop.image}:live")
    options = {**shop.options, "state": "returned", "record": shop.first}
    answer = run_module("release_rollback", options)
    assert answer["failed"] and f"{shop.name}-side lives in the network of container {shop.name}" in answer["msg"]
    docker("rm", "-f", f"{shop.name}-side", shop.name)
    docker("run", "-d", "--rm", "--name", shop.name, f"{shop.image}:live")
    assert "removes itself when it stops" in run_module("release_rollback", options)["msg"]
    docker("rm", "-f", shop.name)
    assert f"there is no container {shop.name}" in run_module("release_rollback", options)["msg"]


def test_the_tag_of_an_image_goes_back_and_the_container_is_left(docker_image: str) -> None:
    tag, container = f"{docker_image}:live", f"{docker_image}-shop"
    docker("image", "tag", docker_image, tag)
    docker("create", "--name", container, tag, "/bin/sh")
    try:
        record = run_module("release_rollback", {"container": container})["release"]
        assert record["image"] == {"name": tag, "id": docker("image", "inspect", "--format", "{{.Id}}", docker_image)}
        docker("commit", "--change", "ENV VERSION=2", container, tag)
        assert docker("image", "inspect", "--format", "{{.Id}}", tag) != record["image"]["id"]
        options = {"container": container, "state": "returned", "record": record}
        assert run_module("release_rollback", options, check=True)["turned"]
        assert run_module("release_rollback", options)["changed"]
        assert docker("image", "inspect", "--format", "{{.Id}}", tag) == record["image"]["id"]
        assert not run_module("release_rollback", options)["changed"]
        record["image"]["id"] = "sha256:" + "0" * 64
        assert "was removed from this host meanwhile" in run_module("release_rollback", options)["msg"]
    finally:
        docker("rm", "-f", container)
        docker("image", "rm", "-f", tag)


def test_examples(releases: Path, tmp_path: Path) -> None:
    (tmp_path / "auth.conf").touch()
    run_examples(
        "release_rollback",
        {
            "/srv/auth-service/releases": str(releases),
            "/etc/auth-service.conf": str(tmp_path / "auth.conf"),
            "/var/lib/upkeep": str(tmp_path / "state"),
        },
    )
    assert in_use(releases) == "v2"
