# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes what a Redis server evicts when memory is full, so that it survives a restart or is not changed at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._redis_figures import databases

POLICIES = (
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
)
_OPTION = "maxmemory-policy"


class RefusedError(Exception):
    """It was not done, because data would be lost or it would have no effect; the text says why and what to do."""


@dataclass(frozen=True)
class Wish:
    """The policy that is wanted of a server. With ``force`` reasons against it are no obstacle."""

    policy: str
    store: bool
    force: bool


def configure(
    library: ModuleType, client: Any, wish: Wish, dry: bool, read: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """Set the policy and write it into the server's configuration; with ``dry`` only see whether that could be done.

    ``read`` gives the content of a file on the server's host, None when that is another one. It tells whether a policy
    that is in force already was only set by hand, and would be lost.

    Raises RefusedError, with the server as it was.
    """
    info = client.info()
    before = str(info["maxmemory_policy"])
    answer: dict[str, Any] = {"before": before, "after": wish.policy, "persisted": None, "obstacles": []}
    if before == wish.policy:
        written = _is_written(info, wish.policy, read)
        if written is False and not dry:
            client.config_rewrite()
        return {**answer, "changed": written is False, "persisted": written if dry or written is None else True}
    obstacles = _obstacles(info, wish)
    if obstacles and not wish.force:
        raise RefusedError(f"{_OPTION} stays {before}: {'; '.join(obstacles)}. force=true changes it nevertheless")
    if not dry:
        client.config_set(_OPTION, wish.policy)
        answer["persisted"] = _kept(library, client, bool(info.get("config_file")), before, wish.force)
    return {**answer, "changed": True, "obstacles": obstacles}


def _is_written(info: Mapping[str, Any], policy: str, read: Callable[[str], str] | None) -> bool | None:
    """Whether the configuration file says so too; None when nobody can tell from here."""
    if read is None or not info.get("config_file"):
        return None
    try:
        lines = [line.split() for line in read(str(info["config_file"])).splitlines()]
    except (OSError, ValueError):
        return None
    told = [words[1].strip("\"'") for words in lines if len(words) == 2 and words[0].lower() == _OPTION]
    # The server leaves out what is its default.
    return (told[-1] if told else POLICIES[0]) == policy


def _obstacles(info: Mapping[str, Any], wish: Wish) -> list[str]:
    """What speaks against the change."""
    found = databases(info).values()
    keys, expires = (sum(counts[name] for counts in found) for name in ("keys", "expires"))
    reasons: tuple[tuple[bool, Callable[[], str]], ...] = (
        (
            wish.store,
            lambda: (
                "the server is a store (use=store), whose data cannot be made again, so what it evicts is not to be "
                "changed in passing"
            ),
        ),
        (
            wish.policy != "noeviction" and not int(info.get("maxmemory", 0)),
            lambda: "its maxmemory is 0, without which no policy does anything: set maxmemory first",
        ),
        (
            wish.policy.startswith("volatile-") and keys > 0 and expires < keys / 100,
            lambda: (
                f"{expires} of its {keys} keys have an expiry, so that {wish.policy} could evict hardly anything "
                "and writes would fail when memory is full: choose an allkeys policy or give keys a TTL"
            ),
        ),
        (
            not info.get("config_file"),
            lambda: (
                "it was started without a configuration file, so that CONFIG REWRITE cannot keep the change over a "
                f"restart: start it with one, or with --{_OPTION} {wish.policy} among its arguments"
            ),
        ),
    )
    return [tell() for applies, tell in reasons if applies]


def _kept(library: ModuleType, client: Any, has_file: bool, before: str, force: bool) -> bool:
    """Write the change into the configuration file; when that fails the old policy comes back, unless forced."""
    try:
        if has_file:
            client.config_rewrite()
        return has_file
    except library.exceptions.ResponseError as error:
        if force:
            return False
        client.config_set(_OPTION, before)
        raise RefusedError(
            f"{_OPTION} is {before} again, because the server could not write the change into its configuration file "
            f"and would lose it at its restart ({error}): let it write there, or set the policy in that file yourself"
        ) from error
    except BaseException:
        client.config_set(_OPTION, before)
        raise
