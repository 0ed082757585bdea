"""`polysky doctor`: may this store hold models?"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from core.errors import ConfigError, StoreError, Transient
from scripts.console import json_option, print_json, print_table, read_settings, store_option

if TYPE_CHECKING:
    from core.config import Settings
    from core.doctor import Finding

# what to look at when a store refuses or cannot be reached: names of settings, never their values
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_CONNECTION_STRING, or "
    "`az login` as somebody with the role Storage Blob Data Contributor)",
}
ENDPOINTS = {
    "s3": "AWS_REGION and AWS_ENDPOINT_URL",
    "gs": "STORAGE_EMULATOR_HOST",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
}


@click.command("doctor")
@click.option(
    "--keys",
    default=30,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Keys to list: 1001 and more go over one page of every cloud's listing.",
)
@store_option
@json_option
def doctor_command(*, keys: int, store: str | None, as_json: bool) -> None:
    """Examine a store: does it keep the promises that the registry is built on?

    Writes some objects below doctor/ and a random name, and removes them again. Fails if the store takes a
    conditional write that it must refuse: such a store would lose versions without a word.
    """
    from core.doctor import verdict

    settings = read_settings(store)
    try:
        findings = _examine(settings, keys)
    except StoreError as error:
        _explain(error, settings.store)
    except ConfigError as error:
        _name(error)
    wrong = verdict(findings)
    if as_json:
        told = [{"name": found.name, "ok": found.ok, "detail": found.detail} for found in findings]
        print_json({"ok": not wrong, "verdict": wrong or "the store is sound", "findings": told})
    else:
        rows = [(found.name, "ok" if found.ok else "FAILED", found.detail) for found in findings]
        print_table(("check", "result", "what was seen"), rows)
    if wrong:
        raise click.ClickException(wrong)


def _examine(settings: Settings, keys: int) -> list[Finding]:
    """Return what was found by the SDK that writes and by the reader that predicts. Raises as examine."""
    from core.doctor import PREFIX, examine
    from core.local_store import LocalStore
    from core.reader import open_reader
    from scripts.stores import open_store

    store = open_store(settings.store, allow_http=settings.allow_http)
    reader = open_reader(settings.store, allow_http=settings.allow_http)
    try:
        return examine(store, reader, clock=time.time, random_bytes=os.urandom, keys=keys)
    finally:
        if isinstance(store, LocalStore):
            _remove_empty(os.path.join(store.root, PREFIX))


def _remove_empty(root: str) -> None:
    """Remove the empty folders at and below `root`: a folder store keeps them when its objects are gone."""
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)


def _explain(error: StoreError, url: str) -> NoReturn:
    """Raise the error in words that name the settings to look at."""
    scheme = url.partition("://")[0]
    hint = f"check --store or POLYSKY_STORE{_and(CREDENTIALS.get(scheme))}"
    if isinstance(error, Transient):
        hint = f"check the network{_and(ENDPOINTS.get(scheme))}"
    raise type(error)(f"{error.message}: {hint}") from None


def _name(error: ConfigError) -> NoReturn:
    """Raise the error with the name of its setting in the message."""
    setting = error.fields.get("setting", "")
    raise ConfigError(error.message if setting in error.message else f"{error.message}: check {setting}") from None


def _and(settings: str | None) -> str:
    return f", {settings}" if settings else ""
