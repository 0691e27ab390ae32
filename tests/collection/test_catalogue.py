"""The site catalogue: what roles and playbooks read of it is explained where people look for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Facts and switches of a run, which no site describes.
_OF_A_RUN = {
    *("upkeep_confirm", "upkeep_expected", "upkeep_fail_on", "upkeep_outcome", "upkeep_outcomes"),
    *("upkeep_run", "upkeep_run_summary"),
}
_EXAMPLE = sorted((ROOT / "inventories" / "example" / "group_vars" / "all").glob("*.yml"))


def _read() -> set[str]:
    """Variables of the catalogue that roles and playbooks read, and the keys of those that are dictionaries."""
    texts = [path.read_text() for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    names = {name for text in texts for name in re.findall(r"\bupkeep_[a-z_]+", text)} - _OF_A_RUN
    keys = {key for text in texts for key in re.findall(r"\(upkeep_[a-z_]+ \| default\(\{\}\)\)\.([a-z_]+)", text)}
    return names | keys


@pytest.mark.parametrize("name", sorted(_read()))
def test_what_is_read_of_the_catalogue_is_explained(name: str) -> None:
    explained = re.compile(rf"^[ #{{-]*(?:[a-z_]+: {{)?{name}:", re.MULTILINE)
    assert any(explained.search(path.read_text()) for path in _EXAMPLE), f"inventories/example does not know {name}"
    assert re.search(rf"\b{name}:", (ROOT / "docs" / "architecture.md").read_text()), f"architecture.md: no {name}"


#: What names an entry of a list of the catalogue where its keys are read, as in service.hosts or service.get("hosts").
_ENTRIES = {
    "upkeep_services": r"(?:_service_restart_)?service",
    "upkeep_contacts": "contact",
    "upkeep_redis": "server",
    "upkeep_firestore": "database",
}
#: The methods of a dictionary, and names of files.
_NO_KEYS = {"get", "items", "update", "yml", "conf"}


def _keys_read() -> set[tuple[str, str]]:
    """Keys of the entries of the catalogue's lists that roles, playbooks and filters read."""
    paths = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    texts = [path.read_text() for path in [*paths, *(ROOT / "plugins" / "filter").glob("*.py")]]
    found = {
        (variable, key)
        for variable, entry in _ENTRIES.items()
        for text in texts
        for key in re.findall(rf"(?<![.'\w]){entry}(?:\.|\.get\([\"'])([a-z_]+)\b(?!\()", text)
    }
    return {(variable, key) for variable, key in found if key not in _NO_KEYS}


@pytest.mark.parametrize(("variable", "key"), sorted(_keys_read()))
def test_what_is_read_of_an_entry_is_explained(variable: str, key: str) -> None:
    explained = re.compile(rf"`{key}`|\b{key}:")
    files = [path.read_text() for path in _EXAMPLE if re.search(rf"^#? ?{variable}:", path.read_text(), re.MULTILINE)]
    assert files and any(explained.search(text) for text in files), f"inventories/example: {variable} knows no {key}"
    assert re.search(rf"\b{key}\b", (ROOT / "docs" / "architecture.md").read_text()), f"architecture.md: no {key}"
