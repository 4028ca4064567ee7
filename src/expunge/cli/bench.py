"""``expunge bench``: a sweep described in a file."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from expunge.cli.progress import run_with_progress
from expunge.errors import InvalidInput


def bench(
    grid: str = typer.Argument(..., help="A TOML file, or the name of a packaged grid."),
    out: Path = typer.Option(Path("out/bench"), help="Folder of the store and results.csv."),
    data_root: Path | None = typer.Option(None, help="Folder the data lies in; by default $EXPUNGE_DATA."),
    device: str | None = typer.Option(None, help="Torch device; by default an accelerator if there is one."),
    workers: int | None = typer.Option(None, help="Worker processes; by default one per core, one on a GPU."),
    keep_weights: bool = typer.Option(False, help="Also store every unlearned model."),
    retry_failed: bool = typer.Option(False, help="Run failed cells again."),
    dry_run: bool = typer.Option(False, help="Check the grid and show the plan; run nothing."),
) -> None:
    """Run every task x method x seed of a grid file; the same command again runs what is missing."""
    console = Console()
    if workers is not None and workers < 1:
        raise InvalidInput(f"--workers must be at least 1, got {workers}")

    from dataclasses import replace

    from expunge.benchmark.execute import execute
    from expunge.benchmark.grid import Grid
    from expunge.benchmark.plan import make_plan
    from expunge.report.forgetting import forgetting_tables
    from expunge.report.results_csv import write_csv
    from expunge.report.table import map_table
    from expunge.store.store import Store
    from expunge.training.numerics import Numerics

    chosen = Grid.read(grid)
    data = replace(chosen.data, root=str(data_root)) if data_root else chosen.data
    images = data.load("cpu")
    numerics = Numerics.choose(device, images.shape[1])
    plan = make_plan(data, chosen.tasks, chosen.recipe, chosen.methods, chosen.seeds, numerics)
    if workers is None:
        workers = 1 if numerics.device != "cpu" else os.cpu_count() or 1
    console.print(
        f"[bold]{escape(images.name)}[/]: {len(images.train_labels)} training images, {chosen.recipe.model}, "
        f"{len(chosen.tasks)} tasks x {len(chosen.methods)} methods x {len(chosen.seeds)} seeds = "
        f"{len(plan.cells)} cells, {len(plan.trainings)} first models, {numerics.device} {numerics.dtype}, "
        f"{workers} worker{'s' if workers > 1 else ''}"
    )
    if dry_run:
        return
    with Store(out) as store:
        status = run_with_progress(
            console,
            lambda report: execute(
                plan,
                store,
                workers=workers,
                keep_weights=keep_weights,
                retry_failed=retry_failed,
                report=report,
            ),
        )
        wanted = {cell.key for cell in plan.cells}
        records = [record for record in store.database.records() if record.key in wanted]
    write_csv(records, out / "results.csv")
    corruption = [record for record in records if record.task == "corruption"]
    if corruption:
        console.print(map_table(corruption))
    if len(corruption) < len(records):
        for table in forgetting_tables(records):
            console.print()
            console.print(table)
    for warning in status.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}; the cells that start from it say little")
    for record in records:
        if record.status == "failed":
            last = record.error.strip().splitlines()[-1]
            console.print(
                f"[red]failed:[/] {escape(record.method)}, {escape(record.task)}, seed {record.seed}: {escape(last)}"
            )
    console.print(
        f"\n{status.done} cells run, {status.present} were there, {status.failed} failed", highlight=False
    )
    console.print(f"wrote {out / 'results.csv'} and the store beside it", highlight=False)
