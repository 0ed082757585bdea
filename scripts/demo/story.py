"""The demo, step by step. Each step checks what it shows."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from scripts.demo.data import Files, write_files
from scripts.demo.stage import Answer, Server, Shell, expect, say_curl, show_answer, wait_until

MODEL = "support"
TRAINED = ((MODEL, "messages.csv", "label"), ("iris", "iris.csv", "species"), ("digits", "digits.npz", "y"))
JOB_TIMEOUT_S = 90.0
ROLLBACK_S = 5.0
METRICS = (
    "app_request_count",
    "model_prediction_count",
    "model_accuracy",
    "model_loaded",
    "retraining_events_count",
)
QUESTION = {"text": "The courier says delivered but there is no parcel anywhere. Where is it?"}


def tell(folder: Path) -> None:
    """Play the whole demo in `folder`. Raises DemoFailed if a step does not do what it says."""
    started = time.monotonic()
    files = write_files(folder)
    shell = Shell(folder, folder / "store")
    _train(shell)
    admin = _token(shell)
    _heading("Serve all three from one process group")
    with shell.serve(folder / "server.log") as server:
        server.token = admin
        print(f"    {server.url}, log lines go to stderr as JSON")
        first = _predict(server, files)
        second = _learn(server, files, first)
        _refuse(shell, server, second)
        _roll_back(server, first)
        _measure(server)
        url = server.url
        expect(server.stop() == 0, "the server did not stop cleanly")
    _heading("Done: everything worked, the server is stopped, nothing is left running")
    print(f"    {time.monotonic() - started:.0f} s. The URLs were:")
    for path in ("/docs", "/predict/support", "/models", "/health", "/metrics"):
        print(f"      {url}{path}")
    print("    To have them again: polysky train …, then polysky serve (the default port is 8000).")


def _heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def _train(shell: Shell) -> None:
    _heading("Train three models: support messages (text), iris (numbers), digits (images)")
    for name, data, label in TRAINED:
        shell.polysky("init", data, "--label", label, "--name", name, "--out", f"{name}.toml")
        found = json.loads(shell.polysky("train", f"{name}.toml", "--data", data, "--json"))
        metrics = found["metrics"]
        print(f"    {found['model']} {found['version']} → {found['alias']}: accuracy {metrics['accuracy']:.3f}")
        expect(found["alias"] == "production", f"the first version of {name} must serve")
        expect(metrics["accuracy"] > 0.6, f"{name} learnt too little")
    print()
    print(textwrap.indent(shell.polysky("models", "list"), "    "), end="")


def _token(shell: Shell) -> str:
    _heading("A token: without one, nobody predicts")
    found = json.loads(shell.polysky("token", "create", "--role", "admin", "--json"))
    token: str = found["token"]
    print(f"    {token[:20]}… (shown once; the store keeps its sha256)")
    return token


def _predict(server: Server, files: Files) -> str:
    _heading("Predict over HTTP")
    refused = server.ask("POST", f"/predict/{MODEL}", json.dumps(QUESTION).encode(), token="")
    print(f"    without a token: {refused.status}")
    expect(refused.status == 401, "a stranger must be refused")
    answer = server.show("POST", f"/predict/{MODEL}", QUESTION)
    expect(answer.status == 200, "the prediction failed")
    expect(answer.json()["predictions"][0]["label"] == "delivery", "a lost parcel is about delivery")
    flower = {"rows": [_first_row(files.iris, "species")]}
    expect(server.show("POST", "/predict/iris", flower).json()["predictions"][0]["label"] == "setosa", "iris")
    pixels, digit = _first_digit(files.digits)
    image = base64.b64encode(pixels).decode()
    content = "-H 'Content-Type: application/json' -d '{\"image\": \"'$(base64 -w0 digit.png)'\"}'"
    say_curl("POST", "/predict/digits", content)
    seen = server.ask("POST", "/predict/digits", json.dumps({"image": image}).encode())
    show_answer(seen)
    expect(seen.status == 200 and seen.json()["predictions"][0]["label"] == digit, "the digit was not read")
    return answer.headers["x-model-version"]


def _first_row(path: Path, label: str) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    return {name: float(value) for name, value in row.items() if name != label}


def _first_digit(path: Path) -> tuple[bytes, str]:
    import numpy as np
    from PIL import Image

    with np.load(path, allow_pickle=False) as arrays:
        pixels, digit = arrays["images"][0], str(arrays["y"][0])
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue(), digit


def _learn(server: Server, files: Files, before: str) -> str:
    _heading("New data arrives: it is learnt, judged on the same holdout, and takes over")
    say_curl("POST", f"/retrain/{MODEL}", "-H 'Content-Type: text/csv' --data-binary @new.csv")
    accepted = server.ask("POST", f"/retrain/{MODEL}", files.new_messages.read_bytes(), kind="text/csv")
    show_answer(accepted)
    expect(accepted.status == 202, "the upload was not accepted")
    job = _wait_for_job(server, accepted.json()["status_url"])
    version: str = job["version"]
    expect(bool(job["gate"]["passed"]), "the new version should pass the gate")
    took = wait_until("the new version", lambda: _serving(server) == version, ROLLBACK_S)
    print(f"    {before} → {version}, answering {took:.1f} s after the verdict, without a restart")
    return version


def _refuse(shell: Shell, server: Server, serving: str) -> None:
    _heading("Bad data arrives: every message under a wrong label, dropped as a file into the store")
    dropped = json.loads(shell.polysky("upload", MODEL, "flipped.csv", "--json"))
    job = _wait_for_job(server, f"/jobs/{dropped['job_id']}")
    expect(job["gate"] is not None and not job["gate"]["passed"], "a worse version must not pass the gate")
    print(f"    {job['version']} stays in staging")
    expect(_serving(server) == serving, "production must not change")
    print(f"    still serving {serving}")


def _wait_for_job(server: Server, path: str) -> dict[str, Any]:
    """Return the job once it has its outcome and, if it made a version, the gate's verdict."""
    say_curl("GET", path)
    last: dict[str, Any] = {}

    def is_done() -> bool:
        answer: Answer = server.ask("GET", path)
        last.update(answer.json() if answer.status == 200 else {})
        done = last.get("status") in {"rejected", "parked"}
        return done or (last.get("status") == "succeeded" and bool(last.get("gate")))

    took = wait_until("the job", is_done, JOB_TIMEOUT_S)
    gate = last.get("gate") or {}
    verdict = {True: "passed", False: "not passed", None: "not asked"}[gate.get("passed")]
    print(f"    {last['status']} after {took:.1f} s; gate {verdict}:")
    for reason in [*gate.get("reasons", ()), *filter(None, [last["reason"]])]:
        print(f"      {reason}")
    return last


