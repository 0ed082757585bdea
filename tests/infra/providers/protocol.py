"""The messages of Terraform's plugin protocol 6: the fields that a provider needs which keeps nothing."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

SERVICE = "tfplugin6.Provider"
_PACKAGE = "tfplugin6"
_SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}
# message → its fields, each `name type number`; a type in brackets is repeated
_MESSAGES = {
    "Nothing": "",
    "Value": "msgpack bytes 1, json bytes 2",
    "Raw": "json bytes 1",
    "Attribute": "name string 1, type bytes 2, required bool 4, optional bool 5, computed bool 6",
    "Block": "version int64 1, attributes [Attribute] 2, block_types [NestedBlock] 3",
    "NestedBlock": "type_name string 1, block Block 2, nesting int64 3, min_items int64 4, max_items int64 5",
    "Schema": "version int64 1, block Block 2",
    "Diagnostic": "severity int64 1, summary string 2, detail string 3",
    "Diagnostics": "diagnostics [Diagnostic] 1",
    "SchemaEntry": "key string 1, value Schema 2",
    "Schemas": "provider Schema 1, resource_schemas [SchemaEntry] 2, data_source_schemas [SchemaEntry] 3",
    "Config": "type_name string 1, config Value 2",
    "Upgrade": "type_name string 1, version int64 2, raw_state Raw 3",
    "Plan": "type_name string 1, prior_state Value 2, proposed_new_state Value 3, config Value 4",
    "Planned": "planned_state Value 1, diagnostics [Diagnostic] 4, legacy_type_system bool 5",
    "Apply": "type_name string 1, prior_state Value 2, planned_state Value 3",
    "State": "state Value 1, diagnostics [Diagnostic] 3",
}


def _file() -> FileDescriptorProto:
    described = FileDescriptorProto(name="tfplugin6.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        made = described.message_type.add(name=message)
        for field in filter(None, fields.split(", ")):
            name, kind, number = field.split()
            is_many, kind = kind.startswith("["), kind.strip("[]")
            label = FieldDescriptorProto.LABEL_REPEATED if is_many else FieldDescriptorProto.LABEL_OPTIONAL
            added = made.field.add(name=name, number=int(number), label=label)
            added.type = _SCALARS.get(kind, FieldDescriptorProto.TYPE_MESSAGE)
            if kind not in _SCALARS:
                added.type_name = f".{_PACKAGE}.{kind}"
    return described


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())
MESSAGES: dict[str, Any] = {
    name: message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
}
