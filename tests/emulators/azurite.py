"""Azure Blob Storage by Azurite, a node program: one process on a free port, blobs in its memory."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.store import ObjectStore
from tests.emulators.missing import absent

PROGRAM = Path(__file__).with_name("node_modules") / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
# the one account of every Azurite, published in its documentation
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# without --skipApiVersionCheck it refuses SDKs newer than itself
OPTIONS = ("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence")


class Azurite:
    """A running Azurite."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._numbers = itertools.count(1)

    def env(self) -> dict[str, str]:
        """Return the variables that lead SDK and reader here."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{ACCOUNT}",
            "POLYSKY_ALLOW_HTTP": "true",
        }

    def new_store_url(self) -> str:
        """Return the URL of a fresh, empty container."""
        from azure.storage.blob import BlobServiceClient

        name = f"store-{next(self._numbers)}"
        with BlobServiceClient(f"{self.endpoint}/{ACCOUNT}", credential=KEY) as account:
            account.create_container(name)
        return f"az://{name}"

    def open(self, url: str, endpoint: str | None = None) -> ObjectStore:
        """Return the handler's store; `endpoint` is another address of this emulator, such as a proxy's."""
        from handlers_azure.store import open_store

        address = f"{endpoint or self.endpoint}/{ACCOUNT}"
        return open_store(url, endpoint=address, allow_http=True, env=self.env())

    def upload(self, url: str, key: str, data: bytes) -> None:
        """Write an object as a person would, with the plain SDK."""
        from azure.storage.blob import BlobServiceClient

        container, _, prefix = url.removeprefix("az://").partition("/")
        name = f"{prefix}/{key}" if prefix else key
        with BlobServiceClient(f"{self.endpoint}/{ACCOUNT}", credential=KEY) as account:
            account.get_blob_client(container, name).upload_blob(data, overwrite=True)


@contextmanager
def start(*options: str) -> Iterator[Azurite]:
    """Run Azurite on a free port of this machine until the end of the block; `options` are more of its own."""
    if not PROGRAM.exists():
        absent("Azurite (an npm package)")
    command = [str(PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", "0", *OPTIONS, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Azurite(_address(process))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        _, found, address = line.partition("successfully listens on ")
        if found:
            return address.strip()
    raise RuntimeError("Azurite ended before it listened: " + "".join(said))
