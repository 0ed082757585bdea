"""Events in the forms that AWS documents, and what comes with each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).parents[1] / "events" / "aws"


def event(name: str) -> Any:
    """Return a recorded event."""
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


class Context:
    """What Lambda tells a handler of an invocation."""

    function_name = "polysky-http"
    memory_limit_in_mb = "1769"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:polysky-http"
    aws_request_id = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time left."""
        return 60_000
