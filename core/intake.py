"""What lies in the inbox, read safely: exactly the generation that was claimed, whole, and checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from core import jobs
from core.dataset.limits import Limits
from core.dataset.reading import read_table
from core.dataset.table import Dataset
from core.errors import CoreError, DataRejected, Missing, Stale, Transient
from core.jobs import Pending
from core.shelf import Shelf
from core.spec import ModelSpec

MAX_REQUEST_BYTES = 1 << 16
_SIDECAR_BYTES = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


class OutOfRoom(CoreError):
    """Memory or disk is used up."""

    code = "resources"


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads items through temporary files in `scratch`; `free_bytes` tells how much room there is at a path."""

    shelf: Shelf
    limits: Limits = field(default_factory=Limits)
    scratch: str | None = None
    free_bytes: Callable[[str], int] = lambda path: shutil.disk_usage(path).free

    def read(self, item: Pending, spec: ModelSpec) -> tuple[Dataset | None, str]:
        """Return the rows of an upload and the sha256 of its bytes; None and "" for a request, which brings none.

        Raises DataRejected for what is wrong with the object itself, OutOfRoom, Transient, Denied.
        """
        inbox = jobs.parse_key(item.key)
        try:
            if inbox is not None and inbox.kind == "job":
                self._check_request(item)
                return None, ""
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                path = self._fetched(item, folder)
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                return read_table(path, spec, limits=self.limits), content
        except Missing:
            raise DataRejected("gone", "the object was removed before it was read") from None
        except Stale:
            raise DataRejected("superseded", "the object was replaced before it was read") from None
        except OSError as error:
            raise _trouble(error) from error

    def _fetched(self, item: Pending, folder: str) -> str:
        """Return the path of a copy of the claimed generation, with its `.sha256` beside it if it has one."""
        if item.size > self.limits.bytes:
            raise DataRejected("too_large", f"the file is over the limit of {self.limits.bytes} bytes")
        if self.free_bytes(folder) < 2 * item.size:
            raise OutOfRoom("there is no room for the upload")
        path = os.path.join(folder, "data")
        with open(path, "wb") as target:

            def fetch() -> None:
                target.seek(0)
                target.truncate()
                entry = self.shelf.store.fetch(item.key, target, item.token)
                if target.tell() != entry.size:
                    raise Transient("the object was cut on its way")

            self.shelf.backoff.call(fetch)
        with suppress(Missing):
            promised = self.shelf.backoff.call(lambda: self._sidecar(item.key + ".sha256"))
            with open(path + ".sha256", "wb") as target:
                target.write(promised)
        return path

    def _sidecar(self, key: str) -> bytes:
        store = self.shelf.store
        entry = store.head(key)
        if entry.size > _SIDECAR_BYTES:
            raise DataRejected("truncated", f"the .sha256 file beside it is over {_SIDECAR_BYTES} bytes")
        try:
            return store.get(key, entry.token).data
        except Stale:
            raise Transient("the .sha256 file was replaced before it was read") from None

    def _check_request(self, item: Pending) -> None:
        """Raise DataRejected unless the object is a request to train with the rows that are known."""
        if item.size > MAX_REQUEST_BYTES:
            raise DataRejected("malformed", f"the request is over {MAX_REQUEST_BYTES} bytes")
        blob = self.shelf.backoff.call(lambda: self.shelf.store.get(item.key, item.token))
        try:
            request = json.loads(blob.data)
            sound = request["kind"] in ("train", "retrain") and request.get("model", item.model) == item.model
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise DataRejected("malformed", "the request is not a JSON object with a kind of train or retrain")


def _trouble(error: OSError) -> CoreError:
    if error.errno in _FULL:
        return OutOfRoom("there is no room for the upload")
    return Transient(f"a temporary file failed: {error.strerror}")
