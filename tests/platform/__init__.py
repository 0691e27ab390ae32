# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A miniature of the platform, made of real parts on loopback; the demo, the tests and Molecule use the same one.

``parts/`` holds the servers, each usable alone, ``miniature`` puts them together, ``contents`` fills them,
``faults`` breaks them. ``python -m tests.platform`` is the command line, ``platform.yml`` the playbook.
"""

import sys
from pathlib import Path

# The platform is also started without pytest, which knows the way to the collection by itself.
_COLLECTIONS = str(Path(__file__).resolve().parents[2] / "collections")
if _COLLECTIONS not in sys.path:
    sys.path.append(_COLLECTIONS)
