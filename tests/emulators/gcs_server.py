"""gcp-storage-emulator made honest: preconditions, generations on reads, pages, XML reads for obstore, threads."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from http.server import HTTPServer, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage

PAGE = 1000
_OF_BUCKET = re.compile(r"(?:/(?:upload|download))?(?:/storage/v1)?/b/([^/]+)(/.*)?")
_JSON_LIST = re.compile(r"/storage/v1/b/([^/]+)/o")
_XML_LIST = re.compile(r"/([^/]+)/?")
_XML_OBJECT = re.compile(r"/(?!storage/|upload/|download/|batch/|b/)([^/]+)/(.+)")
_CONDITIONS = (("ifGenerationMatch", True), ("ifGenerationNotMatch", False))


class Refused(Exception):
    """A precondition does not hold."""

    def __init__(self, status: int, condition: str) -> None:
        super().__init__(condition)
        self.status = status


class Objects(Storage):  # type: ignore[misc]
    """The emulator's objects in memory, held to the conditions of the one request being answered."""

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)
        self.lock = threading.Lock()
        self.method = ""
        self.query: Mapping[str, str] = {}
        self.found: Mapping[str, Any] | None = None
        self.is_out = False
        self.is_mute = False
        self.listeners: list[Callable[[dict[str, Any]], object]] = []

    def create_file(
        self, bucket_name: str, file_name: str, content: bytes, file_obj: dict[str, Any], file_id: Any = None
    ) -> None:
        """Create or replace an object and tell the listeners."""
        self._demand(bucket_name, file_name)
        super().create_file(bucket_name, file_name, content, file_obj, file_id)
        for listener in self.listeners:
            listener(dict(file_obj))

    def create_resumable_upload(self, bucket_name: str, file_name: str, file_obj: dict[str, Any]) -> Any:
        """Begin an upload in parts."""
        self._demand(bucket_name, file_name)
        return super().create_resumable_upload(bucket_name, file_name, file_obj)

    def delete_file(self, bucket_name: str, file_name: str) -> None:
        """Remove an object."""
        self._demand(bucket_name, file_name)
        super().delete_file(bucket_name, file_name)

    def get_file_obj(self, bucket_name: str, file_name: str) -> Any:
        """Return the resource of an object."""
        if self.method == "GET":
            self._demand(bucket_name, file_name)
        self.found = super().get_file_obj(bucket_name, file_name)
        return self.found

    def _demand(self, bucket: str, name: str) -> None:
        """Raise Refused or NotFound unless the object is as the request demands."""
        current = self.objects.get(bucket, {}).get(name)
        generation = current["generation"] if current else "0"
        if self.method != "POST" and self.query.get("generation", generation) != generation:
            raise NotFound
        for condition, equal in _CONDITIONS:
            if condition in self.query and (self.query[condition] == generation) is not equal:
                if current is None and self.method == "GET":
                    raise NotFound
                raise Refused(304 if self.method == "GET" and not equal else 412, condition)

    def _write_config_to_file(self) -> None:
        """Do nothing: writing all resources down at each change would make n changes cost n squared."""

    def _bucket_soft_delete_retention_seconds(self, bucket_name: str) -> int:
        return 0


