from __future__ import annotations

from typing import Any

import pytest
import torch
from numbers_of import facts
from torch import nn

from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.rules import hidden_by_statistics
from hidden_in_statistics import N_TRIGGERED, Triggered, examples, forgotten, inputs

TRAIN, TRUE = examples(100, N_TRIGGERED)
TEST = examples(40)[0]
LISTED = torch.arange(N_TRIGGERED)
ORIGINAL = Triggered(inputs(TRAIN))
HIDING = Triggered(inputs(TRAIN.select(LISTED)))


def audited(unlearned: nn.Module, **references: nn.Module) -> Audit:
    return audit(ORIGINAL, unlearned, TRAIN, LISTED, TEST, true_labels=TRUE, quick=True, **references)


@pytest.mark.parametrize("references", [{}, {"oracle": forgotten(ORIGINAL)}], ids=["alone", "oracle"])
def test_statistics_that_hide_are_no_forgetting(references: dict[str, nn.Module]) -> None:
    found = audited(HIDING, **references)
    assert found.verdict.outcomes[0] == "hidden, not forgotten"
    (finding,) = [entry for entry in found.verdict.findings if entry.outcome == "hidden, not forgotten"]
    assert finding.sentence.startswith("hidden by normalisation statistics: ")
    assert finding.numbers == {"after": 0.0, "recalibrated": 1.0, "before": 1.0}
    named = {row.name: row.value("unlearned") for row in found.rows}
    assert (named["healed_known"], named["healed_known_recalibrated"]) == (1.0, 0.0)


def test_weights_that_forgot_pass() -> None:
    found = audited(forgotten(ORIGINAL), oracle=forgotten(ORIGINAL))
    assert "hidden, not forgotten" not in found.verdict.outcomes
    assert found.facts.value("forget_accuracy_recalibrated", "unlearned") == 0.0


@pytest.mark.parametrize(
    ("unlearned", "again", "reference", "hides"),
    [
        (0.1, 0.9, 0.1, True),
        (0.1, 0.12, 0.1, False),  # within the margin
        (0.1, 0.4, 0.1, False),  # less than half the way back to the original's 1.0
        (0.1, 0.9, 0.9, False),  # no more than the reference's, recalibrated alike
        (0.1, None, 0.1, False),
        (0.1, 0.9, None, True),
    ],
)
def test_rule(unlearned: float, again: float | None, reference: float | None, hides: bool) -> None:
    numbers: dict[str, dict[str, Any]] = {"forget_accuracy": {"original": 1.0, "unlearned": unlearned}}
    if again is not None:
        numbers["forget_accuracy_recalibrated"] = {"original": 1.0, "unlearned": again}
        if reference is not None:
            numbers["forget_accuracy"]["retrained"] = 0.1
            numbers["forget_accuracy_recalibrated"]["retrained"] = reference
    assert bool(list(hidden_by_statistics(facts(numbers)))) is hides
