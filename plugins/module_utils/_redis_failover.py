# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps Sentinel from failing over while a master is being restored, and lets it again afterwards.

A master that copies another server, or is stopped for longer than ``down-after-milliseconds``, is replaced by a
replica with the old data, and then overwritten by it. So every Sentinel that watches it is told to wait for a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._redis_connection import (
    Login,
    RedisAccessError,
    client,
    explained,
)
from ansible_collections.upkeep.ops.plugins.module_utils._scratch_redis import Patience

_A_DAY = 86_400_000
_SETTING = "down-after-milliseconds"
_POLL = 0.2
_RECENT = 3000  # milliseconds; Sentinels ask each second


@dataclass(frozen=True)
class Failover:
    """The Sentinels that watch one master under ``name``; none is fine."""

    library: ModuleType
    logins: Sequence[Login]
    name: str

    def objections(self, server: Login) -> list[str]:
        """What speaks against relying on them: one does not answer, watches another server, or is not named here."""
        told = []
        for login in self.logins:
            try:
                watched = self._master(login)
            except RedisAccessError as error:
                told.append(f"Sentinel {error}")
                continue
            others = int(watched.get("num-other-sentinels", 0))
            if (watched.get("ip"), watched.get("port")) != (server.host, str(server.port)):
                told.append(f"Sentinel {login.url} takes {watched.get('ip')}:{watched.get('port')} for the master")
            if others != len(self.logins) - 1:
                told.append(
                    f"Sentinel {login.url} knows {others} others and sentinel_hosts names {len(self.logins) - 1}: "
                    "name all of them, so that none fails over"
                )
            if int(watched.get(_SETTING, 0)) == _A_DAY:
                told.append(f"Sentinel {login.url} is held off already, by a run that did not end: go back first")
        return told

    def settings(self) -> dict[str, str]:
        """How long each Sentinel waits, by its URL. Raises RedisAccessError."""
        return {login.url: str(self._master(login)[_SETTING]) for login in self.logins}

    def hold_off(self) -> None:
        """Let all of them wait for a day before they fail over. Raises RedisAccessError."""
        for login in self.logins:
            self._set(login, str(_A_DAY))

    def put_back(self, settings: dict[str, str], patience: Patience) -> None:
        """Let them wait as long as before, as soon as they see a master that is up again. Raises RedisAccessError."""
        deadline = patience.monotonic() + patience.seconds
        for login in self.logins:
            while not self._sees_the_master(login) and patience.monotonic() < deadline:
                patience.sleep(_POLL)
            if login.url in settings:
                self._set(login, settings[login.url])

    def _sees_the_master(self, login: Login) -> bool:
        """Whether a Sentinel that waits no longer would not fail over at once, for what it saw during the restore."""
        watched = self._master(login)
        flags = str(watched.get("flags"))
        sees_it = watched.get("role-reported") == "master" and "down" not in flags and "disconnected" not in flags
        answered = int(watched.get("last-ping-sent", 1)) == 0 and int(watched.get("last-ok-ping-reply", 0)) < _RECENT
        return sees_it and answered

    def _master(self, login: Login) -> dict[str, Any]:
        with explained(self.library, login), client(self.library, login) as connection:
            # As it comes over the wire: what redis-py makes of it differs between its versions.
            asked = connection.connection_pool.make_connection()
            try:
                asked.send_command("SENTINEL", "MASTER", self.name)
                words = asked.read_response()
            finally:
                asked.disconnect()
        return dict(zip(words[::2], words[1::2]))

    def _set(self, login: Login, value: str) -> None:
        with explained(self.library, login), client(self.library, login) as connection:
            connection.execute_command("SENTINEL SET", self.name, _SETTING, value)
