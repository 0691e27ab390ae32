# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host runs, noted so that it can be gone back to: the release folder, the container's image, packages.

Each kind is looked at, planned and then turned; nothing is turned before all of it is known to be possible.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._containers import Engine, Renewal
from ansible_collections.upkeep.ops.plugins.module_utils._files import publish_text, published_link, sha256_of
from ansible_collections.upkeep.ops.plugins.module_utils._programs import Ended, ProgramError, Runner
from ansible_collections.upkeep.ops.plugins.module_utils._release_records import Records

_BAD = ".bad"
_ASK_TIMEOUT = 60.0
_INSTALL_TIMEOUT = 1800.0
_APT = ["apt-get", "--yes", "--quiet", "--no-install-recommends"]
#: An entry of apt's history: "name:arch (old, new)".
_UPGRADED = re.compile(r"([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9]+)? \(([^,()]+), ([^,()]+)\)")


class ReleaseError(Exception):
    """There is nothing to go back to, or going back failed; the text says what to do."""


class Folder:
    """A folder of releases, and the link beside it that says which of them is in use."""

    def __init__(self, releases: str, link: str | None = None, order: str = "name") -> None:
        self._releases = releases.rstrip("/")
        self.link = link or os.path.join(os.path.dirname(self._releases), "current")
        self._order = order

    def current(self) -> str:
        """Name of the release in use. Raises ReleaseError when the link points to none."""
        if not os.path.islink(self.link):
            raise ReleaseError(f"{self.link} is no link: it should point to the release in use")
        target = os.path.realpath(self.link)
        folder, name = os.path.split(target)
        if folder != os.path.realpath(self._releases) or not os.path.isdir(target):
            raise ReleaseError(f"{self.link} points to {target}, which is no release below {self._releases}")
        return name

    def releases(self) -> list[str]:
        """Names of all releases, oldest first."""
        try:
            entries = [entry for entry in os.scandir(self._releases) if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise ReleaseError(f"the releases in {self._releases} cannot be listed: {error.strerror}") from error
        names = [entry for entry in entries if not entry.name.startswith(".")]
        if self._order == "name":
            return sorted((entry.name for entry in names), key=_natural)
        return [entry.name for entry in sorted(names, key=lambda entry: (entry.stat().st_mtime, entry.name))]

    def bad(self) -> list[str]:
        """Names of the releases that are marked bad."""
        return [name for name in self.releases() if os.path.exists(self._mark(name))]

    def previous(self) -> str:
        """The newest release before the one in use that is not marked bad. Raises ReleaseError when there is none."""
        current, names, bad = self.current(), self.releases(), self.bad()
        before = [name for name in names[: names.index(current)] if name not in bad]
        if before:
            return before[-1]
        older = names[: names.index(current)]
        told = f"all before it are marked bad: {', '.join(older)}" if older else f"there are only {', '.join(names)}"
        raise ReleaseError(f"no release is left to go back to from {current} in {self._releases}: {told}")

    def demand(self, name: str) -> None:
        """Raises ReleaseError unless the link may be turned to this release."""
        if name not in self.releases():
            raise ReleaseError(f"there is no release {name} in {self._releases}: it was removed meanwhile")
        if name in self.bad():
            raise ReleaseError(f"the release {name} is marked bad: remove {self._mark(name)} if it is not")

    def turn(self, name: str) -> None:
        """Let the link point to a release, without a moment in which it is not there."""
        target = os.path.join(self._releases, name)
        # A link that was relative stays so, as when the folder is seen under another name in a container.
        if not os.path.isabs(os.readlink(self.link)):
            target = os.path.relpath(target, os.path.dirname(os.path.realpath(self._releases)))
        published_link(self.link, target)

    def mark_bad(self, name: str, reason: str) -> None:
        """Never go back to this release."""
        publish_text(self._mark(name), f"{reason}\n", 0o644)

    def _mark(self, name: str) -> str:
        return os.path.join(self._releases, f"{name}{_BAD}")


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which release 10 comes after release 9."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


class Packages:
    """Debian packages: which versions are installed, and which were before."""

    def __init__(self, run: Runner, history: str = "/var/log/apt/history.log") -> None:
        self._run = run
        self._history = history

    def versions(self, names: Sequence[str]) -> dict[str, str]:
        """The installed version of each package. Raises ReleaseError for one that is not installed."""
        if not names:
            return {}
        told = _ask(self._run, ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *names])
        found = dict(line.split(" ", 1) for line in told.stdout.splitlines() if " " in line)
        missing = [name for name in names if not found.get(name)]
        if missing:
            raise ReleaseError(f"the package {', '.join(missing)} is not installed")
        return {name: found[name] for name in names}

    def previous(self, names: Sequence[str]) -> dict[str, str]:
        """The version that each package had before its last upgrade, as apt noted it."""
        if not names:
            return {}
        now = self.versions(names)
        before: dict[str, str] = {}
        for name, old, new in self._upgrades():
            if now.get(name) == new:
                before[name] = old
        missing = [name for name in names if name not in before]
        if missing:
            raise ReleaseError(
                f"apt's history {self._history} tells of no upgrade of {', '.join(missing)} to {now}: record what is "
                "installed before each change (state recorded), or install the version by hand"
            )
        return before

    def demand(self, versions: Mapping[str, str]) -> None:
        """Raises ReleaseError when a version can be had from no source of apt, nor from its cache."""
        for name, version in versions.items():
            told = _ask(self._run, ["apt-cache", "madison", name]).stdout
            offered = {line.split("|")[1].strip() for line in told.splitlines() if line.count("|") == 2}
            if version not in offered and not self._is_installed(name, version):
                known = ", ".join(sorted(offered)) or "none"
                raise ReleaseError(f"{name} {version} can be had from no source of apt any more: there is {known}")

    def install(self, versions: Mapping[str, str]) -> None:
        """Install just these versions, older ones too; configuration files stay as they are."""
        wanted = [f"{name}={version}" for name, version in versions.items()]
        options = ["--allow-downgrades", "--option=Dpkg::Options::=--force-confold"]
        # Without a terminal debconf asks nothing.
        argv = ["env", "DEBIAN_FRONTEND=noninteractive", *_APT, *options, "install", *wanted]
        _ask(self._run, argv, _INSTALL_TIMEOUT)
        now = self.versions(list(versions))
        if now != dict(versions):
            raise ReleaseError(f"apt installed {now} instead of {dict(versions)}")

    def _is_installed(self, name: str, version: str) -> bool:
        return self.versions([name]) == {name: version}

    def _upgrades(self) -> Iterable[tuple[str, str, str]]:
        """Package, old and new version of each upgrade, oldest first. Downgrades are ways back already."""
        try:
            with open(self._history, encoding="utf-8", errors="replace") as stream:
                lines = [line for line in stream if line.startswith("Upgrade: ")]
        except OSError as error:
            raise ReleaseError(f"apt's history {self._history} cannot be read: {error.strerror}") from error
        for line in lines:
            for name, old, new in _UPGRADED.findall(line.split(": ", 1)[1]):
                yield name, old, new.split()[0]


