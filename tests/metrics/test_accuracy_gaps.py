from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from memory import Constant, class_problem, evaluated, random_problem

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.accuracies import accuracy, set_accuracies, unseen_like_forget, unseen_like_retain
from expunge.metrics.base import UNDEFINED, Compares, Evaluated
from expunge.metrics.composites import AccuracyGaps, Readings, gaps
from expunge.metrics.fitted_attacks import SVCEfficacy
from expunge.tasks.base import Problem


def share(given: Evaluated, examples: Examples) -> float:
    right = 0
    for position in range(len(examples)):
        batch = next(examples.select(torch.tensor([position])).batches(1))
        row = given.model(batch.x)[0].tolist()
        right += row.index(max(row)) == int(batch.y)
    return right / len(examples)


def test_gaps_by_hand() -> None:
    found = gaps(Readings(0.1, 0.9, 0.8, 0.3), Readings(0.3, 1.0, 0.75, 0.2))
    assert found == pytest.approx((0.2, 0.1, 0.05, 0.1))


@pytest.mark.parametrize("problem", [random_problem, class_problem])
def test_readings_equal_slow_loops(problem: Callable[[], Problem]) -> None:
    given = evaluated(problem()).retrained
    split, sets = given.problem.split, given.truth.sets
    found = AccuracyGaps().readings(given)
    assert found.ua == pytest.approx(1 - share(given, split.forget))
    assert found.ra == pytest.approx(share(given, split.retain))
    assert found.ta == pytest.approx(share(given, sets["remaining_test"]))
    assert found.mia == SVCEfficacy()(given)


def test_the_average_is_the_mean_of_the_four() -> None:
    given = evaluated(class_problem())
    metric = AccuracyGaps()
    found = {name: entry.value for name, entry in metric.values(given).items()}
    each = [found[f"accuracy_gaps_{name}"] for name in ("ua", "ra", "ta", "mia")]
    assert next(iter(found)) == "accuracy_gaps"
    assert found["accuracy_gaps"] == metric(given) == pytest.approx(sum(each) / 4)
    # a model that forgot nothing knows the whole class, the retrained one none of it
    assert found["accuracy_gaps_ua"] == 1.0
    assert found["accuracy_gaps_ra"] == 0.0


def test_the_retrained_model_has_no_gap_to_itself() -> None:
    given = evaluated(random_problem())
    same = evaluated(random_problem(), given.retrained.model)
    assert [entry.value for entry in AccuracyGaps().values(same).values()] == [0.0] * 5


def test_what_it_needs() -> None:
    assert AccuracyGaps.compares == Compares.RETRAINED
    assert AccuracyGaps.better == "lower"
    given = evaluated(random_problem())
    alone = Evaluated(given.model, given.problem, given.numerics)
    with pytest.raises(UNDEFINED, match="the retrained model, which is not given"):
        AccuracyGaps()(alone)
    with pytest.raises(UNDEFINED, match="NaN or inf"):
        AccuracyGaps()(evaluated(random_problem(), Constant(0.0, math.nan, 0.0, 0.0)))


def test_test_images_beside_the_two_parts() -> None:
    given = evaluated(class_problem())
    assert set(unseen_like_forget(given).labels.tolist()) == {1}
    assert set(unseen_like_retain(given).labels.tolist()) == {0, 2, 3}
    given = evaluated(random_problem())
    for found in (unseen_like_forget(given), unseen_like_retain(given)):
        assert torch.equal(found.labels, given.truth.sets["test"].labels)


def test_a_forgotten_class_without_test_images() -> None:
    problem = class_problem()
    none = problem.truth.sets["forget_test"].select(torch.tensor([], dtype=torch.int64))
    sets = {**problem.truth.sets, "forget_test": none}
    given = evaluated(replace(problem, truth=replace(problem.truth, sets=sets)))
    with pytest.raises(UNDEFINED, match="no examples in its set 'forget_test'"):
        unseen_like_forget(given)


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0], [0.0, 5.0]])
    assert accuracy(logits, torch.tensor([0, 0, 0, 1])) == 0.5
    with pytest.raises(InvalidInput, match="at least one row of logits"):
        accuracy(torch.zeros(0, 2), torch.zeros(0))
    with pytest.raises(InvalidInput, match=r"one label for each, got \(4, 2\) and \(3,\)"):
        accuracy(logits, torch.zeros(3))


def test_accuracies_are_of_forget_retain_and_test() -> None:
    given = evaluated(class_problem(), Constant(0.0, 1.0, 0.0, 0.0))
    assert set_accuracies(given) == (1.0, 0.0, 0.0)
