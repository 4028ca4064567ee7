"""An audit in words and figures, for the screen and a page, and as plain values for a JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import expunge
from expunge.evaluation.audit_metrics import REACHED, ForgetAccuracy, KeptAccuracy
from expunge.evaluation.evidence import Audit
from expunge.evaluation.references import SECOND
from expunge.evaluation.rows import Row, half_width
from expunge.evaluation.thresholds import THRESHOLDS
from expunge.evaluation.verdict import CAVEAT
from expunge.metrics.base import Better, Compares, Measurement
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


_NEAR = 0.25
"""Share of the way between two models within which a number counts as that of one of them."""
_SMALLEST = 0.01
"""A smaller difference is none."""


def reading(row: Row, reference: str) -> str:
    """Return where the unlearned model stands in a row, held against "retrained", "oracle", or nothing.

    Where a reference is the aim, and for distances to it: "as before", "in between", "as retrained", "past
    retrained", or "no contrast" where original and reference agree; without a reference "as before" or "changed".
    Elsewhere "worse", "as good" or "better" than both of them.
    """
    after, before = row.value("unlearned"), row.value("original")
    if after is None:
        return "not defined"
    distance = Compares.RETRAINED in row.metric.compares or row.metric.needs_population
    role = "retrained" if distance else reference
    aim = row.value(role)
    uncertain = math.hypot(*(half_width(row.models.get(entry)) for entry in ("unlearned", role)))
    tolerated = max(row.floor or 0.0, uncertain, _SMALLEST)
    if row.metric.better == "reference" or distance:
        return _position(after, before, aim, tolerated, role)
    return _rank(after, [value for value in (before, aim) if value is not None], tolerated, row.metric.better)


def _position(after: float, before: float | None, aim: float | None, tolerated: float, role: str) -> str:
    if aim is None:
        if before is None:
            return ""
        return "as before" if abs(after - before) <= tolerated else "changed"
    if before is not None and abs(before - aim) <= tolerated:
        return "no contrast" if abs(after - aim) <= tolerated else "unlike both"
    if abs(after - aim) <= tolerated:
        return f"as {role}"
    if before is None:
        return f"not as {role}"
    left = (after - aim) / (before - aim)
    if left < -_NEAR:
        return f"past {role}"
    if left <= _NEAR:
        return f"as {role}"
    return "as before" if left >= 1 - _NEAR else "in between"


def _rank(after: float, others: Sequence[float], tolerated: float, better: Better) -> str:
    if not others:
        return ""
    sign = 1 if better == "higher" else -1
    gains = [sign * (after - other) for other in others]
    if max(gains) < -tolerated:
        return "worse"
    return "better" if min(gains) > tolerated else "as good"


FORMAT = 1
"""Raised when an entry changes its meaning."""


def as_document(audit: Audit, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the audit as dictionaries, lists, texts and finite numbers; a number that is not defined is absent.

    ``about``: further entries, such as the files that were read.
    """
    verdict, facts = audit.verdict, audit.facts
    counts = asdict(facts)
    del counts["rows"], counts["roles"], counts["classes"]
    return {
        "format": FORMAT,
        "expunge": expunge.__version__,
        "caveat": CAVEAT,
        "verdict": {
            "outcomes": list(verdict.outcomes),
            "worked": verdict.worked,
            "grade": verdict.grade,
            "advice": verdict.advice,
            "findings": [asdict(finding) for finding in verdict.findings],
            "notes": list(verdict.notes),
        },
        "models": list(facts.roles),
        "reference": facts.reference or None,
        "counts": counts,
        "thresholds": asdict(THRESHOLDS),
        "measurements": [_row(row, facts.reference) for row in audit.rows],
        "seconds": dict(audit.seconds),
        **(about or {}),
    }


def _row(row: Row, reference: str) -> dict[str, Any]:
    return {
        "name": row.name,
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "better": row.metric.better,
        "source": row.metric.source,
        "models": {role: _number(entry) for role, entry in row.models.items()},
        "floor": row.floor,
        "reading": reading(row, reference),
    }


def _number(entry: Measurement) -> dict[str, Any]:
    if entry.value is None:
        return {"not_defined": entry.because}
    interval = {"low": entry.low, "high": entry.high} if entry.low is not None else {}
    return {"value": entry.value, **interval}
