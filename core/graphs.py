"""ONNX graphs on the training side: conversion from scikit-learn, and the checks a foreign graph must pass.

A graph is data, but it could name files to read, operators of unknown libraries, or be of any size: all three
are refused.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigError, FitFailed, IntegrityError
from core.estimators.onnx import run, session
from core.extras import require
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.kinds import Sections

TARGET_OPSET = 21  # skl2onnx 1.20 writes up to 22, onnxruntime 1.31 runs 15 to 22
MAX_DENSE_CELLS = 1 << 26  # of sparse arrays that a graph must hold as dense ones
MAX_GRAPH_BYTES = 512 << 20
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
FORMS = ("probabilities", "logits", "value")
_FLOATS = {1: "f4", 11: "f8"}  # TensorProto.FLOAT, TensorProto.DOUBLE


class Foreign(NamedTuple):
    """A graph from elsewhere: what a Draft needs, the number of features it takes, the classes it names."""

    params: dict[str, Any]
    sections: Sections
    width: int
    classes: tuple[str, ...]


def convert(fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
    """Return the portable form of a fitted scikit-learn estimator: in float64 where onnxruntime has the
    operators, else in float32. Raises FitFailed if skl2onnx has no converter."""
    name = type(fitted).__name__
    if task == "classification" and not hasattr(fitted, "predict_proba"):
        raise FitFailed(f"{name} has no probabilities; wrap it in CalibratedClassifierCV")
    fitted = _plain(fitted)
    reason = "no precision works"
    for dtype in ("f8", "f4"):
        try:
            data = _converted(fitted, task, width, dtype)
            _trial(data, _port(data, task), dtype, width)
        except IntegrityError as error:
            reason = error.message
            continue
        output = _port(data, task)
        n_out = len(fitted.classes_) if task == "classification" else 1
        form = "probabilities" if task == "classification" else "value"
        params = {"input": "x", "output": output, "dtype": dtype, "form": form, "n_out": n_out, "width": width}
        return params, {"onnx": data}
    raise FitFailed(f"{name} cannot be carried as ONNX: {reason}")


def _plain(fitted: Any) -> Any:
    """Return the estimator, or a copy without what skl2onnx stops at: sparse arrays (of neighbours, of support
    vectors) and a setting that says nothing about predictions."""
    own = vars(fitted) if hasattr(fitted, "get_params") else {}
    changed = {name: _plain_value(value) for name, value in own.items()}
    if type(fitted).__name__ == "VotingClassifier":
        changed["flatten_transform"] = False
    if all(value is own[name] for name, value in changed.items()):
        return fitted
    twin = copy.copy(fitted)
    vars(twin).update(changed)
    return twin


def _plain_value(value: Any) -> Any:
    if hasattr(value, "toarray"):
        if value.shape[0] * value.shape[1] > MAX_DENSE_CELLS:
            raise FitFailed("the estimator holds too many sparse rows to be carried as ONNX")
        return value.toarray()
    if isinstance(value, list | tuple):
        items = [_plain_value(item) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            return type(value)(items)
        return value
    return _plain(value)


def _converted(fitted: Any, task: str, width: int, dtype: str) -> bytes:
    require("skl2onnx", "onnx", "this estimator")
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    tensor = DoubleTensorType if dtype == "f8" else FloatTensorType
    options = {id(fitted): {"zipmap": False}} if task == "classification" else None
    unknown = (MissingConverter, MissingShapeCalculator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = to_onnx(
                fitted, initial_types=[("x", tensor([None, width]))], options=options, target_opset=TARGET_OPSET
            )
    except unknown as error:
        raise FitFailed(f"{type(fitted).__name__} has no ONNX converter") from error
    except (NotImplementedError, RuntimeError, ValueError, TypeError, NameError) as error:
        raise IntegrityError(f"skl2onnx raised {type(error).__name__}") from error
    _rename(model.graph)
    return bytes(model.SerializeToString(deterministic=True))


def _port(data: bytes, task: str) -> str:
    """Return the name of the output that holds probabilities or values."""
    return str(_parsed(data).graph.output[1 if task == "classification" else 0].name)


def _trial(data: bytes, output: str, dtype: str, width: int) -> None:
    """Run two rows. Raises IntegrityError if onnxruntime does not know an operator in this precision."""
    run(session(data), "x", output, np.zeros((2, width), dtype))


def _rename(graph: Any) -> None:
    """Name nodes and values by the order they come in: skl2onnx counts on from model to model."""
    kept = {item.name for item in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"v{len(names)}")

    for count, node in enumerate(_nodes(graph)):
        node.name = f"n{count}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for part in _subgraphs(graph):
        part.name = "g"
        for item in (*part.initializer, *part.input, *part.output, *part.value_info):
            item.name = renamed(item.name)


def _subgraphs(graph: Any) -> Iterator[Any]:
    """Yield the graph and all graphs within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _subgraphs(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    for part in _subgraphs(graph):
        yield from part.node


def _parsed(data: bytes) -> Any:
    require("onnx", "onnx", "an ONNX graph")
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise _refused("the file is not an ONNX model") from error


def adopt(data: bytes, task: str, *, n_classes: int = 0, form: str | None = None) -> Foreign:
    """Return a graph of another library as this kind carries it.

    The graph takes one float tensor (rows, features) and yields probabilities, logits or values: the last float
    output. `form` says which if a trial cannot tell: rows between 0 and 1 that sum to 1 are probabilities.
    Raises FitFailed naming what is wrong, ConfigError for an unknown form.
    """
    if form is not None and (form not in FORMS or (form == "value") != (task == "regression")):
        raise ConfigError(f"form must be one of {', '.join(FORMS)} and fit the task")
    if len(data) > MAX_GRAPH_BYTES:
        raise _refused(f"the graph has more than {MAX_GRAPH_BYTES} bytes")
    model = _parsed(data)
    _refuse_unsafe(model)
    _unzip(model.graph)
    source, dtype, width = _source(model.graph)
    target = _target(model.graph)
    packed = bytes(model.SerializeToString(deterministic=True))
    params = {"input": source, "output": target, "dtype": dtype, "width": width}
    meaning = _meaning(packed, params, task, n_classes, form)
    classes = _classes(model.graph, meaning["n_out"]) if task == "classification" else ()
    return Foreign({**params, **meaning}, {"onnx": packed}, width, classes)


def _classes(graph: Any, count: int) -> tuple[str, ...]:
    """Return the labels that stand in the graph if they are as many as it has columns, else "0", "1", …"""
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels"):
                labels = [item.decode(errors="replace") for item in attribute.strings] or list(attribute.ints)
                if len(set(labels)) == count:
                    return tuple(str(label) for label in labels)
    return tuple(str(index) for index in range(count))


def _refused(message: str) -> FitFailed:
    return FitFailed(message, reason="graph")


def _refuse_unsafe(model: Any) -> None:
    import onnx

    own = {function.domain for function in model.functions}
    used = {node.domain for graph in _graphs(model) for node in _nodes(graph)} - {*DOMAINS, *own}
    if used:
        raise _refused(f"operators of the domain {min(used)[:60]} are not known here")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise _refused("the graph keeps data in other files; save it as one file")


class _Body(NamedTuple):
    """A function of a model, with the fields of a graph that a walk needs."""

    node: Any
    initializer: tuple[Any, ...] = ()
    sparse_initializer: tuple[Any, ...] = ()


def _graphs(model: Any) -> Iterator[Any]:
    yield model.graph
    for function in model.functions:
        yield _Body(function.node)


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        for part in _subgraphs(graph):
            yield from part.initializer
            for sparse in part.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            for node in part.node:
                for attribute in node.attribute:
                    yield from (attribute.t, *attribute.tensors)
                    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                        yield from (sparse.values, sparse.indices)


def _unzip(graph: Any) -> None:
    """Take off a final ZipMap (a list of dicts instead of a matrix), as exporters of classifiers add it."""
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        for output in graph.output:
            if output.name == node.output[0]:
                output.name = node.input[0]
                output.type.Clear()
                output.type.tensor_type.elem_type = 1
        graph.node.remove(node)


def _source(graph: Any) -> tuple[str, str, int]:
    """Return name, precision and width of the only input."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) != 1:
        raise _refused(f"the graph has {len(inputs)} inputs; it must have one")
    kind = inputs[0].type.tensor_type
    shape = list(kind.shape.dim)
    if kind.elem_type not in _FLOATS or len(shape) != 2:
        raise _refused("the input must be a float tensor of shape (rows, features)")
    if shape[0].HasField("dim_value") and shape[0].dim_value > 0:
        raise _refused("the number of rows is fixed; export it with a dynamic first axis")
    if shape[1].dim_value < 1:
        raise _refused("the number of features must stand in the shape of the input")
    return str(inputs[0].name), _FLOATS[kind.elem_type], int(shape[1].dim_value)


def _target(graph: Any) -> str:
    """Return the last float output: probabilities come after labels."""
    floats = [item.name for item in graph.output if item.type.tensor_type.elem_type in _FLOATS]
    if not floats:
        raise _refused("the graph has no output of floats")
    return str(floats[-1])


def _meaning(data: bytes, params: dict[str, Any], task: str, n_classes: int, form: str | None) -> dict[str, Any]:
    """Return form and n_out, from a trial on a few rows."""
    x = np.random.default_rng(0).normal(size=(8, params["width"])).astype(params["dtype"])
    try:
        z = np.asarray(run(session(data), params["input"], params["output"], x), np.float64)
    except (IntegrityError, ValueError) as error:
        raise _refused("onnxruntime cannot run the graph") from error
    if z.size % 8 or z.shape[0] != 8:
        raise _refused("the output must have one row for each row of the input")
    columns = z.size // 8
    if task == "regression":
        if columns != 1:
            raise _refused(f"a regression has one value a row, not {columns}")
        return {"form": "value", "n_out": 1}
    n_out = max(2, columns)
    if n_classes and n_classes != n_out:
        raise _refused(f"the graph tells {n_out} classes apart, not {n_classes}")
    return {"form": _form(z.reshape(8, -1), form), "n_out": n_out}


def _form(z: Any, wanted: str | None) -> str:
    single = z.shape[1] == 1
    inside = bool((z >= 0).all() and (z <= 1).all()) and (single or bool(np.allclose(z.sum(axis=1), 1, atol=1e-3)))
    if wanted == "probabilities" or (wanted is None and inside):
        return "positive" if single else "probabilities"
    return "logit" if single else "logits"
