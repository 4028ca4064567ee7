from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from expunge.errors import InvalidInput
from expunge.methods.bad_teacher import BadTeacher
from expunge.methods.base import Request
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.initialisation import reinitialise
from expunge.training.loop import predict


@pytest.mark.trains
def test_the_forget_set_approaches_the_random_teacher(margin: Callable[..., None]) -> None:
    case = image_case()
    method = BadTeacher(batch_size=32, lr=0.01, epochs=10, temperature=1.0)
    request = case.request(method)
    random = copy.deepcopy(case.model)
    reinitialise(random, request.generator("incompetent"))
    outcome = method(case.model, request)

    def gap(model: torch.nn.Module, teacher: torch.nn.Module, forget: bool) -> float:
        part = case.split.forget if forget else case.split.retain
        first, second = (predict(net, part, case.numerics).softmax(1) for net in (model, teacher))
        return float((first - second).abs().sum(1).mean())

    to_random, before = (gap(model, random, True) for model in (outcome.model, case.model))
    margin("gap to the random teacher", to_random / before, below=0.6)
    to_first, random_to_first = (gap(model, case.model, False) for model in (outcome.model, random))
    margin("gap to the original model", to_first / random_to_first, below=0.5)
    count = sum(parameter.numel() for parameter in case.model.parameters())
    assert outcome.cost.parameters["during"] == 3 * count


def test_a_share_of_the_remaining_data_is_used() -> None:
    case = image_case()
    method = BadTeacher(batch_size=32, epochs=2, retain_share=0.3)
    used = round(0.3 * len(case.split.retain)) + len(case.split.forget)
    assert method(case.model, case.request(method)).cost.sample_gradients == 2 * used


@pytest.mark.parametrize(("whole", "temperature"), [(True, 0.77), (False, 7.2)])
def test_whole_classes_redraw_the_head_at_their_own_temperature(whole: bool, temperature: float) -> None:
    case = image_case()
    labels = case.split.train.labels
    positions = (labels == 1).nonzero().flatten() if whole else case.split.forget_positions
    request = Request(Split(case.split.train, positions), seed=0, numerics=case.numerics)
    assert BadTeacher().draws_head(request.grant("bad_teacher", BadTeacher.needs)) is whole
    fast = {"batch_size": 32, "lr": 1e-4, "epochs": 1}
    own, named = (
        kind(case.model, request).model.state_dict()
        for kind in (BadTeacher(**fast), BadTeacher(**fast, temperature=temperature, reinit_head=whole))
    )
    assert all(torch.equal(value, named[name]) for name, value in own.items())
    other = BadTeacher(**fast, temperature=1.5)(case.model, request).model.state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in own.items())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="temperature must be positive"):
        BadTeacher(temperature=0)
    with pytest.raises(InvalidInput, match="retain_share must lie in"):
        BadTeacher(retain_share=0)
