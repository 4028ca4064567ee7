"""Columns of tables that the page and the terminal share: what is shown of a row of a frame, and how it sorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from expunge.results.wording import MISSING, counted, is_known, number, percent, with_interval

Chip = tuple[str, str, str | None]
"""Kind, text and title of a mark beside a number."""
BESIDE = ("retrained", "gap", "floor", "oracle")
"""Columns of :func:`expunge.results.comparisons.further_measures` that are shown where some row has a value."""


SPREAD_MEANING = (
    "Mean ± 95 % t-interval over the training seeds, each the mean of its unlearning seeds. Two standard deviations, "
    "in points: between trainings, without the noise of unlearning, and between unlearnings of one training. More "
    "unlearning seeds do not replace training seeds. An average gap also varies with the retrained model."
)
FURTHER_MEANING = (
    "In the unit of the metric; ±: 95 % t-interval over the training seeds. Retrained: of a model trained on the "
    "retain set. Gap: mean of |value - retrained|. Floor: the gap of a second retrained model; a gap that is not "
    "above it is no larger than the noise of retraining."
)


class Cell(NamedTuple):
    """What is shown of a number: its text, what it sorts by, its marks."""

    text: str = MISSING
    value: str | None = None
    chips: Sequence[Chip] = ()


class Column(NamedTuple):
    """A heading, the cell of a row of a frame, and whether the greatest comes first when it is sorted."""

    heading: str
    cell: Callable[[Any], Cell]
    falling: bool = True


def cell(value: float | None, text: str, chips: Sequence[Chip] = ()) -> Cell:
    """Return the cell of a number."""
    return Cell(text, f"{value:.6g}" if is_known(value) else None, chips)


def shown(heading: str, name: str, text: Callable[[Any], str] = percent, *, falling: bool = True) -> Column:
    """Return the column of a frame's column ``name``, by default as percent."""
    return Column(heading, lambda row: cell(getattr(row, name), text(getattr(row, name))), falling)


SPREADS = (
    Column("mean %", lambda row: cell(row.mean, with_interval(row.mean, row.half_width))),
    shown("sd training", "sd_training"),
    shown("sd unlearning", "sd_unlearning"),
    Column(
        "seeds",
        lambda row: cell(
            row.training_seeds, f"{counted(row.training_seeds, 'training')}, {counted(row.runs, 'run')}"
        ),
        falling=False,
    ),
    Column("in words", lambda row: Cell(row.in_words), falling=False),
)
"""Of :func:`expunge.results.comparisons.seed_spreads`."""


def further_columns(found: pd.DataFrame) -> list[Column]:
    """Return the columns of :func:`expunge.results.comparisons.further_measures`, or of a part of it."""

    def value(row: Any) -> Cell:
        spread = f" ±{row.half_width:.2g}" if is_known(row.half_width) else ""
        return cell(row.mean, f"{row.mean:.3g}{spread}")

    def gap(row: Any) -> Cell:
        within = row.gap <= row.floor  # false where one is NaN
        return cell(row.gap, _rounded(row.gap), [("tied", "in the floor", None)] if within else [])

    beside = [
        Column(name, gap, falling=False) if name == "gap" else shown(name, name, _rounded)
        for name in BESIDE
        if found[name].notna().any()
    ]
    return [Column("value", value), *beside, shown("runs", "runs", str)]


def _rounded(value: float) -> str:
    # Rounding leaves some 1e-17 where a model is compared with itself.
    return "0" if abs(value) < 1e-12 else number(value, ".3g")
