# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firestore's errors about a missing index carry the index itself, in a link for a person."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load

_LINK = re.compile(r"create_(composite|exemption)=([A-Za-z0-9_=-]+)")
_IN_FULL = {"use_integers_for_enums": False, "preserving_proto_field_name": False}


def remedy(text: str) -> str:
    """What to add to firestore.indexes.json, given the text of an error; empty when no index is missing."""
    found = _LINK.search(text)
    if not found:
        return ""
    kind, encoded = found[1], found[2] + "=" * (-len(found[2]) % 4)
    if kind == "exemption":
        return (
            "a query over a collection group needs an index of the field in that scope: add the field to "
            "fieldOverrides of firestore.indexes.json with queryScope COLLECTION_GROUP, deploy it, and wait until it "
            "is built"
        )
    index_type = load("google.cloud.firestore_admin_v1", "types").Index
    try:
        index = index_type.to_dict(index_type.deserialize(urlsafe_b64decode(encoded)), **_IN_FULL)
        group = index["name"].split("/collectionGroups/", 1)[1].split("/", 1)[0]
    except Exception:  # the library has many for a message it cannot read
        return "add the index of this link to firestore.indexes.json, deploy it, and wait until it is built"
    wanted = {"collectionGroup": group, "queryScope": index["queryScope"], "fields": index["fields"]}
    return f"add {json.dumps(wanted)} to indexes of firestore.indexes.json, deploy it, and wait until it is built"
