# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MEMORY PURGE, with what it gave back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._redis_figures import purgeable

#: Less than this share of the resident memory is noise, not something that was given back.
_NOISE = 0.01


def purge(client: Any, sleep: Callable[[float], None], dry: bool) -> dict[str, Any]:
    """Let the allocator give back what nobody uses; with ``dry`` only estimate it."""
    before = client.info()
    resident = int(before["used_memory_rss"])
    if dry:
        given = _unused(client.execute_command("MEMORY", "MALLOC-STATS"), purgeable(before) or 0)
        after = resident - given
    else:
        client.execute_command("MEMORY", "PURGE")
        # The server looks at its own size once in each of its cycles, at most every 100 ms.
        sleep(1 / int(before.get("hz", 10)) + 0.2)
        after = int(client.info("memory")["used_memory_rss"])
        given = resident - after
    return {
        "before_bytes": resident,
        "after_bytes": after,
        "given_back_bytes": given,
        "estimated": dry,
        "worthwhile": given > _NOISE * resident,
    }


def _unused(told: str, at_most: int) -> int:
    """Bytes of pages that hold neither data nor the allocator's own; ``at_most`` when jemalloc does not tell."""
    match = re.search(r"Allocated: \d+, active: (\d+), metadata: (\d+).*?resident: (\d+)", told)
    if not match:
        return at_most
    active, metadata, resident = (int(figure) for figure in match.groups())
    return max(0, resident - active - metadata)
