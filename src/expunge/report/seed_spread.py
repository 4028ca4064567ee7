"""How much of a result's spread comes from training anew, and how much from unlearning anew."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from expunge.report.forgetting import average_gaps, run_of, task_text
from expunge.report.summary import printable
from expunge.report.table import plain_table
from expunge.report.wording import counted, percent, with_interval
from expunge.statistics import Components, variance_components
from expunge.store.record import Record

MAP_MEASURE, GAP_MEASURE = "U x H, mean of the map", "average gap"
MEANING = (
    "Mean with its 95 % t-interval over the training seeds, each of which counts by the mean of its unlearning seeds; "
    "standard deviation between training seeds, the noise of unlearning taken off, and between unlearning seeds of "
    "one training, in points. More unlearning seeds do not stand in for more training seeds. An average gap also holds "
    "the spread of the retrained model with the same seeds."
)


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """One method's two spreads in one measurement.

    Args:
        method: its name.
        task: what is forgotten; empty for the map.
        measure: :data:`MAP_MEASURE` or :data:`GAP_MEASURE`.
        components: mean and standard deviations, fractions.
    """

    method: str
    task: str
    measure: str
    components: Components

    @property
    def sentence(self) -> str:
        """Which of the two is larger, in words."""
        training, unlearning = self.components.training, self.components.unlearning
        if unlearning is None:
            return "one unlearning seed for each training: its spread is not known"
        if training is None:
            return "one training seed: the spread between trainings is not known"
        if max(training, unlearning) < 5e-4:
            return "neither seed matters"
        if unlearning < 5e-4:
            return "unlearning is repeatable: all spread comes from training"
        if training < 5e-4:
            return "unlearning noise explains all of it"
        larger, smaller = ("training", "unlearning") if training >= unlearning else ("unlearning", "training")
        times = max(training, unlearning) / min(training, unlearning)
        if times < 1.25:
            return "both seeds matter as much"
        return f"the {larger} seed matters {times:.1f} times as much as the {smaller} seed"


def unlearning_varies(records: Iterable[Record]) -> bool:
    """Whether some training seed has several unlearning seeds."""
    seeds = {(record.seed, record.unlearning_seed) for record in records}
    return len(seeds) > len({seed for seed, _ in seeds})


def seed_text(record: Record) -> int | str:
    """Return the seed of a run; with the unlearning seed where that is another."""
    # A training seed of its own: written before the unlearning seed could be another.
    if record.unlearning_seed == record.seed or record.training_seed != record.seed:
        return record.seed
    return f"{record.seed}, unlearning {record.unlearning_seed}"


def seed_spreads(records: Sequence[Record]) -> list[SeedSpread]:
    """Return the spreads of one sweep's methods; none unless unlearning seeds vary within a training seed.

    On the map a method's value for a pair of seeds is the mean Utility x Healed over its cells; pairs that lack a
    cell which another pair has are left out. Of a forgetting task it is the average gap.
    """
    if not unlearning_varies(records):
        return []
    return _of_map(records) + _of_forgetting(records)


def _of_map(records: Sequence[Record]) -> list[SeedSpread]:
    cells: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "done" and record.uxh is not None:
            cells[record.method][record.seed, record.unlearning_seed].append(record.uxh)
    found = []
    for method in sorted(cells):
        fullest = max(map(len, cells[method].values()))
        values: dict[int, list[float]] = defaultdict(list)
        for (seed, _), entries in sorted(cells[method].items()):
            if len(entries) == fullest:
                values[seed].append(statistics.fmean(entries))
        components = variance_components(values)
        found.append(SeedSpread(method=method, task="", measure=MAP_MEASURE, components=components))
    return sorted(found, key=lambda spread: -spread.components.mean.mean)


def _of_forgetting(records: Sequence[Record]) -> list[SeedSpread]:
    forgetting = [record for record in records if record.task != "corruption"]
    gaps = average_gaps(forgetting)
    values: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in forgetting:
        if (gap := gaps.get(run_of(record))) is not None:
            values[task_text(record), record.method][record.seed].append(gap)
    found = [
        SeedSpread(method=method, task=task, measure=GAP_MEASURE, components=variance_components(of_seeds))
        for (task, method), of_seeds in values.items()
    ]
    return sorted(found, key=lambda spread: (spread.task, spread.components.mean.mean))


def spread_rows(spread: SeedSpread) -> tuple[str, str, str, str, str]:
    """Return the cells of a spread as text: mean, the two standard deviations, number of seeds, sentence."""
    found = spread.components
    seeds = f"{counted(found.n_training, 'training')}, {counted(found.n, 'run')}"
    deviations = (percent(found.training), percent(found.unlearning))
    return with_interval(found.mean), *deviations, seeds, spread.sentence


def spread_tables(records: Sequence[Record]) -> list[Table]:
    """Return a table for the map and one for each forgetting task; none unless unlearning seeds vary."""
    spreads = seed_spreads(records)
    tables = []
    for task, measure in dict.fromkeys((spread.task, spread.measure) for spread in spreads):
        place = f", forget {printable(task)}" if task else ""
        table = plain_table(f"Spread over the seeds: {measure}{place}, %", MEANING)
        table.title_justify = "left"
        table.add_column("\nmethod", overflow="fold")
        for heading in ("\nmean", "sd\ntraining", "sd\nunlearning"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("\nin words", ratio=1)
        for spread in spreads:
            if (spread.task, spread.measure) == (task, measure):
                mean, training, unlearning, _, sentence = spread_rows(spread)
                table.add_row(printable(spread.method), mean, training, unlearning, sentence)
        tables.append(table)
    return tables
