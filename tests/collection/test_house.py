# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The floors of docs/architecture.md: who may touch what, how long a module may be, what every role has."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract import module_text
from tests.harness import ROOT

_PLUGINS = ROOT / "plugins"
MODULES = sorted((_PLUGINS / "modules").glob("*.py"))
MODULE_UTILS = sorted((_PLUGINS / "module_utils").glob("_*.py"))
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())

#: The only parts of the floor `know` that may know of Ansible: they carry what modules share.
_OF_ANSIBLE = frozenset({"_module.py"})
_CODE_LINES = 100
#: Modules that may be longer, each with its reason.
_LONGER = {
    "alert": "reads history, sends outside its transaction and notes what was delivered: this order is its point",
    "redis_snapshot": "wires a connection, a stream, progress and six kinds of failure; a quarter of it are imports",
}
_SECTIONS = ["What it does", "What it changes", "How it is undone", "Variables", "Example"]
#: The facts by which roles and runs speak with each other; every other name carries its role's.
_CONTRACT_FACTS = re.compile(r"upkeep_[a-z_]+")
_GROUPS = ("recorder", "platform", "gateway", "backup")


def _identity(path: Path) -> str:
    return path.stem if path.suffix else path.name


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _code_lines(path: Path) -> int:
    """Lines that hold code: no documentation, no comment, no blank line."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Constant):
            documentation = isinstance(node, ast.Expr) or getattr(node.targets[0], "id", "") in _DOCUMENTS
            if documentation and isinstance(node.value.value, str):
                lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


_DOCUMENTS = ("DOCUMENTATION", "EXAMPLES", "RETURN")


@pytest.mark.parametrize("path", MODULE_UTILS, ids=_identity)
def test_domain_code_knows_nothing_of_ansible(path: Path) -> None:
    if path.name not in _OF_ANSIBLE:
        assert not [name for name in _imports(path) if name.split(".")[0] == "ansible"]


@pytest.mark.parametrize("path", MODULES, ids=_identity)
def test_modules_are_thin(path: Path) -> None:
    if path.stem not in _LONGER:
        assert _code_lines(path) <= _CODE_LINES, "move domain code to module_utils"


@pytest.mark.parametrize("path", MODULES, ids=_identity)
def test_modules_tell_their_attributes_author_and_version(path: Path) -> None:
    told = yaml.safe_load(module_text(path.stem, "DOCUMENTATION"))
    fragments = told.get("extends_documentation_fragment", [])
    attributes = set(told.get("attributes", {}))
    assert "upkeep.ops._attributes" in fragments
    assert "upkeep.ops._attributes.reads_only" in fragments or {"check_mode", "diff_mode", "idempotent"} <= attributes
    assert told["author"] in ("The upkeep.ops authors (@upkeep-ops)", ["The upkeep.ops authors (@upkeep-ops)"])
    assert told["version_added"] == "1.0.0"
    assert told["module"] == path.stem


@pytest.mark.parametrize("path", MODULES, ids=_identity)
def test_examples_use_full_names(path: Path) -> None:
    for task in yaml.safe_load(module_text(path.stem, "EXAMPLES")):
        actions = [key for key in task if key.count(".") >= 2]
        assert actions or "block" in task, f"{task.get('name')}: no action with its full name"


@pytest.mark.parametrize("path", MODULES, ids=_identity)
def test_every_module_has_a_test(path: Path) -> None:
    assert list((ROOT / "tests" / "modules").glob(f"test_{path.stem}*.py"))


@pytest.mark.parametrize("role", ROLES, ids=_identity)
def test_roles_have_their_contract_files(role: Path) -> None:
    for name in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "defaults/main.yml"):
        assert (role / name).is_file(), f"{role.name} has no {name}"
    assert list((role / "tasks").glob("*.yml")), f"{role.name} has no tasks"


@pytest.mark.parametrize("role", ROLES, ids=_identity)
def test_role_readmes_have_the_sections_of_the_house(role: Path) -> None:
    headings = re.findall(r"^## (.+)$", (role / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading for heading in headings if heading in _SECTIONS] == _SECTIONS


def _texts(role: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(role.rglob("*")):
        if path.suffix in (".yml", ".j2"):
            yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize("role", ROLES, ids=_identity)
def test_roles_name_no_groups(role: Path) -> None:
    for path, text in _texts(role):
        assert not re.search(rf"\bgroups(\.|\[['\"])({'|'.join(_GROUPS)})\b|\bgroup_names\b", text), path


def _facts(tasks: Any) -> Iterator[str]:
    """Names that tasks set or register, in blocks too."""
    for task in tasks or []:
        for key in ("block", "rescue", "always"):
            yield from _facts(task.get(key))
        yield from (name for name in task.get("ansible.builtin.set_fact", {}) if name != "cacheable")
        if "register" in task:
            yield task["register"]


@pytest.mark.parametrize("role", ROLES, ids=_identity)
def test_roles_set_facts_of_their_own_name(role: Path) -> None:
    own = re.compile(rf"_?{role.name}(_[a-z0-9_]+)?")
    for path in sorted((role / "tasks").glob("*.yml")):
        for name in _facts(yaml.safe_load(path.read_text(encoding="utf-8"))):
            assert own.fullmatch(name) or _CONTRACT_FACTS.fullmatch(name), f"{path}: {name}"
