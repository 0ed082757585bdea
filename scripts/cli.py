"""The `polysky` command: finds the command's module when it is asked for, and turns errors into one line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn, cast

import click

from core.errors import CoreError, IntegrityError, Problem

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
# the caller can mend these: exit code 2; all others are failures of what stands behind the command
_INPUT_CODES = {
    "config",
    "data_rejected",
    "forbidden",
    "invalid_input",
    "invalid_name",
    "malformed_body",
    "not_found",
    "too_large",
    "unauthorized",
    "unsupported_media",
}
_SHOWN = 5


class _Command(NamedTuple):
    module: str
    help: str


COMMANDS: Mapping[str, _Command] = {
    "init": _Command("spec", "Write a model spec (TOML) that fits a data file."),
    "train": _Command("training", "Train, prove and publish a version from a spec and a data file."),
    "evaluate": _Command("prediction", "Score a version on a labelled file."),
    "predict": _Command("prediction", "Predict the rows of a file."),
    "serve": _Command("serving", "Serve the store's models over HTTP and retrain from its uploads."),
    "worker": _Command("serving", "Run the waiting jobs once."),
    "models": _Command("models", "Versions, aliases, history; promote, roll back, retire."),
    "import": _Command("importing", "Turn a fitted scikit-learn pipeline or an ONNX file into a version."),
    "token": _Command("tokens", "Create, list and revoke API tokens."),
    "upload": _Command("jobs", "Drop a data file into the store, to be learnt from."),
    "jobs": _Command("jobs", "What became of uploads and requests."),
    "doctor": _Command("doctor", "Examine a store: does it keep the promises the registry is built on?"),
    "backup": _Command("backup", "Copy the registry into another store, whole and verified."),
    "restore": _Command("backup", "Copy a backup back into an empty store."),
    "package": _Command("packaging", "Build the zip files that a cloud's functions are deployed as."),
    "plan": _Command("planning", "Tell sizes, limits, rights and monthly costs of a deployment."),
    "deploy": _Command("deployment", "Make or update a cloud's stack: from nothing to a URL."),
    "status": _Command("deployment", "Tell what of a cloud's stack stands, and where it answers."),
    "destroy": _Command("deployment", "Remove a cloud's stack."),
    "demo": _Command("demo", "Train, serve, retrain and roll back three models in a temporary store."),
}


class _Commands(click.Group):
    """A group that imports a command's module only to run it: `polysky --help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, or None if there is none by this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"scripts.commands.{COMMANDS[cmd_name].module}")
        return cast(click.Command, getattr(module, f"{cmd_name}_command"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="polysky")
def cli() -> None:
    """Train, serve and retrain machine-learning models on plain object storage.

    The store is named by --store or POLYSKY_STORE; the default is the folder polysky-store.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None, *, command: click.Command = cli) -> int:
    """Run the command line, or one command of it; return the exit code. An error is one line on stderr."""
    try:
        name = "polysky" if command is cli else None
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except (click.ClickException, click.Abort, KeyboardInterrupt, CoreError, OSError) as error:
        return _fail(error)
    return code if isinstance(code, int) else 0


def _fail(error: BaseException) -> int:
    """Print what went wrong in one line; return the exit code."""
    message, code = str(error), FAILED
    if isinstance(error, click.ClickException):
        message, code = error.format_message(), error.exit_code
    elif isinstance(error, CoreError):
        message, code = one_line(error), REFUSED if error.code in _INPUT_CODES else FAILED
        if isinstance(error, IntegrityError) and "model" in error.fields:
            message = f"{error.fields['model']}: {message}"
    elif isinstance(error, BrokenPipeError):
        sys.stdout = None  # whoever read it is gone: nothing left to flush
        return code
    elif isinstance(error, OSError):
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        message, code = "interrupted", INTERRUPTED
    print("polysky:", " ".join(message.split()), file=sys.stderr)
    return code


def one_line(error: CoreError) -> str:
    """Return what is wrong and where: the message, then the first problems with row and field."""
    problems: Sequence[Problem] = getattr(error, "problems", ())
    told = [_told(problem) for problem in problems[:_SHOWN] if problem.message not in error.message]
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN and told else ""
    return error.message + (": " + "; ".join(told) + more if told else "")


def _told(problem: Problem) -> str:
    places = [f"row {problem.row}" if problem.row is not None else "", problem.field or ""]
    place = ", ".join(filter(None, places))
    return f"{place} {problem.message}" if place else problem.message


if __name__ == "__main__":
    main()
