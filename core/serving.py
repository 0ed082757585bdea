"""The use cases that need only the reader: predict, describe models, health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.api import Call, Services, only_model
from core.dialects import native
from core.errors import InvalidName, MalformedBody, NotFound, StoreError, Unavailable
from core.inference import PRODUCTION, Status
from core.keys import is_name
from core.telemetry import CONTENT_TYPE
from core.web import Response, json_response, media_type, query_of

if TYPE_CHECKING:
    from core.dialects.native import Asked
    from core.model import Model, Predictions
    from core.schema import Batch

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

    def work(model: Model) -> tuple[Batch, Predictions, float, float]:
        batch = model.schema.batch(asked.rows(model.schema, limit))
        checked = timer()
        return batch, model.predict(batch), checked, timer()

    (batch, found, checked, done), loaded = services.predictor.run(name, _version_of(call, asked), work)
    version = loaded.version
    call.facts.update(model=name, version=version, rows=batch.n_rows)
    _measure(services, name, batch, found, loaded.model)
    services.telemetry.observe("app_preprocessing_latency_seconds", checked - started, (name,))
    services.telemetry.observe("app_inference_latency_seconds", done - checked, (name,))
    headers = (*_JSON, ("X-Model-Name", name), ("X-Model-Version", version))
    return Response(200, headers, native.encode(name, version, call.request_id, loaded.model.classes, found))


def _model_of(services: Services, call: Call, asked: Asked) -> str:
    name = call.params.get("model")
    if name is None:
        name = asked.model
    elif asked.model is not None and asked.model != name:
        raise MalformedBody("path and body name different models")
    if name is None:
        name = only_model(services, call.principal)
    elif not is_name(name):
        raise InvalidName("model is not a legal name", field="model")
    call.principal.require_model(name)
    return name


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


def _measure(services: Services, name: str, batch: Batch, found: Predictions, model: Model) -> None:
    telemetry = services.telemetry
    services.counters.add(batch.n_rows)
    for column in model.schema.columns:
        if column.kind == "text":
            for text in batch.columns[column.name]:
                telemetry.observe("app_input_length_words", text.count(" ") + 1, (name,))
    if found.labels is None:
        telemetry.count("model_prediction_count", (name, "_value"), batch.n_rows)
        return
    if len(found.labels) == 1:
        telemetry.count("model_prediction_count", (name, found.labels[0]))
    else:
        for label in set(found.labels):
            telemetry.count("model_prediction_count", (name, label), found.labels.count(label))
    for row in found.probabilities or ():
        telemetry.observe("model_confidence", max(row), (name,))


def models(services: Services, call: Call) -> Response:
    """Return the models in the caller's scope, a page at a time (`after`: the last name seen)."""
    names = sorted(filter(call.principal.sees, services.names()))
    after = query_of(call.request).get("after", "")
    page = [name for name in names if name > after]
    items = [{"name": name, "version": _production_version(services, name)} for name in page[:PAGE]]
    more = {"next": page[PAGE - 1]} if len(page) > PAGE else {}
    return json_response({"models": items, **more})


def _production_version(services: Services, name: str) -> str | None:
    try:
        return services.predictor.target(name, PRODUCTION)
    except NotFound:
        return None


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
        "predictions_count": services.counters.predictions,
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
    """Return whether every model there is can answer; loads what was not loaded yet. 503 if not."""
    reachable = True
    try:
        for name in services.names()[:READY_MODELS]:
            _warm(services, name)
    except StoreError:
        reachable = False
    states = [status for status in services.predictor.status() if status.alias == PRODUCTION]
    able = all(status.status != "failed" for status in states) and (reachable or bool(states))
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
    _follow(services)
    text = services.telemetry.exposition()
    if text is None:
        raise NotFound("metrics are kept by the platform, not by this process")
    return Response(200, (("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")), text)
