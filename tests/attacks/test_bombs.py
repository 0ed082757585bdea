"""What is small on the wire and huge once opened is refused over HTTP, by a process that has little memory."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.attacks.patterns import ROOT

REFUSED = {
    "gzip to predict": 413,
    "gzip in gzip": 400,  # one layer is undone, and what is in it is no JSON
    "gzip to retrain": 413,
    "npz to predict": 415,
    "picture": 422,
    "long picture": 422,
    "deep JSON": 400,
    "wide JSON": 413,
    "many cells": 422,
    "huge shape": 400,
    "zip to retrain": 202,  # an upload is kept unopened; the worker refuses it: test_malicious
}


def test_bombs_are_refused_within_bounded_memory() -> None:
    command = [sys.executable, "-m", "tests.attacks.bombs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fine"] == [200, 200, 200]
    assert found["statuses"] == REFUSED
