"""Facts made of bare numbers."""

from __future__ import annotations

from typing import Any

from expunge.evaluation.audit_metrics import ForgetAccuracy, Relearned
from expunge.evaluation.facts import Facts
from expunge.evaluation.rows import Row
from expunge.metrics.base import Measurement, Metric

Numbers = dict[str, float | tuple[float, float, float] | None]
"""Role -> the number, with its interval where there is one; "floor" -> the floor."""


def row(name: str, metric: Metric | None = None, **numbers: Any) -> Row:
    metric = metric or (Relearned() if name.startswith("relearn") else ForgetAccuracy())
    floor = numbers.pop("floor", None)
    models = {}
    for role, number in numbers.items():
        if number is None:
            models[role] = Measurement(name, metric, because="it is not")
        elif isinstance(number, tuple):
            models[role] = Measurement(name, metric, *number)
        else:
            models[role] = Measurement(name, metric, number)
    return Row(name, metric, models, floor)


def facts(numbers: dict[str, Numbers], **settings: Any) -> Facts:
    rows = {name: row(name, **given) for name, given in numbers.items()}
    roles = dict.fromkeys(role for entry in rows.values() for role in entry.models)
    given = {
        "n_forget": 1000,
        "n_retain": 10_000,
        "n_test": 10_000,
        "n_forget_test": 1000,
        "n_per_class": 1000,
        "n_classes": 10,
        "whole_classes": False,
        "labels": "right",
        "roles": tuple(roles),
        **settings,
    }
    return Facts(rows=rows, **given)
