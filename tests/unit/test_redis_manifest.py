"""The manifest of a Redis snapshot."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._redis_manifest import (
    Manifest,
    ManifestError,
    ManifestMissingError,
    difference,
    read_manifest,
)


def manifest(**changes: Any) -> Manifest:
    """A manifest of a file that holds ``data``."""
    values: dict[str, Any] = {
        "source": "redis://127.0.0.1:6379",
        "taken_at": "2026-01-31T23:59:59Z",
        "seconds": 1.5,
        "file": "x.rdb",
        "compression": "none",
        "bytes": 4,
        "sha256": hashlib.sha256(b"data").hexdigest(),
        "rdb_bytes": 4,
        "rdb_version": 10,
        "crc64": None,
        "redis_version": "7.0.15",
        "used_memory": None,
        "replication_id": "a" * 40,
        "replication_offset": 7,
        "databases": {"0": {"keys": 3, "expires": 1}, "3": {"keys": 2, "expires": 0}},
        "counted": "exact",
        "functions": 0,
    }
    return Manifest(**{**values, **changes})


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(manifest().as_json())
    assert read_manifest(str(path)) == manifest()


def test_keys_of_all_databases() -> None:
    assert manifest().keys == 5
    assert manifest(counted="no", databases={}).keys is None


@pytest.mark.parametrize("name", ["bytes", "sha256", "taken_at", "databases", "counted", "source"])
def test_each_edit_is_noticed(tmp_path: Path, name: str) -> None:
    content = json.loads(manifest().as_json())
    content[name] = "edited"
    path = tmp_path / "m.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="changed after it was written"):
        read_manifest(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ('{"kind":', "cannot be read"),
        ("[]", "not the manifest of a Redis snapshot"),
        ('{"kind": "else"}', "not the manifest of a Redis snapshot"),
        ('{"kind": "redis_snapshot", "format": 2}', "has format 2"),
    ],
)
def test_something_else_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=words):
        read_manifest(str(path))


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ManifestMissingError, match="no manifest"):
        read_manifest(str(tmp_path / "m.json"))


@pytest.mark.parametrize(("content", "words"), [(b"data", ""), (b"dat", "3 bytes and should have 4"), (b"dato", "SHA")])
def test_how_a_file_differs(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.rdb"
    path.write_bytes(content)
    told = difference(str(path), manifest())
    assert words in told
    assert bool(told) == bool(words)
