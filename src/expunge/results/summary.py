"""Means over seeds, their intervals, ranks, pairs and tests, from the table of measurements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from expunge.errors import InvalidInput
from expunge.results.frame import COSTS
from expunge.statistics import half_width, paired_t
from expunge.store.record import BESIDE, METRICS
from expunge.tasks.regularity import regularity_name

BASELINE = "none"
"""The method that does nothing; it leads every table."""
REFERENCE = "retrain"
"""The method that every gap of a forgetting task is measured against."""
GAPS = (
    "remaining_test_accuracy",
    "retain_accuracy",
    "forget_accuracy",
    "forget_test_accuracy",
    "entropy_attack",
)
"""Measures whose absolute differences to the reference make the average gap, where a task has them."""
GAP = "average_gap"
SHOWN = {
    "remaining_test_accuracy": "test",
    "retain_accuracy": "retain",
    "forget_accuracy": "forget",
    "forget_test_accuracy": "forget\ntest",
    "siblings_test_accuracy": "siblings\ntest",
    "entropy_attack": "MIA",
    "class_mean_probe": "probe",
    GAP: "avg.\ngap",
}
"""Measure of a forgetting task -> heading of its column, in their order."""
ON_MAP = ("uxh", "healed", "healed_known", "healed_unknown", "utility", "asr", *COSTS)
"""Measures of a cell of the map, in the order of their columns."""
RECALIBRATED = ("uxh_recalibrated", "asr_recalibrated")
"""Measures that the tables of the map show where records have them: with statistics of the retain set."""
RECALIBRATED_ENDING = "_recalibrated"
"""What names of measures with these statistics end in."""
HIDDEN_MEANING = (
    "Recalibrated: with the normalisation statistics of the retained data in place of the model's own, and the same "
    "weights. What falls with them was hidden by normalisation statistics, not forgotten."
)
LEVEL = 0.05
"""Two methods whose paired test has a larger p-value count as tied."""

Cell = tuple[str, float, float]
"""Method, regularity, discovery."""

_PLACE = ["regularity", "discovery"]
_CELL = ["method", *_PLACE]
_COLUMNS = {
    "oracle", "seeds", "failed", "best", "rank", "ranked", "cells", "mean", "n", "half_width", "mark", "p", "tied",
}  # fmt: skip
"""Columns of a summary that a measure of this name would take the place of; it stands under further measures alone."""
_TIE = 1e-9


def over_seeds(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return ``mean``, ``sd``, ``half_width`` and ``n`` of the values by the columns ``by``, over training seeds.

    Unlearning seeds of one training are no independent repetitions: each training counts once, by their mean. ``sd``
    has n - 1 in the denominator; ``half_width`` is that of the 95 % t-interval. Both are NaN for one seed.
    """
    by = list(by)
    seeds = table.groupby([*by, "seed"], dropna=False)["value"].mean()
    found = seeds.groupby(by, dropna=False).agg(mean="mean", sd="std", n="count")
    return found.assign(half_width=half_width(found["sd"], found["n"]))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The map of one sweep.

    Args:
        data: name of the data set.
        model: name of the architecture.
        seeds: every seed with a record, ascending.
        cells: a row for each (method, regularity, discovery) with a record. ``seeds``: number of training seeds that
            are done; ``failed``: number of runs that failed; for each measure its mean over the seeds under its name,
            and with the endings ``_sd`` and ``_half_width`` its spread. ``best``: whether ``uxh`` is the highest of
            its place; ``rank``: its rank there among ``ranked`` methods; all without oracles.
        methods: a row for each method: "none" first, then by falling mean ``uxh``, then the oracles likewise. Means
            of the cells' means, so that every cell weighs the same; of ``peak_memory`` the largest. ``cells``: number
            of cells with a value of ``uxh``; ``oracle``; ``failed``; ``best``: whether the mean is the highest
            among the methods with every cell; and the columns of :func:`standings`.
    """

    data: str
    model: str
    seeds: tuple[int, ...]
    cells: pd.DataFrame
    methods: pd.DataFrame

    @functools.cached_property
    def cell(self) -> dict[Cell, dict[str, Any]]:
        """The rows of ``cells`` as dictionaries."""
        found: dict[Cell, dict[str, Any]] = self.cells.to_dict("index")
        return found

    @functools.cached_property
    def method(self) -> dict[str, dict[str, Any]]:
        """The rows of ``methods`` as dictionaries, in their order."""
        found: dict[str, dict[str, Any]] = self.methods.to_dict("index")
        return found

    @property
    def places(self) -> tuple[tuple[float, float], ...]:
        """Every (regularity, discovery) of the map, row by row."""
        return tuple((row, column) for row in self.regularity_labels for column in self.discovery_labels)

    @property
    def recalibrated(self) -> bool:
        """Whether any run was measured with normalisation statistics of the retain set too."""
        return RECALIBRATED[0] in self.methods and bool(self.methods[RECALIBRATED[0]].notna().any())

    @functools.cached_property
    def regularity_labels(self) -> dict[float, str]:
        """Label of each regularity, ascending: the name of a named point, else the number."""
        return _labels(self._axis("regularity"), regularity_name, repr)

    @functools.cached_property
    def discovery_labels(self) -> dict[float, str]:
        """Label of each discovery rate, ascending, in percent."""
        return _labels(
            self._axis("discovery"), lambda rate: f"{100 * rate:.3g}%", lambda rate: f"{100 * rate!r}%"
        )

    def _axis(self, name: str) -> list[float]:
        return sorted(map(float, self.cells.index.unique(name)))


def summarise(table: pd.DataFrame) -> Summary:
    """Return the means, spreads, order and winners of one sweep's map.

    Skipped runs put their method and their cell on the map, and no number in it.

    Raises:
        InvalidInput: no runs; runs of several data sets or models, or without a place on the map; two runs of the
            same cell and seeds, whose mean would mix settings.
    """
    runs = table.drop_duplicates("run")
    _check(runs)
    measured = [*ON_MAP, *sorted(set(table["measure"]) - {*ON_MAP, *METRICS, *_COLUMNS, ""})]
    by_cell = runs.groupby(_CELL)
    values = over_seeds(table[table["measure"] != ""], [*_CELL, "measure"]).unstack("measure")
    cells = pd.DataFrame(
        {
            "oracle": by_cell["is_oracle"].any(),
            "seeds": runs[runs["status"] == "done"].groupby(_CELL)["seed"].nunique(),
            "failed": by_cell["status"].agg(lambda found: (found == "failed").sum()),
        }
    ).fillna({"seeds": 0})
    cells = cells.astype({"seeds": int, "failed": int})
    for name in measured:
        for statistic, ending in (("mean", ""), ("sd", "_sd"), ("half_width", "_half_width")):
            known = (statistic, name) in values.columns
            cells[name + ending] = values[statistic, name] if known else float("nan")
    open_to_all = cells["uxh"].mask(cells["oracle"])
    top = open_to_all.groupby(level=_PLACE).transform("max")
    cells["best"] = open_to_all >= top - _TIE
    cells["rank"] = open_to_all.groupby(level=_PLACE).rank(method="min", ascending=False)
    cells["ranked"] = open_to_all.groupby(level=_PLACE).transform("count")
    return Summary(
        data=runs["data"].iloc[0],
        model=runs["model"].iloc[0],
        seeds=tuple(sorted(map(int, runs["seed"].unique()))),
        cells=cells,
        methods=_methods(table, cells, measured),
    )


def _methods(table: pd.DataFrame, cells: pd.DataFrame, measured: Sequence[str]) -> pd.DataFrame:
    by_method = cells.groupby(level="method")
    methods = by_method[list(measured)].mean()
    methods["peak_memory"] = by_method["peak_memory"].max()
    methods["cells"] = by_method["uxh"].count()
    methods["failed"] = by_method["failed"].sum()
    methods["oracle"] = by_method["oracle"].any()
    methods = methods.join(standings(table))
    methods["tied"] = methods["tied"].eq(True)
    # A method that failed on the hard cells must not win by their absence.
    filled = cells["best"].groupby(level=_PLACE).any().sum()
    whole = methods["uxh"].where(~methods["oracle"] & (methods["cells"] >= filled))
    methods["best"] = whole >= whole.max() - _TIE
    oracle, uxh = methods["oracle"], methods["uxh"].fillna(-1.0)
    order = sorted(methods.index, key=lambda name: (name != BASELINE, oracle[name], -uxh[name], name))
    return methods.loc[order]


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """Return every method's standing in Utility x Healed over the cells of ``table``.

    Columns: ``mean`` over the cells; ``half_width`` of its 95 % t-interval over the ``n`` seeds that have every cell;
    ``mark``: "best", "second" or ""; ``p`` of the paired t-test against the best, NaN where it cannot be made;
    ``tied``: whether it does not tell the two apart.

    The test: d_s = mean over the cells that both methods have for seed s of (method - best), against 0 over the
    seeds, at least two. Cells of one seed share their original model, so seeds are the unit and cells are not. Oracles
    and methods that lack a cell which another one has get no mark.
    """
    rows = table[table["measure"] == "uxh"]
    values = rows.groupby([*_PLACE, "seed", "method"])["value"].mean().unstack("method")
    cells = values.groupby(level=_PLACE).mean()
    seeds, counts = values.groupby(level="seed").mean(), values.groupby(level="seed").count()
    # A seed that lacks cells has another mean, and would widen the interval for no reason of its own.
    whole = seeds.where(counts == counts.max())
    found = pd.DataFrame({"mean": cells.mean(), "n": whole.count()})
    found["half_width"] = half_width(whole.std(), found["n"])
    oracles = set(rows.loc[rows["is_oracle"], "method"])
    ranked = found["mean"][~found.index.isin(oracles)]
    coverage = cells.count()[ranked.index]
    ranked = ranked[coverage == coverage.max()].sort_index().sort_values(ascending=False, kind="stable")
    best = ranked[ranked >= ranked.max() - _TIE * 1e-3]
    lower = ranked.drop(best.index)
    second = lower[lower >= lower.max() - _TIE * 1e-3]
    found["mark"] = ""
    found.loc[best.index, "mark"], found.loc[second.index, "mark"] = "best", "second"
    found["p"] = float("nan")
    if len(ranked):
        found.loc[lower.index, "p"] = paired(values, ranked.index[0], ["seed"])["p"]
    return found.assign(tied=found["p"] >= LEVEL)


def paired(values: pd.DataFrame, against: str, unit: Sequence[str]) -> pd.DataFrame:
    """Return the paired t-test of every method against one.

    The difference of a unit is the mean over the rows that both have of (method - against). Columns: ``difference``,
    its ``half_width`` and ``p``, NaN with fewer than two pairs; ``pairs``; ``not_paired``: units that only one has.

    Args:
        values: a column for each method; an index with the levels ``unit`` and others.
        against: name of the one.
        unit: what is independent.
    """
    differences = values.sub(values[against], axis="index").groupby(level=list(unit)).mean()
    units = (values.groupby(level=list(unit)).count() > 0).sum()
    rows = {}
    for method in values.columns:
        own = differences[method].dropna()
        test = paired_t(own.to_list()) if len(own) > 1 else (float("nan"),) * 3
        rows[method] = (*test, len(own), units[method] + units[against] - 2 * len(own))
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["difference", "half_width", "p", "pairs", "not_paired"]
    )


def with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of forgetting tasks, and one of the measure :data:`GAP` for each run that can have it.

    It is the mean of |value - value of :data:`REFERENCE` on the same task with the same seeds| over those of
    :data:`GAPS` that both have.
    """
    forgetting = table[table["regularity"].isna()]
    same = ["task", "seed", "unlearning_seed", "measure"]
    rows = forgetting[forgetting["measure"].isin(GAPS)]
    aims = rows[rows["method"] == REFERENCE].drop_duplicates(same, keep="last").set_index(same)["value"]
    rows = rows[rows["method"] != REFERENCE].join(aims.rename("aim"), on=same).dropna(subset="aim")
    gaps = (rows["value"] - rows["aim"]).abs().groupby(rows["run"]).mean()
    made = forgetting.drop_duplicates("run").set_index("run", drop=False).loc[gaps.index]
    return pd.concat(
        [forgetting, made.assign(measure=GAP, value=gaps, **dict.fromkeys(BESIDE, float("nan")))],
        ignore_index=True,
    )


