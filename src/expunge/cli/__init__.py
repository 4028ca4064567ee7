"""The command line: one file per command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import io
import sys

import typer
from rich.console import Console
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
from expunge.cli.tune import tune_command
from expunge.errors import ExpungeError

app = typer.Typer(
    name="expunge",
    help="Remove bad training data from a trained classifier, and measure that it worked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo_command)
app.command("map")(map_command)
app.command("bench")(bench)
app.command("tune")(tune_command)
app.command("report")(report_command)
app.command("advise")(advise_command)
app.command("find")(find_command)
app.command("review")(review_command)
app.command("clean")(clean_command)
app.command("audit")(audit_command)
app.command("list")(list_names)
app.command("describe")(describe)

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
        Console(stderr=True).print(f"[bold red]error:[/] {escape(said)}", highlight=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            Console(stderr=True).print(escape(note), highlight=False, soft_wrap=True)
        sys.exit(1)
