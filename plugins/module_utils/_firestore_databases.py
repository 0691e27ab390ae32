# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of a Firestore project: which there are, how one is created, and how one is deleted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import (
    AdminApi,
    AnyOperation,
    CreationOperation,
    Operation,
    told,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreUnreachableError,
    Target,
    admin_client,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_operations import Patience, fault_of, wait
from ansible_collections.upkeep.ops.plugins.module_utils._time import format_duration, isoformat


class DatabaseError(Exception):
    """A database is not as it was to be; the text says why and what to do."""


@dataclass(frozen=True)
class Database:
    """A database as the Admin API told it. ``protected``: Firestore refuses to delete it."""

    id: str
    location: str
    created_at: datetime | None
    protected: bool

    def as_dict(self) -> dict[str, Any]:
        """As the modules return it."""
        return {**vars(self), "created_at": isoformat(self.created_at) if self.created_at else None}


class Databases:
    """The databases of the target's project. ``timeout``: seconds that one request may take."""

    def __init__(self, target: Target, timeout: float, patience: Patience) -> None:
        self._target, self._timeout, self._patience = target, timeout, patience
        self._client = admin_client(target)
        self._calls = {"timeout": timeout, "retry": None}
        self._types = load("google.cloud.firestore_admin_v1", "types")

    def find(self, identifier: str) -> Database | None:
        """Raises FirestoreAccessError."""
        not_found = load("google.api_core", "exceptions").NotFound
        with explained(self._target.admin_address):
            try:
                return _database(self._client.get_database(request={"name": self._name(identifier)}, **self._calls))
            except not_found:
                return None

    def all(self) -> list[Database]:
        """All of the project, by their ids. Raises FirestoreAccessError."""
        with explained(self._target.admin_address):
            answer = self._client.list_databases(request={"parent": f"projects/{self._target.project}"}, **self._calls)
        return sorted((_database(found) for found in answer.databases), key=lambda database: database.id)

    def create(self, identifier: str, location: str) -> Database:
        """A new database in native mode, waited for. Raises DatabaseError and FirestoreAccessError."""
        native = self._types.Database.DatabaseType.FIRESTORE_NATIVE
        request = {
            "parent": f"projects/{self._target.project}",
            "database_id": identifier,
            "database": {"location_id": location, "type_": native},
        }
        with explained(self._target.admin_address):
            started = self._client.create_database(request=request, **self._calls).operation
        self._finish(identifier, "creation", told(started, CreationOperation, self._types))
        return self._must_be_there(identifier)

    def await_creation(self, identifier: str) -> Database:
        """One that is there, once an earlier run's creation of it is over. Raises as ``create``."""
        for operation in self._api(identifier).operations(CreationOperation):
            if not operation.done:
                self._finish(identifier, "creation", operation)
        return self._must_be_there(identifier)

    def delete(self, identifier: str) -> None:
        """Delete a database with all that is in it, waited for. Raises DatabaseError and FirestoreAccessError."""
        with explained(self._target.admin_address):
            request = {"name": self._name(identifier)}
            started = self._client.delete_database(request=request, **self._calls).operation
        self._finish(identifier, "deletion", told(started, Operation, self._types))
        if self.find(identifier) is not None:
            raise DatabaseError(
                f"the deletion of {self._name(identifier)} is done without an error, but the database is still there: "
                "look at it in the console"
            )

    def _finish(self, identifier: str, what: str, operation: AnyOperation) -> None:
        poll = self._api(identifier).poll(type(operation))
        try:
            operation = wait(operation, poll, self._patience, lambda _: None)
        except FirestoreUnreachableError as error:
            raise DatabaseError(
                f"{error}; the {what} of {self._name(identifier)} may go on: run again later"
            ) from error
        why = fault_of(operation)
        if why:
            waited = "" if operation.done else f" after {format_duration(self._patience.timeout)}"
            raise DatabaseError(f"the {what} of {self._name(identifier)} {why}{waited} (operation {operation.name})")

    def _must_be_there(self, identifier: str) -> Database:
        found = self.find(identifier)
        if found is None:
            raise DatabaseError(f"{self._name(identifier)} was created, but is not there: was it deleted meanwhile?")
        return found

    def _api(self, identifier: str) -> AdminApi:
        return AdminApi(replace(self._target, database=identifier), self._timeout)

    def _name(self, identifier: str) -> str:
        return replace(self._target, database=identifier).name


def must_be_confirmed(identifier: str, confirm: str) -> None:
    """Raises ValueError unless what is about to lose its documents was named a second time."""
    if confirm != identifier:
        raise ValueError(
            f"confirm is {confirm!r}: what is in the database {identifier} would be lost; to have that, set confirm to "
            f"the name of the database, {identifier!r}"
        )


def _database(found: Any) -> Database:
    enabled = type(found).DeleteProtectionState.DELETE_PROTECTION_ENABLED
    created = found.create_time
    return Database(
        found.name.rpartition("/")[2],
        found.location_id,
        datetime.fromtimestamp(created.timestamp(), timezone.utc) if created else None,
        found.delete_protection_state == enabled,
    )
