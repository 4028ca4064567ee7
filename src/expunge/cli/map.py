"""``expunge map``: methods on the map of corrupted-data tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from expunge.cli.options import items, numbers, takes
from expunge.cli.screen import Screen
from expunge.cli.sweep import Running, finish
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.sweep.preset import Preset

DEFAULT_METHODS = "none,retrain,finetune,npo,delete,scrub,rem,relearn"


@takes(running=Running)
def map_command(
    data: str = typer.Option("digits", help="Data set by name, or a path to an .npz file."),
    methods: str = typer.Option(DEFAULT_METHODS, help="Names, separated by commas."),
    regularity: str = typer.Option(
        "random,interclass,poison", help="Names or numbers in 0..1 (0 random, 0.5 interclass, 1 poison)."
    ),
    discovery: str = typer.Option("0.1,0.5,1.0", help="Known shares of the corruption, in (0, 1]."),
    seeds: str = typer.Option("0", help="Seeds; each draws its own corruption and trains its own model."),
    model: str | None = typer.Option(None, help="Architecture by name; by default the data set's."),
    out: Path = typer.Option(Path("out/map"), help="Folder of the store, results.csv and map.svg."),
    n_train: int | None = typer.Option(None, help="Use a class-balanced part of the training images."),
    imbalance: float | None = typer.Option(
        None, help="Share of its images that the last class keeps; the first keeps all."
    ),
    n_unseen: int | None = typer.Option(
        None, help="Hold out so many training images for methods that need unseen ones (lotus, scrub_rewind)."
    ),
    n_corrupted: int | None = typer.Option(None, help="Number of corrupted images."),
    settings: list[str] = typer.Option(
        [],
        "--set",
        help="Another setting: METHOD.FIELD=VALUE, recipe.FIELD=VALUE or task.FIELD=VALUE. Repeatable.",
    ),
    preset: str | None = typer.Option(
        None, help="A packaged preset by name, or a TOML file, in place of the data set's own."
    ),
    *,
    running: Running,
) -> None:
    """Run methods over regularity x discovery rate, and draw the map.

    The same command again runs only what is missing. Exit code 3: some cell has failed.
    """
    console = Screen()
    overrides = _overrides(settings)
    # Names and numbers are checked before anything is loaded or trained.
    names = items("--methods", methods)
    rates = numbers("--discovery", discovery, float)
    chosen_seeds = numbers("--seeds", seeds)
    running.check()

    from expunge.results.charts import map_chart, write_chart
    from expunge.results.frame import measurements
    from expunge.results.original_models import learned_shares, not_learned
    from expunge.results.summary import summarise
    from expunge.store.store import Store
    from expunge.sweep.grid import Grid, Setup
    from expunge.sweep.plan import DataChoice
    from expunge.sweep.preset import Preset
    from expunge.training.numerics import Numerics

    if n_corrupted is not None:
        overrides.setdefault("task", {})["n_corrupted"] = n_corrupted
    chosen = _with_overrides(Preset.named(preset) if preset else Preset.of(data), overrides)
    tasks = [
        chosen.make_task(regularity=item, discovery=rate)
        for item in items("--regularity", regularity)
        for rate in rates
    ]
    recipe = chosen.make_recipe(model)
    for owner in overrides:
        if owner not in names:
            raise InvalidInput(
                f"--set names {owner!r}, which is neither recipe, task nor one of the methods to be run "
                f"({', '.join(names)})"
            )
    built = tuple(chosen.make_method(name, overrides.get(name)) for name in names)
    root = str(running.data_root) if running.data_root else None
    choice = DataChoice(data, root, n_train, n_unseen, imbalance)
    images = choice.load("cpu")
    numerics = Numerics.choose(running.device, images.shape[1])
    grid = Grid(choice, tuple(tasks), (Setup(recipe, built),), chosen_seeds)
    plan = grid.plan(numerics)
    workers = running.processes(numerics.device)
    console.print(
        f"[bold]{escape(images.name)}[/]: {len(images.train_labels)} training images, {recipe.model}, "
        f"{len(plan.cells)} cells, {len(plan.trainings)} original models, {numerics.device} {numerics.dtype}, "
        f"{counted(workers, 'worker')}"
    )
    trackers = running.trackers(console, out)
    with Store(out) as store:
        swept = running.run(console, grid, plan, store, out, trackers, workers=workers)
        unlearned = not_learned(swept.records, learned_shares(swept.records, store.weights))
    write_chart(map_chart(summarise(measurements(swept.records)), unlearned), out / "map.svg")
    finish(console, swept, f"{out / 'map.svg'}, {out / 'results.csv'} and the store beside them")


def _overrides(settings: list[str]) -> dict[str, dict[str, Any]]:
    """Read ``OWNER.FIELD=VALUE``; values are TOML, anything else is text."""
    from expunge.inputs.specification import plain_value

    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        owner, dot, field = path.rpartition(".")  # a method's own path has dots too
        if not (equals and dot and owner and field):
            raise InvalidInput(f"--set takes METHOD.FIELD=VALUE, got {setting!r}")
        found.setdefault(owner.strip(), {})[field.strip()] = plain_value(text)
    return found


def _with_overrides(preset: Preset, overrides: dict[str, dict[str, Any]]) -> Preset:
    from dataclasses import replace

    recipe = {**preset.recipe, **overrides.pop("recipe", {})}
    if "lr" in recipe:
        recipe["optimiser"] = {**recipe.get("optimiser", {}), "lr": recipe.pop("lr")}
    return replace(preset, task={**preset.task, **overrides.pop("task", {})}, recipe=recipe)
