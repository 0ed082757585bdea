"""Fitted scikit-learn trees → the sections that `core.forest` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import FitFailed
from core.votes import Flat, masks

if TYPE_CHECKING:
    from core.kinds import Sections

Array = NDArray[Any]
Portable = tuple[dict[str, Any], "Sections"]


def forest(trees: Sequence[Any], fitted: Any) -> Portable:
    """Return the portable form of decision trees whose mean is the answer."""
    if fitted.n_outputs_ != 1:
        raise FitFailed("trees with more than one output cannot be carried")
    votes = hasattr(fitted, "classes_")
    orders = [_level_order(tree.tree_.children_left, tree.tree_.children_right) for tree in trees]
    pairs = [(tree.tree_, order) for tree, order in zip(trees, orders, strict=True)]
    roots = _roots(orders)
    feature = np.concatenate([tree.feature[order] for tree, order in pairs]).astype(np.int32)
    feature[feature < 0] = -1
    outcome, values = _outcomes([tree.value[order, 0, :] for tree, order in pairs], feature < 0, votes=votes)
    threshold = _single(np.concatenate([tree.threshold[order] for tree, order in pairs]))
    missing = np.concatenate([1 - tree.missing_go_to_left[order] for tree, order in pairs])
    child = _children(orders, [tree.children_left for tree, _ in pairs], roots)
    third = np.where(feature < 0, outcome, threshold.view(np.int32))
    sections: dict[str, Any] = {
        "nodes": np.column_stack([feature, child, third]).astype(np.int32),
        "roots": roots[:-1],
        "values": values,
        "missing": missing.astype(np.uint8),
    }
    n_out = values.shape[1]
    if votes:
        sections |= masks(Flat(feature, child, threshold, outcome, roots), n_out)
    mode = "vote" if votes else "mean"
    return _params(mode, fitted, n_out, [] if votes else [0.0]), sections


def _params(mode: str, fitted: Any, n_out: int, baseline: list[float], link: str = "") -> dict[str, Any]:
    width = int(fitted.n_features_in_)
    return {"mode": mode, "n_out": n_out, "width": width, "baseline": baseline, "link": link}


def _level_order(left: Array, right: Array) -> Array:
    """Return the nodes of a tree level by level, the two children of a node side by side."""
    levels = [np.array([0])]
    while True:
        inner = levels[-1][left[levels[-1]] >= 0]
        if not len(inner):
            return np.concatenate(levels)
        levels.append(np.column_stack([left[inner], right[inner]]).ravel().astype(np.int64))


def _roots(orders: Sequence[Array]) -> Array:
    return np.concatenate([[0], np.cumsum([len(order) for order in orders])]).astype(np.int32)


def _children(orders: Sequence[Array], lefts: Sequence[Array], roots: Array) -> Array:
    """Return the new index of each node's left child, its own for a leaf."""
    found = []
    for order, left, root in zip(orders, lefts, roots[:-1], strict=True):
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        old = left[order]
        found.append(root + np.where(old < 0, np.arange(len(order)), place[np.maximum(old, 0)]))
    return np.concatenate(found).astype(np.int32)


def _outcomes(values: Sequence[Array], leaf: Array, *, votes: bool) -> tuple[Array, Array]:
    """Return the outcome of each node and the values: a class if pure, else ~row, or a row of the values."""
    rows = np.concatenate(values)
    pure = leaf & (rows.max(axis=1) == 1.0) & ((rows != 0).sum(axis=1) == 1) if votes else np.zeros_like(leaf)
    kept, inverse = np.unique(rows[leaf & ~pure], axis=0, return_inverse=True)
    outcome = np.zeros(len(rows), np.int32)
    outcome[leaf & ~pure] = ~inverse.ravel() if votes else inverse.ravel()
    outcome[pure] = rows[pure].argmax(axis=1)
    return outcome, kept.astype(np.float64).reshape(-1, rows.shape[1])


def _single(threshold: Array) -> Array:
    """Return the largest float32 <= threshold: for any float32 x, x <= one is x <= the other."""
    with np.errstate(over="ignore"):
        single = threshold.astype(np.float32)
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float32)


