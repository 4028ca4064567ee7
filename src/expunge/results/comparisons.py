"""Methods beside each other: paired tests, spreads between seeds, and measures beside a retrained model's."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from expunge.errors import InvalidInput, near_miss
from expunge.results.frame import COSTS, is_on_map
from expunge.results.summary import (
    BASELINE,
    GAP,
    LEVEL,
    RECALIBRATED,
    SHOWN,
    over_seeds,
    paired,
    with_gaps,
)
from expunge.results.sweeps import Sweep
from expunge.statistics import holm, variance_components
from expunge.store.record import METRICS


def compare(table: pd.DataFrame, against: str | None = None) -> pd.DataFrame:
    """Compare the methods of one sweep with one of them, on the map or on forgetting tasks.

    Pairs are (task, training seed): cells that start from one original model are averaged, since they are not
    independent. Oracles are left out unless one is chosen. A row for each method, best first: ``measure`` ("U x H", of
    which more is better, or "average gap", of which less is); ``against``; ``chosen_by_mean``: whether that method was
    chosen for its mean, which makes p-values too small; ``difference``, its 95 % ``half_width``, ``p``; ``p_holm``,
    adjusted for the number of methods; ``tied``: whether that does not tell the two apart; ``pairs``, ``not_paired``.

    Args:
        table: of one sweep.
        against: the method to compare with; by default the best by its mean, among those run everywhere. There is no
            row where it has no finished run.
    """
    columns = [
        "measure", "against", "method", "difference", "half_width", "p", "p_holm", "tied", "pairs", "not_paired",
        "chosen_by_mean",
    ]  # fmt: skip
    oracles = set(table.loc[table["is_oracle"], "method"]) - {against}
    shown = table[~table["method"].isin(oracles)]
    if is_on_map(table):
        rows, measure, sign = shown[shown["measure"] == "uxh"], "U x H", 1
        unit, cells = ["regularity", "seed"], ["discovery"]
    else:
        gaps = with_gaps(shown)
        rows, measure, sign = gaps[gaps["measure"] == GAP], "average gap", -1
        unit, cells = ["task", "seed"], []
    values = rows.groupby([*unit, *cells, "method"])["value"].mean().unstack("method")
    if len(values.columns) < 2 or (against is not None and against not in values):
        return pd.DataFrame(columns=columns)
    means = sign * values.mean()
    chosen = against or _best(means, values.count())
    others = means.drop(chosen).sort_values(ascending=False, kind="stable").index
    found = paired(values, chosen, unit).loc[others]
    made = found["p"].dropna()
    found["p_holm"] = pd.Series(holm(made.to_list()), made.index, dtype=float)
    found = found.assign(
        measure=measure,
        against=chosen,
        chosen_by_mean=against is None,
        method=others,
        tied=found["p_holm"] >= LEVEL,
    )
    return found.reset_index(drop=True)[columns]


def _best(means: pd.Series[float], coverage: pd.Series[int]) -> str:
    candidates = means.drop(BASELINE, errors="ignore")
    candidates = candidates if len(candidates) else means
    whole = coverage[candidates.index]
    return str(candidates[whole == whole.max()].sort_index().idxmax())


def compare_each(sweeps: Sequence[Sweep], against: str | None) -> list[pd.DataFrame]:
    """Return :func:`compare` of each sweep.

    Raises:
        InvalidInput: nothing can be compared with ``against``.
    """
    found = [compare(sweep.table, against) for sweep in sweeps]
    if against is not None and not any(map(len, found)):
        names = sorted({record.method for sweep in sweeps for record in sweep.records})
        raise InvalidInput(
            f"nothing can be compared with {against!r}{near_miss(against, names)}: it has no finished run beside "
            f"another method's (methods: {', '.join(names)})"
        )
    return found


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
    if on_map := is_on_map(table):
        cells = table[table["measure"] == "uxh"].groupby(["task", "method", "seed", "unlearning_seed"])[
            "value"
        ]
        cells = cells.agg(value="mean", size="count")
        whole = cells["size"] == cells["size"].groupby(level=["task", "method"]).transform("max")
        values, measure = cells.loc[whole, ["value"]].reset_index(), "U x H, mean of the map"
    else:
        gaps = with_gaps(table)
        values, measure = gaps[gaps["measure"] == GAP], "average gap"
    groups = values.groupby(["task", "method"])
    components = [
        variance_components(own.groupby("seed")["value"].apply(list).to_dict()) for _, own in groups
    ]
    found = over_seeds(values, ["task", "method"]).rename(columns={"n": "training_seeds"})
    found = found.assign(
        measure=measure,
        sd_training=[training for training, _ in components],
        sd_unlearning=[unlearning for _, unlearning in components],
        runs=groups.size(),
        in_words=[larger_spread(*both) for both in components],
    ).astype({"sd_training": float, "sd_unlearning": float})
    found = found.reset_index().sort_values(["task", "mean"], ascending=[True, not on_map])
    if on_map:
        found["task"] = ""
    return found[columns]


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
    shown = RECALIBRATED if is_on_map(table) else SHOWN
    rows = table[~table["measure"].isin(["", *METRICS, *COSTS, *shown])]
    by = rows.assign(gap=(rows["value"] - rows["retrained"]).abs()).groupby(["measure", "method"])
    found = over_seeds(rows, ["measure", "method"])[["mean", "half_width"]].join(
        by[["retrained", "gap", "floor", "oracle"]].mean()
    )
    found["runs"] = by.size()
    return found.reset_index().sort_values(["measure", "gap", "method"], ignore_index=True)
