# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reckoned from names, samples and declared indexes, held against the long way of reckoning it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ansible_collections.upkeep.ops.plugins.module_utils._firestore_cleanup import gather_below
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_documents import Stamp
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_indexes import Index, read_indexes_file
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_usage import (
    Orphans,
    Sample,
    add_sample,
    find_orphans,
    growth,
)
from hypothesis import given
from hypothesis import strategies as st

_NOW = datetime(2026, 2, 1, tzinfo=timezone.utc)
_ROOT = "projects/p/databases/(default)/documents/"
#: Short ids of which some begin with others, where comparing texts and comparing parts of paths differ.
_PART = st.sampled_from(["a", "a-b", "a.b", "b", "a0"])
_PATH = st.integers(1, 3).flatmap(lambda depth: st.lists(_PART, min_size=2 * depth, max_size=2 * depth)).map(tuple)


@given(st.sets(_PATH, max_size=30))
def test_orphans_are_those_whose_parent_is_not_there(paths: set[tuple[str, ...]]) -> None:
    found = Orphans(len(paths))
    find_orphans(found, [_ROOT + "/".join(path) for path in sorted(paths)])
    assert found.searched
    assert found.count == sum(1 for path in paths if len(path) > 2 and path[:-2] not in paths)


@given(st.sets(_PATH, max_size=30), _PART)
def test_what_lies_below_each_document_of_a_group_is_gathered(paths: set[tuple[str, ...]], group: str) -> None:
    found: dict[str, list[Stamp]] = {}
    gather_below(group, [Stamp(_ROOT + "/".join(path), None) for path in sorted(paths)], found)
    expected = {
        _ROOT + "/".join(head): {
            _ROOT + "/".join(path) for path in paths if len(path) > len(head) and path[: len(head)] == head
        }
        for head in paths
        if head[-2] == group
    }
    assert {name: {stamp.name for stamp in below} for name, below in found.items()} == {
        name: below for name, below in expected.items() if below
    }


def _sample(hours: float, users: int, database: str = "main") -> Sample:
    return Sample((_NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ"), database, {"users": users})


def test_growth_is_reckoned_against_the_newest_sample_of_about_a_day() -> None:
    grown = growth([_sample(72, 10), _sample(48, 100), _sample(3, 190)], "users", 200, _NOW)
    assert grown is not None and (grown.before, grown.per_day, grown.percent_per_day) == (100, 50, 50)
    assert growth([_sample(3, 190)], "users", 200, _NOW) is None
    assert growth([_sample(48, 100)], "orders", 200, _NOW) is None
    from_nothing = growth([_sample(48, 0)], "users", 200, _NOW)
    assert from_nothing is not None and from_nothing.percent_per_day is None


def test_samples_are_added_hourly_and_kept_for_a_year() -> None:
    recent = [_sample(0.5, 1)]
    assert add_sample(recent, "main", {"users": 2}, _NOW) == recent
    assert len(add_sample(recent, "other", {"users": 2}, _NOW)) == 2
    aged = [_sample(24 * 401, 1), _sample(24 * 399, 1)]
    assert len(add_sample(aged, "main", {"users": 2}, _NOW)) == 2


def test_a_last_name_that_firestore_adds_itself_makes_no_difference() -> None:
    def index(*fields: tuple[str, str]) -> Index:
        return Index.of("users", "", [{"fieldPath": name, "order": order} for name, order in fields])

    up, down = "ASCENDING", "DESCENDING"
    assert index(("a", up), ("b", down), ("__name__", down)) == index(("a", up), ("b", down))
    assert index(("a", up), ("b", down), ("__name__", up)) != index(("a", up), ("b", down))
    tags = [{"fieldPath": "tags", "arrayConfig": "CONTAINS"}]
    named = [*tags, {"fieldPath": "__name__", "order": up}]
    assert Index.of("users", "COLLECTION", named) == Index.of("users", "COLLECTION", tags)


def test_a_file_with_all_that_firebase_writes_is_read(tmp_path: Path) -> None:
    vector = {"fieldPath": "embedding", "vectorConfig": {"dimension": 3, "flat": {}}}
    content = {
        "indexes": [
            {
                "collectionGroup": "users",
                "queryScope": "COLLECTION",
                "density": "SPARSE_ALL",
                "fields": [{"fieldPath": "a", "order": "ASCENDING"}, vector],
            }
        ],
        "fieldOverrides": [
            {"collectionGroup": "logs", "fieldPath": "at", "ttl": True, "indexes": []},
            {
                "collectionGroup": "orders",
                "fieldPath": "created_at",
                "indexes": [
                    {"order": "ASCENDING", "queryScope": "COLLECTION"},
                    {"order": "ASCENDING", "queryScope": "COLLECTION_GROUP"},
                ],
            },
        ],
    }
    path = tmp_path / "firestore.indexes.json"
    path.write_text(json.dumps(content))
    schema = read_indexes_file(str(path))
    assert sorted(map(str, schema.indexes))[:2] == [
        "orders (created_at ascending)",
        "orders (created_at ascending) over the collection group",
    ]
    assert len(schema.indexes) == 3 and [str(policy) for policy in schema.policies] == ["logs.at"]
    assert schema.groups == {"users", "logs", "orders"}
