# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reads a backup set keeps it from being removed meanwhile.

A reader has a shared lock on the set's manifest, which every set has and nobody changes. Whoever removes sets asks for
an exclusive one first and waits for nobody. The kernel frees both with their processes, so none is ever left over.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ansible_collections.upkeep.ops.plugins.module_utils._backup_set import MANIFEST, is_id
from ansible_collections.upkeep.ops.plugins.module_utils._lock import locked

IN_USE = "a drill, a copy, a verification or a restore reads it now"


@contextmanager
def reading(path: str | None) -> Iterator[None]:
    """Keep the set that a folder or file belongs to; nothing is kept when it is of none, or cannot be read.

    Where the set is being removed in this very moment there is nothing to keep: who reads on finds it missing.
    """
    with ExitStack() as held:
        with suppress(OSError):
            descriptor = os.open(os.path.join(_set_of(path or ""), MANIFEST), os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def removing(path: str) -> Iterator[bool]:
    """Whether nobody reads the set in a folder; who would begin to waits. Nobody reads one without a manifest."""
    with ExitStack() as held:
        free = True
        with suppress(FileNotFoundError):
            descriptor = os.open(os.path.join(path, MANIFEST), os.O_RDWR | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            free = locked(descriptor)
        yield free


def _set_of(path: str) -> str:
    """The folder of the set that a folder or file is, or lies in; raises FileNotFoundError when that is none."""
    folder = os.path.realpath(path)
    while folder != os.path.dirname(folder):
        if is_id(os.path.basename(folder)):
            return folder
        folder = os.path.dirname(folder)
    raise FileNotFoundError(f"{path} belongs to no backup set")
