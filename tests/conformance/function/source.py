"""The source file that functions-framework is given: our function around the application of the test."""

from __future__ import annotations

from typing import Any

import functions_framework

from handlers_gcp.events import answer_every_path, from_response, to_request
from tests.conformance.function.held import answer
from tests.conformance.stage import SETTINGS


@functions_framework.http
def http(request: Any) -> Any:
    """Return the handler's answer."""
    return from_response(answer(to_request(request, SETTINGS["max_upload_bytes"])))


answer_every_path(http)
