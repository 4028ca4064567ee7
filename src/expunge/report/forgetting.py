"""Tables of forgetting tasks: each measurement beside the retrained model's, over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from expunge.errors import InvalidInput
from expunge.report.summary import BASELINE, printable
from expunge.report.wording import with_interval
from expunge.statistics import Interval, mean_interval
from expunge.store.record import Record

REFERENCE = "retrain"
"""The method every gap is measured against."""
GAPS = (
    "remaining_test_accuracy",
    "retain_accuracy",
    "forget_accuracy",
    "forget_test_accuracy",
    "entropy_attack",
)
"""Measurements whose absolute differences to the reference make the average gap, where a task has them."""
SHOWN = {
    "remaining_test_accuracy": "test",
    "retain_accuracy": "retain",
    "forget_accuracy": "forget",
    "forget_test_accuracy": "forget\ntest",
    "siblings_test_accuracy": "siblings\ntest",
    "entropy_attack": "MIA",
    "class_mean_probe": "probe",
    "average_gap": "avg.\ngap",
}
"""Measurement -> heading, in the order of the columns."""


@dataclass(frozen=True)
class ForgettingSummary:
    """One method on one task, over seeds.

    Args:
        task: kind and settings of the task, seed apart.
        method: name of the method.
        values: measurement -> interval, fractions; "average_gap" among them where the reference was run.
        seconds: mean wall time.
        failed: seeds that failed.
    """

    task: str
    method: str
    values: Mapping[str, Interval]
    seconds: float | None
    failed: int


def summarise_forgetting(records: Iterable[Record]) -> list[ForgettingSummary]:
    """Return a summary for each task and method, tasks in the order of their names.

    A gap is |value - value of the retrained model of the same task and seeds|; the average gap is its mean
    over those of :data:`GAPS` that the task has, then over the seeds. Seeds are first trainings; several
    unlearning seeds of one count by their mean.

    Raises:
        InvalidInput: no record of a forgetting task.
    """
    taken = [record for record in records if record.task != "corruption"]
    if not taken:
        raise InvalidInput("there are no records of forgetting tasks; run some first ('expunge bench')")
    gaps = average_gaps(taken)
    grouped: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in taken:
        grouped[task_text(record), record.method].append(record)
    order = {BASELINE: 0, REFERENCE: 1}
    return [
        _summary(task, method, found, gaps)
        for (task, method), found in sorted(
            grouped.items(), key=lambda entry: (entry[0][0], order.get(entry[0][1], 2), entry[0][1])
        )
    ]


def forgetting_tables(records: Iterable[Record]) -> list[Table]:
    """Return one table for each task: methods by rising average gap, all values in percent."""
    summaries = summarise_forgetting(records)
    tables = []
    for task in dict.fromkeys(summary.task for summary in summaries):
        rows = [summary for summary in summaries if summary.task == task]
        names = [name for name in SHOWN if any(name in row.values for row in rows)]
        table = Table(
            title=f"Forget {printable(task)}, %",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption="95 % t-intervals over first trainings. Closer to retrain is better; forget below retrain's is "
            "over-forgetting. Avg. gap: mean of |value - retrain's| over test, retain, forget, forget test, MIA.",
            caption_justify="left",
        )
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(SHOWN[name], justify="right", no_wrap=True)
        table.add_column("s", justify="right")
        for row in sorted(rows, key=rank):
            # Eight columns of intervals do not fit beside each other on a terminal of 80.
            between = "\n" if len(names) > 6 else ""
            cells = [with_interval(row.values.get(name), between) for name in names]
            failed = f" ({row.failed} failed)" if row.failed else ""
            seconds = "–" if row.seconds is None else f"{row.seconds:.1f}"
            table.add_row(printable(row.method) + failed, *cells, seconds)
        tables.append(table)
    return tables


Run = tuple[str, str, int, int]
"""Method, task, training seed, unlearning seed."""


def average_gaps(records: Iterable[Record]) -> dict[Run, float]:
    """Return the average gap of each run that is done and has a retrained model to be held against.

    That is the run of :data:`REFERENCE` on the same task with the same seeds.
    """
    done = [record for record in records if record.status == "done"]
    reference = {run_of(record)[1:]: record.metrics for record in done if record.method == REFERENCE}
    found = {}
    for record in done:
        run = run_of(record)
        aim = reference.get(run[1:])
        if aim is None or record.method == REFERENCE:
            continue
        gaps = [
            abs(float(mine) - float(theirs))
            for name in GAPS
            if (mine := record.metrics.get(name)) is not None and (theirs := aim.get(name)) is not None
        ]
        if gaps:
            found[run] = statistics.fmean(gaps)
    return found


def run_of(record: Record) -> Run:
    """Return what tells a run of one sweep from the others."""
    return record.method, task_text(record), record.seed, record.unlearning_seed


def _summary(
    task: str, method: str, records: Sequence[Record], gaps: Mapping[Run, float]
) -> ForgettingSummary:
    done = [record for record in records if record.status == "done"]
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in done:
        for name, value in record.metrics.items():
            if value is not None:
                values[name][record.seed].append(value)
        if (gap := gaps.get(run_of(record))) is not None:
            values["average_gap"][record.seed].append(gap)
    seconds = [record.seconds for record in done if record.seconds is not None]
    return ForgettingSummary(
        task,
        method,
        # Unlearning seeds of one first model are no independent repetitions.
        {name: mean_interval(list(map(statistics.fmean, found.values()))) for name, found in values.items()},
        statistics.fmean(seconds) if seconds else None,
        sum(record.status == "failed" for record in records),
    )


def task_text(record: Record) -> str:
    """Return kind and settings of a record's task, seed apart, on one line."""
    settings = {name: value for name, value in record.task_settings.items() if name != "seed"}
    shown = ", ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in settings.items()
    )
    return f"{record.task} {shown}" if len(shown) < 80 else f"{record.task} ({record.task_key[:8]})"


def rank(row: ForgettingSummary) -> tuple[bool, bool, float, str]:
    """Sort key of a task's rows: the reference, doing nothing, then by rising average gap."""
    gap = row.values.get("average_gap")
    return row.method != REFERENCE, row.method != BASELINE, gap.mean if gap else 2.0, row.method
