"""The use cases that need the store: versions, aliases, history, training jobs. Loaded by the first such call."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import msgspec

from core import jobs, messages, strict_json
from core.api import Call, Services, only_model
from core.errors import (
    CoreError,
    Exists,
    InvalidInput,
    InvalidName,
    MalformedBody,
    Missing,
    NotFound,
    Problem,
    Transient,
    Unavailable,
    UnsupportedMedia,
)
from core.keys import is_key, is_name, is_version
from core.registry import Registry, VersionView
from core.state import PRODUCTION, Alias, Split
from core.store import ObjectStore
from core.web import JSON, Response, dumps, json_response, media_type, query_of

MAX_HISTORY = 1000
_KEY = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
# media type of a data file → how its upload is named; the reader looks at the bytes
_DATA = {
    "text/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/vnd.apache.parquet": "parquet",
    "application/zip": "zip",
    "application/x-npz": "npz",
    "application/gzip": "gz",
    "application/octet-stream": "data",
}
M = TypeVar("M", bound=msgspec.Struct)


class IdempotencyMismatch(CoreError):
    """An Idempotency-Key came again with another request."""

    code = "idempotency_mismatch"


# -- versions and aliases ----------------------------------------------------------------------------------


def versions(services: Services, call: Call) -> Response:
    """Return a model's versions, newest first."""
    name = call.params["model"]
    found = _registry(services).versions(name)
    return json_response({"model": name, "versions": [_version(view) for view in found]})


def version(services: Services, call: Call) -> Response:
    """Return one version, given by its id or an alias."""
    name, ref = call.params["model"], call.params["version"]
    return json_response(_version(_find(_registry(services), name, ref)))


def retire(services: Services, call: Call) -> Response:
    """Retire a version. Raises Conflict while an alias points to it."""
    name, ref = call.params["model"], call.params["version"]
    registry, op_id = _registry(services), _op_id(services, call)
    _refuse_other(registry, name, op_id, {"op": "retire", "version": ref})
    registry.retire(name, ref, op_id=op_id, actor=call.principal.label, role=call.principal.role)
    return json_response(_version(_find(registry, name, ref)))


def promote(services: Services, call: Call) -> Response:
    """Point an alias at a version."""
    asked = _body(services, call, messages.PromoteRequest)
    return _move(services, call, asked.alias, asked)


def set_alias(services: Services, call: Call) -> Response:
    """Create or move the alias of the path."""
    return _move(services, call, call.params["alias"], _body(services, call, messages.AliasRequest))


def _move(
    services: Services, call: Call, alias: str, asked: messages.PromoteRequest | messages.AliasRequest
) -> Response:
    name, op_id = call.params["model"], _op_id(services, call)
    registry = _registry(services)
    target = _target(registry, name, asked.version)
    wanted = [{"version": split.version, "weight": split.weight} for split in target]
    _refuse_other(registry, name, op_id, {"op": "alias", "name": alias, "splits": wanted})
    moved = registry.move(
        name,
        alias,
        [(split.version, split.weight) for split in target],
        expect_rev=asked.expect_rev,
        op_id=op_id,
        actor=call.principal.label,
        role=call.principal.role,
        reason=asked.reason,
    )
    return json_response({"model": name, "alias": alias, **_alias(moved)})


def rollback(services: Services, call: Call) -> Response:
    """Point production back at the version before, or at the one asked for."""
    name, op_id = call.params["model"], _op_id(services, call)
    asked = _body(services, call, messages.RollbackRequest)
    registry = _registry(services)
    wanted = {"splits": [{"version": asked.to, "weight": 100}]} if asked.to else {}
    _refuse_other(registry, name, op_id, {"op": "alias", "rollback": True, **wanted})
    moved = registry.rollback(
        name,
        to=asked.to,
        op_id=op_id,
        actor=call.principal.label,
        role=call.principal.role,
        reason=asked.reason,
    )
    return json_response({"model": name, "alias": PRODUCTION, **_alias(moved)})


def history(services: Services, call: Call) -> Response:
    """Return the audit log up to a time, and where each alias pointed then."""
    name, query = call.params["model"], query_of(call.request)
    at = _time(query["at"]) if "at" in query else None
    limit = query.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_HISTORY):
        raise MalformedBody(f"limit must be a whole number from 1 to {MAX_HISTORY}")
    found = _registry(services).history(name, at, int(limit))
    aliases = {alias: _alias(where) for alias, where in found.aliases.items()}
    return json_response({"model": name, "entries": found.entries, "aliases": aliases})


