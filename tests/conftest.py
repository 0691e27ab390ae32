"""Fixtures of all tests: real servers on loopback, each stopped by its own pid."""

from __future__ import annotations

import pytest

pytest_plugins = [
    "tests.fixtures.certificates",
    "tests.fixtures.docker",
    "tests.fixtures.firestore",
    "tests.fixtures.gateway",
    "tests.fixtures.http",
    "tests.fixtures.redis",
    "tests.fixtures.rolling",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="recover under each fault, and write the list of them")
