"""The store's layout: which key holds what, which names are legal, and which keys no store may touch.

uploads/{model}/…                           inbox of data files
jobs/{model}/{id}.json                      inbox of requests
reg/{model}/log/{n:012d}.json               the ledger: created once, never changed, never deleted
reg/{model}/ckpt/{n:012d}.json              fold(0..n); derived
reg/{model}/art/{src12}/{attempt}/{sha256}  artifact bytes; created once; collectable
reg/{model}/alias/{ref}.json                where an alias or a version points; derived
reg/_models/{model}.json                    one marker for each model that has a ledger
"""

from __future__ import annotations

import re

from core.errors import InvalidName

MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_VERSION = re.compile(r"v-[0-9a-f]{12}", re.ASCII)
MODELS_PREFIX = "reg/_models/"


def is_name(text: str) -> bool:
    """Return whether `text` may name a model or an alias."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Return whether `text` has the form of a version id."""
    return _VERSION.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """Return `text` if it may name a model or an alias; `what` is the field. Raises InvalidName."""
    if not is_name(text):
        raise InvalidName(f"{what} must match [a-z0-9][a-z0-9-]{{0,62}}", field=what)
    return text


def is_key(key: str) -> bool:
    """Return whether `key` is a relative path without tricks that every store can hold.

    Refused: empty, absolute or doubled slashes, `.` and `..` segments, backslash, NUL, text that is not UTF-8,
    over-long keys and segments, and whatever lies under a first segment that starts with `.tmp`.
    """
    if not key or key.startswith(".tmp") or "\\" in key or "\0" in key:
        return False
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        return False
    segments = raw.split(b"/")
    if len(raw) > MAX_KEY_BYTES or b"" in segments or b"." in segments or b".." in segments:
        return False
    return len(max(segments, key=len)) <= MAX_SEGMENT_BYTES


def check_key(key: str) -> str:
    """Return `key` if a store may hold it. Raises InvalidName."""
    if not is_key(key):
        raise InvalidName("not a legal object key", field="key")
    return key


def alias_key(model: str, ref: str) -> str:
    """Return the key of the document that says where an alias, or a published version id, points."""
    return f"reg/{model}/alias/{ref}.json"


def alias_prefix(model: str) -> str:
    """Return the prefix of a model's alias documents."""
    return f"reg/{model}/alias/"


def log_prefix(model: str) -> str:
    """Return the prefix of a model's log entries."""
    return f"reg/{model}/log/"


def log_key(model: str, n: int) -> str:
    """Return the key of log entry `n`."""
    return f"reg/{model}/log/{n:012d}.json"


def checkpoint_prefix(model: str) -> str:
    """Return the prefix of a model's checkpoints."""
    return f"reg/{model}/ckpt/"


def checkpoint_key(model: str, n: int) -> str:
    """Return the key of the checkpoint that covers entries 0..n."""
    return f"reg/{model}/ckpt/{n:012d}.json"


def artifact_prefix(model: str) -> str:
    """Return the prefix of all artifacts of a model."""
    return f"reg/{model}/art/"


def artifact_key(model: str, src: str, attempt: int, sha256: str) -> str:
    """Return the key of an artifact's bytes."""
    return f"reg/{model}/art/{src[:12]}/{attempt}/{sha256}"


def model_key(model: str) -> str:
    """Return the key of the marker that lists a model."""
    return f"{MODELS_PREFIX}{model}.json"


def number_of(key: str) -> int | None:
    """Return n of a log or checkpoint key, None if the last segment is not twelve digits and `.json`."""
    name = key.rpartition("/")[2]
    digits = name.removesuffix(".json")
    regular = len(digits) == 12 and digits.isascii() and digits.isdigit() and name != digits
    return int(digits) if regular else None
