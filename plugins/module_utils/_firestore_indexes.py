# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and TTL policies: those that firestore.indexes.json declares, those that are there, and those in use."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_connection import Target, admin_client, explained

_READY = "READY"
#: The form of filter by which fields with settings of their own are listed.
_OWN_SETTINGS = "indexConfig.usesAncestorConfig=false OR ttlConfig:*"


class IndexesFileError(Exception):
    """A file is no firestore.indexes.json; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class Index:
    """An index of a collection group: its scope, and (field, order or array or vector configuration) in order."""

    group: str
    scope: str
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, group: str, scope: str, fields: Sequence[Mapping[str, Any]]) -> Index:
        """From fields as JSON has them. A last ``__name__`` is left out where Firestore adds it by itself."""
        found = [(_string(entry, "fieldPath"), _kind(entry)) for entry in fields]
        if len(found) > 1 and found[-1][0] == "__name__":
            order = found[-2][1] if found[-2][1] == "DESCENDING" else "ASCENDING"
            found = found[:-1] if found[-1][1] == order else found
        return cls(group, scope or "COLLECTION", tuple(found))

    def __str__(self) -> str:
        told = ", ".join(f"{name} {kind.lower()}" for name, kind in self.fields)
        return f"{self.group} ({told})" + (" over the collection group" if self.scope == "COLLECTION_GROUP" else "")


@dataclass(frozen=True)
class Policy:
    """A TTL policy: documents of the group expire at the time in the field."""

    group: str
    field: str

    def __str__(self) -> str:
        return f"{self.group}.{self.field}"


@dataclass
class Schema:
    """Indexes and TTL policies with their states (``READY``, ``ACTIVE``, ...)."""

    indexes: dict[Index, str] = field(default_factory=dict)
    policies: dict[Policy, str] = field(default_factory=dict)

    @property
    def groups(self) -> set[str]:
        return {index.group for index in self.indexes} | {policy.group for policy in self.policies}


@dataclass(frozen=True)
class Difference:
    """What of the declared is not there, and what is there (or declared) and serves nobody."""

    missing: Sequence[str]
    unused: Sequence[str]


def read_indexes_file(path: str) -> Schema:
    """What a firestore.indexes.json declares. Raises IndexesFileError and OSError."""
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    try:
        content = json.loads(text)
        schema = Schema()
        for entry in content.get("indexes", []):
            index = Index.of(_string(entry, "collectionGroup"), entry.get("queryScope", ""), entry["fields"])
            schema.indexes[index] = _READY
        for entry in content.get("fieldOverrides", []):
            _declare_field(schema, entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexesFileError(f"{path} is no firestore.indexes.json: {error!r}") from error
    return schema


def _declare_field(schema: Schema, entry: Mapping[str, Any]) -> None:
    group, name = _string(entry, "collectionGroup"), _string(entry, "fieldPath")
    for single in entry.get("indexes", []):
        schema.indexes[Index(group, single.get("queryScope", "COLLECTION"), ((name, _kind(single)),))] = _READY
    if entry.get("ttl"):
        schema.policies[Policy(group, name)] = "ACTIVE"


def deployed(target: Target, timeout: float) -> Schema:
    """What the Admin API lists. Raises FirestoreAccessError."""
    client = admin_client(target)
    calls = {"timeout": timeout, "retry": load("google.api_core", "retry").Retry(timeout=timeout)}
    parent = f"{target.name}/collectionGroups/-"
    schema = Schema()
    with explained(target.admin_address):
        indexes = [_message(index) for index in client.list_indexes(request={"parent": parent}, **calls)]
        listed = client.list_fields(request={"parent": parent, "filter": _OWN_SETTINGS}, **calls)
        fields = [_message(entry) for entry in listed]
    for entry in indexes:
        found = Index.of(_group_of(entry["name"]), entry.get("queryScope", ""), entry.get("fields", []))
        schema.indexes[found] = entry.get("state", "")
    for entry in fields:
        _add_field(schema, entry)
    return schema


def _add_field(schema: Schema, entry: Mapping[str, Any]) -> None:
    group, name = _group_of(entry["name"]), entry["name"].split("/fields/", 1)[1]
    if group == "__default__":
        return
    settings = entry.get("indexConfig", {})
    for single in [] if settings.get("usesAncestorConfig") else settings.get("indexes", []):
        schema.indexes[Index.of(group, single.get("queryScope", ""), single["fields"])] = single.get("state", "")
    if "ttlConfig" in entry:
        schema.policies[Policy(group, name)] = entry["ttlConfig"].get("state", "")


def used(target: Target, timeout: float) -> dict[Index, int]:
    """How many queries needed which index since the emulator was started. Only an emulator tells. Raises OSError.

    Indexes that Firestore makes by itself are not among them.
    """
    query = urlencode({"database": target.name})
    url = f"http://{target.emulator_host}/emulator/v1/projects/{target.project}:indexUsage?{query}"
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with past_proxies.open(url, timeout=timeout) as stream:
        answer = json.load(stream)
    found: dict[Index, int] = {}
    for report in answer.get("reports", []):
        index = Index.of(
            _group_of(report["index"]["name"]), report["index"].get("queryScope", ""), report["index"]["fields"]
        )
        found[index] = found.get(index, 0) + int(report["numQueries"])
    return found


def against_deployed(declared: Schema, there: Schema) -> Difference:
    """What is declared and not there, and what is there and not declared."""
    missing: list[Any] = [*_lacking(declared.indexes, there.indexes), *_lacking(declared.policies, there.policies)]
    surplus: list[Any] = [*_lacking(there.indexes, declared.indexes), *_lacking(there.policies, declared.policies)]
    return Difference(_told(missing), _told(surplus))


def against_used(declared: Schema, queries: Mapping[Index, int]) -> Difference:
    """What queries need and is not declared, and what is declared and no query needs."""
    return Difference(_told(_lacking(queries, declared.indexes)), _told(_lacking(declared.indexes, queries)))


def broken(schema: Schema) -> list[str]:
    """Indexes and policies that Firestore could not build."""
    states: Iterator[tuple[Any, str]] = iter([*schema.indexes.items(), *schema.policies.items()])
    return _told(thing for thing, state in states if state == "NEEDS_REPAIR")


def _message(message: Any) -> dict[str, Any]:
    """A message of Google's library in the names of JSON, enumerations by name."""
    return dict(type(message).to_dict(message, use_integers_for_enums=False, preserving_proto_field_name=False))


def _lacking(wanted: Iterable[Any], there: Any) -> list[Any]:
    return [thing for thing in wanted if thing not in there]


def _told(things: Iterable[Any]) -> list[str]:
    return sorted(map(str, things))


def _group_of(name: str) -> str:
    return name.split("/collectionGroups/", 1)[1].split("/", 1)[0]


def _kind(entry: Mapping[str, Any]) -> str:
    """Order, array or vector configuration of a field: messages have all keys, files only the one that counts."""
    for key in ("order", "arrayConfig"):
        if entry.get(key) and not str(entry[key]).endswith("_UNSPECIFIED"):
            return str(entry[key])
    if not entry.get("vectorConfig"):
        raise ValueError(f"{dict(entry)!r} has neither order nor arrayConfig nor vectorConfig")
    return json.dumps(entry["vectorConfig"], sort_keys=True)


def _string(entry: Mapping[str, Any], key: str) -> str:
    if not isinstance(entry[key], str):
        raise ValueError(f"{key} is {entry[key]!r}")
    return str(entry[key])
