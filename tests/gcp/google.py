"""The metadata server and Secret Manager in one, answering in the shapes that Google documents."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import google_crc32c

TOKEN = "ya29.canary-of-an-access-token"
VERSION = "projects/123/secrets/tokens/versions/latest"


def payload(data: bytes, **more: Any) -> dict[str, Any]:
    """Return Secret Manager's answer with a secret."""
    encoded = base64.b64encode(data).decode()
    return {"name": VERSION, "payload": {"data": encoded, "dataCrc32c": str(google_crc32c.value(data)), **more}}


class Google(ThreadingHTTPServer):
    """The metadata server and Secret Manager; `answers` by path, `asked` what was."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, bytes]] = {
            "/computeMetadata/v1/project/project-id": (200, b"my-project"),
            "/computeMetadata/v1/instance/service-accounts/default/token": (
                200,
                json.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}).encode(),
            ),
        }

    def __enter__(self) -> Google:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def put(self, secret: str, status: int, body: Any) -> None:
        """Set the answer about PROJECT/secrets/NAME/versions/VERSION."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[f"/v1/projects/{secret}:access"] = (status, raw)

    def env(self) -> dict[str, str]:
        """Return the variables that lead a function here."""
        host = f"127.0.0.1:{self.server_port}"
        return {"GCE_METADATA_HOST": host, "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"http://{host}/"}


class _Handler(BaseHTTPRequestHandler):
    server: Google

    def do_GET(self) -> None:
        """Answer, if the caller shows what the path takes."""
        self.server.asked.append(self.path)
        status, body = self.server.answers.get(
            self.path, (404, b'{"error": {"code": 404, "status": "NOT_FOUND"}}')
        )
        if self.path.startswith("/computeMetadata/"):
            allowed = self.headers["Metadata-Flavor"] == "Google" and self.headers["Authorization"] is None
        else:
            allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.send_response(status if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
        return