def _serving(server: Server) -> str:
    answer = server.ask("POST", f"/predict/{MODEL}", json.dumps(QUESTION).encode())
    expect(answer.status == 200, f"a prediction failed with {answer.status}")
    return answer.headers["x-model-version"]


def _roll_back(server: Server, target: str) -> None:
    _heading("Roll back: one call, seen by every worker within seconds")
    answer = server.show("POST", f"/models/{MODEL}/rollback", {"reason": "demo"})
    expect(answer.status == 200, "the rollback failed")

    def everywhere() -> bool:
        return {_serving(server) for _ in range(20)} == {target}

    took = wait_until("the rollback", everywhere, ROLLBACK_S)
    print(f"    20 new connections, both workers: all answered by {target} after {took:.1f} s")
    history = server.ask("GET", f"/models/{MODEL}/history?limit=3").json()
    for entry in history["entries"]:
        why = textwrap.shorten(entry["reason"], 70, placeholder=" …")
        print(f"    {entry['n']:>3} {entry['op']:8} by {entry['actor']}: {why}")


def _measure(server: Server) -> None:
    _heading("Metrics of all workers, as Prometheus reads them")
    say_curl("GET", "/metrics")
    text = server.ask("GET", "/metrics").body.decode()
    for name in METRICS:
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        expect(bool(lines), f"no metric {name}")
        for line in lines[:3]:
            print(f"    {line}")


def run(keep: Path | None) -> None:
    """Play the demo in a temporary folder, or in `keep`, which then stays."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        tell(keep)
        return
    with tempfile.TemporaryDirectory(prefix="polysky-demo-") as folder:
        tell(Path(folder))
