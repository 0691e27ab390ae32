"""report_files on a real file system."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module

FILES = {"a.html": "<p>ä</p>", "a.md": "ä"}


def call(folder: Path, *, check: bool = False, **more: Any) -> dict[str, Any]:
    arguments = {"directory": str(folder), "files": FILES, "links": {"latest.html": "a.html"}, **more}
    return run_module("report_files", arguments, check=check)


def test_create_change_and_repeat_also_in_check_mode(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    assert call(folder, check=True)["written"] == ["a.html", "a.md", "latest.html"]
    assert not folder.exists()
    assert call(folder)["changed"]
    assert not call(folder)["changed"] and not call(folder, check=True)["changed"]
    assert (folder / "latest.html").read_text(encoding="utf-8") == "<p>ä</p>"
    assert stat.S_IMODE((folder / "a.md").stat().st_mode) == 0o640
    changed = {"files": {**FILES, "b.html": "new"}, "links": {"latest.html": "b.html"}}
    assert call(folder, check=True, **changed)["written"] == ["b.html", "latest.html"]
    assert call(folder, **changed)["written"] == ["b.html", "latest.html"]
    assert (folder / "latest.html").read_text(encoding="utf-8") == "new"
    assert sorted(path.name for path in folder.iterdir()) == ["a.html", "a.md", "b.html", "latest.html"]


def test_a_name_with_a_folder_is_refused(tmp_path: Path) -> None:
    answer = call(tmp_path, files={"../evil": "x"})
    assert answer["failed"] and "../evil" in answer["msg"]


@pytest.mark.parametrize("folder", ["/proc/nowhere/reports", "/dev/null/reports"])
def test_what_cannot_be_written_is_named(folder: str) -> None:
    answer = call(Path(folder))
    assert answer["failed"] and folder in answer["msg"]


def test_examples_run(tmp_path: Path) -> None:
    run_examples("report_files", {"/var/lib/upkeep": str(tmp_path)})
