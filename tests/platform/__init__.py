# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A miniature of the platform, made of real parts on loopback; the demo, the tests and Molecule use the same one.

``parts/`` holds the servers, each usable alone, ``miniature`` puts them together, ``contents`` fills them,
``faults`` breaks them. ``python -m tests.platform`` is the command line, ``platform.yml`` the playbook.
"""
