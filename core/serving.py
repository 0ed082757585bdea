"""The use cases that need only the reader: predict, describe models, health and metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from core.api import Call, Services, only_model
from core.dialects import native
from core.errors import IntegrityError, InvalidName, MalformedBody, NotFound, StoreError, Unavailable
from core.inference import PRODUCTION, Status
from core.keys import is_name
from core.telemetry import CONTENT_TYPE
from core.web import Response, json_response, media_type, query_of

if TYPE_CHECKING:
    from core.dialects.native import Asked
    from core.model import Model, Predictions
    from core.schema import Batch
    from core.telemetry import Update

PAGE = 100
READY_MODELS = 32  # how many models a readiness check loads
_JSON: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


def predict(services: Services, call: Call) -> Response:
    """Return the predictions for the rows of the body, by one version of one model."""
    timer = services.timing.timer
    started = timer()
    asked = native.decode(media_type(call.request.headers), call.content(services.settings.max_body_bytes))
    name = _model_of(services, call, asked)
    limit = services.settings.max_batch_rows
    work = partial(_work, asked, limit, timer)
    (batch, found, checked, done), loaded = services.predictor.run(name, _version_of(call, asked), work)
    version = loaded.version
    services.counters.add(batch.n_rows)
    call.facts.update(model=name, version=version, rows=batch.n_rows)
    labels = (name,)
    numbers = call.numbers
    numbers += (
        ("app_preprocessing_latency_seconds", labels, checked - started),
        ("app_inference_latency_seconds", labels, done - checked),
    )
    _measure(numbers, labels, batch, found, loaded.model)
    headers = (*_JSON, ("X-Model-Name", name), ("X-Model-Version", version))
    return Response(200, headers, native.encode(name, version, call.request_id, loaded.model.classes, found))


def _work(
    asked: Asked, limit: int, timer: Callable[[], float], model: Model
) -> tuple[Batch, Predictions, float, float]:
    """Return the rows, their predictions, and the times when each was there."""
    schema = model.schema
    batch = schema.batch(asked.rows(schema, limit))
    checked = timer()
    return batch, model.predict(batch), checked, timer()


def _model_of(services: Services, call: Call, asked: Asked) -> str:
    name, said = call.params.get("model"), asked.model
    if name is not None:  # the router has checked it
        if said not in (None, name):
            raise MalformedBody("path and body name different models")
        return name
    if said is None:
        return only_model(services, call.principal)
    if not is_name(said):
        raise InvalidName("model is not a legal name", field="model")
    call.principal.require_model(said)
    return said


def _version_of(call: Call, asked: Asked) -> str:
    """Return the version or alias that the request pins, by query, header or body; `production` by default."""
    request = call.request
    if not request.query and asked.version is None and "x-model-version" not in request.headers:
        return PRODUCTION
    pins = {query_of(request).get("version"), request.headers.get("x-model-version"), asked.version} - {None}
    if len(pins) > 1:
        raise MalformedBody("the request names different versions")
    ref = pins.pop() if pins else PRODUCTION
    if ref is None or not is_name(ref):
        raise InvalidName("version is not a legal name", field="version")
    return ref


def _measure(numbers: list[Update], labels: tuple[str], batch: Batch, found: Predictions, model: Model) -> None:
    """Add what is measured of rows and their answers."""
    for column in model.schema.columns:
        if column.kind == "text":
            texts = batch.columns[column.name]
            numbers += [("app_input_length_words", labels, text.count(" ") + 1) for text in texts]
    if found.labels is None:
        numbers.append(("model_prediction_count", (*labels, "_value"), batch.n_rows))
        return
    for label in set(found.labels):
        numbers.append(("model_prediction_count", (*labels, label), found.labels.count(label)))
    numbers += [("model_confidence", labels, max(row)) for row in found.probabilities or ()]


def models(services: Services, call: Call) -> Response:
    """Return the models in the caller's scope, a page at a time (`after`: the last name seen)."""
    names = sorted(filter(call.principal.sees, services.names()))
    after = query_of(call.request).get("after", "")
    page = [name for name in names if name > after]
    items = [_item(services, name) for name in page[:PAGE]]
    more = {"next": page[PAGE - 1]} if len(page) > PAGE else {}
    return json_response({"models": items, **more})


