"""Telling how far long work is."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.upkeep.ops.plugins.module_utils._progress import Progress


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_a_second_and_a_log_entry_each_half_minute(tmp_path: Path) -> None:
    clock = Clock()
    logged: list[str] = []
    path = tmp_path / "progress"
    with Progress("copy", str(path), clock, logged.append) as progress:
        for tenth in range(610):
            clock.now = 100 + tenth / 10
            progress(tenth, 1000 if tenth > 300 else None)
        progress.finish(1000)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"what": "copy", "bytes": 0, "total": None, "seconds": 0.0}
    assert lines[-1] == {"what": "copy", "bytes": 1000, "total": 1000, "seconds": 60.9}
    assert len(lines) == 62
    assert logged == ["copy: 300 bytes after 30 s", "copy: 600 of 1000 bytes after 60 s"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file() -> None:
    with Progress("copy", "", Clock(), lambda _text: None) as progress:
        progress(1, 2)
        progress.finish(2)
