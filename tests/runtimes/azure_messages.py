"""The messages between the Functions host and its Python worker, as real protobuf classes made at run time.

MESSAGES repeats the part of Microsoft's public FunctionRpc contract that azure-functions-runtime reads and
builds: the names, types and enum values are the contract's. Field numbers are not, for nothing crosses a wire
here. A field that does not exist or has another type raises in the runtime's code just as it would in the cloud.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_SCALARS = {"string": 9, "bytes": 12, "int32": 5, "sint64": 18, "double": 1, "bool": 8}
_MESSAGE, _ENUM, _OPTIONAL, _REPEATED = 11, 14, 1, 3
_FOREIGN = {"Duration": ".google.protobuf.Duration", "Timestamp": ".google.protobuf.Timestamp"}
_PACKAGE = "functions"

ENUMS = {
    "StatusResult.Status": ("Failure", "Success", "Cancelled"),
    "BindingInfo.Direction": ("in", "out", "inout"),
    "BindingInfo.DataType": ("undefined", "string", "binary", "stream"),
    "RpcRetryOptions.RetryStrategy": ("exponential_backoff", "fixed_delay"),
    "RpcHttpCookie.SameSite": ("None", "Lax", "Strict", "ExplicitNone"),
}
# field: type; "[T]" is repeated, "{T}" a map from strings, "oneof T" a choice within the message
MESSAGES: dict[str, dict[str, str]] = {
    "RpcException": {
        "source": "string",
        "stack_trace": "string",
        "message": "string",
        "is_user_exception": "bool",
        "type": "string",
    },
    "StatusResult": {"status": "StatusResult.Status", "result": "string", "exception": "RpcException"},
    "WorkerMetadata": {
        "runtime_name": "string",
        "runtime_version": "string",
        "worker_version": "string",
        "worker_bitness": "string",
        "custom_properties": "{string}",
    },
    "WorkerInitRequest": {
        "host_version": "string",
        "capabilities": "{string}",
        "worker_directory": "string",
        "function_app_directory": "string",
    },
    "WorkerInitResponse": {
        "worker_version": "string",
        "capabilities": "{string}",
        "result": "StatusResult",
        "worker_metadata": "WorkerMetadata",
    },
    "FunctionMetadataResponse": {
        "function_metadata_results": "[RpcFunctionMetadata]",
        "result": "StatusResult",
        "use_default_metadata_indexing": "bool",
    },
    "RpcFunctionMetadata": {
        "name": "string",
        "directory": "string",
        "script_file": "string",
        "entry_point": "string",
        "bindings": "{BindingInfo}",
        "is_proxy": "bool",
        "status": "StatusResult",
        "language": "string",
        "raw_bindings": "[string]",
        "function_id": "string",
        "managed_dependency_enabled": "bool",
        "retry_options": "RpcRetryOptions",
        "properties": "{string}",
    },
    "BindingInfo": {
        "type": "string",
        "direction": "BindingInfo.Direction",
        "data_type": "BindingInfo.DataType",
        "properties": "{string}",
    },
    "RpcRetryOptions": {
        "max_retry_count": "int32",
        "delay_interval": "Duration",
        "minimum_interval": "Duration",
        "maximum_interval": "Duration",
        "retry_strategy": "RpcRetryOptions.RetryStrategy",
    },
    "FunctionLoadRequest": {
        "function_id": "string",
        "metadata": "RpcFunctionMetadata",
        "managed_dependency_enabled": "bool",
    },
    "FunctionLoadResponse": {
        "function_id": "string",
        "result": "StatusResult",
        "is_dependency_downloaded": "bool",
    },
    "RpcTraceContext": {"trace_parent": "string", "trace_state": "string", "attributes": "{string}"},
    "RetryContext": {"retry_count": "int32", "max_retry_count": "int32", "exception": "RpcException"},
    "InvocationRequest": {
        "invocation_id": "string",
        "function_id": "string",
        "input_data": "[ParameterBinding]",
        "trigger_metadata": "{TypedData}",
        "trace_context": "RpcTraceContext",
        "retry_context": "RetryContext",
    },
    "InvocationResponse": {
        "invocation_id": "string",
        "output_data": "[ParameterBinding]",
        "result": "StatusResult",
        "return_value": "TypedData",
    },
    "ParameterBinding": {"name": "string", "data": "oneof TypedData"},
    "CollectionString": {"string": "[string]"},
    "CollectionBytes": {"bytes": "[bytes]"},
    "CollectionDouble": {"double": "[double]"},
    "CollectionSInt64": {"sint64": "[sint64]"},
    "ModelBindingData": {"version": "string", "source": "string", "content_type": "string", "content": "bytes"},
    "CollectionModelBindingData": {"model_binding_data": "[ModelBindingData]"},
    "TypedData": {
        "string": "oneof string",
        "json": "oneof string",
        "bytes": "oneof bytes",
        "stream": "oneof bytes",
        "http": "oneof RpcHttp",
        "int": "oneof sint64",
        "double": "oneof double",
        "collection_bytes": "oneof CollectionBytes",
        "collection_string": "oneof CollectionString",
        "collection_double": "oneof CollectionDouble",
        "collection_sint64": "oneof CollectionSInt64",
        "model_binding_data": "oneof ModelBindingData",
        "collection_model_binding_data": "oneof CollectionModelBindingData",
    },
    "NullableString": {"value": "oneof string"},
    "NullableDouble": {"value": "oneof double"},
    "NullableBool": {"value": "oneof bool"},
    "NullableTimestamp": {"value": "oneof Timestamp"},
    "RpcHttpCookie": {
        "name": "string",
        "value": "string",
        "domain": "NullableString",
        "path": "NullableString",
        "expires": "NullableTimestamp",
        "secure": "NullableBool",
        "http_only": "NullableBool",
        "same_site": "RpcHttpCookie.SameSite",
        "max_age": "NullableDouble",
    },
    "RpcHttp": {
        "method": "string",
        "url": "string",
        "headers": "{string}",
        "body": "TypedData",
        "params": "{string}",
        "status_code": "string",
        "query": "{string}",
        "enable_content_negotiation": "bool",
        "cookies": "[RpcHttpCookie]",
    },
    "StreamingMessage": {
        "request_id": "string",
        "worker_init_request": "oneof WorkerInitRequest",
        "function_load_request": "oneof FunctionLoadRequest",
        "invocation_request": "oneof InvocationRequest",
    },
}


def load() -> Any:
    """Return a namespace with a class for each message, as the runtime wants its `protos`."""
    descriptors: Any = import_module("google.protobuf.descriptor_pb2")
    pools: Any = import_module("google.protobuf.descriptor_pool")
    factory: Any = import_module("google.protobuf.message_factory")
    for name in ("duration", "timestamp"):
        import_module(f"google.protobuf.{name}_pb2")
    file = descriptors.FileDescriptorProto(name="functions.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.extend(["google/protobuf/duration.proto", "google/protobuf/timestamp.proto"])
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            _declare(message, field, number, kind)
    for name, values in ENUMS.items():
        owner, _, enum = name.partition(".")
        declared = next(message for message in file.message_type if message.name == owner).enum_type.add(name=enum)
        for number, value in enumerate(values):
            declared.value.add(name=value, number=number)
    pool = pools.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in MESSAGES)
    return type("protos", (), {message.name: factory.GetMessageClass(message) for message in found})


def _declare(message: Any, field: str, number: int, kind: str) -> None:
    """Add one field to a message's declaration."""
    choice, kind = kind.startswith("oneof "), kind.removeprefix("oneof ")
    repeated = kind[0] in "[{"
    declared = message.field.add(name=field, number=number, label=_REPEATED if repeated else _OPTIONAL)
    if kind.startswith("{"):
        entry = message.nested_type.add(name="".join(part.title() for part in field.split("_")) + "Entry")
        entry.options.map_entry = True
        _declare(entry, "key", 1, "string")
        _declare(entry, "value", 2, kind[1:-1])
        declared.type, declared.type_name = _MESSAGE, f".{_PACKAGE}.{message.name}.{entry.name}"
        return
    kind = kind.strip("[]")
    if kind in _SCALARS:
        declared.type = _SCALARS[kind]
    else:
        declared.type = _ENUM if kind in ENUMS else _MESSAGE
        declared.type_name = _FOREIGN.get(kind, f".{_PACKAGE}.{kind}")
    if choice:
        if not message.oneof_decl:
            message.oneof_decl.add(name="rpc_data" if message.name == "ParameterBinding" else "data")
        declared.oneof_index = 0
