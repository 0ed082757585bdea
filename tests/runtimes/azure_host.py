"""A small Azure Functions host around Microsoft's own Python worker runtime: one process, one packaged app.

    python -I -S azure_host.py PACKAGE [--mortal NAME]      (prints one line of JSON with its port, then logs)

Microsoft's code, as the cloud runs it: azure_functions_runtime finds the functions, checks their bindings, turns
messages into azure.functions objects, runs the functions on its thread pool and turns their answers back. It lies
in the package, and so does everything else that is imported: no other site-packages are on the path.

Emulated here, after the public behaviour of the .NET host: HTTP in front of the functions with URLs as ASP.NET
writes them, the Event Grid webhook (key, handshake, 202 or 500), the timer by the admin call, a log line for each
record. Not there: scaling, time limits, the gRPC channel. Host and worker die together here; in the cloud the host
lives on and answers 500. Event Grid retries either.

With --mortal, the process kills itself when it writes an artifact of an upload whose name has NAME in it: that
file's job is cut off after it has trained and before it could publish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

KEY = "system-key"
WEBHOOK = "/runtime/webhooks/eventgrid"
Answer = tuple[int, Mapping[str, str], bytes]


class Functions:
    """The functions of a package, run by the worker runtime."""

    def __init__(self, package: str) -> None:
        self._runtime: Any = import_module("azure_functions_runtime")
        self._running: Any = import_module("azure_functions_runtime.utils.executor").invocation_id_cv
        self.protos: Any = import_module("azure_messages").load()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._runtime.start_threadpool_executor()
        init = self.protos.WorkerInitRequest(host_version="4.0", function_app_directory=package)
        began = self._call("worker_init_request", worker_init_request=init)
        if began.result.status != self.protos.StatusResult.Success:
            raise SystemExit(f"the runtime refused the app: {began.result.exception.message}")
        self.by_name = dict(self._load())

    def _load(self) -> Iterable[tuple[str, SimpleNamespace]]:
        for found in self._call("functions_metadata_request").function_metadata_results:
            load = self.protos.FunctionLoadRequest(function_id=found.function_id, metadata=found)
            self._call("function_load_request", function_load_request=load)
            bindings = [json.loads(binding) for binding in found.raw_bindings]
            trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
            yield found.name, SimpleNamespace(id=found.function_id, trigger=trigger)

    def invoke(self, name: str, data: Any, *, parent: str = "") -> Any:
        """Return the InvocationResponse of one function."""
        function, invocation = self.by_name[name], str(uuid.uuid4())
        request = self.protos.InvocationRequest(
            invocation_id=invocation,
            function_id=function.id,
            input_data=[self.protos.ParameterBinding(name=function.trigger["name"], data=data)],
            trace_context=self.protos.RpcTraceContext(trace_parent=parent),
            retry_context=self.protos.RetryContext(),
        )
        response = self._call("invocation_request", invocation, invocation_request=request)
        if response.result.status != self.protos.StatusResult.Success:
            logging.error("%s failed: %s", name, response.result.exception.message)
        return response

    def succeeded(self, response: Any) -> bool:
        """Return whether the function came to its end."""
        return bool(response.result.status == self.protos.StatusResult.Success)

    def _call(self, handler: str, invocation: str = "", **content: Any) -> Any:
        message = self.protos.StreamingMessage(request_id=uuid.uuid4().hex, **content)
        properties = {"host": "127.0.0.1", "protos": self.protos}

        async def call() -> Any:
            self._running.set(invocation)
            return await getattr(self._runtime, handler)(SimpleNamespace(request=message, properties=properties))

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class Host:
    """Turns HTTP messages into invocations."""

    def __init__(self, functions: Functions, routes_below: str) -> None:
        self._functions = functions
        self._prefix = f"/{routes_below}".rstrip("/")

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return what the host answers to one request; `headers` have lower-case names."""
        address = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if address.path.lower() == WEBHOOK:
            return self._webhook(query, headers, body)
        if address.path.startswith("/admin/functions/"):
            return self._admin(address.path.rpartition("/")[2], headers)
        for name, function in self._functions.by_name.items():
            if function.trigger["type"] == "httpTrigger" and self._matches(function.trigger, method, address.path):
                path = as_aspnet(address.path)
                return self._http(name, method, path + target[len(address.path) :], headers, body)
        return 404, {}, b""

    def _matches(self, trigger: Mapping[str, Any], method: str, path: str) -> bool:
        if trigger["route"] != "{*path}":
            raise NotImplementedError("a route other than the one for everything")
        methods = [str(each).upper() for each in trigger.get("methods") or [method]]
        return path.startswith(self._prefix) and method in methods

    def _http(self, name: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        protos = self._functions.protos
        message = protos.RpcHttp(
            method=method,
            url=f"https://{headers.get('host', 'localhost')}{target}",
            headers=dict(headers),
            query={name: ",".join(values) for name, values in parse_qs(urlsplit(target).query).items()},
        )
        if body:
            message.body.bytes = body
        data = protos.TypedData(http=message)
        response = self._functions.invoke(name, data, parent=headers.get("traceparent", ""))
        if not self._functions.succeeded(response):
            return 500, {}, b""
        found = response.return_value.http
        return int(found.status_code), dict(found.headers), found.body.bytes

    def _webhook(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer Event Grid: 202 if every event's function succeeded, else 500, and it comes again."""
        name = query.get("functionName", "")
        if query.get("code") != KEY:
            return 401, {}, b""
        if name not in self._functions.by_name:
            return 404, {}, b""
        events = json.loads(body)
        if headers.get("aeg-event-type") == "SubscriptionValidation":
            told = {"validationResponse": events[0]["data"]["validationCode"]}
            return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
        typed = self._functions.protos.TypedData
        done = [self._functions.invoke(name, typed(json=json.dumps(event))) for event in events]
        return (202 if all(map(self._functions.succeeded, done)) else 500), {}, b""

    def _admin(self, name: str, headers: Mapping[str, str]) -> Answer:
        """Run a timer function now, as the admin API does, but wait for its end."""
        if headers.get("x-functions-key") != KEY:
            return 401, {}, b""
        told = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": False}
        response = self._functions.invoke(name, self._functions.protos.TypedData(json=json.dumps(told)))
        return (202 if self._functions.succeeded(response) else 500), {}, b""


def as_aspnet(path: str) -> str:
    """Return a path as the host hands it on: Kestrel decodes all but %2F, PathString encodes it again.

    Text that looks percent-encoded after that one decoding stays as it is.
    """
    decoded = "".join(
        part if part.lower() == "%2f" else unquote_to_bytes(part).decode("latin-1")
        for part in re.split("(?i)(%2f)", path)
    )
    pieces = re.split("(%[0-9A-Fa-f]{2})", decoded)  # every second one looks encoded
    return "".join(
        piece if index % 2 else quote(piece, "/!$&'()*+,;=:@-._~", "latin-1") for index, piece in enumerate(pieces)
    )


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def _run(self) -> None:
        headers: dict[str, str] = {}
        for raw_name, value in self.headers.items():
            name = raw_name.lower()
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        body = self.rfile.read(int(headers.get("content-length", "0")))
        status, told, content = self.host.answer(self.command, self.path, headers, body)
        self.send_response_only(status)
        for name, value in told.items():
            self.send_header(name, value)
        if status != 204 and (content or self.command != "HEAD"):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _run

    def log_message(self, *_: object) -> None:
        pass


class _Lines(logging.Handler):
    """Writes what the host would send to Application Insights: message, level, and the record's own attributes."""

    plain = frozenset(vars(logging.makeLogRecord({})))

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in self.plain}
        line = {"level": record.levelname, "logger": record.name, "message": record.getMessage(), "extra": extra}
        sys.stdout.write(json.dumps(line, default=str) + "\n")
        sys.stdout.flush()


def die_on(name: str) -> None:
    """Make this process kill itself when a thread that fetched upload `name` begins to write an artifact."""
    doomed = threading.local()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "http.client.send" or not isinstance(arguments[1], bytes):
            return
        line = arguments[1].partition(b"\r\n")[0]
        if line.startswith(b"GET ") and b"/uploads/" in line and name.encode() in line:
            doomed.here = True
        elif line.startswith(b"PUT ") and b"/art/" in line and getattr(doomed, "here", False):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    """Serve one package until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("--mortal", default="")
    options = parser.parse_args()
    package = str(options.package.resolve())
    # as the cloud's worker does it, then this folder for the messages
    sys.path[:0] = [package, str(Path(package, ".python_packages", "lib", "site-packages"))]
    sys.path.append(str(Path(__file__).parent))
    os.chdir(package)
    logging.basicConfig(level=logging.INFO, handlers=[_Lines()])
    if options.mortal:
        die_on(options.mortal)
    settings = json.loads(Path(package, "host.json").read_text())
    functions = Functions(package)
    _Front.host = Host(functions, settings["extensions"]["http"]["routePrefix"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Front)
    sys.stdout.write(json.dumps({"port": server.server_port, "functions": sorted(functions.by_name)}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
