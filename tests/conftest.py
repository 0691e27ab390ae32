"""Fixtures of all tests: real servers on loopback, each stopped by its own pid."""

pytest_plugins = [
    "tests.fixtures.certificates",
    "tests.fixtures.docker",
    "tests.fixtures.firestore",
    "tests.fixtures.gateway",
    "tests.fixtures.http",
    "tests.fixtures.redis",
    "tests.fixtures.rolling",
]
