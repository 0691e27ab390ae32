# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module announcement: who is told, and what happens when somebody cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.examples import run_examples
from tests.harness import run_module


def call(folder: Path, check: bool = False, **options: Any) -> dict[str, Any]:
    contacts = [
        {
            "name": "DBA",
            "urls": [f"file://{folder}/dba"],
            "areas": ["database"],
            "severities": ["critical"],
            "stages": ["closed"],
        },
        {"name": "Lead", "urls": [f"file://{folder}/lead"], "severities": ["warning"]},
        {"name": "Security", "urls": [f"file://{folder}/security"], "areas": ["security"]},
        {"name": "Vendor"},
    ]
    arguments = {"contacts": contacts, "area": "database", "title": "demo: begins", "text": "The data is replaced."}
    return run_module("announcement", {**arguments, **options}, check=check)


def test_those_are_told_whose_affair_it_is(tmp_path: Path) -> None:
    assert call(tmp_path, check=True)["told"] == ["DBA"] and not list(tmp_path.iterdir())
    answer = call(tmp_path)
    assert answer["told"] == ["DBA"] and answer["changed"]
    assert (tmp_path / "dba").read_text() == "demo: begins\nThe data is replaced.\n\n"
    assert call(tmp_path, status="ok")["told"] == ["DBA", "Lead"], "a good end is told to all"


def test_who_cannot_be_told_is_named(tmp_path: Path) -> None:
    (tmp_path / "dba").mkdir()
    answer = call(tmp_path)
    assert answer["failed"] and answer["told"] == [] and "cannot be written" in answer["msg"]


def test_the_examples_run(tmp_path: Path) -> None:
    run_examples("announcement", {"/var/log/upkeep": str(tmp_path)})
    assert "emergency recovery has begun" in (tmp_path / "database.log").read_text()