def summarise_forgetting(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return for each forgetting task its methods: the reference, "none", then by rising average gap.

    A row for each method; columns: (measure, ``mean`` | ``half_width`` | ``n``), ``seconds`` among the measures, and
    (``failed``, ""): number of runs that failed.

    Raises:
        InvalidInput: no run of a forgetting task.
    """
    rows = with_gaps(table)
    if not len(rows):
        raise InvalidInput("there are no records of forgetting tasks; run some first ('expunge bench')")
    found = {}
    for task, own in rows.groupby("task"):
        values = over_seeds(own[own["measure"] != ""], ["method", "measure"])[["mean", "half_width", "n"]]
        wide = values.unstack("measure").swaplevel(axis="columns").sort_index(axis="columns")
        runs = own.drop_duplicates("run")
        wide = wide.reindex(sorted(runs["method"].unique()))
        if ("seconds", "mean") not in wide:
            wide["seconds", "mean"] = float("nan")
        wide["failed", ""] = (runs["status"] == "failed").groupby(runs["method"]).sum()
        gaps = wide[GAP, "mean"].fillna(2.0) if (GAP, "mean") in wide else pd.Series(2.0, wide.index)
        order = sorted(wide.index, key=lambda name: (name != REFERENCE, name != BASELINE, gaps[name], name))
        found[str(task)] = wide.loc[order]
    return found


def shown_measures(found: pd.DataFrame) -> list[str]:
    """Return those of :data:`SHOWN` that some method of a forgetting task has."""
    return [name for name in SHOWN if (name, "mean") in found and found[name, "mean"].notna().any()]


def _check(runs: pd.DataFrame) -> None:
    if not len(runs):
        raise InvalidInput(
            "there are no records to report, at least one was expected; run a sweep first, or loosen the "
            "selection of records"
        )
    for kind, column in (("data sets", "data"), ("models", "model")):
        names = sorted(runs[column].unique())
        if len(names) > 1:
            raise InvalidInput(
                f"the records come from several {kind} ({', '.join(names)}), but one report is about one; "
                "select the records of one and report each by itself"
            )
    for run in runs[runs["regularity"].isna() | runs["discovery"].isna()].itertuples():
        raise InvalidInput(
            f"record {run.key} is of a task {run.task!r}, which has no place on the map of corruption; "
            "select the records of corruption tasks"
        )
    for run in runs[runs.duplicated([*_CELL, "seed", "unlearning_seed"])].itertuples():
        raise InvalidInput(
            f"there are two records of method {run.method!r} at regularity {run.regularity:g}, "
            f"discovery {run.discovery:g}, seed {run.seed}, one was expected; select the records "
            "of one sweep, since a mean over different settings would say nothing"
        )


def _labels(
    values: Sequence[float], short: Callable[[float], str], exact: Callable[[float], str]
) -> dict[float, str]:
    # Two values that round to the same label would otherwise share one row or column.
    for name in (short, exact):
        labels = {value: name(value) for value in values}
        if len(set(labels.values())) == len(values):
            break
    return labels
