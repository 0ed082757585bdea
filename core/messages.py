"""The JSON bodies of the native interface as types: they check control requests and make the spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
VersionId = Annotated[str, Meta(pattern="^v-[0-9a-f]{12}$", examples=["v-3f9a1c20b7de"])]
Reason = Annotated[str, Meta(max_length=256, description="Why, for the audit log.")]
Scalar = str | float | bool | None
Cell = Scalar | list[float]
Row = Annotated[
    dict[str, Cell], Meta(description="Column name to value; images are base64 of a PNG or JPEG file.")
]
Rows = Annotated[list[Row | list[Cell] | Scalar], Meta(min_length=1)]


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request body: a key that is not known is refused."""


class Answer(Struct, frozen=True, kw_only=True):
    """An answer body."""


class Frame(Request, frozen=True, kw_only=True):
    """Rows as pandas writes them with orient="split"."""

    columns: list[str]
    data: list[list[Cell]]
    index: list[Any] | UnsetType = UNSET


class PredictRequest(Request, frozen=True, kw_only=True):
    """Rows in exactly one of these forms; `text` and `image` may come with `features` as one row."""

    model: Name | UnsetType = UNSET
    version: Annotated[str, Meta(description="A version id or an alias.")] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    texts: list[str] | UnsetType = UNSET
    image: Annotated[str, Meta(description="Base64 of a PNG or JPEG file.")] | UnsetType = UNSET
    images: list[str] | UnsetType = UNSET
    features: Row | list[Cell] | UnsetType = UNSET
    rows: Rows | UnsetType = UNSET
    data: Rows | UnsetType = UNSET
    instances: Rows | UnsetType = UNSET
    inputs: Annotated[Any, Meta(description="Columns, rows, or Open Inference Protocol tensors.")] | UnsetType = (
        UNSET
    )
    dataframe_split: Frame | UnsetType = UNSET
    dataframe_records: list[Row] | UnsetType = UNSET
    input_data: Frame | UnsetType = UNSET
    id: str | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class Prediction(Answer, frozen=True, kw_only=True):
    """One row's answer: `label` of a classification, `value` of a regression."""

    label: str | UnsetType = UNSET
    probability: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    probabilities: dict[str, float] | UnsetType = UNSET
    value: float | UnsetType | None = UNSET


class PredictResponse(Answer, frozen=True, kw_only=True):
    """One entry a row, in input order, all by one version."""

    model: Name
    version: VersionId
    request_id: str
    predictions: list[Prediction]


class ModelItem(Answer, frozen=True, kw_only=True):
    """A model in a list; `version` is the one in production. With `status`, which it is cannot be read."""

    name: Name
    version: VersionId | None
    status: Literal["failed"] | UnsetType = UNSET


class Models(Answer, frozen=True, kw_only=True):
    """A page of models; `next` is what to give as `after` for the next page."""

    models: list[ModelItem]
    next: Name | UnsetType = UNSET


class ColumnCard(Answer, frozen=True, kw_only=True):
    """One input column; `values` are the categories seen in training."""

    name: str
    kind: Literal["text", "number", "category", "image", "vector"]
    width: int
    values: list[str]


class ModelCard(Answer, frozen=True, kw_only=True):
    """What a version takes, answers and scored."""

    name: Name
    version: VersionId
    task: Literal["classification", "regression"]
    classes: list[str]
    columns: list[ColumnCard]
    estimator: str | None
    metrics: dict[str, Any]


class Version(Answer, frozen=True, kw_only=True):
    """A published version; times are seconds since the epoch."""

    version: VersionId
    created: float
    metrics: dict[str, Any]
    size: int
    aliases: list[Name]
    gate: dict[str, Any] | None
    retired: float | None


class Versions(Answer, frozen=True, kw_only=True):
    """A model's versions, newest first."""

    model: Name
    versions: list[Version]


class PromoteRequest(Request, frozen=True, kw_only=True):
    """Which version (an id, or an alias to copy) an alias should point to."""

    version: Annotated[str, Meta(description="A version id or an alias.")]
    alias: Name = "production"
    expect_rev: Annotated[int, Meta(ge=0)] | None = None
    reason: Reason = ""


class AliasRequest(Request, frozen=True, kw_only=True):
    """Which version (an id, or an alias to copy) the alias of the path should point to."""

    version: Annotated[str, Meta(description="A version id or an alias.")]
    expect_rev: Annotated[int, Meta(ge=0)] | None = None
    reason: Reason = ""


class RollbackRequest(Request, frozen=True, kw_only=True):
    """Where production should go back to; the version before by default."""

    to: VersionId | None = None
    reason: Reason = ""


