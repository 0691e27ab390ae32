# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says of its variables (meta/argument_specs.yml) is what it does (defaults/main.yml), both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
_ABSENT = "(none)"


def _yaml(path: Path) -> Any:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}


def _options(role: str) -> dict[str, dict[str, Any]]:
    """The documented variables of all entry points; one that several of them name must be the same in each."""
    found: dict[str, dict[str, Any]] = {}
    for entry in _yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"].values():
        for name, option in (entry.get("options") or {}).items():
            same = found.setdefault(name, option).get("default", _ABSENT) == option.get("default", _ABSENT)
            assert same, f"two entry points of {role} tell different defaults of {name}"
    return found


def _is_template_of_a_structure(option: dict[str, Any], default: Any) -> bool:
    """The documentation tools hold a default against its type, and a template cannot pass for a list or dict."""
    return option.get("type") in ("list", "dict") and isinstance(default, str) and "{{" in default


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented_alike(role: str) -> None:
    options = _options(role)
    for name, default in _yaml(ROOT / "roles" / role / "defaults" / "main.yml").items():
        assert name in options, f"{name} of defaults/main.yml is missing in meta/argument_specs.yml"
        if _is_template_of_a_structure(options[name], default):
            told = "its default is a template: meta/argument_specs.yml leaves the default of a list or dict out"
            assert "default" not in options[name], f"{name}: {told}"
        else:
            assert options[name].get("default", _ABSENT) == default, f"{name}: default differs"
        assert not options[name].get("required"), f"{name} has a default and is told to be required"


@pytest.mark.parametrize("role", ROLES)
def test_every_documented_default_is_set(role: str) -> None:
    defaults = _yaml(ROOT / "roles" / role / "defaults" / "main.yml")
    for name, option in _options(role).items():
        if "default" in option:
            assert name in defaults, f"{name} has a documented default that defaults/main.yml does not set"
        assert name.startswith((f"{role}_", "upkeep_")), f"{name} carries neither the role's name nor the catalogue's"


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_exist_and_are_described(role: str) -> None:
    for name, entry in _yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"].items():
        assert (ROOT / "roles" / role / "tasks" / f"{name}.yml").is_file(), f"{name} is no tasks file of {role}"
        assert entry.get("short_description"), f"{role}: {name} has no short_description"
        assert entry.get("description"), f"{role}: {name} has no description"


@pytest.mark.parametrize("role", ROLES)
def test_no_key_is_told_twice(role: str) -> None:
    """Ansible warns of it at every call of the role, also when one of the two was merged in."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    told: list[str] = []
    for node in yaml.compose(text).value:
        _twice(node[1], told)
    assert told == []


def _twice(node: yaml.Node, told: list[str]) -> None:
    """Note the keys that a mapping, or one below it, has more than once."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _twice(child, told)
    if isinstance(node, yaml.MappingNode):
        merged = [key.value for name, child in node.value if name.value == "<<" for key, _value in child.value]
        names = [name.value for name, _child in node.value if name.value != "<<"] + merged
        told += sorted({name for name in names if names.count(name) > 1})
        for _name, child in node.value:
            _twice(child, told)