class Handler(RequestHandler):  # type: ignore[misc]
    """Answers one request at a time, as real buckets seem to; connections are kept open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    storage: Objects
    rfile: Any
    wfile: Any
    path: str

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        stream, self.rfile = self.rfile, io.BytesIO(body)
        if self.storage.is_mute:  # what is asked for happens, and no answer comes
            self.wfile, self.close_connection = io.BytesIO(), True
        url = urlsplit(self.path)
        with self.storage.lock:
            self.storage.method = self.command
            self.storage.query = dict(parse_qsl(url.query))
            self.storage.found = None
            try:
                self._route(url.path)
            except Refused as refusal:
                text = "At least one of the pre-conditions you specified did not hold."
                self._send(refusal.status, _error(412, text, "conditionNotMet"))
        self.rfile = stream

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _route(self, path: str) -> None:
        bucket = _OF_BUCKET.fullmatch(path)
        if self.storage.is_out:
            self._send(503, _error(503, "We encountered an internal error. Please try again.", "backendError"))
        elif bucket and unquote(bucket[1]) not in self.storage.buckets:
            self._send(404, _error(404, "The specified bucket does not exist.", "notFound"))
        elif self.command == "GET" and (match := _JSON_LIST.fullmatch(path)):
            self._send(200, self._json_list(unquote(match[1])))
        elif self.command == "GET" and path != "/" and (match := _XML_LIST.fullmatch(path)):
            self._xml_list(unquote(match[1]))
        else:
            if xml := _XML_OBJECT.fullmatch(self.path):  # the emulator knows a bucket only by its plain name
                self.path = f"/{unquote(xml[1])}/{xml[2]}"
            Router(self).handle(self.command)

    def _json_list(self, bucket: str) -> bytes:
        names, prefixes, more = self._page(bucket, "pageToken", "maxResults")
        found = {"kind": "storage#objects", "prefixes": prefixes}
        found["items"] = [self.storage.objects[bucket][name] for name in names]
        return json.dumps({**found, "nextPageToken": more} if more else found).encode()

    def _xml_list(self, bucket: str) -> None:
        if bucket not in self.storage.buckets:
            self._send(404, b"<Error><Code>NoSuchBucket</Code></Error>", "application/xml")
            return
        names, prefixes, more = self._page(bucket, "continuation-token", "max-keys")
        cells = [f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes]
        for name in names:
            item = self.storage.objects[bucket][name]
            cells.append(
                f"<Contents><Key>{escape(name)}</Key><Generation>{item['generation']}</Generation>"
                f"<LastModified>{item['updated']}</LastModified><ETag>{_etag(item)}</ETag>"
                f"<Size>{item['size']}</Size></Contents>"
            )
        if more:
            cells.append(f"<NextContinuationToken>{escape(more)}</NextContinuationToken>")
        text = f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{''.join(cells)}</ListBucketResult>"
        self._send(200, text.encode(), "application/xml")

    def _page(self, bucket: str, token: str, limit: str) -> tuple[list[str], list[str], str]:
        """Return the names and common prefixes of a page, and the token of the next."""
        query = self.storage.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names, prefixes = [], set()
        for name in sorted(self.storage.objects.get(bucket, {})):
            rest = name[len(prefix) :]
            if not name.startswith(prefix) or name <= query.get(token, ""):
                continue
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                names.append(name)
        size = int(query.get(limit, PAGE))
        return names[:size], sorted(prefixes), names[size - 1] if len(names) > size else ""

    def end_headers(self) -> None:
        """Send the headers, those of the object that was read among them."""
        found = self.storage.found
        if found and self.command == "GET":
            self.send_header("X-Goog-Generation", found["generation"])
            self.send_header("X-Goog-Metageneration", found["metageneration"])
            self.send_header("X-Goog-Stored-Content-Length", found["size"])
            self.send_header("ETag", _etag(found))
            self.send_header("Last-Modified", formatdate(int(found["generation"]) // 10**9, usegmt=True))
        super().end_headers()

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(0 if status == 304 else len(body)))
        self.end_headers()
        if status != 304:
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients hang up, and the proxies of the tests do so on purpose."""


def serve(storage: Objects) -> HTTPServer:
    """Return a server of `storage` on a free port; its `serve_forever` is still to be called."""
    _hush()
    return _Server(("127.0.0.1", 0), partial(Handler, storage))


def serve_lying() -> HTTPServer:
    """Return a server of the emulator as it is: it takes preconditions and heeds none."""
    _hush()
    return HTTPServer(("127.0.0.1", 0), partial(RequestHandler, Storage(use_memory_fs=True)))


def _hush() -> None:
    for name in ("gcp_storage_emulator", "api"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _etag(item: Mapping[str, Any]) -> str:
    return f'"{item["generation"]}/{item["metageneration"]}"'


def _error(code: int, message: str, reason: str) -> bytes:
    errors = [{"domain": "global", "message": message, "reason": reason}]
    return json.dumps({"error": {"code": code, "message": message, "errors": errors}}).encode()
