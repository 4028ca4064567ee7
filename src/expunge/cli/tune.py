"""``expunge tune``: a method's settings, searched on held-out training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
import tomlkit.items as toml
import typer
from rich.markup import escape
from rich.table import Table
from tomlkit.exceptions import TOMLKitError

from expunge.cli.options import numbers
from expunge.cli.screen import INTERRUPTED, Screen, with_progress
from expunge.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from expunge.sweep.tune import Tuned


def tune_command(
    method: str = typer.Argument(..., help='A method by name, or a "module:Class" path.'),
    grid: str = typer.Option("digits-forgetting", help="A TOML file, or the name of a packaged grid."),
    trials: int = typer.Option(20, help="How many settings are tried; the first are the untuned ones."),
    tuning_seeds: str = typer.Option("100,101", help="Of data, training and unlearning; none of the grid's."),
    seed: int = typer.Option(0, help="Of the sampler."),
    oracle: bool = typer.Option(False, help="Score by the distance to the retrained model (an oracle)."),
    data_root: Path | None = typer.Option(None, help="Folder the data lies in; by default $EXPUNGE_DATA."),
    device: str | None = typer.Option(None, help="Torch device; by default an accelerator if there is one."),
    write: Path | None = typer.Option(None, help="Add or replace the method's table in this TOML file."),
) -> None:
    """Search a method's settings on validation images; the test set and the truth are never read.

    Ctrl-C ends the search and shows the best of the trials that are finished; then --write writes nothing.
    """
    console = Screen()
    seeds = numbers("--tuning-seeds", tuning_seeds)

    from dataclasses import replace

    from expunge.sweep.grid import Grid, Setup
    from expunge.sweep.preset import Preset
    from expunge.sweep.tune import tune
    from expunge.training.numerics import Numerics

    chosen = Grid.read(grid)
    started = Preset.named(grid).make_method(method)
    data = replace(chosen.data, root=str(data_root)) if data_root else chosen.data
    chosen = replace(chosen, data=data, setups=(Setup(chosen.single().recipe, (started,)),))
    before = ""
    if write is not None:
        before = _read(write)
        replace_table(before, method, {}, "")  # a file that cannot be edited is found before the work
    numerics = Numerics.choose(device, data.load("cpu").shape[1])
    tuned = with_progress(
        console,
        lambda report: tune(
            method, chosen, trials=trials, seed=seed, oracle=oracle, report=report, tuning_seeds=seeds,
            numerics=numerics,
        ),
        "interrupted before a trial was finished; nothing was kept",
    )  # fmt: skip
    console.print(_table(method, tuned))
    values = _values(method, tuned, Preset.named(grid).methods.get(method, {}))
    comment = _comment(tuned, seeds, seed)
    console.print()
    print(replace_table("", method, values, comment), end="")  # as it is, to be copied
    if tuned.interrupted:
        unwritten = "" if write is None else f"; {write} was not touched"
        console.plain(
            f"\ninterrupted after {len(tuned.trials)} of {trials} trials: this is the best of them{unwritten}"
        )
        raise typer.Exit(INTERRUPTED)
    if write is not None:
        try:
            write.parent.mkdir(parents=True, exist_ok=True)
            write.write_text(replace_table(before, method, values, comment), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{write} cannot be written: {error}; copy the table above by hand") from error
        console.plain(f"\nwrote [methods.{method}] to {write}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--write: {path} cannot be read: {error}; name a TOML file") from error


def _table(method: str, tuned: Tuned) -> Table:
    table, names = (
        Table(title=f"{escape(method)}: {tuned.rule}", title_justify="left"),
        list(tuned.best.settings),
    )
    for heading in ("trial", "score", *names, "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("remark")
    for trial in sorted(tuned.trials, key=lambda trial: (trial.status != "done", -trial.score)):
        remark = "untuned" if trial.number == 0 else ""
        if trial.status != "done":
            remark = f"{remark} failed: {trial.error.splitlines()[0]:.60}".strip()
        shown = [f"{trial.settings[name]:.4g}" if isinstance(trial.settings[name], float)
                 else str(trial.settings[name]) for name in names]  # fmt: skip
        score = f"{trial.score:.4f}"
        table.add_row(str(trial.number + 1), score, *shown, f"{trial.seconds:.1f}", escape(remark))
    return table


def _values(method: str, tuned: Tuned, table: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the tuned method by itself: the searched settings and all that are not the defaults."""
    from expunge.api import load_method

    defaults, settings = load_method(method).settings(), tuned.method.settings()
    return {
        name: value
        for name, value in settings.items()
        if value is not None and (name in tuned.best.settings or name in table or value != defaults[name])
    }


def _comment(tuned: Tuned, seeds: Sequence[int], seed: int) -> str:
    """One line: budget, seeds, rule and date."""
    budget = tuned.budget
    return (
        f"tuned by {budget['trials']} trials ({budget['seconds']:.0f} s, {budget['sample_gradients']} sample "
        f"gradients), tuning seeds {', '.join(map(str, seeds))}, sampler seed {seed}, "
        f"score {tuned.best.score:.4f} = {tuned.rule}, {datetime.now(UTC).date().isoformat()}"
    )


def replace_table(text: str, name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return ``text`` with exactly the table ``[methods.NAME]`` replaced, or added at the end.

    A later pattern such as ``[methods."*"]`` would win over the table, so the table is moved to the end if
    one that matches the method comes after it.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise InvalidInput(
            f"the file to be written to is not valid TOML: {error}; correct it first"
        ) from error
    methods = document.get("methods", {})
    made = _toml_table(values, comment)
    there = methods.get(name)
    if isinstance(methods, toml.InlineTable) or not (
        there is None or (isinstance(there, toml.Table) and not there.is_super_table())
    ):
        raise InvalidInput(
            f"the settings of {name!r} in that file are not a plain table [methods.{name}], so they cannot be "
            "replaced without touching the rest; write them as such a table, or leave out --write"
        )
    if there is not None and not _overruled(list(methods), name):
        body = there.value.body
        last = max((place for place, (key, _) in enumerate(body) if key is not None), default=-1)
        # What follows the last setting are comments of the next table.
        for _, item in body[last + 1 :]:
            if isinstance(item, toml.Comment | toml.Whitespace):
                made.add(item)
        made.add(tomlkit.ws(""))  # else a blank line is added, which parts a comment from its table
        methods[name] = made
        return tomlkit.dumps(document)
    if there is not None:
        del methods[name]
    alone = tomlkit.table(is_super_table=True).append(name, made)
    added = tomlkit.dumps(tomlkit.document().append("methods", alone))
    kept = tomlkit.dumps(document).rstrip("\n")
    return f"{kept}\n\n{added}" if kept else added


def _toml_table(values: Mapping[str, Any], comment: str) -> toml.Table:
    made = tomlkit.table()
    if comment:
        made.add(tomlkit.comment(comment))
    for key, value in values.items():
        try:
            made.append(key, _item(value))
        except TOMLKitError as error:
            raise InvalidInput(f"{value!r} has no form in TOML; set it in the file by hand") from error
    return made


def _item(value: Any) -> Any:
    """A value on one line; entries of a table that are ``None`` are left out, since TOML has no such value."""
    if isinstance(value, Mapping):
        made = tomlkit.inline_table()
        made.update({key: _item(entry) for key, entry in value.items() if entry is not None})
        return made
    return tomlkit.item(list(value) if isinstance(value, tuple) else value)


def _overruled(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns[patterns.index(name) + 1 :])
