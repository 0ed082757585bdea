"""Polysky's life for one request: start, build the app, answer, end. Arguments: store, token, text."""

import json
import sys
import time

from core.app import build_app
from core.config import Settings
from core.reader import open_reader
from core.telemetry import MemoryTelemetry
from core.web import Request

app = build_app(
    Settings(store=sys.argv[1]),
    open_reader(sys.argv[1]),
    telemetry=MemoryTelemetry(sys.stderr.write, clock=time.time),
)
body = json.dumps({"text": sys.argv[3]}).encode()
headers = {"authorization": "Bearer " + sys.argv[2], "content-type": "application/json"}
response = app(Request("POST", "/predict/bench", "", headers, body))
print(response.body.decode())
if response.status != 200:
    raise SystemExit(response.body.decode())
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
