"""`polysky backup` and `polysky restore`: the registry, copied from one store to another."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from core.errors import ConfigError, Denied, Transient
from scripts.console import json_option, print_json, progress_bar, read_settings, store_option

Function = TypeVar("Function", bound=Callable[..., Any])


def _tokens_option(function: Function) -> Function:
    told = "Whether access tokens are copied too (their digests; a token itself is stored nowhere)."
    return click.option("--tokens/--no-tokens", default=True, show_default=True, help=told)(function)


@click.command("backup")
@click.option("--to", "target", required=True, metavar="URL", help="Store URL or folder to copy to.")
@_tokens_option
@store_option
@json_option
def backup_command(*, target: str, tokens: bool, store: str | None, as_json: bool) -> None:
    """Copy models, versions, aliases, history and tokens into another store, and read all of it back.

    The target must be empty or an earlier backup of this store, which is then brought up to date. Nothing in it is
    overwritten. Uploads and jobs are not copied.
    """
    _copy(read_settings(store).store, target, tokens=tokens, as_json=as_json)


@click.command("restore")
@click.option("--from", "source", required=True, metavar="URL", help="Store URL or folder of the backup.")
@_tokens_option
@store_option
@json_option
def restore_command(*, source: str, tokens: bool, store: str | None, as_json: bool) -> None:
    """Copy a backup into an empty store; a restore that was cut short is taken up again."""
    _copy(source, read_settings(store).store, tokens=tokens, as_json=as_json)


def _copy(source: str, target: str, *, tokens: bool, as_json: bool) -> None:
    from core.backup import Copier
    from core.local_store import LocalStore
    from scripts.stores import open_store

    plain = read_settings(None).allow_http
    stores = [open_store(url, allow_http=plain) for url in (source, target)]
    folders = [os.path.realpath(store.root) for store in stores if isinstance(store, LocalStore)]
    if source.rstrip("/") == target.rstrip("/") or len(folders) - len(set(folders)):
        raise ConfigError("a store cannot be copied onto itself: name another")
    if isinstance(stores[0], LocalStore) and not os.path.isdir(folders[0]):
        raise ConfigError(f"there is no store at {source}")
    copier = Copier(*stores, sleep=time.sleep, rng=random.Random(), tokens=tokens)  # noqa: S311
    try:
        with progress_bar() as progress:
            copied = copier.run(progress)
    except (Denied, Transient) as error:
        looks = " and ".join(f"`polysky doctor --store {url}`" for url in (source, target) if "://" in url)
        hint = f": {looks} tells why" if looks else ""
        raise type(error)(f"{error.message}{hint}; run the same command again to go on") from None
    if as_json:
        print_json({"from": source, "to": target, **copied._asdict()})
        return
    held = f"{copied.models} models ({copied.entries} log entries, {copied.artifacts} artifacts)"
    brought = f"{copied.created} objects are new, {copied.created_bytes / 1e6:.1f} MB"
    click.echo(f"{target} holds {held} and {copied.tokens} tokens; {brought}")