class Images:
    """The image of a container: its tag can be turned back, and the container be made anew of it."""

    def __init__(self, run: Runner, container: str) -> None:
        self._run = run
        self._container = container
        self._renewal = Renewal(Engine(run), container)

    def current(self) -> dict[str, str]:
        """Name (with its tag) and id of the image that the container was made of."""
        return self._renewal.image()

    def tagged(self, name: str) -> str:
        """The id that a name stands for now; empty when it stands for none."""
        with suppress(ReleaseError):
            return str(json.loads(_ask(self._run, ["docker", "image", "inspect", name]).stdout)[0]["Id"])
        return ""

    def plan(self, image: Mapping[str, str]) -> list[str]:
        """What has to be turned, in words. Raises ReleaseError or ContainerError when it is impossible."""
        told = [f"image {image['name']} -> {image['id'][:19]}"] if self._moved(image) else []
        renewed = self._made_of_another(image)
        if renewed:
            self._renewal.demand()
            told.append(f"container {self._container} -> image {image['id'][:19]}")
        if told and not self.tagged(image["id"]):
            raise ReleaseError(f"the image {image['id'][:19]} of {image['name']} was removed from this host meanwhile")
        return told

    def turn(self, image: Mapping[str, str]) -> None:
        """Let the name stand for the image again, and make the container anew unless it is of that image."""
        if self._moved(image):
            _ask(self._run, ["docker", "image", "tag", image["id"], image["name"]])
        if self._made_of_another(image):
            self._renewal.renew(image["name"])

    def _moved(self, image: Mapping[str, str]) -> bool:
        return self.tagged(image["name"]) != image["id"]

    def _made_of_another(self, image: Mapping[str, str]) -> bool:
        return bool(self._container) and self._renewal.image()["id"] != image["id"]


