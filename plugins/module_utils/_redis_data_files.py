# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a snapshot in the place of a stopped server's files, and the old files back.

A server with an append-only file reads that and nothing else, and a lone ``dump.rdb`` beside a missing one is
overwritten by an empty server. So the snapshot becomes the base of a new append-only file, which is read in one start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ansible_collections.upkeep.ops.plugins.module_utils._files import sync_folder

_MODE = 0o660
_FOLDER_MODE = 0o750
_CHUNK = 1 << 20
_TOLD = 80  # characters of a command


class CommandError(Exception):
    """A command to stop or start the server failed; the text has its words."""


@dataclass(frozen=True)
class DataFiles:
    """Where a server keeps its data. ``aof_folder`` and ``aof_name`` are names, and used only with ``aof``."""

    folder: str
    rdb: str
    aof: bool
    aof_folder: str
    aof_name: str

    @classmethod
    def of(cls, config: Mapping[str, str]) -> DataFiles:
        """From what a server told of its settings."""
        return cls(
            folder=config["dir"],
            rdb=config["dbfilename"],
            aof=config["appendonly"] == "yes",
            aof_folder=config["appenddirname"],
            aof_name=config["appendfilename"],
        )

    @property
    def names(self) -> list[str]:
        """What the server reads when it starts, relative to its folder."""
        return [self.rdb, self.aof_folder]

    def present(self) -> list[str]:
        """Which of these are there."""
        return [name for name in self.names if os.path.lexists(os.path.join(self.folder, name))]


def move_aside(files: DataFiles, aside: str) -> None:
    """Move the old files into the folder ``aside`` in the same file system. Only while the server is stopped."""
    os.makedirs(aside, mode=0o700, exist_ok=True)
    for name in files.present():
        os.rename(os.path.join(files.folder, name), os.path.join(aside, name))
    sync_folder(aside)
    sync_folder(files.folder)


def is_aside(files: DataFiles, aside: str) -> bool:
    """Whether old files are in the folder ``aside``, where no server writes to them."""
    return any(os.path.lexists(os.path.join(aside, name)) for name in files.names)


def place(files: DataFiles, rdb: str) -> None:
    """Put the uncompressed ``rdb`` where the server reads it when it starts; nothing may lie there."""
    _copy(rdb, os.path.join(files.folder, files.rdb), files.folder)
    if files.aof:
        _place_aof(files)
    sync_folder(files.folder)


def put_back(files: DataFiles, aside: str, old: Sequence[str]) -> None:
    """Give the ``old`` files their place again. Only while the server is stopped; may be killed and called again."""
    for name in files.names:
        kept, now = os.path.join(aside, name), os.path.join(files.folder, name)
        if os.path.lexists(kept):
            _remove(now)
            os.rename(kept, now)
        elif name not in old:
            _remove(now)
    sync_folder(files.folder)
    with suppress(OSError):
        os.rmdir(aside)


def discard(files: DataFiles) -> None:
    """Remove what the server would read when it starts, once the files from before are safe elsewhere."""
    for name in files.names:
        _remove(os.path.join(files.folder, name))
    sync_folder(files.folder)


def run_command(command: Sequence[str], timeout: float) -> None:
    """Run a command that may leave a server behind. Raises CommandError."""
    name = " ".join(command)[:_TOLD]
    with tempfile.TemporaryFile() as output:  # no pipe: the server would keep it open
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{name} did not end within {timeout:g} s") from error
        except OSError as error:
            raise CommandError(f"{command[0]} cannot be run: {error.strerror}") from error
        if done.returncode:
            raise CommandError(f"{name} failed with rc {done.returncode}: {_end_of(output)}")


def _place_aof(files: DataFiles) -> None:
    """Built under another name, so that the server never sees half of it."""
    final = os.path.join(files.folder, files.aof_folder)
    partial = f"{final}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.mkdir(partial, _FOLDER_MODE)
    base = f"{files.aof_name}.1.base.rdb"
    os.link(os.path.join(files.folder, files.rdb), os.path.join(partial, base))
    manifest = os.path.join(partial, f"{files.aof_name}.manifest")
    with open(manifest, "w", encoding="utf-8") as stream:
        name = f'"{base}"' if " " in base else base
        stream.write(f"file {name} seq 1 type b\n")
        stream.flush()
        os.fsync(stream.fileno())
    for path in (manifest, partial):
        _give_to_owner(path, files.folder)
    os.chmod(manifest, _MODE)
    sync_folder(partial)
    os.rename(partial, final)


def _copy(source: str, target: str, folder: str) -> None:
    partial = f"{target}.partial"
    with suppress(FileNotFoundError):
        os.unlink(partial)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(source, "rb") as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
        writer.flush()
        os.fsync(writer.fileno())
    _give_to_owner(partial, folder)
    os.chmod(partial, _MODE)
    os.rename(partial, target)


def _give_to_owner(path: str, folder: str) -> None:
    state = os.stat(folder)
    if (state.st_uid, state.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(path, state.st_uid, state.st_gid)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _end_of(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode("utf-8", "replace").strip()[-300:] or "it said nothing"
