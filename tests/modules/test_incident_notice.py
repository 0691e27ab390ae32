# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""incident_notice with a real history and real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module


class Desk:
    """One open incident, and calls of the module about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given = {"database": str(folder / "history.sqlite3"), "site": "test"}
        self.id = self.incident("opened", services=["auth"], title="Nobody can sign in")["id"]

    def incident(self, state: str, **arguments: Any) -> dict[str, Any]:
        told: dict[str, Any] = run_module("incident", {**self.given, "state": state, **arguments})["incident"]
        return told

    def tell(self, stage: str, *contacts: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        arguments = {
            **self.given,
            "id": self.id,
            "stage": stage,
            "contacts": list(contacts),
            "fail_on": "never",
            **more,
        }
        return run_module("incident_notice", arguments, check=check)

    def contact(self, name: str, stages: list[str], **more: Any) -> dict[str, Any]:
        return {"name": name, "urls": [f"file://{self.folder}/{name}.log"], "stages": stages, **more}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_each_is_told_once_of_the_stages_that_concern_it(desk: Desk) -> None:
    contacts = [
        desk.contact("ops", ["assess", "closed"]),
        desk.contact("boss", ["closed"]),
        desk.contact("minor", ["assess"], severities=["warning"]),
        desk.contact("alerts-only", []),
    ]
    first = desk.tell("assess", *contacts, lines=["The release is suspected"], link="https://example.org/status/")
    assert first["changed"] and first["told"] == ["ops"]
    text = (desk.folder / "ops.log").read_text()
    assert "[test] OUTAGE: Nobody can sign in" in text and "The release is suspected" in text
    assert "https://example.org/status/" in text and "TIMELINE" in text
    assert desk.tell("assess", *contacts)["told"] == [], "nobody is told twice"
    desk.incident("recovered")
    closed = desk.tell("closed", *contacts)
    assert closed["told"] == ["ops", "boss"] and "OUTAGE OVER" in closed["title"]
    desk.incident("opened", services=["auth"])
    assert desk.tell("assess", *contacts)["told"] == ["ops"], "it failed again"
    assert not (desk.folder / "minor.log").exists() and not (desk.folder / "alerts-only.log").exists()


def test_check_mode_sends_nothing(desk: Desk) -> None:
    contact = desk.contact("ops", ["assess"])
    assert desk.tell("assess", contact, check=True)["told"] == ["ops"]
    assert not (desk.folder / "ops.log").exists()
    assert desk.tell("assess", contact)["told"] == ["ops"]


def test_one_who_cannot_be_reached_is_found_and_told_later(desk: Desk) -> None:
    broken = {**desk.contact("ops", ["assess"]), "urls": ["file:///proc/nowhere/ops.log"]}
    answer = desk.tell("assess", broken)
    assert (answer["status"], answer["told"]) == ("critical", []) and "/proc/nowhere" in answer["findings"][0][
        "summary"
    ]
    assert desk.tell("assess", desk.contact("ops", ["assess"]))["told"] == ["ops"]


def test_an_incident_that_is_not_there(desk: Desk) -> None:
    answer = desk.tell("assess", id="INC-20200101-1")
    assert answer["failed"] and "there is no incident INC-20200101-1" in answer["msg"]


def test_examples_run(tmp_path: Path) -> None:
    run_examples("incident_notice", {"/var/lib/upkeep": str(tmp_path)})
