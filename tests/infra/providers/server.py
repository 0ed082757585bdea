"""Providers without a cloud: Terraform's plugin protocol over gRPC, for `terraform` to attach to.

`python -m tests.infra.providers.server google azurerm` writes the value of TF_REATTACH_PROVIDERS on a line and
serves until its input ends. Types and arguments are checked against the schemas; a plan leaves open what a cloud
would tell, an apply makes it up. Whether a cloud would take the values is not known here.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-not-found, import-untyped, unused-ignore]
import msgpack  # type: ignore[import-not-found, import-untyped, unused-ignore]

from tests.infra.providers import schema
from tests.infra.providers.protocol import MESSAGES, SERVICE

UNKNOWN = msgpack.ExtType(0, b"\x00")
_UNBOUND = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Provider:
    """One provider's answers. It keeps nothing: a resource's state is Terraform's."""

    def __init__(self, name: str) -> None:
        self._schema = schema.read(name)
        self.address: str = self._schema["provider_name"]

    def schemas(self, _: Any) -> Any:
        """Return all types."""
        return MESSAGES["Schemas"](
            provider=_described(self._schema["provider"]),
            resource_schemas=_entries(self._schema["resources"]),
            data_source_schemas=_entries(self._schema["data"]),
        )

    def validate(self, asked: Any) -> Any:
        """Return what is wrong with a resource's arguments beyond their types."""
        found = schema.impossible(
            self._schema["resources"][asked.type_name], _value(asked.config), asked.type_name
        )
        told = [MESSAGES["Diagnostic"](severity=1, summary="Invalid value", detail=text) for text in found]
        return MESSAGES["Diagnostics"](diagnostics=told)

    def plan(self, asked: Any) -> Any:
        """Return a resource as proposed, with what only a cloud can tell left open."""
        planned = schema.fill(
            self._schema["resources"][asked.type_name],
            _value(asked.proposed_new_state),
            lambda name, kind, value: UNKNOWN if value is None else value,
        )
        # the real ones are of the old type system too, which may fill in optional arguments
        return MESSAGES["Planned"](planned_state=_packed(planned), legacy_type_system=True)

    def apply(self, asked: Any) -> Any:
        """Return a resource as planned, with what was open made up."""
        return self._made(asked.type_name, self._schema["resources"], _value(asked.planned_state))

    def read_data(self, asked: Any) -> Any:
        """Return a data source made up."""
        return self._made(asked.type_name, self._schema["data"], _value(asked.config))

    def _made(self, kind: str, blocks: dict[str, Any], value: Any) -> Any:
        owner = schema.identity(kind, value or {})

        def settle(name: str, kind: Any, value: Any) -> Any:
            return schema.made_up(owner, name, kind) if value is None or value == UNKNOWN else value

        return MESSAGES["State"](state=_packed(schema.fill(blocks[kind], value, settle)))


def _described(block: dict[str, Any]) -> Any:
    return MESSAGES["Schema"](block=schema.described(block))


def _entries(blocks: dict[str, Any]) -> list[Any]:
    return [MESSAGES["SchemaEntry"](key=name, value=_described(block)) for name, block in blocks.items()]


def _value(message: Any) -> Any:
    return msgpack.unpackb(message.msgpack, raw=False, strict_map_key=False) if message.msgpack else None


def _packed(value: Any) -> Any:
    return MESSAGES["Value"](msgpack=msgpack.packb(value))


def _nothing(_: Any) -> Any:
    return MESSAGES["Nothing"]()


def _kept(asked: Any) -> Any:
    return MESSAGES["State"](state=asked.config)


def _upgraded(asked: Any) -> Any:
    return MESSAGES["State"](state=MESSAGES["Value"](json=asked.raw_state.json))


def _calls(provider: Provider) -> dict[str, tuple[Any, str]]:
    """Return by the call's name what answers it, and the message that it is asked with."""
    return {
        "GetProviderSchema": (provider.schemas, "Nothing"),
        "ValidateProviderConfig": (_nothing, "Nothing"),
        "ConfigureProvider": (_nothing, "Nothing"),
        "ValidateResourceConfig": (provider.validate, "Config"),
        "ValidateDataResourceConfig": (_nothing, "Nothing"),
        "UpgradeResourceState": (_upgraded, "Upgrade"),
        "ReadResource": (_kept, "Config"),  # the current state has the number that elsewhere the configuration has
        "PlanResourceChange": (provider.plan, "Plan"),
        "ApplyResourceChange": (provider.apply, "Apply"),
        "ReadDataSource": (provider.read_data, "Config"),
        "StopProvider": (_nothing, "Nothing"),
    }


def _handler(answer: Any, asked: str) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        lambda message, _: answer(message), MESSAGES[asked].FromString, lambda message: message.SerializeToString()
    )


def serve(provider: Provider) -> tuple[Any, dict[str, Any]]:
    """Start a provider's server; return it, and where it is as Terraform wants to be told."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=_UNBOUND)
    handlers = {name: _handler(answer, asked) for name, (answer, asked) in _calls(provider).items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    return server, {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": address}


def main() -> None:
    """Serve the providers named by the arguments until the input ends."""
    providers = [Provider(name) for name in sys.argv[1:]]
    served = {provider.address: serve(provider) for provider in providers}
    print(json.dumps({address: told for address, (_, told) in served.items()}), flush=True)
    sys.stdin.read()
    for server, _ in served.values():
        server.stop(None).wait()


if __name__ == "__main__":
    main()
