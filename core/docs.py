"""The interactive documentation: Swagger UI from the packaged library, the OpenAPI document, no internet."""

from __future__ import annotations

import html
import json
import os
from typing import Any

from core.api import ENDPOINTS, Call, Services
from core.errors import NotFound
from core.web import Headers, Response

_FILES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Polysky</title>
<link rel="stylesheet" href="{base}/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="{base}/docs/favicon-32x32.png">
</head>
<body>
<div id="docs"></div>
<script src="{base}/docs/swagger-ui-bundle.js"></script>
<script src="{base}/docs/start.js"></script>
</body>
</html>
"""
_START = """window.onload = () => SwaggerUIBundle({
  url: %s, dom_id: "#docs", deepLinking: true, validatorUrl: null, persistAuthorization: true
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NOT_KEPT: Headers = (("Cache-Control", "no-cache"),)


def page(services: Services, call: Call) -> Response:
    """Return the page."""
    base = html.escape(services.settings.base_path)
    headers = (("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY), *_NOT_KEPT)
    return Response(200, headers, _PAGE.format(base=base).encode())


def asset(services: Services, call: Call) -> Response:
    """Return a file that the page needs. Raises NotFound for any other name."""
    name = call.params["asset"]
    if name == "start.js":
        url = json.dumps(f"{services.settings.base_path}/docs/openapi-30.json")
        return Response(
            200, (("Content-Type", "text/javascript; charset=utf-8"), *_NOT_KEPT), (_START % url).encode()
        )
    if name == "openapi-30.json":  # the packaged Swagger UI knows no OpenAPI 3.1
        from core.openapi import document_30

        return _spec(document_30(_document(services)))
    if name not in _FILES:
        raise NotFound("no such file")
    headers = (("Content-Type", _FILES[name]), ("Cache-Control", "max-age=86400"))
    return Response(200, headers, _read(name))


def openapi(services: Services, call: Call) -> Response:
    """Return the OpenAPI 3.1 document."""
    return _spec(_document(services))


def _document(services: Services) -> dict[str, Any]:
    from core.openapi import document

    known = [e for e in ENDPOINTS if e.plane == "http" or services.store is not None]
    return document(known, services.settings.base_path, public_docs=services.settings.public_docs)


def _spec(body: dict[str, Any]) -> Response:
    text = json.dumps(body, indent=1).encode()
    return Response(200, (("Content-Type", "application/json"), *_NOT_KEPT), text)


def _read(name: str) -> bytes:
    try:
        import swagger_ui_bundle
    except ImportError:
        raise NotFound("the documentation page is not packaged here; see /openapi.json") from None
    with open(os.path.join(str(swagger_ui_bundle.swagger_ui_path), name), "rb") as file:
        return file.read()
