"""The demo's data files: support messages, iris and digits, and what is held back to arrive later."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

MESSAGES = Path(__file__).with_name("messages.csv")


class Files(NamedTuple):
    """Where the demo's data lies."""

    messages: Path
    new_messages: Path
    flipped_messages: Path
    iris: Path
    digits: Path


def write_files(folder: Path) -> Files:
    """Write the data files into `folder`."""
    files = Files(
        *(folder / name for name in ("messages.csv", "new.csv", "flipped.csv", "iris.csv", "digits.npz"))
    )
    with MESSAGES.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    _write_csv(files.messages, header, rows[::2])
    _write_csv(files.new_messages, header, rows[1::2])  # these arrive later
    _write_csv(files.flipped_messages, header, _flipped(rows))
    _write_iris(files.iris)
    _write_digits(files.digits)
    return files


def _flipped(rows: Sequence[Sequence[str]]) -> Iterable[tuple[str, str]]:
    """Yield every message, slightly reworded, under the label of another class."""
    classes = sorted({label for _, label in rows})
    after = dict(zip(classes, classes[1:] + classes[:1], strict=True))
    return ((f"{text} Thank you.", after[label]) for text, label in rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_iris(path: Path) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    header = [name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names]
    names = [str(iris.target_names[target]) for target in iris.target]
    _write_csv(path, [*header, "species"], ([*x, name] for x, name in zip(iris.data.tolist(), names, strict=True)))


def _write_digits(path: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 16 shades → 256
    np.savez_compressed(path, images=pixels, y=digits.target.astype(np.int64))
