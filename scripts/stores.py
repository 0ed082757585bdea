"""Opens the store that a URL names, whichever cloud it is in, through that cloud's SDK."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import TYPE_CHECKING

from core.errors import ConfigError
from core.local_store import open_store as open_folder

if TYPE_CHECKING:
    from core.store import ObjectStore

PLATFORMS = {"s3": "handlers_aws", "gs": "handlers_gcp", "az": "handlers_azure"}


_ANOTHER_WAY_IN = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"),
    *("AZURE_CLIENT_ID", "IDENTITY_ENDPOINT", "AZURE_USE_AZURE_CLI"),
)


def use_login(url: str) -> None:
    """Let the reader that predicts take `az login` too, where the environment names no other way in."""
    if (
        url.startswith("az://")
        and not any(os.environ.get(name) for name in _ANOTHER_WAY_IN)
        and shutil.which("az")
    ):
        os.environ["AZURE_USE_AZURE_CLI"] = "true"  # obstore's own setting


def open_store(url: str, *, allow_http: bool = False) -> ObjectStore:
    """Return the store at a path, file://, s3://, gs:// or az:// URL. Raises ConfigError."""
    platform = PLATFORMS.get(url.partition("://")[0]) if "://" in url else None
    if platform is not None:
        found: ObjectStore = importlib.import_module(f"{platform}.store").open_store(url, allow_http=allow_http)
        return found
    folder = open_folder(url)
    if os.path.exists(folder.root) and not os.path.isdir(folder.root):
        raise ConfigError("the store is a file where a folder should be", setting="POLYSKY_STORE")
    return folder