def _find(registry: Registry, model: str, ref: str) -> VersionView:
    target = ref if is_version(ref) else registry.resolve(model, ref)[0].version
    for view in registry.versions(model):
        if view.version == target:
            return view
    raise NotFound("no such version or alias")


def _target(registry: Registry, model: str, ref: str) -> tuple[Split, ...]:
    if not is_name(ref):
        raise InvalidName("version is not a legal name", field="version")
    return registry.resolve(model, ref)


def _version(view: VersionView) -> dict[str, Any]:
    return {
        "version": view.version,
        "created": view.created,
        "metrics": view.metrics,
        "size": view.size,
        "aliases": list(view.aliases),
        "gate": view.gate,
        "retired": view.retired,
    }


def _alias(alias: Alias) -> dict[str, Any]:
    splits = [{"version": split.version, "weight": split.weight} for split in alias.splits]
    return {"rev": alias.rev, "splits": splits, "since": alias.ts}


def _time(text: str) -> float:
    """Return seconds since the epoch. Raises MalformedBody."""
    try:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text, re.ASCII):
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise MalformedBody("at must be seconds since the epoch or an ISO 8601 time") from None


# -- jobs --------------------------------------------------------------------------------------------------


def train(services: Services, call: Call) -> Response:
    """Accept a job that trains a model with the data it has."""
    asked = _body(services, call, messages.TrainRequest)
    return _request_job(services, call, "train", _model(services, call, asked.model), asked.reason)


def retrain(services: Services, call: Call) -> Response:
    """Accept new data, as rows, as an upload's key or as a data file, or a job without new data."""
    if _brings_file(call):
        return _accept_file(services, call)
    asked = _body(services, call, messages.RetrainRequest, services.settings.max_upload_bytes)
    name = _model(services, call, asked.model)
    if asked.rows is not msgspec.UNSET and asked.upload is not msgspec.UNSET:
        raise MalformedBody("body holds data twice: under rows and under upload")
    if asked.rows is not msgspec.UNSET:
        return _accept_data(services, call, name, b"".join(dumps(row) + b"\n" for row in asked.rows), "jsonl")
    if asked.upload is not msgspec.UNSET:
        return _accept_upload(services, call, name, asked.upload)
    return _request_job(services, call, "retrain", name, asked.reason)


def job(services: Services, call: Call) -> Response:
    """Return how a job stands."""
    name = call.params["job"]
    call.principal.require_model(name.partition(".")[0])
    view = jobs.view(_registry(services), name, now=services.timing.clock())
    return json_response({**view._asdict(), "problems": [dict(problem) for problem in view.problems]})


def _request_job(services: Services, call: Call, kind: str, model: str, reason: str) -> Response:
    """Write the request under jobs/: the store's own trigger, or a poll, takes it from there."""
    digest = hashlib.sha256(dumps([kind, model, reason])).hexdigest()
    document = {
        "kind": kind,
        "model": model,
        "actor": call.principal.label,
        "role": call.principal.role,
        "reason": reason,
        "request_id": call.request_id,
        "created": services.timing.clock(),
        "digest": digest,
    }
    key = f"jobs/{model}/{_op_id(services, call)}.json"
    token = _create(_store(services), key, dumps(document), lambda found: _digest(found) == digest)
    return _accepted(services, call, model, key, token)


def _brings_file(call: Call) -> bool:
    """Tell whether the body is meant as a data file; an empty one is a file that was cut, not a wish."""
    headers = call.request.headers
    if call.request.body:
        return media_type(headers) != JSON
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _DATA


def _accept_file(services: Services, call: Call) -> Response:
    limit = services.settings.max_upload_bytes
    media = media_type(call.request.headers)
    if media not in _DATA:
        raise UnsupportedMedia(f"Content-Type must be {JSON} or one of {', '.join(_DATA)}")
    model = _model(services, call, query_of(call.request).get("model", msgspec.UNSET))
    data = call.content(limit)
    if not data:
        raise InvalidInput("there is no data", (Problem("must hold at least one row"),))
    return _accept_data(services, call, model, data, _DATA[media])


def _accept_data(services: Services, call: Call, model: str, data: bytes, ending: str) -> Response:
    """Store the data as an upload, named by its content, or by the Idempotency-Key: repeating has no effect."""
    named = "idempotency-key" in call.request.headers
    name = _op_id(services, call) if named else hashlib.sha256(data).hexdigest()[:32]
    key = f"uploads/{model}/{name}.{ending}"
    token = _create(_store(services), key, data, lambda found: found == data)
    return _accepted(services, call, model, key, token)


