"""Fixtures of all tests: real servers on loopback, each stopped by its own pid."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Properties are tried with other examples each time, but not by the continuous integration, which judges a change.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Its assertions tell what they compared, as those of tests do.
pytest.register_assert_rewrite("tests.recovery_faults")

pytest_plugins = [
    "tests.fixtures.certificates",
    "tests.fixtures.docker",
    "tests.fixtures.firestore",
    "tests.fixtures.gateway",
    "tests.fixtures.http",
    "tests.fixtures.recovery",
    "tests.fixtures.redis",
    "tests.fixtures.rolling",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "docker_image" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="recover under each fault, and write the list of them")
