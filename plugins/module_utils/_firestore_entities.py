# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of an export and of a database in one plain form, in which they are equal when the documents are.

An export holds each document as an EntityProto message of Datastore. Its description is no public library, so the
fields that Firestore uses are declared here. In the plain form a value is a tuple of its kind and what it is; floating
point numbers are their bytes, and references have lost project and database, which a restore may change.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load


class IncomparableError(Exception):
    """An exported document holds what is not known here, so that nobody can tell whether it was restored."""


#: The plain form of a value, and of a document: its fields by their names.
Plain = tuple[Any, ...]
Fields = Mapping[str, Plain]

_NAN = struct.pack("<d", float("nan"))
_TIMESTAMP, _BLOB, _BYTE_STRING, _ENTITY, _EMPTY_LIST, _VECTOR = 7, 14, 16, 19, 24, 31
_GEO_POINT, _TEXT = 9, 15
_PACKAGE = "upkeep.entity"
#: By message its fields: name, number, type, and for messages and groups which; ``*`` is repeated.
_MESSAGES: Mapping[str, tuple[tuple[str, int, str, str], ...]] = {
    "Entity": (("property", 14, "message*", "Property"), ("raw_property", 15, "message*", "Property")),
    "Property": (
        ("meaning", 1, "int32", ""),
        ("name", 3, "string", ""),
        ("multiple", 4, "bool", ""),
        ("value", 5, "message", "Value"),
    ),
    "Value": (
        ("int64_value", 1, "int64", ""),
        ("boolean_value", 2, "bool", ""),
        ("string_value", 3, "bytes", ""),
        ("double_value", 4, "double", ""),
        ("pointvalue", 5, "group", "PointValue"),
        ("referencevalue", 12, "group", "ReferenceValue"),
    ),
    "PointValue": (("x", 6, "double", ""), ("y", 7, "double", "")),
    "ReferenceValue": (("pathelement", 14, "group*", "PathElement"),),
    "PathElement": (("type", 15, "string", ""), ("id", 16, "int64", ""), ("name", 17, "string", "")),
}


def exported_fields(entity: bytes, name: str) -> Fields:
    """The fields of an exported document. ``name`` is its path, for the error. Raises IncomparableError."""
    decode_error = load("google.protobuf", "message").DecodeError
    try:
        return _entity(_entity_message().FromString(entity), name)
    except (decode_error, UnicodeDecodeError, AttributeError) as error:
        raise IncomparableError(
            f"document {name} of the export cannot be compared, it cannot be read: {error}"
        ) from error


def stored_fields(fields: Mapping[str, Any]) -> Fields:
    """The fields of a document as the database tells it, given as a map of plain protocol buffers."""
    return {key: _stored(value) for key, value in fields.items()}


@functools.lru_cache(maxsize=1)
def _entity_message() -> Any:
    """The class of EntityProto messages, made of _MESSAGES."""
    descriptors, factory = load("google.protobuf", "descriptor_pb2"), load("google.protobuf", "message_factory")
    kinds = descriptors.FieldDescriptorProto
    file = descriptors.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            field = declared.field.add(
                name=name, number=number, type=kinds.Type.Value(f"TYPE_{kind.rstrip('*').upper()}")
            )
            field.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            if of:
                field.type_name = f".{_PACKAGE}.{of}"
    pool = load("google.protobuf", "descriptor_pool").DescriptorPool()
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Entity"))


def _entity(entity: Any, name: str) -> dict[str, Plain]:
    fields: dict[str, Plain] = {}
    for properties in (entity.property, entity.raw_property):
        for found in properties:
            value = _exported(found, name)
            if found.meaning == _EMPTY_LIST:
                value = ("array", ())
            elif found.multiple:
                kind = "vector" if found.meaning == _VECTOR else "array"
                value = (kind, (*fields.get(found.name, ("", ()))[1], value))
            fields[found.name] = value
    return fields


def _exported(found: Any, name: str) -> Plain:
    """The value of a property, or one element of it. Raises IncomparableError."""
    value, meaning = found.value, found.meaning
    held = value.ListFields()
    if not held:
        return ("null",)
    kind, content = held[0][0].name, held[0][1]
    if kind == "string_value":
        return _exported_text(content, meaning, name, found.name)
    if kind == "int64_value" and meaning in (0, _TIMESTAMP):
        return ("timestamp" if meaning else "integer", content)
    if kind == "double_value" and meaning in (0, _VECTOR):
        return ("double", _double(content))
    if kind == "boolean_value" and not meaning:
        return ("boolean", content)
    if kind == "pointvalue" and meaning in (0, _GEO_POINT):
        return ("geo", _double(content.x), _double(content.y))
    if kind == "referencevalue" and not meaning:
        return ("reference", "/".join(f"{each.type}/{_identifier(each)}" for each in content.pathelement))
    raise _incomparable(name, found.name, kind, meaning)


def _exported_text(content: bytes, meaning: int, name: str, field: str) -> Plain:
    if meaning in (0, _TEXT):
        return ("string", content.decode())
    if meaning in (_BLOB, _BYTE_STRING):
        return ("bytes", content)
    if meaning == _ENTITY:
        return _map(_entity(_entity_message().FromString(content), name))
    raise _incomparable(name, field, "text", meaning)


def _incomparable(name: str, field: str, kind: str, meaning: int) -> IncomparableError:
    return IncomparableError(
        f"document {name} of the export cannot be compared: field {field} is a {kind} of meaning {meaning}"
    )


def _identifier(element: Any) -> str:
    return str(element.name) if element.HasField("name") else f"__id{element.id}__"


def _stored(value: Any) -> Plain:
    kind = value.WhichOneof("value_type")
    return _STORED[kind](getattr(value, kind))


def _stored_map(value: Any) -> Plain:
    fields = stored_fields(value.fields)
    # The client libraries' form of a vector.
    if fields.get("__type__") == ("string", "__vector__"):
        return ("vector", fields.get("value", ("", ()))[1])
    return _map(fields)


_STORED: Mapping[str, Callable[[Any], Plain]] = {
    "null_value": lambda _: ("null",),
    "boolean_value": lambda value: ("boolean", value),
    "integer_value": lambda value: ("integer", value),
    "double_value": lambda value: ("double", _double(value)),
    "timestamp_value": lambda value: ("timestamp", value.seconds * 1_000_000 + value.nanos // 1000),
    "string_value": lambda value: ("string", value),
    "bytes_value": lambda value: ("bytes", value),
    "reference_value": lambda value: ("reference", value.partition("/documents/")[2]),
    "geo_point_value": lambda value: ("geo", _double(value.latitude), _double(value.longitude)),
    "array_value": lambda value: ("array", tuple(_stored(element) for element in value.values)),
    "map_value": _stored_map,
}


def _map(fields: Mapping[str, Plain]) -> Plain:
    return ("map", tuple(sorted(fields.items())))


def _double(number: float) -> bytes:
    return _NAN if math.isnan(number) else struct.pack("<d", number)
