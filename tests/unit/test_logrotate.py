# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What logrotate prints and keeps, and names of rotated logs."""

from __future__ import annotations

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _logrotate as logrotate
from ansible_collections.upkeep.ops.plugins.module_utils._log_audit import is_rotated, parse_size
from hypothesis import given
from hypothesis import strategies as st


def test_state() -> None:
    text = 'logrotate state -- version 2\n"/var/log/a b.log" 2026-11-23-15:54:59\n"/x\\"y" 2026-1-2-3:4:5\nnoise\n'
    assert logrotate.parse_state(text) == {"/var/log/a b.log": "2026-11-23-15:54:59", '/x"y': "2026-1-2-3:4:5"}


def test_plan() -> None:
    output = (
        "considering log /a.log\n  Now: 2026\n  log needs rotating\nconsidering log /b.log\n"
        "  log does not need rotating (log is empty)\nrotating log /a.log\n"
    )
    assert logrotate.parse_considered(output) == {"/a.log": True, "/b.log": False}


@given(st.text())
def test_no_output_breaks_the_parsers(text: str) -> None:
    logrotate.parse_state(text)
    logrotate.parse_considered(text)
    logrotate.error_lines(text)


def test_errors_come_with_what_to_do() -> None:
    told = logrotate.told(['skipping "/x" because parent directory has insecure permissions', "other"])
    assert told.endswith(
        "; other (set su_user and su_group to the folder's owner, or take write access from its group)"
    )


@pytest.mark.parametrize(
    ("name", "rotated"),
    [
        ("access.log", False),
        ("access.log.1", True),
        ("access.log.12.gz", True),
        ("access.log-20261123", True),
        ("access.log-20261123.gz", True),
        ("access.log-20261123T155459", True),
        ("access.log.2026-11-23", True),
        ("app.log.zst", True),
        ("postgresql-15-main.log", False),
        ("worker-2.log", False),
    ],
)
def test_names_of_rotated_logs(name: str, rotated: bool) -> None:
    assert is_rotated(f"/var/log/{name}") is rotated


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 500 << 20), ("1.5G", 3 << 29), ("10", 10), ("2 k", None), ("", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="no size"):
            parse_size(text)
    else:
        assert parse_size(text) == size
