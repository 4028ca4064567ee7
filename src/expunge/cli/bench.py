"""``expunge bench``: a sweep described in a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from expunge.cli.plan import Outlook, count_of, split_items
from expunge.cli.sweep import (
    LOG,
    check_workers,
    choose_trackers,
    default_workers,
    finish,
    open_trackers,
    run_sweep,
)
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.engine import Engine
    from expunge.store.record import Record

GRIDS = sorted(
    entry.name.removesuffix(".toml")
    for entry in resources.files("expunge.grids").iterdir()
    if entry.name.endswith(".toml") and "\nrun = " in entry.read_text(encoding="utf-8")
)
"""The packaged grids; the other packaged files hold settings alone."""


def bench(
    grid: str = typer.Argument(..., help=f"A TOML file, or a packaged grid: {', '.join(GRIDS)}."),
    out: Path = typer.Option(Path("out/bench"), help="Folder of the store, the weights and results.csv."),
    store: str | None = typer.Option(
        None, help="SQLAlchemy URL of a database that holds the records instead, for several machines."
    ),
    weights: str | None = typer.Option(
        None, help="Folder or fsspec URL of the weights instead of OUT/weights."
    ),
    data_root: Path | None = typer.Option(None, help="Folder the data lies in; by default $EXPUNGE_DATA."),
    device: str | None = typer.Option(None, help="Torch device; by default an accelerator if there is one."),
    workers: int | None = typer.Option(None, help="Worker processes; by default one per core, one on a GPU."),
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
        None, help="Run each method with each of these, as 0,1,2, on each first model; instead of the grid's."
    ),
    limit: int | None = typer.Option(None, help="Run at most so many of the missing cells."),
    log: list[str] = LOG,
    keep_weights: bool = typer.Option(False, help="Also store every unlearned model."),
    retry_failed: bool = typer.Option(False, help="Run failed cells again."),
    dry_run: bool = typer.Option(False, help="Check the grid and show the plan; run nothing."),
) -> None:
    """Run every task x recipe x method x seed of a grid file.

    The same command again runs what is missing. Exit code 3: some cell has failed.
    """
    console = Console()
    check_workers(workers)
    if limit is not None and limit < 1:
        raise InvalidInput(f"--limit must be at least 1, got {limit}")
    if devices > 1 and (ray is not None or (workers or 1) > 1):
        raise InvalidInput(
            f"--devices {devices} takes them all for one cell at a time; leave out --workers and --ray"
        )
    selection = split_items(only)
    choices = choose_trackers(log)

    from dataclasses import replace

    from expunge.store.store import Store
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan
    from expunge.sweep.select import select
    from expunge.training.devices import Devices
    from expunge.training.numerics import Numerics

    shared = Devices(devices, strategy)
    chosen = Grid.read(grid)
    data = replace(chosen.data, root=str(data_root)) if data_root else chosen.data
    chosen = replace(chosen, data=data)
    if unlearning_seeds is not None:
        chosen = replace(chosen, unlearning_seeds=_whole_numbers(unlearning_seeds))
    numerics = replace(Numerics.choose(device, data.load("cpu").shape[1]), devices=shared)
    whole = Plan.of(cell for plan in chosen.plans(numerics) for cell in plan.cells)
    wanted = select(whole, selection) if selection else whole
    workers = 1 if shared.several else default_workers(workers, numerics.device)
    engine = None if dry_run else _ray_engine(ray, cpus, gpus)
    opened = None if dry_run and not _exists(out, store) else Store(out, store, weights)
    try:
        trackers = open_trackers(console, [] if dry_run else choices, out)
        recorded = set() if opened is None else opened.database.keys("done" if retry_failed else None)
        missing = [cell for cell in wanted.cells if cell.key not in recorded]
        to_run = Plan.of(missing[:limit])
        Outlook(grid, chosen, numerics, workers, whole, wanted, len(missing), to_run, opened).show(console)
        if dry_run or opened is None:
            return
        swept = run_sweep(
            console,
            wanted,
            opened,
            out,
            workers=workers,
            keep_weights=keep_weights,
            retry_failed=retry_failed,
            limit=limit,
            trackers=trackers,
            engine=engine,
            grid=chosen,
        )
    finally:
        if opened is not None:
            opened.close()
        if engine is not None:
            engine.close()
    _tables(console, swept.records)
    left = len(wanted.cells) - len(swept.records)
    if left:
        console.print(
            f"{count_of(left, 'cell')} still missing; the same command goes on with them", highlight=False
        )
    finish(console, swept, f"{out / 'results.csv'} and the store beside it")


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"--unlearning-seeds must be whole numbers separated by commas, as 0,1,2, got {text!r}"
        ) from error


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


def _tables(console: Console, records: list[Record]) -> None:
    from expunge.results.sweeps import sort_into_sweeps
    from expunge.results.tables import cost_table, forgetting_tables, further_table, map_table, spread_tables

    sweeps = sort_into_sweeps(records)
    for sweep in sweeps:
        console.print()
        if len(sweeps) > 1:
            console.print(f"[bold]{escape(sweep.title)}[/]", highlight=False)
        for note in sweep.notes:
            console.print(escape(note), highlight=False)
        if sweep.corruption:
            console.print(map_table(sweep.corruption))
            console.print()
            console.print(cost_table(sweep.corruption))
        if sweep.forgetting:
            for table in forgetting_tables(sweep.forgetting):
                console.print(table)
                console.print()
        further = further_table(sweep.records)
        for table in (*spread_tables(sweep.records), *([] if further is None else [further])):
            console.print()
            console.print(table)
