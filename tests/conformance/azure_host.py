"""Azure Functions: what the host makes of a request, and Microsoft's own worker runtime around our function.

Source of the host's side: GrpcMessageConversionExtensions.ToRpcHttp in github.com/Azure/azure-functions-host. The
URL is scheme, host, ASP.NET Core's Path (decoded by Kestrel but for %2F, encoded again by
PathString.ToUriComponent) and the query string as it came. Header names are in lower case, values of one that came
twice joined by a comma; query parameters are decoded, those without a value left out. A body comes only if
Content-Length is above zero, and as bytes, which the Python worker asks for (RawHttpBodyBytes). Answers: status,
headers by name, and the body as bytes.
"""

from __future__ import annotations

import asyncio
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote

import azure_functions_runtime

from tests.conformance.entry_point import App, EntryPoint, Refused
from tests.conformance.exchange import Answer, Wire
from tests.conformance.function.held import held
from tests.runtimes.azure_messages import load

Message = dict[str, Any]
FOLDER = Path(__file__).parent / "function"
_KEPT = re.compile(r"%(?:[0-9A-Fa-f]{2})|[A-Za-z0-9\-._~!$&'()*+,;=:@/]")


def rpc_http(wire: Wire) -> Message:
    """Return the fields of the RpcHttp message that the host sends to the worker."""
    headers: dict[str, str] = {}
    for name, value in wire.framed():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    query: dict[str, str] = {}
    for name, value in parse_qsl(wire.query):
        query[name] = f"{query[name]},{value}" if name in query else value
    path = host_path(wire.path)
    return {
        "method": wire.method,
        "url": f"https://api.example{path}" + (f"?{wire.query}" if wire.query else ""),
        "headers": headers,
        "query": query,
        "params": {"path": unquote(path)[1:]} if path != "/" else {},
        "body": b"" if wire.chunked else wire.body,
    }


def host_path(path: str) -> str:
    """Return a path as the host spells it in the URL: decoded once but for %2F, then encoded where it must be."""
    pieces = re.split("(%2[Ff])", path)
    decoded = "".join(piece if index % 2 else _decoded(piece) for index, piece in enumerate(pieces))
    spelt, position = "", 0
    while position < len(decoded):
        kept = _KEPT.match(decoded, position)
        text = kept[0] if kept else decoded[position]
        spelt += text if kept else "".join(f"%{byte:02X}" for byte in text.encode())
        position += len(text)
    return spelt


def _decoded(text: str) -> str:
    """Return `text` with the escapes undone that spell UTF-8; Kestrel leaves others as they are."""
    return re.sub("(?:%[0-9A-Fa-f]{2})+", lambda found: _utf8(found[0]), text)


def _utf8(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


class Worker:
    """The Python worker's runtime in this process, with our function indexed and loaded."""

    def __init__(self) -> None:
        self.protos: Any = load()
        self._loop = asyncio.new_event_loop()
        azure_functions_runtime.start_threadpool_executor()
        request = self.protos.WorkerInitRequest(host_version="4.0", function_app_directory=str(FOLDER))
        sys.path.append(str(FOLDER))  # as the worker's process does
        try:
            began = self._call("worker_init_request", worker_init_request=request)
        finally:
            sys.path.remove(str(FOLDER))
        assert began.result.status == self.protos.StatusResult.Success, began.result.exception.message
        [function] = self._call("functions_metadata_request").function_metadata_results
        found = self.protos.FunctionLoadRequest(function_id=function.function_id, metadata=function)
        self._call("function_load_request", function_load_request=found)
        self._id = function.function_id

    def invoke(self, event: Message) -> Any:
        """Return the RpcHttp message that the function's answer becomes."""
        protos = self.protos
        fields = {name: value for name, value in event.items() if name != "body"}
        http = protos.RpcHttp(**fields)
        if event["body"]:
            http.body.bytes = event["body"]
        request = protos.InvocationRequest(
            invocation_id="00000000-0000-0000-0000-000000000000",
            function_id=self._id,
            input_data=[protos.ParameterBinding(name="req", data=protos.TypedData(http=http))],
            trace_context=protos.RpcTraceContext(),
            retry_context=protos.RetryContext(),
        )
        response = self._call("invocation_request", invocation_request=request)
        if response.result.status != protos.StatusResult.Success:
            raise Refused(500)
        return response.return_value.http

    def _call(self, handler: str, **content: Any) -> Any:
        message = self.protos.StreamingMessage(request_id="1", **content)
        request = SimpleNamespace(request=message, properties={"host": "127.0.0.1", "protos": self.protos})
        return self._loop.run_until_complete(getattr(azure_functions_runtime, handler)(request))


@cache
def worker() -> Worker:
    """Return the worker, started once."""
    return Worker()


def invoke(app: App, event: Message) -> Message:
    """Return what the worker sends back."""
    with held(app):
        found = worker().invoke(event)
    return {"status": found.status_code, "headers": dict(found.headers), "body": bytes(found.body.bytes)}


def decode(wire: Wire, result: Message) -> Answer:
    """Return what a client gets."""
    status, headers, body = int(result["status"]), tuple(result["headers"].items()), result["body"]
    if wire.method == "HEAD" or status == 204:
        return Answer(status, headers)
    return Answer(status, (*headers, ("Content-Length", str(len(body)))), body)


ENTRY_POINTS = (
    EntryPoint(
        "azure",
        rpc_http,
        invoke,
        decode,
        added=frozenset({"content-type"}),
        reasons="azure.functions gives an answer without a Content-Type one of text/plain",
    ),
)
