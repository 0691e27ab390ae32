# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exported documents that hold what nobody has seen yet; those that Firestore writes are tried beside the module."""

from __future__ import annotations

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_entities import IncomparableError, exported_fields
from hypothesis import given
from hypothesis import strategies as st

from tests.platform.parts.export_writer import document


def entity(meaning: int, value: bytes) -> bytes:
    """A document with the field ``a``."""
    held = bytes([1 << 3, meaning, 3 << 3 | 2, 1]) + b"a" + bytes([5 << 3 | 2, len(value)]) + value
    return document([("users", "alice")])[:-2] + bytes([15 << 3 | 2, len(held)]) + held


def test_a_field_is_read() -> None:
    assert exported_fields(entity(0, b"\x08\x07"), "users/alice") == {"a": ("integer", 7)}
    assert exported_fields(entity(7, b"\x08\x07"), "users/alice") == {"a": ("timestamp", 7)}


@pytest.mark.parametrize("value", [b"\x08\x07", b"\x10\x01", b"\x1a\x01x", b"!" + bytes(8)])
def test_a_value_of_unknown_meaning_is_not_taken_for_equal(value: bytes) -> None:
    with pytest.raises(IncomparableError, match="document users/alice of the export cannot be compared"):
        exported_fields(entity(99, value), "users/alice")


@given(st.binary(max_size=60))
def test_whatever_it_holds_it_is_read_or_refused(noise: bytes) -> None:
    try:
        exported_fields(entity(0, noise), "users/alice")
    except IncomparableError as error:
        assert "users/alice" in str(error)
