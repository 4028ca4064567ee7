"""Means, spreads and winners of a sweep: what its tables and figures show."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from expunge.errors import InvalidInput
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name

BASELINE = "none"
"""The method that does nothing; it leads every table."""

Place = tuple[float, float]
"""(regularity, discovery)."""

_TIE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A quantity over the training seeds of one cell; several unlearning seeds of one count by their mean.

    Args:
        mean: arithmetic mean.
        sd: standard deviation with n - 1 in the denominator; None for a single seed.
        n: number of training seeds it was measured for.
    """

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """One method at one place of the map, over seeds; a quantity nobody measured is None.

    Args:
        method: name of the method.
        regularity: 0 (random) .. 1 (poison).
        discovery: fraction of the corrupted examples that is known.
        seeds: number of training seeds that are done; the quantities are over these.
        failed: number of runs that failed.
        uxh: utility times healed, a fraction.
        healed: healed fraction of the corrupted examples.
        utility: accuracy on clean test examples, a fraction.
        asr: attack success rate, a fraction; only where something was poisoned.
        seconds: wall time of the unlearning.
        sample_gradients: per-example gradients computed.
        peak_memory: bytes.
    """

    method: str
    regularity: float
    discovery: float
    seeds: int
    failed: int
    uxh: Spread | None
    healed: Spread | None
    utility: Spread | None
    asr: Spread | None
    seconds: Spread | None
    sample_gradients: Spread | None
    peak_memory: Spread | None


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over its cells: means of the cells' means, so that every cell weighs the same.

    Args:
        method: name of the method.
        oracle: whether it saw what only an ideal method can see.
        cells: number of cells that ``uxh`` is the mean of.
        failed: number of failed runs.
        uxh: mean utility times healed, a fraction; None if no cell is done.
        healed: mean healed fraction.
        utility: mean accuracy on clean test examples.
        asr: mean attack success rate over the cells with poison.
        seconds: mean wall time of one run.
        total_seconds: wall time of all runs that are done.
        sample_gradients: mean number of per-example gradients of one run.
        peak_memory: largest cell mean, in bytes.
    """

    method: str
    oracle: bool
    cells: int
    failed: int
    uxh: float | None
    healed: float | None
    utility: float | None
    asr: float | None
    seconds: float | None
    total_seconds: float
    sample_gradients: float | None
    peak_memory: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A sweep on one data set and model.

    Args:
        data: name of the data set.
        model: name of the architecture.
        seeds: every seed with a record, ascending.
        regularities: the values of one axis of the map, ascending.
        discoveries: the values of the other, ascending.
        methods: "none" first, then by falling mean ``uxh``, then the oracles likewise.
        cells: by method and place, where there is at least one record.
        best: by place, the methods with the highest mean ``uxh``, oracles apart; several if they tie.
        best_mean: the same for the mean over the map, among methods with every cell done.
    """

    data: str
    model: str
    seeds: tuple[int, ...]
    regularities: tuple[float, ...]
    discoveries: tuple[float, ...]
    methods: tuple[MethodSummary, ...]
    cells: Mapping[tuple[str, float, float], CellSummary]
    best: Mapping[Place, tuple[str, ...]]
    best_mean: tuple[str, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """Every (regularity, discovery) of the map, row by row."""
        return tuple((row, column) for row in self.regularities for column in self.discoveries)

    @property
    def regularity_labels(self) -> dict[float, str]:
        """Label of each regularity: the name of a named point, else the number."""
        return _labels(self.regularities, regularity_name, repr)

    @property
    def discovery_labels(self) -> dict[float, str]:
        """Label of each discovery rate, in percent."""
        return _labels(self.discoveries, lambda rate: f"{100 * rate:.3g}%", lambda rate: f"{100 * rate!r}%")


def summarise(records: Iterable[Record]) -> Summary:
    """Return the means, spreads, order and winners of one sweep.

    Skipped records put their method and their cell on the map, and no number in it.

    Raises:
        InvalidInput: no records; records of several data sets or models; two records of the same cell and
            seeds, whose mean would mix settings.
    """
    taken = list(records)
    _check(taken)
    grouped: dict[tuple[str, float, float], list[Record]] = defaultdict(list)
    for record in taken:
        grouped[record.method, *_place(record)].append(record)
    cells = {where: _cell(where, found) for where, found in grouped.items()}
    oracles = {record.method for record in taken if record.oracle}
    methods = [
        _method(
            name,
            name in oracles,
            [cell for cell in cells.values() if cell.method == name],
            [record for record in taken if record.method == name],
        )
        for name in sorted({record.method for record in taken})
    ]
    methods.sort(key=_rank)
    open_to_all = {method.method for method in methods if not method.oracle}
    regularities = tuple(sorted({_place(record)[0] for record in taken}))
    discoveries = tuple(sorted({_place(record)[1] for record in taken}))
    places = [(row, column) for row in regularities for column in discoveries]
    best = {
        place: _highest(
            {
                method: cell.uxh.mean
                for (method, *where), cell in cells.items()
                if tuple(where) == place and cell.uxh is not None and method in open_to_all
            }
        )
        for place in places
    }
    # A method that failed on the hard cells must not win by their absence.
    filled = sum(bool(winners) for winners in best.values())
    best_mean = _highest(
        {
            method.method: method.uxh
            for method in methods
            if method.uxh is not None and not method.oracle and method.cells >= filled
        }
    )
    return Summary(
        data=taken[0].data,
        model=taken[0].model,
        seeds=tuple(sorted({record.seed for record in taken})),
        regularities=regularities,
        discoveries=discoveries,
        methods=tuple(methods),
        cells=cells,
        best=best,
        best_mean=best_mean,
    )


def printable(text: str) -> str:
    """Return ``text`` on one line and without control characters, which would steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _check(records: Sequence[Record]) -> None:
    if not records:
        raise InvalidInput(
            "there are no records to report, at least one was expected; run a sweep first, or loosen the "
            "selection of records"
        )
    for kind, names in (
        ("data sets", sorted({record.data for record in records})),
        ("models", sorted({record.model for record in records})),
    ):
        if len(names) > 1:
            raise InvalidInput(
                f"the records come from several {kind} ({', '.join(names)}), but one report is about one; "
                "select the records of one and report each by itself"
            )
    seen: set[tuple[str, float, float, int, int]] = set()
    for record in records:
        run = (record.method, *_place(record), record.seed, record.unlearning_seed)
        if run in seen:
            raise InvalidInput(
                f"there are two records of method {record.method!r} at regularity {run[1]:g}, "
                f"discovery {run[2]:g}, seed {record.seed}, one was expected; select the records "
                "of one sweep, since a mean over different settings would say nothing"
            )
        seen.add(run)


def _place(record: Record) -> Place:
    if record.regularity is None or record.discovery is None:
        raise InvalidInput(
            f"record {record.key} is of a task {record.task!r}, which has no place on the map of corruption; "
            "select the records of corruption tasks"
        )
    return record.regularity, record.discovery


def _cell(where: tuple[str, float, float], records: Sequence[Record]) -> CellSummary:
    done = [record for record in records if record.status == "done"]

    def over(name: str) -> Spread | None:
        by_seed: dict[int, list[float]] = defaultdict(list)
        for record in done:
            if (value := getattr(record, name)) is not None:
                by_seed[record.seed].append(float(value))
        if not by_seed:
            return None
        # Unlearning seeds of one first model are no independent repetitions.
        values = list(map(statistics.fmean, by_seed.values()))
        sd = statistics.stdev(values) if len(values) > 1 else None
        return Spread(mean=statistics.fmean(values), sd=sd, n=len(values))

    method, regularity, discovery = where
    return CellSummary(
        method=method,
        regularity=regularity,
        discovery=discovery,
        seeds=len({record.seed for record in done}),
        failed=sum(record.status == "failed" for record in records),
        uxh=over("uxh"),
        healed=over("healed"),
        utility=over("utility"),
        asr=over("asr"),
        seconds=over("seconds"),
        sample_gradients=over("sample_gradients"),
        peak_memory=over("peak_memory"),
    )


def _method(
    name: str, oracle: bool, cells: Sequence[CellSummary], records: Sequence[Record]
) -> MethodSummary:
    def means(quantity: str) -> list[float]:
        found: list[Spread | None] = [getattr(cell, quantity) for cell in cells]
        return [spread.mean for spread in found if spread is not None]

    def mean(quantity: str) -> float | None:
        values = means(quantity)
        return statistics.fmean(values) if values else None

    done = [record for record in records if record.status == "done"]
    return MethodSummary(
        method=name,
        oracle=oracle,
        cells=len(means("uxh")),
        failed=sum(cell.failed for cell in cells),
        uxh=mean("uxh"),
        healed=mean("healed"),
        utility=mean("utility"),
        asr=mean("asr"),
        seconds=mean("seconds"),
        total_seconds=sum(record.seconds or 0.0 for record in done),
        sample_gradients=mean("sample_gradients"),
        peak_memory=max(means("peak_memory"), default=None),
    )


def _rank(method: MethodSummary) -> tuple[bool, bool, float, str]:
    score = -1.0 if method.uxh is None else method.uxh
    return method.method != BASELINE, method.oracle, -score, method.method


def _highest(scores: Mapping[str, float]) -> tuple[str, ...]:
    top = max(scores.values(), default=0.0)
    return tuple(sorted(name for name, score in scores.items() if score >= top - _TIE))


def _labels(
    values: Sequence[float], short: Callable[[float], str], exact: Callable[[float], str]
) -> dict[float, str]:
    # Two values that round to the same label would otherwise share one row or column.
    for name in (short, exact):
        labels = {value: name(value) for value in values}
        if len(set(labels.values())) == len(values):
            break
    return labels
