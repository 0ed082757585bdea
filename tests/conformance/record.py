"""Writes the golden files anew: `python -m tests.conformance.record`; with `--train` the models too."""

from __future__ import annotations

import sys

from tests.conformance.golden import FOLDER, SCRIPTS, document, perform
from tests.conformance.stage import MODELS


def main(arguments: list[str]) -> None:
    """Write all files; what is not needed any more is removed."""
    if "--train" in arguments:
        from tests.conformance.training import trained

        for name, data in trained().items():
            (MODELS / f"{name}.model").write_bytes(data)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for script in SCRIPTS:
        (FOLDER / f"{script.name}.json").write_text(document(script, perform(script)), encoding="utf-8")
    print(f"{sum(len(script.exchanges) for script in SCRIPTS)} exchanges in {len(SCRIPTS)} files")


if __name__ == "__main__":
    main(sys.argv[1:])