class Share(Answer, frozen=True, kw_only=True):
    """One version's part of an alias."""

    version: VersionId
    weight: float


class Alias(Answer, frozen=True, kw_only=True):
    """Where an alias points, how often it was moved, and when last."""

    model: Name
    alias: Name
    rev: int
    splits: list[Share]
    since: float


class AliasAt(Answer, frozen=True, kw_only=True):
    """Where an alias pointed at the time asked for."""

    rev: int
    splits: list[Share]
    since: float


class History(Answer, frozen=True, kw_only=True):
    """Entries of the audit log, newest first, and where each alias pointed after the newest of them."""

    model: Name
    entries: list[dict[str, Any]]
    aliases: dict[str, AliasAt]


class TrainRequest(Request, frozen=True, kw_only=True):
    """Which model to train with the data it has; the only model by default."""

    model: Name | UnsetType = UNSET
    reason: Reason = ""


class RetrainRequest(Request, frozen=True, kw_only=True):
    """New data as rows (with their labels) or as the key of an upload; without either, the data there is."""

    model: Name | UnsetType = UNSET
    rows: Annotated[list[Row], Meta(min_length=1)] | UnsetType = UNSET
    upload: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET
    reason: Reason = ""


class JobAccepted(Answer, frozen=True, kw_only=True):
    """The job that was accepted."""

    job_id: str
    status_url: str


class Job(Answer, frozen=True, kw_only=True):
    """How a job stands; `version` once published, `gate` once judged."""

    job_id: str
    model: Name
    kind: str
    key: str
    status: Literal["queued", "running", "succeeded", "rejected", "parked"]
    attempt: int
    version: VersionId | None
    gate: dict[str, Any] | None
    reason: str
    problems: list[dict[str, Any]]
    updated: float


class ModelStatus(Answer, frozen=True, kw_only=True):
    """Whether a model answers, and with which version in production."""

    status: Literal["ready", "fallback", "failed"]
    version: VersionId | None


class Health(Answer, frozen=True, kw_only=True):
    """How this process does; `uptime` in seconds, `predictions_count` in rows."""

    status: Literal["healthy", "degraded"]
    models: dict[str, ModelStatus]
    model_version: VersionId | None
    uptime: float
    predictions_count: int


class Live(Answer, frozen=True, kw_only=True):
    """This process runs."""

    live: bool


class Ready(Answer, frozen=True, kw_only=True):
    """Whether every model can answer."""

    ready: bool
    models: dict[str, ModelStatus]


class Fault(Answer, frozen=True, kw_only=True):
    """One thing wrong with an input."""

    message: str
    field: str | UnsetType = UNSET
    row: int | UnsetType = UNSET


class Problem(Answer, frozen=True, kw_only=True):
    """An error, as application/problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[Fault] | UnsetType = UNSET
    limit: int | UnsetType = UNSET


TYPES: dict[str, type[Struct]] = {
    kind.__name__: kind
    for kind in (
        *(PredictRequest, PredictResponse, Models, ModelCard, Version, Versions, PromoteRequest, AliasRequest),
        *(RollbackRequest, Alias, History, TrainRequest, RetrainRequest, JobAccepted, Job, Health, Live, Ready),
        Problem,
    )
}
_VERSION = "v-3f9a1c20b7de"
EXAMPLES: dict[str, Any] = {
    "PredictRequest": {"text": "my parcel is late again"},
    "PredictResponse": {
        "model": "support",
        "version": _VERSION,
        "request_id": "4bf92f3577b34da6",
        "predictions": [
            {"label": "delivery", "probability": 0.93, "probabilities": {"billing": 0.07, "delivery": 0.93}}
        ],
    },
    "PromoteRequest": {"version": _VERSION, "reason": "better on the holdout"},
    "AliasRequest": {"version": _VERSION},
    "RollbackRequest": {"reason": "complaints"},
    "TrainRequest": {"model": "support"},
    "RetrainRequest": {"model": "support", "rows": [{"text": "where is my box", "label": "delivery"}]},
    "JobAccepted": {"job_id": "support.0123456789abcdef", "status_url": "/jobs/support.0123456789abcdef"},
    "Problem": {
        "type": "urn:polysky:problem:invalid_input",
        "title": "Unprocessable Content",
        "status": 422,
        "code": "invalid_input",
        "detail": "1 bad cell(s)",
        "request_id": "4bf92f3577b34da6",
        "errors": [{"message": "must be a string", "field": "text", "row": 0}],
    },
}
