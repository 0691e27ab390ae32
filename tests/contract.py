# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds what a module returned against its RETURN: nothing undocumented, nothing missing, every type as told.

``returned: always`` and ``returned: success`` mean present whenever the task did not fail; every other wording is a
condition, so such a key may be absent. Inside ``contains`` a key without ``returned`` is always there. A null is
right only where the type is raw or the description says the word null.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_MODULES = Path(__file__).resolve().parent.parent / "plugins" / "modules"

#: What Ansible itself adds or reads in every result.
_COMMON = frozenset(
    {"changed", "deprecations", "diff", "exception", "failed", "invocation", "msg", "skipped", "warnings"}
)

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "bytes": (str,),
    "complex": (dict,),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "str": (str,),
}


def module_text(name: str, constant: str) -> str:
    """The text of DOCUMENTATION, EXAMPLES or RETURN in a module's source."""
    tree = ast.parse((_MODULES / f"{name}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [constant]:
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"the module {name} has no {constant}")


@functools.cache
def _documented(name: str) -> dict[str, Any]:
    return yaml.safe_load(module_text(name, "RETURN")) or {}


def assert_contract(name: str, answer: Mapping[str, Any]) -> None:
    """Raise AssertionError with every difference between an answer and the module's RETURN."""
    own = {key: value for key, value in answer.items() if key not in _COMMON and not key.startswith("_ansible_")}
    told = _documented(name)
    problems = list(_unlike(own, told, "", complete=not answer.get("failed")))
    # A common key that is documented nevertheless (such as msg) must be as documented.
    problems += _unlike({key: answer[key] for key in _COMMON & answer.keys() & told.keys()}, told, "", complete=False)
    assert not problems, f"{name} returned what its RETURN does not say:\n  " + "\n  ".join(problems)


def _unlike(values: Mapping[str, Any], told: Mapping[str, Any], where: str, complete: bool) -> Iterator[str]:
    """Differences between a dictionary and what is documented of its keys; missing ones only when ``complete``."""
    for key in sorted(values.keys() - told.keys()):
        yield f"{where}{key} is not documented (value {values[key]!r:.80})"
    for key in sorted(told.keys() - values.keys() - _COMMON):
        if complete and str(told[key].get("returned", "always")).lower() in ("always", "success"):
            yield f"{where}{key} is missing"
    for key in sorted(values.keys() & told.keys()):
        yield from _wrong_value(values[key], told[key], f"{where}{key}")


def _wrong_value(value: Any, told: Mapping[str, Any], where: str) -> Iterator[str]:
    kind = told.get("type", "raw")
    if kind in ("raw", "any", "jsonarg", "json"):
        return
    if value is None:
        if "null" not in str(told.get("description")).lower():
            yield f"{where} is null, documented as {kind} without a word of null"
        return
    if not _is(value, kind):
        yield f"{where} is {type(value).__name__} ({value!r:.80}), documented as {kind}"
        return
    if isinstance(value, list):
        yield from _wrong_elements(value, told, where)
    elif isinstance(value, dict) and "contains" in told:
        yield from _unlike(value, told["contains"], f"{where}.", complete=True)


def _wrong_elements(values: list[Any], told: Mapping[str, Any], where: str) -> Iterator[str]:
    """Each element is held against ``elements`` and ``contains`` of the list."""
    element = {"type": told.get("elements", "raw"), "contains": told.get("contains")}
    if not element["contains"]:
        del element["contains"]
    for index, value in enumerate(values):
        yield from _wrong_value(value, element, f"{where}[{index}]")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # a bool is an int in Python, but not to a reader of the documentation
        return kind == "bool"
    return isinstance(value, _PYTHON_TYPES[kind])
