"""Means over seeds, their intervals, ranks, pairs and tests, from the table of measurements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from expunge.errors import InvalidInput, near_miss
from expunge.results.frame import COSTS, forgets
from expunge.statistics import half_width, holm, paired_t, variance_components
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
HIDDEN_MEANING = (
    "Recalibrated: with the normalisation statistics of the retained data in place of the model's own, and the same "
    "weights. What falls with them was hidden by normalisation statistics, not forgotten."
)
LEVEL = 0.05
"""Two methods whose paired test has a larger p-value count as tied."""

_PLACE = ["regularity", "discovery"]
_CELL = ["method", *_PLACE]
_COLUMNS = {
    "oracle",
    "seeds",
    "failed",
    "best",
    "rank",
    "ranked",
    "cells",
    "mean",
    "n",
    "half_width",
    "mark",
    "p",
    "tied",
}
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
    def cell(self) -> dict[tuple[str, float, float], dict[str, Any]]:
        """The rows of ``cells`` as dictionaries."""
        found: dict[tuple[str, float, float], dict[str, Any]] = self.cells.to_dict("index")
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
    order = pd.DataFrame(
        {
            "other": methods.index != BASELINE,
            "oracle": methods["oracle"],
            "score": -methods["uxh"].fillna(-1.0),
            "name": methods.index,
        },
    )
    return methods.loc[order.sort_values(["other", "oracle", "score", "name"]).index]


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """Return every method's standing in Utility x Healed over the cells of ``table``.

    Columns: ``mean`` over the cells; ``half_width`` of its 95 % t-interval over the ``n`` seeds that have every cell;
    ``mark``: "best", "second" or ""; ``p`` of the paired t-test against the best, NaN where it cannot be made;
    ``tied``: whether it does not tell the two apart.

    The test: d_s = mean over the cells that both methods have for seed s of (method - best), against 0 over the
    seeds, at least two. Cells of one seed share their first model, so seeds are the unit and cells are not. Oracles
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
    forgetting = forgets(table)
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

    A row for each method; columns: (measure, ``mean`` | ``half_width`` | ``n``), and (``seconds``, ``mean``) among
    them; (``failed``, ""): number of runs that failed.

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
        seconds = own[own["measure"] == "seconds"].groupby("method")["value"].mean()
        wide["seconds", "mean"] = seconds.reindex(wide.index)
        wide["failed", ""] = (runs["status"] == "failed").groupby(runs["method"]).sum()
        order = pd.DataFrame(
            {
                "other": wide.index != REFERENCE,
                "better": wide.index != BASELINE,
                "gap": wide[GAP, "mean"].fillna(2.0) if (GAP, "mean") in wide else 2.0,
                "name": wide.index,
            },
            index=wide.index,
        )
        found[str(task)] = wide.loc[order.sort_values(["other", "better", "gap", "name"]).index]
    return found


