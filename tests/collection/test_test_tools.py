# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judges are judged: a contract that accepts everything would make every module test worthless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import contract, examples

_MODULE = '''
EXAMPLES = r"""
- name: Say where
  ansible.builtin.assert:
    that: place == "/srv/here"
  vars:
    place: /srv/data
"""
RETURN = r"""
size:
  description: Bytes.
  returned: success
  type: int
ratio:
  description: Part of the whole, or null.
  returned: always
  type: float
note:
  description: More.
  returned: when there is something to say
  type: str
sets:
  description: What there is.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Name., type: str}
    age: {description: Seconds., type: float, returned: when complete}
"""
'''
_GOOD: dict[str, Any] = {"changed": False, "size": 1, "ratio": 0.5, "sets": [{"id": "a"}]}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample.py").write_text(_MODULE)
    monkeypatch.setattr(contract, "_MODULES", tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"ratio": None},
        {"ratio": 1},
        {"note": "x", "msg": "m", "invocation": {}, "diff": [], "_ansible_x": 1},
        {"sets": [{"id": "a", "age": 2}, {"id": "b"}]},
    ],
)
def test_what_is_documented_passes(more: dict[str, Any]) -> None:
    contract.assert_contract("sample", {**_GOOD, **more})


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"size": "1"}, "size is str"),
        ({"size": True}, "size is bool"),
        ({"size": None}, "size is null"),
        ({"extra": 1}, "extra is not documented"),
        ({"sets": {}}, "sets is dict"),
        ({"sets": [{}]}, r"sets\[0\].id is missing"),
        ({"sets": [{"id": "a", "x": 1}]}, r"sets\[0\].x is not documented"),
        ({"sets": ["a"]}, r"sets\[0\] is str"),
    ],
)
def test_every_difference_is_named(more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.assert_contract("sample", {**_GOOD, **more})


def test_a_missing_key_is_an_error_of_success_alone() -> None:
    with pytest.raises(AssertionError, match="size is missing"):
        contract.assert_contract("sample", {"ratio": 1.0, "sets": []})
    contract.assert_contract("sample", {"failed": True, "msg": "no"})


def test_examples_run_with_what_was_replaced() -> None:
    assert "ok=1" in examples.run_examples("sample", {"/srv/data": "/srv/here"})


def test_a_failing_example_shows_its_output() -> None:
    with pytest.raises(AssertionError, match="Assertion failed"):
        examples.run_examples("sample", {"/srv/data": "/elsewhere"})


def test_a_replacement_that_no_longer_occurs_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no longer contain"):
        examples.run_examples("sample", {"/srv/gone": "/srv/here"})
