"""Precomputed vectors: as they are, or scaled as scikit-learn scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from core.errors import ConfigError, DataRejected
from core.features import vector
from core.kinds import feature_kind
from core.schema import Batch, Column
from tests.core.carried import dense, reloaded


def columns(scale: str = "none", width: int = 4) -> list[Column]:
    return [Column("v", "vector", {"scale": scale}, width)]


def sample() -> Any:
    x = np.random.default_rng(0).normal(size=(50, 4)) * [1, 10, 0, 100] + 3
    x[::3, 1] = 0.0
    return x


@pytest.mark.parametrize(
    ("scale", "scaler"), [("standard", StandardScaler()), ("robust", RobustScaler()), ("minmax", MinMaxScaler())]
)
def test_scaling_is_that_of_scikit_learn(scale: str, scaler: Any) -> None:
    x = sample()
    block = reloaded("vector", columns(scale), vector.fit(columns(scale), Batch(50, {"v": x})))
    expected = scaler.fit_transform(x)
    assert np.allclose(block.matrix(Batch(50, {"v": x})), expected, rtol=1e-14, atol=1e-15)
    rows = [dense(block, {"v": row}) for row in x.tolist()]
    assert np.array_equal(rows, block.matrix(Batch(50, {"v": x})))


def test_without_scaling_a_vector_is_taken_as_it_is_in_any_form() -> None:
    x = sample()
    block = reloaded("vector", columns(), vector.fit(columns(), Batch(50, {"v": x})))
    for entries in (x, x.tolist(), list(x), x.astype(np.float32).astype(np.float64)):
        assert np.allclose(block.matrix(Batch(50, {"v": entries})), x, rtol=1e-6)
    assert dense(block, {"v": x[1]}) == x[1].tolist()
    assert block.matrix(Batch(0, {"v": []})).shape == (0, 4)
    assert block.names() == ["v[0]", "v[1]", "v[2]", "v[3]"]
    assert feature_kind("vector").reference(block) is None


def test_a_narrow_vector_is_fused_with_weights_and_a_wide_one_asks_for_the_matrix() -> None:
    w = np.arange(8.0).reshape(4, 2)
    block = vector.fit(columns(), Batch(50, {"v": sample()}))
    share = block.fuse(lambda index: tuple(w[index].tolist()), 2)
    assert share({"v": [1.0, 0.0, 2.0, 3.0]}) == (np.array([1.0, 0.0, 2.0, 3.0]) @ w).tolist()
    wide = vector.VectorBlock("v", vector.ROW_WIDTH + 1, None)
    with pytest.raises(NotImplementedError):
        wide.fuse(lambda index: (0.0,), 1)({"v": []})


def test_a_wrong_option_and_values_too_large_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"columns\.v"):
        vector.fit(columns("magic"), Batch(50, {"v": sample()}))
    with pytest.raises(ConfigError, match=r"columns\.v"):
        vector.fit([Column("v", "vector", {"size": 1}, 4)], Batch(50, {"v": sample()}))
    huge = [[1e308, 0.0, 0.0, 0.0], [-1e308, 0.0, 0.0, 0.0]]
    with pytest.raises(DataRejected, match="too large"):
        vector.fit(columns("minmax"), Batch(2, {"v": huge}))
