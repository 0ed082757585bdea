"""The event of a new object as each provider sends it, and the way from there to the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from azure.functions.eventgrid import EventGridEventInConverter
from azure.functions.meta import Datum

from core.web import Request
from core.worker import Worker
from handlers_aws import events as aws
from handlers_azure import events as azure
from handlers_gcp import events as gcp

FOREVER = 1e12
Hint = tuple[str, str | None]


class Provider(NamedTuple):
    """`event` makes what is sent, `parse` its hints, `deliver` hands them on (503 or Unavailable: come again)."""

    name: str
    event: Callable[[str, str], Any]
    parse: Callable[[Any], list[Hint]]
    deliver: Callable[[Worker, list[Hint]], Any]


def quiet(_: str) -> None:
    """Take a warning."""


def _s3(key: str, token: str) -> Any:
    about = {"bucket": {"name": "store"}, "object": {"key": quote_plus(key, safe="/"), "eTag": token}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": about}]}


def _finalized(key: str, token: str) -> Any:
    return {"bucket": "store", "name": key, "generation": token}


def _blob_created(key: str, token: str) -> Any:
    url = f"https://account.blob.core.windows.net/store/{quote(key)}"
    return {
        "id": "1",
        "topic": "t",
        "subject": f"/blobServices/default/containers/store/blobs/{key}",
        "eventType": azure.CREATED,
        "data": {"api": "PutBlob", "eTag": token, "url": url},
        "dataVersion": "",
        "eventTime": "2026-11-21T08:41:00.9584103Z",
    }


def _parse_gcp(event: Any) -> list[Hint]:
    headers = {"content-type": "application/json", "ce-type": gcp.FINALIZED}
    return gcp.created(Request("POST", "/", "", headers, json.dumps(event).encode()), "gs://store", warn=quiet)


def _parse_azure(event: Any) -> list[Hint]:
    typed = EventGridEventInConverter.decode(Datum(json.dumps(event), "json"), trigger_metadata=None)
    return azure.created(typed, "az://store", warn=quiet)


PROVIDERS = (
    Provider(
        "aws",
        _s3,
        lambda event: aws.created(event, "s3://store", warn=quiet),
        lambda worker, hints: aws.deliver(worker, hints, deadline=FOREVER),
    ),
    Provider(
        "gcp", _finalized, _parse_gcp, lambda worker, hints: gcp.deliver(worker, hints, deadline=FOREVER).status
    ),
    Provider(
        "azure",
        _blob_created,
        _parse_azure,
        lambda worker, hints: azure.deliver(worker, hints, deadline=FOREVER),
    ),
)
