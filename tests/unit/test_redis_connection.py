"""Where a server is, and why it could not be asked; real servers are asked in the tests of the modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
import yaml
from ansible_collections.upkeep.ops.plugins.doc_fragments._redis_connection import ModuleDocFragment
from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    CONNECTION_OPTIONS,
    Login,
    RedisAccessError,
    client,
    explained,
)


def test_the_options_are_the_documented_ones() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert documented.keys() == CONNECTION_OPTIONS.keys()
    for name, option in CONNECTION_OPTIONS.items():
        for key in ("type", "default"):
            assert documented[name].get(key) == option.get(key), name


@pytest.mark.parametrize(
    ("login", "url"),
    [
        (Login("redis.example.org", 6380, user="me", password="secret"), "redis://redis.example.org:6380"),
        (Login("redis.example.org", tls=True), "rediss://redis.example.org:6379"),
        (Login("::1"), "redis://[::1]:6379"),
        (Login(unix_socket="/run/redis/s"), "unix:///run/redis/s"),
    ],
)
def test_the_name_of_a_server_holds_no_secret(login: Login, url: str) -> None:
    assert login.url == url
    assert "secret" not in repr(login)


def test_options_that_are_not_set_are_left_to_the_defaults() -> None:
    options = {"login_host": "h", "login_user": None, "timeout": 3, "dest": "/not/ours"}
    assert Login.of(options) == Login(host="h", timeout=3)


def test_a_name_without_an_address_and_a_socket_that_is_not_there(tmp_path: Path) -> None:
    for login, words in (
        (Login("nowhere.invalid"), "its name has no address"),
        (Login(unix_socket=str(tmp_path / "s")), "there is no such socket"),
    ):
        with pytest.raises(RedisAccessError, match=words), explained(redis, login):
            client(redis, login).ping()
