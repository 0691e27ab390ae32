# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firestore_database against a stand-in for the Admin API, with Google's own client and gcloud as witnesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions as api

from tests.examples import run_examples
from tests.fixtures.firestore import DATABASE, PROJECT, FirestoreStandIn
from tests.harness import run_module
from tests.platform.parts.firestore import digest, seed
from tests.platform.parts.gcloud import Gcloud


def ask(firestore: FirestoreStandIn, name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {**firestore.connection, "database": name, "poll_interval": "0.2s", **options}
    return run_module("firestore_database", arguments, check=check)


def test_a_database_comes_and_goes_with_its_documents(firestore: FirestoreStandIn) -> None:
    name, before = firestore.new_database(), digest(firestore.emulator.host, PROJECT)
    foretold = ask(firestore, name, check=True, location="eur3")
    assert foretold["changed"] and "would create" in foretold["msg"] and name not in firestore.databases()
    made = ask(firestore, name, location="eur3")
    assert made["changed"] and name in firestore.databases()
    (told,) = made["databases"]
    assert (told["id"], told["location"], told["protected"]) == (name, "eur3", False) and told["created_at"]
    again = ask(firestore, name)
    assert not again["changed"] and again["databases"] == [told]
    found = ask(firestore, "(default)", state="found")
    assert {database["id"] for database in found["databases"]} == firestore.databases() >= {name, "(default)"}

    seed(firestore.emulator.host, PROJECT, 20, name)
    for confirm in ("", "(default)"):
        refused = ask(firestore, name, state="absent", confirm=confirm)
        assert refused["failed"] and f"set confirm to the name of the database, '{name}'" in refused["msg"]
    foretold = ask(firestore, name, check=True, state="absent", confirm=name)
    assert foretold["changed"] and digest(firestore.emulator.host, PROJECT, name).documents == 20
    gone = ask(firestore, name, state="absent", confirm=name)
    assert gone["changed"] and name not in firestore.databases()
    assert digest(firestore.emulator.host, PROJECT, name).documents == 0
    assert not ask(firestore, name, state="absent", confirm=name)["changed"]
    assert digest(firestore.emulator.host, PROJECT) == before, "no other database was touched"


def test_what_goes_wrong_is_named(firestore: FirestoreStandIn) -> None:
    name = firestore.new_database()
    assert "set location" in ask(firestore, name)["msg"]
    assert "Invalid database id" in ask(firestore, "Wrong_Name", location="eur3")["msg"]
    firestore.bridge.configure(outcome="failure", method="create_database")
    failed = ask(firestore, name, location="eur3")
    assert failed["failed"] and "the creation of" in failed["msg"] and "as it was told to" in failed["msg"]
    firestore.bridge.configure(delay=60, method="create_database")
    late = ask(firestore, name, location="eur3", timeout="1s")
    assert late["failed"] and "still PROCESSING after 1.0 s" in late["msg"]
    waiting = ask(firestore, name, timeout="1s")
    assert waiting["failed"] and "still PROCESSING" in waiting["msg"], "one that is not ready is not there"
    firestore.bridge.configure()
    assert not ask(firestore, name)["changed"]
    firestore.bridge.configure(outcome="failure", method="delete_database")
    assert "the deletion of" in ask(firestore, name, state="absent", confirm=name)["msg"]
    firestore.bridge.configure()
    assert ask(firestore, name, state="absent", confirm=name)["changed"]


def test_a_protected_database_stays(firestore: FirestoreStandIn) -> None:
    name = firestore.new_database()
    settings = {"location_id": "eur3", "type_": "FIRESTORE_NATIVE", "delete_protection_state": 2}
    request = {"parent": f"projects/{PROJECT}", "database_id": name, "database": settings}
    firestore.admin().create_database(request=request).result(timeout=30)
    refused = ask(firestore, name, state="absent", confirm=name)
    assert refused["failed"] and "protected against deletion" in refused["msg"] and name in firestore.databases()
    with pytest.raises(api.FailedPrecondition):
        firestore.admin().delete_database(request={"name": DATABASE.replace("(default)", name)})


@pytest.mark.slow
def test_gcloud_sees_the_same(firestore: FirestoreStandIn, tmp_path: Path) -> None:
    if missing := Gcloud.missing():
        pytest.skip(missing)
    run = Gcloud(firestore.bridge.url, PROJECT, tmp_path).firestore

    ours, theirs = firestore.new_database(), firestore.new_database()
    ask(firestore, ours, location="eur3")
    assert ours in {database["name"].rpartition("/")[2] for database in run("databases", "list")}
    run("databases", "create", f"--database={theirs}", "--location=nam5", "--type=firestore-native")
    assert ask(firestore, theirs)["databases"][0]["location"] == "nam5"
    run("databases", "delete", f"--database={ours}")
    assert not ask(firestore, ours, state="absent", confirm=ours)["changed"]
    ask(firestore, theirs, state="absent", confirm=theirs)


def test_examples_work(firestore: FirestoreStandIn) -> None:
    stand_in = {name: value for name, value in firestore.connection.items() if name != "project"}
    connection = "".join(f"\n    {name}: {value}" for name, value in stand_in.items())
    output = run_examples(
        "firestore_database",
        {"project: example-project": f"project: {PROJECT}{connection}", "restore-test": firestore.new_database()},
    )
    assert output.count("changed: [localhost]") == 2