def boosted(fitted: Any) -> Portable:
    """Return the portable form of histogram gradient boosting."""
    trees = [predictor for iteration in fitted._predictors for predictor in iteration]
    baseline = [float(value) for value in np.ravel(fitted._baseline_prediction)]
    orders = [_level_order(*_boosted_children(tree.nodes)) for tree in trees]
    nodes = np.concatenate([tree.nodes[order] for tree, order in zip(trees, orders, strict=True)])
    roots = _roots(orders)
    places, sides = _sides(fitted, trees, orders)
    leaf = nodes["is_leaf"] == 1
    categorical = (nodes["is_categorical"] == 1) & ~leaf
    feature = _columns(fitted)[np.where(leaf, 0, nodes["feature_idx"])].astype(np.int32)
    feature[categorical] = fitted.n_features_in_ + np.array(places, np.int64)
    feature[leaf] = -1
    threshold = np.where(leaf, nodes["value"], np.where(categorical, 0.5, nodes["num_threshold"]))
    child = _children(orders, [_boosted_children(tree.nodes)[0] for tree in trees], roots)
    packed = np.column_stack([feature, child, threshold.astype("<f8").view("<i4").reshape(-1, 2)])
    sections: dict[str, Any] = {
        "nodes": packed.astype(np.int32),
        "roots": roots[:-1],
        "missing": (1 - nodes["missing_go_to_left"]).astype(np.uint8),
    }
    if sides:
        sections["sides"] = json.dumps(sides, separators=(",", ":"), allow_nan=False).encode()
    link = _link(fitted)
    return _params("boost", fitted, 2 if link == "sigmoid" else len(baseline), baseline, link), sections


def _boosted_children(nodes: Array) -> tuple[Array, Array]:
    leaf = nodes["is_leaf"] == 1
    return tuple(np.where(leaf, -1, nodes[name].astype(np.int64)) for name in ("left", "right"))  # type: ignore[return-value]


def _link(fitted: Any) -> str:
    links = {"LogitLink": "sigmoid", "MultinomialLogit": "softmax", "LogLink": "log", "IdentityLink": "identity"}
    name = type(fitted._loss.link).__name__
    if name not in links:
        raise FitFailed(f"gradient boosting with {name} cannot be carried")
    return links[name]


def _columns(fitted: Any) -> Array:
    """Return the column of x behind each feature that the trees know: the categorical ones come first."""
    width = fitted.n_features_in_
    flags = fitted.is_categorical_
    if flags is None:
        return np.arange(width)
    return np.concatenate([np.flatnonzero(flags), np.flatnonzero(~flags)])


def _sides(fitted: Any, trees: Sequence[Any], orders: Sequence[Array]) -> tuple[list[int], list[Any]]:
    """Return for each categorical split, in order, the number of its rule, and the distinct rules.

    A rule is [feature, 1 if missing goes right, levels that go left, levels that go right].
    """
    places: list[int] = []
    rules: dict[str, int] = {}
    for tree, order in zip(trees, orders, strict=True):
        for node in tree.nodes[order]:
            if node["is_categorical"] and not node["is_leaf"]:
                rule = json.dumps(_side(fitted, tree, node))
                places.append(rules.setdefault(rule, len(rules)))
    return places, [json.loads(rule) for rule in rules]


def _side(fitted: Any, tree: Any, node: Any) -> list[Any]:
    at = int(node["feature_idx"])
    levels = fitted._preprocessor.named_transformers_["encoder"].categories_[at]
    known = [float(level) for level in levels if not np.isnan(level)]
    bits = tree.raw_left_cat_bitsets[int(node["bitset_idx"])]
    left = [bool(int(bits[code // 32]) >> (code % 32) & 1) for code in range(len(known))]
    goes = [
        [level for level, is_left in zip(known, left, strict=True) if is_left is side] for side in (True, False)
    ]
    return [int(_columns(fitted)[at]), int(not node["missing_go_to_left"]), *goes]
