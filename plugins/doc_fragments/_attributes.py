# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What each module says of check mode, diff mode and repetition."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the status it would have without changing anything.
  diff_mode:
    description: Returns details on what has changed (or would change in C(check_mode)) with C(--diff).
  idempotent:
    description: Run again with nothing changed meanwhile, it changes nothing.
"""

    # Use for modules that only look.
    READS_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: Only looks and changes nothing; runs alike in check mode.
  diff_mode:
    support: N/A
    details: Changes nothing.
  idempotent:
    support: full
"""
