"""ONNX files that reach out of themselves or claim sizes that they do not have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def graphs(secret: str) -> Iterator[tuple[str, bytes]]:
    """Yield graphs; those that read a file try to read `secret`."""
    for location in (secret, "../../../../etc/passwd", "/etc/passwd", "/proc/self/environ", "C:\\x", "a\0b"):
        yield f"external data {location[:12]!r}", _graph(_external(location))
    for dims in ((1 << 40,), (1 << 31, 1 << 31), (-1,), (1 << 62, 4)):
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
        yield f"dims {dims}", _graph(weights)
    for operator, domain in (("PyOp", "ai.onnx.contrib"), ("Custom", "evil"), ("Loop", ""), ("If", "")):
        yield f"operator {operator}", _graph(_weights(), operator, domain)
    yield "expand", _graph(numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "w"), "Expand")
    yield (
        "constant of shape",
        _graph(numpy_helper.from_array(np.array([1 << 40], np.int64), "w"), "ConstantOfShape"),
    )
    yield "deep", b"\x3a\xff\xff\xff\xff\x0f" + b"\x0a" * 1000
    yield "cut", _graph(_weights())[:-9]


def _weights() -> TensorProto:
    return numpy_helper.from_array(np.ones((3, 2), np.float32), "w")


def _external(location: str) -> TensorProto:
    found = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(3, 2))
    found.data_location = TensorProto.EXTERNAL
    entry = found.external_data.add()
    entry.key, entry.value = "location", location
    return found


def _graph(weights: TensorProto, operator: str = "MatMul", domain: str = "") -> bytes:
    inputs = ["w"] if operator == "ConstantOfShape" else ["x", "w"]
    node = helper.make_node(operator, inputs, ["y"], domain=domain)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=opsets, ir_version=9)))