def _item(services: Services, name: str) -> dict[str, Any]:
    """Return a model of the list. A damaged one shows as failed and takes no other out of it."""
    try:
        return {"name": name, "version": services.predictor.target(name, PRODUCTION)}
    except NotFound:
        return {"name": name, "version": None}
    except IntegrityError:
        return {"name": name, "version": None, "status": "failed"}


def model(services: Services, call: Call) -> Response:
    """Return what a version (`version` in the query: id or alias) takes, answers and scored."""
    name = call.params["model"]
    ref = query_of(call.request).get("version", PRODUCTION)
    loaded = services.predictor.resolve(name, ref)
    manifest = loaded.model.manifest
    columns = [
        {"name": c.name, "kind": c.kind, "width": c.width, "values": list(c.values[:PAGE])}
        for c in loaded.model.schema.columns
    ]
    card = {
        "name": name,
        "version": loaded.version,
        "task": loaded.model.task,
        "classes": list(loaded.model.classes),
        "columns": columns,
        "estimator": manifest.get("estimator", {}).get("kind"),
        "metrics": manifest.get("facts", {}).get("metrics", {}),
    }
    return json_response(card, headers=(("X-Model-Name", name), ("X-Model-Version", loaded.version)))


# -- health and metrics ------------------------------------------------------------------------------------


def health(services: Services, call: Call) -> Response:
    """Return how this process does: its models, their versions, its age and work. Loads no further model."""
    _follow(services)
    states = [status for status in services.predictor.status() if status.alias == PRODUCTION]
    versions = {status.version for status in states}
    sound = all(status.status == "ready" for status in states)
    body = {
        "status": "healthy" if sound else "degraded",
        "models": _by_model(states),
        "model_version": versions.pop() if len(versions) == 1 else None,
        "uptime": round(max(0.0, services.timing.clock() - services.counters.started), 3),
        "predictions_count": services.counters.predictions(),
    }
    return json_response(body)


def _follow(services: Services) -> None:
    """Let the models in use follow their aliases: without traffic nothing else would look for a move."""
    for status in services.predictor.status():
        if status.alias == PRODUCTION:
            _warm(services, status.model)


def live(services: Services, call: Call) -> Response:
    """Return that this process runs."""
    return json_response({"live": True})


def ready(services: Services, call: Call) -> Response:
    """Return whether this process can answer; loads what was not loaded yet. 503 if no model there is can.

    One model that cannot be loaded shows as failed and takes no other out of service with it.
    """
    reachable = True
    try:
        for name in services.names()[:READY_MODELS]:
            _warm(services, name)
    except StoreError:
        reachable = False
    states = [status for status in services.predictor.status() if status.alias == PRODUCTION]
    able = any(status.status != "failed" for status in states) if states else reachable
    return json_response({"ready": able, "models": _by_model(states)}, 200 if able else 503)


def _warm(services: Services, name: str) -> None:
    try:
        services.predictor.resolve(name)
    except (NotFound, Unavailable):
        return  # without a production version there is nothing to load; a failure shows in the status


def _by_model(states: list[Status]) -> dict[str, Any]:
    return {status.model: {"status": status.status, "version": status.version} for status in states}


def metrics(services: Services, call: Call) -> Response:
    """Return the metrics of this process as Prometheus text."""
    uptime = max(0.0, services.timing.clock() - services.counters.started)
    services.telemetry.gauge("app_uptime_seconds", uptime)
    services.telemetry.gauge("app_active_requests", len(services.counters.active))
    _follow(services)
    text = services.telemetry.exposition()
    if text is None:
        raise NotFound("metrics are kept by the platform, not by this process")
    return Response(200, (("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")), text)
