"""`polysky token create|list|revoke|export`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import click

from core.auth import ROLES
from core.tokens import create_token, export_records, list_tokens, revoke_token
from scripts.console import find_store, json_option, print_json, print_table, store_option

DAY_S = 86_400.0


@click.group("token")
def token_command() -> None:
    """Create, list and revoke API tokens."""


@token_command.command("create")
@click.option("--role", required=True, type=click.Choice(list(ROLES)), help="What the token may do.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only for this model (repeatable).")
@click.option("--label", default="", help="Whose token it is, for the log.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Valid for so many days.")
@store_option
@json_option
def create(
    *, role: str, models: tuple[str, ...], label: str, days: float | None, store: str | None, as_json: bool
) -> None:
    """Create a token and print it, this once: the store keeps only its hash."""
    ttl_s = None if days is None else days * DAY_S
    token, info = create_token(
        find_store(store),
        role,
        clock=time.time,
        random_bytes=os.urandom,
        label=label,
        models=models or None,
        ttl_s=ttl_s,
    )
    if as_json:
        print_json({"token": token, **info.as_dict()})
    else:
        click.echo(token)
        click.echo(f"{info.role} token {info.kid}; it is not shown again", err=True)


@token_command.command("list")
@store_option
@json_option
def show(store: str | None, as_json: bool) -> None:
    """List the tokens, revoked ones too."""
    found = list_tokens(find_store(store))
    if as_json:
        print_json([info.as_dict() for info in found])
        return
    rows = [
        (
            info.kid,
            info.role,
            ", ".join(info.models) if info.models is not None else "all",
            info.label,
            _day(info.created),
            _day(info.expires),
            _day(info.revoked),
        )
        for info in found
    ]
    print_table(("id", "role", "models", "label", "created", "expires", "revoked"), rows)


@token_command.command("revoke")
@click.argument("kid", metavar="ID")
@store_option
def revoke(kid: str, store: str | None) -> None:
    """Revoke a token; servers refuse it within 60 seconds."""
    info = revoke_token(find_store(store), kid, clock=time.time)
    click.echo(f"revoked {info.kid}")


@token_command.command("export")
@store_option
def export(store: str | None) -> None:
    """Print the records of all tokens that are good, for POLYSKY_TOKENS or a secret: hashes, no token."""
    print_json(export_records(find_store(store), now=time.time()))


def _day(time_s: float | None) -> str:
    return "" if time_s is None else datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")
