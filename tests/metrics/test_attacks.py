from __future__ import annotations

import math

import pytest
import torch
from memory import Constant, class_problem, evaluated, random_problem
from torch import Tensor

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.attacks import (
    ConfidenceAttack,
    EntropyAttackAUC,
    LossAttack,
    ModifiedEntropyAttack,
    PopulationAttack,
)
from expunge.metrics.base import UNDEFINED, Evaluated, Value, measure

ATTACKS = (LossAttack, ConfidenceAttack, EntropyAttackAUC, ModifiedEntropyAttack)


def guesses(kind: type[PopulationAttack], logits: Tensor, y: int) -> float:
    p = logits.double().softmax(0).tolist()
    mentr = (1 - p[y]) * math.log(p[y]) + sum(q * math.log(1 - q) for j, q in enumerate(p) if j != y)
    return {
        LossAttack: math.log(p[y]),
        ConfidenceAttack: p[y],
        EntropyAttackAUC: sum(q * math.log(q) for q in p),
        ModifiedEntropyAttack: mentr,
    }[kind]


def one_by_one(kind: type[PopulationAttack], given: Evaluated, others: str) -> float:
    def found(examples: Examples) -> list[float]:
        batch = next(examples.batches(len(examples)))
        return [
            guesses(kind, row, int(y)) for row, y in zip(given.model(batch.x).detach(), batch.y, strict=True)
        ]

    members, unseen = found(given.problem.split.forget), found(given.examples(others))
    wins = sum((m > o) + (m == o) / 2 for m in members for o in unseen)
    return wins / (len(members) * len(unseen))


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_auc_equals_a_loop_over_pairs(kind: type[PopulationAttack]) -> None:
    given = evaluated(random_problem())
    assert kind()(given) == pytest.approx(one_by_one(kind, given, "test"), abs=1e-9)
    assert kind().values(given)[kind.name].value == kind()(given)


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_forgot_nothing_is_found_and_what_was_retrained_is_not(kind: type[PopulationAttack]) -> None:
    given = evaluated(random_problem())
    assert kind()(given) > 0.95
    assert kind()(given.retrained) == pytest.approx(0.5, abs=0.12)
    assert kind.better == "reference"


def test_a_forgotten_class_is_compared_with_its_own_test_images() -> None:
    given = evaluated(class_problem())
    assert LossAttack()(given) == pytest.approx(one_by_one(LossAttack, given, "forget_test"), abs=1e-9)
    # against all test images the retrained model would look as if it had been told to avoid the class
    assert LossAttack()(given.retrained) == pytest.approx(0.5, abs=0.15)
    assert one_by_one(LossAttack, given.retrained, "test") < 0.2


def test_values_have_intervals_and_a_seed() -> None:
    given = evaluated(random_problem())
    retrained = given.retrained
    found = LossAttack(resamples=200).values(retrained)
    assert list(found) == ["loss_attack", "loss_attack_tpr_at_0.01", "loss_attack_tpr_at_0.001"]
    auc = found["loss_attack"]
    assert auc.low is not None
    assert auc.high is not None
    assert auc.low < auc.value < auc.high
    again = LossAttack(resamples=200).values(retrained)
    assert all(again[name] == found[name] for name in list(found)[:2])
    other = LossAttack(resamples=200, seed=1).values(retrained)["loss_attack"]
    assert other.value == auc.value
    assert other.low != auc.low
    assert LossAttack(resamples=200).values(given)["loss_attack_tpr_at_0.01"].value > 0.5


def test_a_tenth_of_a_percent_needs_a_thousand_test_images() -> None:
    given = evaluated(random_problem())
    with pytest.raises(UNDEFINED, match=r"rate of 0\.001 needs at least 1000 non-members, got 200"):
        LossAttack().roc(given).tpr_at(0.001)
    assert (
        LossAttack().roc(given).tpr_at(0.01)
        == LossAttack(resamples=100).values(given)["loss_attack_tpr_at_0.01"].value
    )
    with pytest.raises(UNDEFINED, match="needs at least 100 non-members, got 50"):
        LossAttack().roc(evaluated(class_problem())).tpr_at(0.01)
    reasons = {found.name: found.because for found in measure(LossAttack(resamples=100), given)}
    assert list(reasons) == ["loss_attack", "loss_attack_tpr_at_0.01", "loss_attack_tpr_at_0.001"]
    assert not reasons["loss_attack_tpr_at_0.01"]
    assert "needs at least 1000 non-members, got 200" in reasons["loss_attack_tpr_at_0.001"]


def test_a_model_that_answers_all_alike_gives_nothing_away() -> None:
    given = evaluated(random_problem(), Constant(0.0, 0.0, 0.0, 0.0))
    for kind in (LossAttack, ConfidenceAttack, EntropyAttackAUC):
        found = kind(resamples=100).values(given)
        assert found[kind.name] == Value(0.5, 0.5, 0.5)
        assert found[f"{kind.name}_tpr_at_0.01"].value == 0.0


@pytest.mark.parametrize("kind", ATTACKS)
def test_logits_that_are_not_finite(kind: type[PopulationAttack]) -> None:
    given = evaluated(random_problem(), Constant(0.0, math.nan, 0.0, 0.0))
    (found,) = measure(kind(), given)
    assert found.name == kind.name
    assert found.value is None
    assert "NaN or inf" in found.because


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="resamples must be at least 100 for a 95 % interval, got 10"):
        LossAttack(resamples=10)


def test_labels_are_the_stored_ones() -> None:
    given = random_problem()
    forget = given.split.forget
    assert torch.equal(evaluated(given).forget.labels, forget.labels)
