"""``expunge bench``: a sweep described in a file."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from expunge.cli.options import items, numbers, takes
from expunge.cli.screen import Screen
from expunge.cli.sweep import Running, finish
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.engine import Engine
    from expunge.store.store import Store
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan, Reference, Training
    from expunge.training.numerics import Numerics

GRIDS = sorted(
    entry.name.removesuffix(".toml")
    for entry in resources.files("expunge.grids").iterdir()
    if entry.name.endswith(".toml") and "\nrun = " in entry.read_text(encoding="utf-8")
)
"""The packaged grids; the other packaged files hold settings alone."""
_REFERENCE = "retrain"
"""The method the others of a forgetting task are compared with."""


@takes(running=Running)
def bench(
    grid: str = typer.Argument(..., help=f"A TOML file, or a packaged grid: {', '.join(GRIDS)}."),
    out: Path = typer.Option(Path("out/bench"), help="Folder of the store, the weights and results.csv."),
    store: str | None = typer.Option(
        None, help="SQLAlchemy URL of a database that holds the records instead, for several machines."
    ),
    weights: str | None = typer.Option(
        None, help="Folder or fsspec URL of the weights instead of OUT/weights."
    ),
    devices: int = typer.Option(
        1,
        help="Devices that share the steps of a training, one cell at a time: GPUs, or processes on the CPU.",
    ),
    strategy: str = typer.Option(
        "auto",
        help="With --devices: ddp (the default), or fsdp, which divides gradients and optimiser state.",
    ),
    ray: str | None = typer.Option(
        None, help="Run on a Ray cluster: its address, or 'auto' for the one this machine belongs to."
    ),
    cpus: float = typer.Option(1.0, help="With --ray: cores for each cell."),
    gpus: float = typer.Option(0.0, help="With --ray: GPUs for each cell; a fraction shares one."),
    only: list[str] = typer.Option(
        [],
        help="Run a part: names of methods, tasks or regularities, or KEY=VALUE (seed=0, discovery=0.1), "
        "separated by commas. Values of one key add up, keys narrow down.",
    ),
    unlearning_seeds: str | None = typer.Option(
        None,
        help="Run each method with each of these, as 0,1,2, on each original model; instead of the grid's.",
    ),
    limit: int | None = typer.Option(None, help="Run at most so many of the missing cells."),
    dry_run: bool = typer.Option(False, help="Check the grid and show the plan; run nothing."),
    *,
    running: Running,
) -> None:
    """Run every task x recipe x method x seed of a grid file.

    The same command again runs what is missing. Exit code 3: some cell has failed.
    """
    console = Screen()
    running.check()
    if limit is not None and limit < 1:
        raise InvalidInput(f"--limit must be at least 1, got {limit}")
    if devices > 1 and (ray is not None or (running.workers or 1) > 1):
        raise InvalidInput(
            f"--devices {devices} takes them all for one cell at a time; leave out --workers and --ray"
        )
    selection = items("--only", ",".join(only), "name a method, a task, or KEY=VALUE") if only else []

    from expunge.store.store import Store
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan
    from expunge.sweep.select import select
    from expunge.training.numerics import Devices, Numerics

    shared = Devices(devices, strategy)
    chosen = Grid.read(grid)
    if running.data_root:
        chosen = replace(chosen, data=replace(chosen.data, root=str(running.data_root)))
    if unlearning_seeds is not None:
        chosen = replace(chosen, unlearning_seeds=numbers("--unlearning-seeds", unlearning_seeds))
    numerics = replace(Numerics.choose(running.device, chosen.data.load("cpu").shape[1]), devices=shared)
    whole = chosen.plan(numerics)
    wanted = select(whole, selection) if selection else whole
    workers = 1 if shared.several else running.processes(numerics.device)
    with contextlib.ExitStack() as stack:
        engine: Engine | None = None
        if ray is not None and not dry_run:
            from expunge.sweep.ray_engine import RayEngine

            engine = stack.enter_context(contextlib.closing(RayEngine(ray, cpus=cpus, gpus=gpus)))
        opened = None
        if not dry_run or _exists(out, store):
            opened = stack.enter_context(Store(out, store, weights))
        trackers = None if dry_run else running.trackers(console, out)
        recorded = set() if opened is None else opened.database.keys("done" if running.retry_failed else None)
        missing = [cell for cell in wanted.cells if cell.key not in recorded]
        to_run = Plan.of(missing[:limit])
        _Outlook(grid, chosen, numerics, workers, whole, wanted, len(missing), to_run, opened).show(console)
        if trackers is None or opened is None:
            return
        swept = running.run(
            console, chosen, wanted, opened, out, trackers, workers=workers, limit=limit, engine=engine
        )
    left = len(wanted.cells) - len(swept.records)
    if left:
        console.print(f"{counted(left, 'cell')} still missing; the same command goes on with them")
    finish(console, swept, f"{out / 'results.csv'} and the store beside it")


def _exists(out: Path, url: str | None) -> bool:
    """Whether there is a store to look at; opening one makes it."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if url is None:
        return (out / "store.sqlite").is_file()
    try:
        parsed = make_url(url)
    except ArgumentError:
        return True  # for the store to complain about
    return parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").is_file()


