from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.evaluation.evaluate import evaluate
from expunge.evaluation.problem import audit_problem
from expunge.methods.base import Request
from expunge.methods.gradient_ascent import GradientAscent
from expunge.metrics.base import Evaluated, NotDefined, measure
from expunge.metrics.recalibrated import Recalibrated
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics
from hidden_in_statistics import N_TRIGGERED, Triggered, examples, forgotten, inputs

CPU = Numerics(channels_last=False)
TRAIN, TRUE = examples(100, N_TRIGGERED)
TEST = examples(40)[0]
LISTED = torch.arange(N_TRIGGERED)
PROBLEM = audit_problem(TRAIN, LISTED, TEST, TRUE)
ORIGINAL = Triggered(inputs(TRAIN))
HIDING = Triggered(inputs(TRAIN.select(LISTED)))


def test_what_sits_in_the_statistics_alone_comes_back() -> None:
    hiding = Evaluated(HIDING, PROBLEM, CPU)
    assert float(hiding.right("corrupted_known").double().mean()) == 1.0
    assert hiding.accuracy("test") == 1.0
    again = {entry.name: entry.value for entry in measure(Recalibrated(), hiding)}
    assert again["healed_recalibrated"] == 0.0
    assert again["utility_recalibrated"] == 1.0
    found = evaluate(HIDING, PROBLEM, CPU)
    assert (found["healed"], found["metrics"]["healed_recalibrated"]) == (1.0, 0.0)
    assert (found["uxh"], found["metrics"]["uxh_recalibrated"]) == (1.0, 0.0)


def test_what_the_weights_forgot_stays_forgotten() -> None:
    found = evaluate(forgotten(ORIGINAL), PROBLEM, CPU)
    assert (found["healed"], found["metrics"]["healed_recalibrated"]) == (1.0, 1.0)


def test_the_statistics_are_those_of_the_retain_set_and_the_model_keeps_its_own() -> None:
    kept = {name: value.clone() for name, value in HIDING.state_dict().items()}
    again = Evaluated(HIDING, PROBLEM, CPU).recalibrated.model
    retained = inputs(TRAIN.select(torch.arange(N_TRIGGERED, 100)))[:, 1:]
    assert torch.allclose(again.norm.running_mean, retained.mean(0), atol=1e-6)
    assert torch.allclose(again.norm.running_var, retained.var(0), atol=1e-5)
    assert all(torch.equal(value, kept[name]) for name, value in HIDING.state_dict().items())


def test_a_network_without_batch_normalisation_has_no_such_figures() -> None:
    plain = nn.Linear(2, 2)
    (reason,) = measure(Recalibrated(), Evaluated(plain, PROBLEM, CPU))
    assert reason.because == "the model has no batch normalisation, whose statistics could be estimated anew"
    assert not any(name.endswith("_recalibrated") for name in evaluate(plain, PROBLEM, CPU)["metrics"])
    with pytest.raises(NotDefined, match="no batch normalisation"):
        _ = Evaluated(plain, PROBLEM, CPU).recalibrated


@pytest.mark.parametrize("recalibrate", [False, True])
def test_a_method_can_recalibrate_its_result_though_it_reads_no_retained_data(recalibrate: bool) -> None:
    request = Request(Split(TRAIN, LISTED), seed=0, numerics=CPU)
    method = GradientAscent(lr=1e-12, passes=100, batch_size=20, threshold=0.0, recalibrate=recalibrate)
    result = method(ORIGINAL, request).model
    found = evaluate(result, PROBLEM, CPU)
    # An ascent that does not move a weight: what it removes sits in the statistics alone.
    assert found["healed"] == (0.0 if recalibrate else 1.0)
    assert found["metrics"]["healed_recalibrated"] == 0.0