def compare(table: pd.DataFrame, against: str | None = None) -> pd.DataFrame:
    """Compare the methods of one sweep with one of them, on the map, on forgetting tasks, or on both.

    Pairs are (task, training seed): cells that start from one first model are averaged, since they are not
    independent. Oracles are left out unless one is chosen. A row for each measure ("U x H", of which more is better;
    "average gap", of which less is) and method, best first: ``against``; ``chosen_by_mean``: whether that method was
    chosen for its mean, which makes p-values too small; ``difference``, its 95 % ``half_width``, ``p``; ``p_holm``,
    adjusted for the number of methods; ``tied``: whether that does not tell the two apart; ``pairs``, ``not_paired``.

    Args:
        table: of one sweep.
        against: the method to compare with; by default the best by its mean, among those run everywhere. There is no
            row where it has no finished run.
    """
    oracles = set(table.loc[table["is_oracle"], "method"]) - {against}
    shown = table[~table["method"].isin(oracles)]
    on_map = shown[(shown["measure"] == "uxh") & shown["regularity"].notna()]
    gaps = with_gaps(shown)
    parts = []
    for measure, rows, task, sign in (
        ("U x H", on_map, "regularity", 1),
        ("average gap", gaps[gaps["measure"] == GAP], "task", -1),
    ):
        by = [task, "seed", *(["discovery"] if sign > 0 else []), "method"]
        values = rows.groupby(by)["value"].mean().unstack("method")
        if len(values.columns) > 1 and (against is None or against in values):
            found = _against(values, against, [task, "seed"], sign)
            parts.append(found.assign(measure=measure))
    columns = [
        "measure", "against", "method", "difference", "half_width", "p", "p_holm", "tied", "pairs", "not_paired",
        "chosen_by_mean",
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _against(values: pd.DataFrame, against: str | None, unit: Sequence[str], sign: int) -> pd.DataFrame:
    means, coverage = sign * values.mean(), values.count()
    chosen = against
    if chosen is None:
        candidates = means.drop(BASELINE, errors="ignore")
        candidates = candidates if len(candidates) else means
        whole = coverage[candidates.index]
        chosen = candidates[whole == whole.max()].sort_index().idxmax()
    others = means.drop(chosen).sort_values(ascending=False, kind="stable").index
    found = paired(values, chosen, unit).loc[others]
    made = found["p"].dropna()
    found["p_holm"] = pd.Series(holm(made.to_list()), made.index, dtype=float)
    return found.assign(
        against=chosen, chosen_by_mean=against is None, method=others, tied=found["p_holm"] >= LEVEL
    )


def check_against(found: Sequence[pd.DataFrame], against: str | None, methods: Sequence[str]) -> None:
    """Raise :class:`InvalidInput` if none of the comparisons ``found`` has a row for ``against``."""
    if against is not None and not any(map(len, found)):
        names = sorted(set(methods))
        raise InvalidInput(
            f"nothing can be compared with {against!r}{near_miss(against, names)}: it has no finished run beside "
            f"another method's (methods: {', '.join(names)})"
        )


def unlearning_varies(table: pd.DataFrame) -> bool:
    """Whether some training seed has several unlearning seeds."""
    return bool(len(table[["seed", "unlearning_seed"]].drop_duplicates()) > table["seed"].nunique())


def seed_spreads(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much a method's result varies between trainings and between unlearnings of one training.

    On the map a method's value for a pair of seeds is the mean Utility x Healed over its cells; pairs that lack a
    cell which another pair has are left out. Of a forgetting task it is the average gap. A row for each method and
    task; ``mean`` with ``half_width`` over the training seeds; ``sd_training``, ``sd_unlearning``, see
    :func:`expunge.statistics.variance_components`; ``training_seeds`` and ``runs``: numbers; ``in_words``: which
    spread is larger. No row unless unlearning seeds vary within a training seed.
    """
    columns = [
        "task", "measure", "method", "mean", "half_width", "sd_training", "sd_unlearning", "training_seeds", "runs",
        "in_words",
    ]  # fmt: skip
    if not unlearning_varies(table):
        return pd.DataFrame(columns=columns)
    pair = ["task", "method", "seed", "unlearning_seed"]
    cells = table[(table["measure"] == "uxh") & table["regularity"].notna()].groupby(pair)["value"]
    cells = cells.agg(value="mean", size="count")
    whole = cells["size"] == cells["size"].groupby(level=["task", "method"]).transform("max")
    gaps = with_gaps(table)
    rows: list[dict[str, Any]] = []
    for measure, values, sign in (
        ("U x H, mean of the map", cells.loc[whole, ["value"]].reset_index(), -1),
        ("average gap", gaps[gaps["measure"] == GAP], 1),
    ):
        means = over_seeds(values, ["task", "method"]).reset_index()
        for row in means.sort_values("mean", key=lambda mean, sign=sign: sign * mean, kind="stable").to_dict(
            "records"
        ):
            own = values[(values["task"] == row["task"]) & (values["method"] == row["method"])]
            training, unlearning = variance_components(own.groupby("seed")["value"].apply(list).to_dict())
            rows.append(
                {
                    **row,
                    "task": "" if sign < 0 else row["task"],
                    "measure": measure,
                    "sd_training": training,
                    "sd_unlearning": unlearning,
                    "training_seeds": row["n"],
                    "runs": len(own),
                    "in_words": larger_spread(training, unlearning),
                }
            )
    found = pd.DataFrame(rows, columns=columns).astype({"sd_training": float, "sd_unlearning": float})
    return found.sort_values("task", kind="stable", ignore_index=True)


def larger_spread(training: float | None, unlearning: float | None) -> str:
    """Return in words which of two standard deviations is larger; ``None``: not known."""
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


def further_measures(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each method and measure that neither map nor forgetting tables show: by name, then rising gap.

    ``mean`` with ``half_width`` over the training seeds; the means of ``retrained``, ``floor`` and ``oracle``, NaN
    where there are none; ``gap``: mean of |value - retrained|, run by run; ``runs``: how many have the number.
    """
    on_map = table["regularity"].notna()
    shown = (table["measure"].isin(SHOWN) & ~on_map) | (table["measure"].isin(RECALIBRATED) & on_map)
    rows = table[~table["measure"].isin(["", *METRICS, *COSTS]) & ~shown]
    by = rows.assign(gap=(rows["value"] - rows["retrained"]).abs()).groupby(["measure", "method"])
    found = over_seeds(rows, ["measure", "method"])[["mean", "half_width"]].join(
        by[["retrained", "gap", "floor", "oracle"]].mean()
    )
    found["runs"] = by.size()
    return found.reset_index().sort_values(["measure", "gap", "method"], ignore_index=True)


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
