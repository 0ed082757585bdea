"""From scores z to outputs, one function a link: for one row in pure Python and for a batch in numpy.

`softmax`     multinomial: exp(z) / sum exp(z)
`sigmoid`     one score, two classes: p = 1 / (1 + exp(-z))
`ovr`         one score a class, each through the sigmoid, then scaled to sum 1
`calibrated`  one score a class (or one for two classes) through a fitted sigmoid 1 / (1 + exp(a z + b))
              (Platt 1999), then scaled to sum 1
`identity`    regression: the score itself
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.kinds import Floats

LINKS = ("softmax", "sigmoid", "ovr", "calibrated", "identity")


def sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)) without overflow."""
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    small = math.exp(z)
    return small / (1.0 + small)


def softmax(z: Sequence[float]) -> list[float]:
    """Return exp(z) / sum exp(z), shape (n,)."""
    top = max(z)
    powers = [math.exp(value - top) for value in z]
    total = math.fsum(powers)
    return [power / total for power in powers]


def link_row(params: Mapping[str, Any], z: Sequence[float]) -> list[float]:
    """Return the outputs for the scores of one row; `params` holds `link` and, if calibrated, `a` and `b`."""
    link = params["link"]
    if link == "softmax":
        return softmax(z)
    if link == "sigmoid":
        positive = sigmoid(z[0])
        return [1.0 - positive, positive]
    if link == "ovr":
        return _scaled([sigmoid(value) for value in z])
    if link == "calibrated":
        shares = [sigmoid(-(a * v + b)) for v, a, b in zip(z, params["a"], params["b"], strict=True)]
        return [1.0 - shares[0], shares[0]] if len(shares) == 1 else _scaled(shares)
    return list(z)


def _scaled(shares: list[float]) -> list[float]:
    total = math.fsum(shares)
    if total == 0.0:
        return [1.0 / len(shares)] * len(shares)
    return [share / total for share in shares]


def link_matrix(params: Mapping[str, Any], z: Floats) -> Floats:
    """Return the outputs for scores of shape (n_rows, n_scores), as `link_row` does for each row."""
    import numpy as np

    link = params["link"]
    if link == "softmax":
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        outputs: Floats = powers / powers.sum(axis=1, keepdims=True)
        return outputs
    if link == "identity":
        return z
    if link == "calibrated":
        z = -(z * np.array(params["a"]) + np.array(params["b"]))
    shares = _sigmoid_matrix(z)
    if z.shape[1] == 1:
        return np.hstack([1.0 - shares, shares])
    total = shares.sum(axis=1, keepdims=True)
    uniform = np.full_like(shares, 1.0 / shares.shape[1])
    scaled: Floats = np.divide(shares, total, out=uniform, where=total > 0)
    return scaled


def _sigmoid_matrix(z: Floats) -> Floats:
    import numpy as np

    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)
