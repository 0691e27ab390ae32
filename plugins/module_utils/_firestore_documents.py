# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of a database by age: found in pages, with what lies below them, and deleted unless they changed.

Messages are plain protocol buffers: the wrappers of Google's library take ten times as long as the emulator does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_admin import LiveCounts
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import (
    FirestoreAccessError,
    Target,
    data_client,
    explained,
)

_FIELD_PATH = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_NAME = "__name__"
# Ids of documents sort as text, numbers before it; these are below and above all of them.
_LOWEST_ID, _HIGHEST_ID = "__id-9223372036854775808__", "\U0010ffff"


class ChangedError(Exception):
    """A document that was to be deleted is no longer what it was; nothing was deleted."""


class RefusedError(FirestoreAccessError):
    """Firestore takes no such commit, as a rule because it is too large; nothing was deleted."""


@dataclass(frozen=True)
class Age:
    """The documents of a collection group whose ``field`` holds a time before ``cutoff``."""

    group: str
    field: str
    cutoff: datetime

    def __post_init__(self) -> None:
        if not _FIELD_PATH.fullmatch(self.field):
            raise ValueError(f"time_field {self.field!r} is no path of plain field names such as meta.created_at")


@dataclass(frozen=True)
class Stamp:
    """A document as it was when it was looked at. ``updated_at`` is a protocol buffer, to be compared exactly."""

    name: str
    updated_at: Any

    @property
    def group(self) -> str:
        return self.name.rsplit("/", 2)[-2]

    @property
    def root(self) -> str:
        """The collection at the root of the database below which it lies."""
        return self.name.split("/", 6)[5]


