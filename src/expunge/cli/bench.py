"""``expunge bench``: a sweep described in a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from expunge.cli.options import numbers, takes
from expunge.cli.plan import Outlook, split_items
from expunge.cli.screen import Screen
from expunge.cli.sweep import Running, finish
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.engine import Engine

GRIDS = sorted(
    entry.name.removesuffix(".toml")
    for entry in resources.files("expunge.grids").iterdir()
    if entry.name.endswith(".toml") and "\nrun = " in entry.read_text(encoding="utf-8")
)
"""The packaged grids; the other packaged files hold settings alone."""


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
    selection = split_items(only)

    from dataclasses import replace

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
    engine = None if dry_run else _ray_engine(ray, cpus, gpus)
    opened = None if dry_run and not _exists(out, store) else Store(out, store, weights)
    try:
        trackers = None if dry_run else running.trackers(console, out)
        recorded = set() if opened is None else opened.database.keys("done" if running.retry_failed else None)
        missing = [cell for cell in wanted.cells if cell.key not in recorded]
        to_run = Plan.of(missing[:limit])
        Outlook(grid, chosen, numerics, workers, whole, wanted, len(missing), to_run, opened).show(console)
        if trackers is None or opened is None:
            return
        swept = running.run(
            console, chosen, wanted, opened, out, trackers, workers=workers, limit=limit, engine=engine
        )
    finally:
        if opened is not None:
            opened.close()
        if engine is not None:
            engine.close()
    left = len(wanted.cells) - len(swept.records)
    if left:
        console.print(f"{counted(left, 'cell')} still missing; the same command goes on with them")
    finish(console, swept, f"{out / 'results.csv'} and the store beside it")


def _ray_engine(address: str | None, cpus: float, gpus: float) -> Engine | None:
    if address is None:
        return None
    from expunge.sweep.ray_engine import RayEngine

    return RayEngine(address, cpus=cpus, gpus=gpus)


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
