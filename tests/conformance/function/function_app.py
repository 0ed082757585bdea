"""The module that the Azure worker looks for: the handler's own function around the application of the test."""

from __future__ import annotations

from handlers_azure.functions import http_functions
from handlers_azure.telemetry import FunctionTelemetry
from tests.conformance.function.held import answer

app = http_functions("http", answer, FunctionTelemetry())
