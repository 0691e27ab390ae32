# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a module reaches Firestore, its Admin API and Cloud Storage."""

    DOCUMENTATION = r"""
options:
  project:
    description: Id of the Google Cloud project.
    type: str
    required: true
  database:
    description: Id of the database.
    type: str
    default: (default)
  emulator_host:
    description:
      - Address of a Firestore emulator for the data, as C(host:port).
      - The environment variable E(FIRESTORE_EMULATOR_HOST) counts as set here.
      - Once O(emulator_host), O(admin_endpoint) or O(storage_endpoint) is set, nothing reaches Google. Then all three
        must be set, no credentials are looked for, and no proxy of the environment is used.
    type: str
  admin_endpoint:
    description: Address of a stand-in for Firestore's Admin API, as C(host:port), for gRPC without TLS.
    type: str
  storage_endpoint:
    description:
      - URL of a stand-in for Cloud Storage.
      - The environment variable E(STORAGE_EMULATOR_HOST) counts as set here.
    type: str
  service_account_file:
    description:
      - File with the key of a service account. Keep it readable for the user of this task only.
      - Without it the application default credentials are used.
    type: path
  impersonate_service_account:
    description: E-mail address of a service account to act as, with the credentials found as those that may do so.
    type: str
requirements:
  - google-cloud-firestore >= 2.16 (Python library)
  - google-cloud-storage >= 2.14 (Python library)
  - google-crc32c >= 1.5 (Python library)
"""
