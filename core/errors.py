"""The one tree of errors. No HTTP status here: one table in `core.api` maps code to status."""

from __future__ import annotations

from typing import Any

from core.tuples import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with an input: where it is and which rule it breaks. Never echoes the value."""

    message: str
    field: str | None = None
    row: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, absent parts left out."""
        return {key: value for key, value in self._asdict().items() if value is not None}


class CoreError(Exception):
    """Base of all errors that core raises on purpose.

    `code` is stable and part of the public interface; `fields` are safe to show to a client and to log.
    """

    code = "internal"

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class ConfigError(CoreError):
    """A setting or a model spec is missing or wrong; names the setting, never a secret value."""

    code = "config"


class MalformedBody(CoreError):
    """The body is not strict JSON, or not the shape that the endpoint takes."""

    code = "malformed_body"


class InvalidInput(CoreError):
    """Well-formed input that breaks the schema; carries every problem found (up to a cap)."""

    code = "invalid_input"

    def __init__(self, message: str, problems: tuple[Problem, ...] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.problems = problems


class InvalidName(CoreError):
    """A model, version, alias or job name that does not match the allowed pattern."""

    code = "invalid_name"


class TooLarge(CoreError):
    """A body, file or batch over its limit; `fields` holds `limit`."""

    code = "too_large"


class UnsupportedMedia(CoreError):
    """A content type or content encoding that the endpoint does not take."""

    code = "unsupported_media"


class Unauthorized(CoreError):
    """No valid credentials."""

    code = "unauthorized"


class Forbidden(CoreError):
    """Valid credentials without the permission or the model scope."""

    code = "forbidden"


class NotFound(CoreError):
    """The route, model, version, alias or job does not exist."""

    code = "not_found"


class MethodNotAllowed(CoreError):
    """The path exists, not with this method; `fields` holds `allow`."""

    code = "method_not_allowed"


class Conflict(CoreError):
    """The operation is illegal in the current state (stale revision, fenced attempt, retired version)."""

    code = "conflict"


class DataRejected(CoreError):
    """A permanent fault of training data; `reason` is one of a fixed list (schema, classes, truncated, …)."""

    code = "data_rejected"

    def __init__(self, reason: str, message: str, problems: tuple[Problem, ...] = (), **fields: Any) -> None:
        super().__init__(message, reason=reason, **fields)
        self.reason = reason
        self.problems = problems


class FitFailed(CoreError):
    """Training raised, did not converge, or the portable model disagreed with scikit-learn."""

    code = "fit_failed"


class IntegrityError(CoreError):
    """Bytes do not match the sha256 that the log promises, or an artifact is not well formed."""

    code = "integrity_failure"


class Unavailable(CoreError):
    """A dependency is down for now; `fields` may hold `retry_after_s` and, for an unknown outcome, `op_id`."""

    code = "unavailable"


class StoreError(CoreError):
    """Base of what an ObjectStore raises."""

    code = "unavailable"


class Missing(StoreError):
    """No object at that key."""

    code = "not_found"


class Exists(StoreError):
    """put_if_absent found an object at that key."""

    code = "conflict"


class Stale(StoreError):
    """A conditional write or pinned read did not find the token it named."""

    code = "conflict"


class Denied(StoreError):
    """The store refused for lack of permission: never to be read as "missing"."""

    code = "unavailable"


class Transient(StoreError):
    """The call failed and may succeed later. For a write, the effect may or may not have happened."""

    code = "unavailable"
