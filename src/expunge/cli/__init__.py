"""The command line: one file per command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import typer
from rich.markup import escape

import expunge
from expunge.cli.advise import advise_command
from expunge.cli.audit import audit_command
from expunge.cli.bench import bench
from expunge.cli.clean import clean_command
from expunge.cli.demo import demo_command
from expunge.cli.describe import describe
from expunge.cli.find import find_command
from expunge.cli.list import list_names
from expunge.cli.map import map_command
from expunge.cli.report import report_command
from expunge.cli.review import review_command
from expunge.cli.screen import Screen
from expunge.cli.tune import tune_command
from expunge.errors import ExpungeError

app = typer.Typer(
    name="expunge",
    help="Remove bad training data from a trained classifier, and measure that it worked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Repair a model": {
        "demo": demo_command,
        "find": find_command,
        "review": review_command,
        "clean": clean_command,
        "audit": audit_command,
    },
    "Compare methods": {
        "map": map_command,
        "bench": bench,
        "tune": tune_command,
        "report": report_command,
        "advise": advise_command,
    },
    "Look things up": {"list": list_names, "describe": describe},
}
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)

_LONGEST = 1600
"""Characters of an error that are shown: a screen."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(expunge.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; errors of expunge and of the system become a few lines and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
    try:
        app()
    except (ExpungeError, OSError) as error:
        said = str(error)
        if len(said) > _LONGEST:
            said = f"{said[: _LONGEST // 2]} ... {said[-_LONGEST // 2 :]}"
        Screen(stderr=True).print(f"[bold red]error:[/] {escape(said)}", soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            Screen(stderr=True).print(escape(note), soft_wrap=True)
        sys.exit(1)
