"""An audit as plain values, for a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import expunge
from expunge.evaluation.audit_table import reading
from expunge.evaluation.evidence import Audit
from expunge.evaluation.rows import Row
from expunge.evaluation.verdict import CAVEAT
from expunge.metrics.base import Measurement

FORMAT = 1
"""Raised when an entry changes its meaning."""


def as_document(audit: Audit, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the audit as dictionaries, lists, texts and finite numbers; a number that is not defined is absent.

    Args:
        audit: what was measured.
        about: further entries, such as the files that were read.
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
        "thresholds": asdict(audit.thresholds),
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
