# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that go on in a database: an import that begins beside one would end with documents of both.

They outlive the run that began them. So may the module of a run that was killed, which would begin its next operation
when the one that it waits for is done: :meth:`Running.alone` keeps off such a module of the same host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Union

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AdminApi,
    DeletionOperation,
    ImportOperation,
    Operation,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import FirestoreAccessError
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience, wait
from ansible_collections.upkeep.ops.plugins.module_utils._lock import mutex
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration

#: What becomes of operations of others.
REFUSE, WAIT, CANCEL = "refuse", "wait", "cancel"
_LOOK_AGAIN = 0.5  # seconds
Writing = Union[ImportOperation, DeletionOperation]


class RunningError(Exception):
    """An operation of others does not let ours begin; the text names it and says what to do."""


@dataclass(frozen=True)
class Running:
    """The operations of one database that write or delete documents. ``policy`` says what becomes of others' ones."""

    admin: AdminApi
    database: str
    policy: str
    patience: Patience
    tell: Callable[[Operation], None]

    def found(self) -> list[Writing]:
        """Those that have not come to their end. Raises FirestoreAccessError."""
        imports, deletions = self.admin.operations(ImportOperation), self.admin.operations(DeletionOperation)
        return [operation for kind in (imports, deletions) for operation in kind if not operation.done]

    def refuse(self, operation: Writing) -> None:
        """Raises RunningError when others' operations are not to be touched."""
        if self.policy == REFUSE:
            what = "another deletion of documents of" if _deletes(operation) else "another import into"
            source = "" if isinstance(operation, DeletionOperation) else f"{operation.input_uri_prefix} as "
            raise RunningError(
                f"{what} {self.database} is going on: {source}{operation.name}. Wait for it, or cancel it with gcloud "
                f"firestore operations cancel; running_operations={CANCEL} does so"
            )

    def foretold(self, operations: Sequence[Writing]) -> str:
        """What :meth:`end` would do, as a clause; empty when there is nothing to end."""
        verb = "cancel" if self.policy == CANCEL else "wait for"
        return f"{verb} {_named(operations)}" if operations else ""

    def end(self, operations: Sequence[Writing]) -> str:
        """Cancel them or wait for them, as the policy says; what was done. Nothing of them goes on afterwards.

        Raises RunningError when one goes on nevertheless, FirestoreAccessError.
        """
        for operation in operations:
            self._cancel(operation)
        for operation in operations:
            last = wait(operation, self.admin.poll(type(operation)), self.patience, self.tell)
            if not last.done:
                raise RunningError(
                    f"{_named([operation])} still goes on after {format_duration(self.patience.timeout)}, so nothing "
                    "was begun. Wait for it, and run the task again"
                )
        verb = "cancelled" if self.policy == CANCEL else "waited for"
        return f"{verb} {_named(operations)}"

    @contextmanager
    def alone(self, lock_file: str) -> Iterator[None]:
        """Keep modules of this host with the same ``lock_file`` apart; an empty one keeps nobody.

        One that outlived its run is got rid of by cancelling what it waits for. Raises LockError, OSError,
        FirestoreAccessError.
        """
        if not lock_file:
            yield
            return
        os.makedirs(os.path.dirname(lock_file), mode=0o700, exist_ok=True)
        with mutex(lock_file, self._press, self.patience.timeout, _LOOK_AGAIN):
            yield

    def _press(self, seconds: float) -> None:
        for operation in self.found():
            self._cancel(operation)
        self.patience.sleep(seconds)

    def _cancel(self, operation: Writing) -> None:
        """It may have come to its end by itself, which is as good."""
        if self.policy != CANCEL:
            return
        try:
            self.admin.cancel(operation.name)
        except FirestoreAccessError:
            if not self.admin.poll(type(operation))(operation.name).done:
                raise


def _deletes(operation: Writing) -> bool:
    return isinstance(operation, DeletionOperation)


def _named(operations: Sequence[Writing]) -> str:
    return ", ".join(f"the {'deletion' if _deletes(each) else 'import'} {each.name}" for each in operations)