def _accept_upload(services: Services, call: Call, model: str, key: str) -> Response:
    """Accept data that lies in the inbox: being there, it is a job already."""
    if not (key.startswith(f"uploads/{model}/") and is_key(key) and jobs.parse_key(key)):
        text = f"must be a key under uploads/{model}/"
        raise InvalidInput(f"upload {text}", (Problem(text, "upload"),))
    try:
        entry = _store(services).head(key)
    except Missing:
        raise NotFound("there is no such upload") from None
    return _accepted(services, call, model, key, entry.token)


def _accepted(services: Services, call: Call, model: str, key: str, token: str) -> Response:
    name = jobs.job_id(model, jobs.source_id(key, token))
    url = f"{services.settings.base_path}/jobs/{name}"
    call.facts.update(model=model, job=name)
    services.telemetry.count("retraining_events_count", (model, "requested"))
    return json_response({"job_id": name, "status_url": url}, 202, (("Location", url),))


def _model(services: Services, call: Call, asked: str | msgspec.UnsetType) -> str:
    """Return the model that path or body names, or the only one. Raises NotFound for one that does not exist."""
    name = call.params.get("model")
    if name is None:
        name = only_model(services, call.principal) if asked is msgspec.UNSET else asked
    elif asked is not msgspec.UNSET and asked != name:
        raise MalformedBody("path and body name different models")
    if not is_name(name):
        raise InvalidName("model is not a legal name", field="model")
    call.principal.require_model(name)
    if _registry(services).state(name).head < 0:
        raise NotFound("no such model")
    return name


def _create(store: ObjectStore, key: str, data: bytes, same: Callable[[bytes], bool]) -> str:
    """Return the token of the object at `key`, created now or by an earlier, equal call."""
    try:
        return store.put_if_absent(key, data)
    except Exists:
        found = store.get(key)
    except Transient as error:
        found = _landed(store, key, error)
    if not same(found.data):
        raise IdempotencyMismatch("this Idempotency-Key was used with another body")
    return found.token


def _landed(store: ObjectStore, key: str, error: Transient) -> Any:
    try:
        return store.get(key)
    except Missing:
        raise Unavailable("it is not known whether this was stored: repeat the call", retry_after_s=1.0) from error


def _digest(data: bytes) -> str | None:
    try:
        found = json.loads(data).get("digest")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


# -- what all of them need ---------------------------------------------------------------------------------


def _registry(services: Services) -> Registry:
    """Return the registry of this process, made by the first call."""
    found: Registry | None = services.kept.get("registry")
    if found is None:
        rng = random.Random(int.from_bytes(services.random_bytes(16), "big"))  # noqa: S311 - jitter and ids
        made = Registry(
            _store(services), clock=services.timing.clock, sleep=services.sleep, rng=rng, actor="system:api"
        )
        found = services.kept.setdefault("registry", made)
    return found


def _store(services: Services) -> ObjectStore:
    if services.store is None:
        raise NotFound("this process only predicts")
    return services.store


def _op_id(services: Services, call: Call) -> str:
    """Return the operation's id: from the Idempotency-Key and its user, else random."""
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return services.random_bytes(16).hex()
    if not _KEY.fullmatch(key):
        raise MalformedBody("Idempotency-Key must be 1 to 128 visible ASCII characters")
    text = "\n".join((call.principal.kid, call.request.method, call.request.path, key))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _refuse_other(registry: Registry, model: str, op_id: str, wanted: Mapping[str, Any]) -> None:
    """Raise IdempotencyMismatch if `op_id` is in the log with another effect."""
    n = registry.state(model).seen(op_id)
    if n is None:
        return
    entry = registry.ledger(model).entry(n)
    if any(entry.get(name) != value for name, value in wanted.items()):
        raise IdempotencyMismatch("this Idempotency-Key was used with another request")


def _body(services: Services, call: Call, kind: type[M], limit: int = 0) -> M:
    """Return the JSON body as a message; no body is an empty one. Raises MalformedBody, InvalidInput."""
    value: Any = {}
    if call.request.body:
        if media_type(call.request.headers) != JSON:
            raise UnsupportedMedia(f"Content-Type must be {JSON}")
        value = strict_json.loads(call.content(limit or services.settings.max_body_bytes))
    if not isinstance(value, dict):
        raise MalformedBody("body must be a JSON object")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        _refuse(str(error))


def _refuse(text: str) -> NoReturn:
    """Raise InvalidInput for what msgspec said: rules, names and types, and the place."""
    message, _, place = text.partition(" - at ")
    field = place.strip("`").removeprefix("$.")[:64] or None
    raise InvalidInput("the body does not fit: " + message[:200], (Problem(message[:200], field),))
