"""An audit's table in words and figures: what the screen and a page both show."""

from __future__ import annotations

from expunge.evaluation.audit_only import REACHED, ForgetAccuracy, KeptAccuracy
from expunge.evaluation.evidence import Audit
from expunge.evaluation.retrained import SECOND
from expunge.evaluation.rows import Row
from expunge.metrics.corruption import Healed
from expunge.metrics.of_populations import PopulationMetric
from expunge.metrics.recalibrated import Recalibrated

AIMS = {"higher": "high", "lower": "low", "reference": "= ref"}
"""Where a number should go -> the same in short."""

_WHOLE = ("steps", "images")
"""Units that are counted."""


def main_rows(audit: Audit) -> list[Row]:
    """Return the rows that are shown first, of those that are defined."""
    return [row for row in audit.rows if is_main(row) and not row.because]


def is_main(row: Row) -> bool:
    """Whether a row is one of those shown first, not a part of another."""
    if isinstance(row.metric, PopulationMetric):
        return row.name == row.metric.numbers[0]
    return row.name in (row.metric.name, "class_damage_to_reference") or isinstance(
        row.metric, ForgetAccuracy | KeptAccuracy | Healed | Recalibrated
    )


def figure(value: float | None, row: Row) -> str:
    """Return a number of ``row`` as text."""
    if value is None:
        return "-"
    if row.metric.unit in _WHOLE and row.name != REACHED:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def legend(audit: Audit) -> str:
    """Return what the columns of the table mean; empty without a reference."""
    said = ""
    if audit.facts.reference:
        said = (
            "aim = ref: the nearer to the reference the better. no contrast: original and reference agree, so that "
            "the number shows nothing."
        )
    if SECOND in audit.facts.roles:
        said += " floor: how far two retrained models lie apart."
    return said


def undefined(audit: Audit) -> dict[str, list[str]]:
    """Return why numbers are not defined -> which ones, in the order of the table."""
    reasons: dict[str, list[str]] = {}
    for row in audit.rows:
        name = row.name.replace("_", " ")
        if row.because:
            reasons.setdefault(row.because, []).append(name)
            continue
        for role, entry in row.models.items():
            if entry.because:
                reasons.setdefault(entry.because, []).append(f"{name} of the {role} model")
    return reasons