@dataclass(frozen=True)
class _Outlook:
    """What the command is about to do."""

    name: str  # of the grid, as it was given
    grid: Grid
    numerics: Numerics
    workers: int
    whole: Plan  # every cell of the grid
    wanted: Plan  # those selected
    missing: int  # how many of these have no record that counts
    to_run: Plan  # the missing ones that will be run
    store: Store | None  # what there is so far

    def show(self, console: Screen) -> None:
        """Print the plan with an estimate of its time, for which a few training steps are run."""
        from expunge.sweep.estimate import estimate_seconds

        console.print(self._title())
        lines = Table.grid(padding=(0, 2))
        lines.add_column(style="dim", no_wrap=True)
        lines.add_column()
        for label, text in self._lines():
            lines.add_row(f"  {label}", escape(text))
        if self.to_run.cells:
            with console.status("timing a few training steps"):
                seconds = estimate_seconds(self.to_run, self._trained(), self.workers)
            lines.add_row(
                "  time", f"{_duration(seconds)}: an estimate, from a few training steps timed here"
            )
        console.print(lines)

    def _title(self) -> str:
        grid = self.grid
        recipes = f" x {counted(len(grid.setups), 'recipe')}" if len(grid.setups) > 1 else ""
        unlearning = len(grid.unlearning_seeds)
        repeats = f" x {counted(unlearning, 'unlearning seed')}" if unlearning else ""
        return (
            f"[bold]{escape(self.name)}[/]: {counted(len(grid.tasks), 'task')}{recipes} x "
            f"{counted(len(grid.setups[0].methods), 'method')} x {counted(len(grid.seeds), 'seed')}{repeats} = "
            f"{counted(len(self.whole.cells), 'cell')}"
        )

    def _lines(self) -> Iterator[tuple[str, str]]:
        images = self.grid.data.load(self.numerics.device)
        held_out = f", {len(images.unseen_labels):,} held out" if images.unseen_labels is not None else ""
        counts = f"{len(images.train_labels):,} training and {len(images.test_labels):,} test images"
        yield "data", f"{images.name}: {counts}{held_out}"
        recipes = [setup.recipe for setup in self.grid.setups]
        told = [f"{each.model}, {each.epochs} epochs of batches of {each.batch_size}" for each in recipes]
        for training in dict.fromkeys(told):  # recipes that differ in something else are told once
            yield "model", training
        if len(self.wanted.cells) < len(self.whole.cells):
            yield "selected", f"{len(self.wanted.cells):,} of the cells (--only)"
        yield "original models", f"{len(self.wanted.trainings):,}, each trained once and shared by its cells"
        references = sum(cell.method.name == _REFERENCE for cell in self.wanted.cells)
        yield (
            "references",
            f"{references:,} runs of {_REFERENCE}" if references else f"{_REFERENCE} is not run",
        )
        if self.grid.metrics:
            yield "metrics", f"{', '.join(self.grid.metrics)}, beside the usual"
            yield "compared with", _roles(self.wanted)
        if models := max((cell.population for cell in self.wanted.cells), default=0):
            shares = f"3 of {models} models for each task and seed"
            yield "populations", f"{shares}; {2 * models} unlearn for each method"
        shared = self.numerics.devices
        workers = counted(self.workers, "worker")
        if shared.several:
            workers += f", each network on {shared.count} devices"
        yield "machine", f"{self.numerics.device}, {self.numerics.dtype}, {workers}"
        yield "store", self._stored()
        part = f" of the {self.missing:,} missing (--limit)" if len(self.to_run.cells) < self.missing else ""
        trained = self._trained()
        untrained = sum(job.key not in trained for job in self.to_run.trainings)
        compared = sum(job.key not in trained for job in self.to_run.references)
        also = f", {counted(compared, 'reference')} of metrics" if self.to_run.references else ""
        cells = counted(len(self.to_run.cells), "cell")
        yield "to run", f"{cells}{part}, {counted(untrained, 'original model')}{also}"

    def _stored(self) -> str:
        if self.store is None:
            return "none yet, so every cell is missing"
        keys = {cell.key for cell in self.wanted.cells}
        done, failed, present = (
            len(keys & self.store.database.keys(status)) for status in ("done", "failed", None)
        )
        return f"{done:,} cells present, {failed:,} failed, {len(keys) - present:,} missing"

    def _trained(self) -> set[str]:
        shared: tuple[Training | Reference, ...] = (*self.to_run.trainings, *self.to_run.references)
        return {job.key for job in shared if self.store is not None and self.store.weights.has(job.key)}


def _roles(plan: Plan) -> str:
    counts = Counter(reference.role for reference in plan.references)
    if not counts:
        return "no other model than the original"
    told = ", ".join(f"{count:,} {role.replace('_', ' ')}" for role, count in counts.items())
    return f"{told}; each trained once and shared by its cells"


def _duration(seconds: float) -> str:
    """Return an estimated time to two digits, in the unit that suits it.

    Example:
        >>> [_duration(seconds) for seconds in (0.4, 45, 89, 754, 40000, 900000)]
        ['about 1 s', 'about 45 s', 'about 1.5 min', 'about 13 min', 'about 11 h', 'about 10 days']
    """
    units = ((1, "s", 60), (60, "min", 90), (3600, "h", 48), (86400, "days", math.inf))
    size, unit = next((size, unit) for size, unit, until in units if seconds < size * until)
    value = max(seconds / size, 1.0)
    shown = f"{value:.1f}".removesuffix(".0") if value < 10 and size > 1 else f"{value:.0f}"
    return f"about {shown} {unit}"
