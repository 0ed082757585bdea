"""Imported ONNX files: a foreign graph becomes a model, or is refused saying why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import importing
from core.errors import ConfigError
from core.schema import Batch
from tests.core.carried import served
from tests.core.test_onnx import LOGITS, ONE


def test_an_onnx_file_becomes_a_model_of_a_vector_or_of_named_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(LOGITS)
    path = str(tmp_path / "m.onnx")
    taken = importing.open_graph(path, task="classification", classes=("low", "mid", "high"))
    model = served(taken)
    assert model.predict(Batch(1, {"features": [[1.0, 2.0, 0.0]]})).labels == ["low"]
    named = importing.open_graph(path, task="classification", names=("a", "b", "c"))
    assert named.classes == ("0", "1", "2")
    rows = named.schema.batch([{"a": 1, "b": 2, "c": 0}])
    assert served(named).predict(rows).labels == ["0"]


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_an_onnx_file_with_one_output_tells_two_classes_apart(tmp_path: Path, form: str) -> None:
    (tmp_path / "m.onnx").write_bytes(ONE)
    taken = importing.open_graph(str(tmp_path / "m.onnx"), task="classification", form=form)
    found = served(taken).predict(Batch(1, {"features": [[0.25, 0.125, 9.0]]})).outputs()[0]
    expected = 1 / (1 + np.exp(-0.5)) if form == "logits" else 0.5
    assert found == pytest.approx([1 - expected, expected])


def test_an_onnx_regression_has_values(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(ONE)
    model = served(importing.open_graph(str(tmp_path / "m.onnx"), task="regression"))
    assert model.predict(Batch(1, {"features": [[1.0, 1.0, 5.0]]})).values == [3.0]


def test_an_onnx_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(LOGITS)
    path = str(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="task must be"):
        importing.open_graph(path, task="clustering")
    with pytest.raises(ConfigError, match="takes 3 columns, not 2"):
        importing.open_graph(path, task="classification", names=("a", "b"))
    with pytest.raises(ConfigError, match="cannot be read"):
        importing.open_graph(str(tmp_path / "nothing"), task="regression")
