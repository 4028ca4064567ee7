"""A plan on the screen: what will run, from what, and for about how long."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from expunge.cli.screen import Screen
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.store.store import Store
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan, Reference, Training
    from expunge.training.numerics import Numerics

REFERENCE = "retrain"
"""The method the others of a forgetting task are compared with."""


def split_items(options: Sequence[str]) -> list[str]:
    """Return the parts of a repeatable option whose values are separated by commas.

    Raises:
        InvalidInput: an option without any.
    """
    items = [item.strip() for option in options for item in option.split(",") if item.strip()]
    if options and not items:
        raise InvalidInput("--only is empty; name a method, a task, or KEY=VALUE")
    return items


@dataclass(frozen=True)
class Outlook:
    """What a command is about to do.

    Args:
        name: of the grid, as it was given.
        grid: what was read.
        numerics: where to compute.
        workers: processes that share the work.
        whole: every cell of the grid.
        wanted: those selected.
        missing: how many of these have no record that counts.
        to_run: the missing ones that will be run.
        store: what there is so far; ``None`` for nothing.
    """

    name: str
    grid: Grid
    numerics: Numerics
    workers: int
    whole: Plan
    wanted: Plan
    missing: int
    to_run: Plan
    store: Store | None

    def show(self, console: Screen) -> None:
        """Print the plan with an estimate of its time, for which a few training steps are run."""
        console.print(self._title())
        lines = Table.grid(padding=(0, 2))
        lines.add_column(style="dim", no_wrap=True)
        lines.add_column()
        for label, text in self._lines():
            lines.add_row(f"  {label}", escape(text))
        if self.to_run.cells:
            with console.status("timing a few training steps"):
                seconds = self._seconds()
            lines.add_row("  time", f"{duration(seconds)}: an estimate, from a few training steps timed here")
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
        yield (
            "data",
            f"{images.name}: {len(images.train_labels):,} training and "
            f"{len(images.test_labels):,} test images{held_out}",
        )
        for setup in self.grid.setups:
            recipe = setup.recipe
            yield "model", f"{recipe.model}, {recipe.epochs} epochs of batches of {recipe.batch_size}"
        if len(self.wanted.cells) < len(self.whole.cells):
            yield "selected", f"{len(self.wanted.cells):,} of the cells (--only)"
        yield "original models", f"{len(self.wanted.trainings):,}, each trained once and shared by its cells"
        references = sum(cell.method.name == REFERENCE for cell in self.wanted.cells)
        yield "references", f"{references:,} runs of {REFERENCE}" if references else f"{REFERENCE} is not run"
        if self.grid.metrics:
            yield "metrics", f"{', '.join(self.grid.metrics)}, beside the usual"
            yield "compared with", _roles(self.wanted)
        if models := max((cell.population for cell in self.wanted.cells), default=0):
            yield (
                "populations",
                f"3 of {models} models for each task and seed; {2 * models} unlearn for each method",
            )
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
        yield (
            "to run",
            f"{counted(len(self.to_run.cells), 'cell')}{part}, {counted(untrained, 'original model')}{also}",
        )

    def _stored(self) -> str:
        if self.store is None:
            return "none yet, so every cell is missing"
        keys = {cell.key for cell in self.wanted.cells}
        done, failed = (len(keys & self.store.database.keys(status)) for status in ("done", "failed"))
        present = len(keys & self.store.database.keys())
        return f"{done:,} cells present, {failed:,} failed, {len(keys) - present:,} missing"

    def _trained(self) -> set[str]:
        if self.store is None:
            return set()
        weights = self.store.weights
        shared: tuple[Training | Reference, ...] = (*self.to_run.trainings, *self.to_run.references)
        return {job.key for job in shared if weights.has(job.key)}

    def _seconds(self) -> float:
        from expunge.sweep.estimate import estimate_seconds

        return estimate_seconds(self.to_run, self._trained(), self.workers)


def _roles(plan: Plan) -> str:
    counts = Counter(reference.role for reference in plan.references)
    if not counts:
        return "no other model than the original"
    told = ", ".join(f"{count:,} {role.replace('_', ' ')}" for role, count in counts.items())
    return f"{told}; each trained once and shared by its cells"


def duration(seconds: float) -> str:
    """Return an estimated time to two digits, in the unit that suits it.

    Example:
        >>> [duration(seconds) for seconds in (0.4, 45, 89, 754, 40000, 900000)]
        ['about 1 s', 'about 45 s', 'about 1.5 min', 'about 13 min', 'about 11 h', 'about 10 days']
    """
    units = ((1, "s", 60), (60, "min", 90), (3600, "h", 48), (86400, "days", math.inf))
    size, unit = next((size, unit) for size, unit, until in units if seconds < size * until)
    value = max(seconds / size, 1.0)
    shown = f"{value:.1f}".removesuffix(".0") if value < 10 and size > 1 else f"{value:.0f}"
    return f"about {shown} {unit}"