def checksums(paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each configuration file; empty for one that is not there."""
    return {path: sha256_of(path) if os.path.isfile(path) else "" for path in paths}


def _ask(run: Runner, argv: Sequence[str], timeout: float = _ASK_TIMEOUT) -> Ended:
    try:
        ended = run(argv, timeout)
    except ProgramError as error:
        raise ReleaseError(str(error)) from error
    if ended.rc != 0:
        words = [word for word in argv if not word.startswith(("-", "DEBIAN_")) and word != "env"]
        raise ReleaseError(f"{' '.join(words[:3])} failed: {ended.complaint}")
    return ended


class Host:
    """All of it: which of the kinds a service uses is told by what it names."""

    def __init__(self, folder: Folder | None, container: str, packages: Sequence[str], files: Sequence[str],
                 run: Runner, history: str, records: Records | None = None) -> None:  # fmt: skip
        self.folder = folder
        self._container = container
        self._names = list(packages)
        self._files = list(files)
        self._packages = Packages(run, history)
        self._images = Images(run, container)
        self._records = records

    def record(self) -> dict[str, Any]:
        """What is in use now, to go back to it later."""
        return {
            "release": self.folder.current() if self.folder else "",
            "image": self._images.current() if self._container else {},
            "packages": self._packages.versions(self._names),
            "files": checksums(self._files),
        }

    def before(self) -> dict[str, Any]:
        """What was in use before that, as far as the host itself knows. Raises ReleaseError."""
        image = self._image_before() if self._container else {}
        release = self.folder.previous() if self.folder else ""
        return {"release": release, "image": image, "packages": self._packages.previous(self._names), "files": {}}

    def _image_before(self) -> dict[str, str]:
        image = self._records.image_before(self._images.current()["id"]) if self._records else {}
        if not image:
            raise ReleaseError(
                f"Docker does not know which image {self._container} had before, and no record tells of it: use "
                "state=recorded with records before each change"
            )
        return image

    def plan(self, wanted: Mapping[str, Any]) -> list[str]:
        """What has to be turned, in words; raises ReleaseError when any of it is impossible."""
        told = []
        if self._turns_release(wanted) and self.folder:
            self.folder.demand(wanted["release"])
            told.append(f"release {self.folder.current()} -> {wanted['release']}")
        if wanted.get("image"):
            told += self._images.plan(wanted["image"])
        older = self._differing(wanted)
        self._packages.demand(older)
        return told + [f"package {name} -> {version}" for name, version in older.items()]

    def turn(self, wanted: Mapping[str, Any]) -> None:
        """Carry out what :meth:`plan` said. Packages come first: they alone can fail half way."""
        older = self._differing(wanted)
        if older:
            self._packages.install(older)
        if wanted.get("image"):
            self._images.turn(wanted["image"])
        if self._turns_release(wanted) and self.folder:
            self.folder.turn(wanted["release"])

    def differing_files(self, wanted: Mapping[str, Any]) -> list[str]:
        """Configuration files that are not as they were recorded. They are told, and left to their owner."""
        recorded = wanted.get("files") or {}
        return sorted(path for path, digest in checksums(recorded).items() if digest != recorded[path])

    def _turns_release(self, wanted: Mapping[str, Any]) -> bool:
        return bool(self.folder and wanted.get("release") and self.folder.current() != wanted["release"])

    def _differing(self, wanted: Mapping[str, Any]) -> dict[str, str]:
        recorded: Mapping[str, str] = wanted.get("packages") or {}
        now = self._packages.versions(list(recorded))
        return {name: version for name, version in recorded.items() if now[name] != version}
