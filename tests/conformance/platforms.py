"""All entry points."""

from __future__ import annotations

from tests.conformance import asgi_server, aws_gateways, azure_host, cloud_run

ENTRY_POINTS = (
    *aws_gateways.ENTRY_POINTS,
    *cloud_run.ENTRY_POINTS,
    *azure_host.ENTRY_POINTS,
    *asgi_server.ENTRY_POINTS,
)
NAMES = tuple(entry.name for entry in ENTRY_POINTS)
