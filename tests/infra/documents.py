"""YAML files as Python values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


def read_yaml(file: Path) -> Any:
    """Return the one document of a file."""
    return yaml.safe_load(file.read_text())


def read_documents(text: str) -> list[Any]:
    """Return all documents of a text."""
    return [document for document in yaml.safe_load_all(text) if document is not None]