class Documents:
    """The documents of one database. ``timeout``: seconds that one request may take, trials included."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target, self._database = target, target.name
        self._parent = f"{target.name}/documents"
        self._client = data_client(target)
        self._types = load("google.cloud.firestore_v1", "types")
        retry = load("google.api_core", "retry").Retry(timeout=timeout)
        # Without this word, which every emulator takes, it would apply the rules for users.
        metadata = [("authorization", "Bearer owner")] if target.is_stand_in else []
        self._calls = {"timeout": timeout, "retry": retry, "metadata": metadata}
        self._stale = load("google.api_core", "exceptions")

    def older(self, age: Age, page_size: int) -> Iterator[list[Stamp]]:
        """The documents of that age in pages, oldest first, then by name. Raises FirestoreAccessError.

        Each page is asked for when it is wanted, after the last document of the one before.
        """
        query = {
            **_group(age.group),
            "where": _compared(age.field, "LESS_THAN", {"timestamp_value": age.cutoff}),
            "order_by": [_ascending(age.field), _ascending(_NAME)],
            "select": {"fields": [{"field_path": age.field}]},
            "limit": page_size,
        }
        while True:
            page = list(self._run(self._parent, query, f"documents of {age.group}"))
            if page:
                yield [Stamp(document.name, document.update_time) for document in page]
            if len(page) < page_size:
                return
            last = page[-1]
            position = [_value(last.fields, age.field), self._types.Value.pb()(reference_value=last.name)]
            query["start_at"] = {"values": position, "before": False}

    def below(self, name: str, limit: int) -> list[Stamp]:
        """Documents below one, at any depth, also where a parent is missing; at most ``limit``.

        Raises FirestoreAccessError.
        """
        query = {
            "from_": [{"all_descendants": True}],
            "select": {"fields": [{"field_path": _NAME}]},
            "limit": limit,
        }
        found = self._run(name, query, f"documents below {name}")
        return [Stamp(document.name, document.update_time) for document in found]

    def everything(self, page_size: int, root: str = "") -> Iterator[Stamp]:
        """Every document, or every one below a root collection: parents before what is below them. A read each.

        Raises FirestoreAccessError.
        """
        query: dict[str, Any] = {
            "from_": [{"all_descendants": True}],
            "order_by": [_ascending(_NAME)],
            "select": {"fields": [{"field_path": _NAME}]},
            "limit": page_size,
            **(_inside(f"{self._parent}/{root}") if root else {}),
        }
        while True:
            page = list(self._run(self._parent, query, f"documents below {root or 'the root'}"))
            yield from (Stamp(document.name, document.update_time) for document in page)
            if len(page) < page_size:
                return
            query["start_at"] = {"values": [{"reference_value": page[-1].name}], "before": False}

    def delete(self, stamps: Sequence[Stamp]) -> None:
        """Delete all of them, or none when one is no longer what it was.

        Raises ChangedError then, RefusedError, and any other FirestoreAccessError; after this alone it is not known
        whether they were deleted.
        """
        writes = []
        for stamp in stamps:
            write = self._types.Write.pb()(delete=stamp.name)
            write.current_document.update_time.CopyFrom(stamp.updated_at)
            writes.append(write)
        request = self._types.CommitRequest.pb()(database=self._database, writes=writes)
        with explained(self._target.data_address):
            try:
                self._client.commit(request=self._types.CommitRequest.wrap(request), **self._calls)
            except (self._stale.FailedPrecondition, self._stale.NotFound, self._stale.Aborted) as error:
                raise ChangedError(str(error)) from error
            except self._stale.InvalidArgument as error:
                raise RefusedError(f"{self._target.data_address}: {error}") from error

    def current(self, names: Collection[str]) -> Mapping[str, Any]:
        """When each of some documents was changed last; those that are gone are not in it.

        Raises FirestoreAccessError.
        """
        request = {"database": self._database, "documents": list(names), "mask": {"field_paths": [_NAME]}}
        with explained(self._target.data_address):
            answers = [
                self._types.BatchGetDocumentsResponse.pb(answer).found
                for answer in self._client.batch_get_documents(request=request, **self._calls)
            ]
        return {found.name: found.update_time for found in answers if found.name}

    def _run(self, parent: str, query: Mapping[str, Any], what: str) -> Iterator[Any]:
        request = {"parent": parent, "structured_query": query}
        unwrapped = self._types.RunQueryResponse.pb
        with explained(f"{self._target.data_address}, {what}"):
            for answer in self._client.run_query(request=request, **self._calls):
                document = unwrapped(answer).document
                if document.name:
                    yield document


class AgeCounts:
    """Counts of documents by age and place. Raises FirestoreAccessError as ``live`` does, which counts."""

    def __init__(self, live: LiveCounts, database: str) -> None:
        self._live, self._documents = live, f"{database}/documents"

    def older(self, age: Age) -> int:
        return self._count(age, "LESS_THAN")

    def younger(self, age: Age) -> int:
        return self._count(age, "GREATER_THAN_OR_EQUAL")

    def with_field(self, age: Age) -> int:
        """Documents that have the field, whatever is in it."""
        return self._live.count_query({**_group(age.group), "order_by": [_ascending(age.field)]}, age.group)

    def within(self, root: str, group: str) -> tuple[int, int]:
        """Documents of a group below a collection at the root of the database, and those of other groups there."""
        inside = _inside(f"{self._documents}/{root}")
        everything = self._live.count_query({"from_": [{"all_descendants": True}], **inside}, root)
        ours = self._live.count_query({**_group(group), **inside}, f"{group} below {root}")
        return ours, everything - ours

    def _count(self, age: Age, operator: str) -> int:
        where = _compared(age.field, operator, {"timestamp_value": age.cutoff})
        return self._live.count_query({**_group(age.group), "where": where}, f"{age.group} by {age.field}")


def _group(name: str) -> dict[str, Any]:
    return {"from_": [{"collection_id": name, "all_descendants": True}]}


def _inside(collection: str) -> dict[str, Any]:
    """The filter for all that lies below a root collection, given by its full path."""
    filters = [
        _compared(_NAME, "GREATER_THAN_OR_EQUAL", {"reference_value": f"{collection}/{_LOWEST_ID}"}),
        _compared(_NAME, "LESS_THAN", {"reference_value": f"{collection}/{_HIGHEST_ID}"}),
    ]
    return {"where": {"composite_filter": {"op": "AND", "filters": filters}}}


def _compared(field: str, operator: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"field_filter": {"field": {"field_path": field}, "op": operator, "value": value}}


def _ascending(field: str) -> dict[str, Any]:
    return {"field": {"field_path": field}, "direction": "ASCENDING"}


def _value(fields: Any, path: str) -> Any:
    """The value at a path of plain field names."""
    name, _dot, rest = path.partition(".")
    return _value(fields[name].map_value.fields, rest) if rest else fields[name]
