from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from trained_models import CPU, RECIPE, Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED, measure
from expunge.metrics.relearn import AnamnesisIndex, Curve, Relearning, RelearnTime, anamnesis_index
from expunge.seeding import generator
from expunge.training.recipe import Optimiser

QUICK = Relearning(batch_size=16, optimiser=Optimiser(lr=0.01, weight_decay=0.0))
TIME = RelearnTime(relearning=QUICK)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_first_step_that_reaches_the_target() -> None:
    curve = Curve((0, 2, 4, 6), (0.1, 0.5, 0.9, 0.7))
    assert curve.reached(0.0) == 0
    assert curve.reached(0.5) == 2
    assert curve.reached(0.7) == 4
    assert curve.reached(0.95) is None
    # 0.95 * (19 / 20) and 361 / 400 are one number in arithmetic, not in binary
    assert Curve((0,), (361 / 400,)).reached(0.95 * (19 / 20)) == 0


def test_index_by_hand() -> None:
    assert anamnesis_index(3, 12) == 0.25
    assert anamnesis_index(0, 5) == 0
    assert anamnesis_index(10, 5) == 2
    with pytest.raises(InvalidInput, match="got 3 and 0"):
        anamnesis_index(3, 0)
    with pytest.raises(InvalidInput, match="got -1 and 4"):
        anamnesis_index(-1, 4)


def test_the_model_is_left_as_it_is(forgotten_class: Trained) -> None:
    model, forget = forgotten_class.retrained, forgotten_class.problem.split.forget
    before, mode = copy.deepcopy(model.state_dict()), model.training
    model.zero_grad(set_to_none=True)
    first = QUICK.curve(model, forget, CPU, draw(), until=0.95)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training == mode
    assert first == QUICK.curve(model, forget, CPU, draw(), until=0.95)
    assert first.accuracies[0] == 0


def test_agrees_with_a_plain_loop(forgotten_class: Trained) -> None:
    forget = forgotten_class.problem.split.forget
    settings = Relearning(batch_size=20, max_steps=7, optimiser=Optimiser(lr=0.01, weight_decay=0.0))
    curve = settings.curve(forgotten_class.retrained, forget, CPU, draw())
    student = copy.deepcopy(forgotten_class.retrained).train()
    optimiser = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9)
    order, accuracies, taken = draw(), [], 0
    whole = next(forget.batches(len(forget)))

    def look() -> None:
        accuracies.append(float((student(whole.x).argmax(1) == whole.y).double().mean()))

    look()
    while taken < 7:
        for batch in forget.batches(20, order):
            if taken == 7:
                break
            optimiser.zero_grad()
            nn.functional.cross_entropy(student(batch.x), batch.y).backward()
            optimiser.step()
            taken += 1
            look()
    assert curve == Curve(tuple(range(8)), tuple(accuracies))


def test_cap_spacing_and_number_of_examples(forgotten_class: Trained) -> None:
    forget = forgotten_class.problem.split.forget
    settings = Relearning(batch_size=16, max_steps=7, every=3, max_examples=10)
    curve = settings.curve(forgotten_class.retrained, forget, CPU, draw())
    assert curve.steps == (0, 3, 6, 7)
    assert {round(value * 10, 6) % 1 for value in curve.accuracies} == {0}


def test_times_of_models(forgotten_class: Trained, margin: Callable[..., None]) -> None:
    original, retrained = (forgotten_class.of(model) for model in forgotten_class[1:])
    assert TIME(original) == 0
    from_scratch = TIME(retrained)
    margin("steps from scratch", from_scratch, above=0, below=100)
    index = AnamnesisIndex(relearn_time=TIME)
    assert index(original) == 0
    assert index(retrained) == 1
    # forgotten on the surface only: a shift of one logit
    shallow = copy.deepcopy(forgotten_class.original)
    with torch.no_grad():
        shallow.head.bias[1] -= 15
    evaluated = forgotten_class.of(shallow)
    margin("forget accuracy", evaluated.accuracy("forget"), below=0.05)
    assert index(evaluated) == TIME(evaluated) / from_scratch
    curve = TIME.curve(evaluated)
    assert curve.steps == tuple(range(101))


def test_not_regained_within_the_cap(forgotten_class: Trained) -> None:
    short = RelearnTime(relearning=Relearning(max_steps=2, optimiser=Optimiser(lr=1e-6)))
    evaluated = forgotten_class.of(forgotten_class.retrained)
    (reason,) = measure(short, evaluated)
    assert reason.value is None
    assert reason.because.startswith("the accuracy is not regained within 2 steps: 0.000 of 0.9")
    with pytest.raises(UNDEFINED, match="from the retrained model the accuracy is not regained"):
        AnamnesisIndex(relearn_time=short)(evaluated)


def test_a_retrained_model_that_generalises_to_the_samples(forgotten_samples: Trained) -> None:
    with pytest.raises(UNDEFINED, match="has the accuracy from the start"):
        AnamnesisIndex(relearn_time=TIME)(forgotten_samples.of(forgotten_samples.original))


def test_refusals(forgotten_class: Trained, diverged: nn.Module) -> None:
    with pytest.raises(InvalidInput, match=r"alpha is a share .* got 1"):
        RelearnTime(alpha=1.0)
    with pytest.raises(InvalidInput, match="of at least 1, got 128, 0, 1 and 1000"):
        Relearning(max_steps=0)
    nothing = forgotten_class.problem.split.forget.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(InvalidInput, match="the forget set is empty"):
        QUICK.curve(forgotten_class.original, nothing, CPU, draw())
    with pytest.raises(UNDEFINED, match="the training loss became nan"):
        TIME(forgotten_class.of(diverged))
    frozen = copy.deepcopy(forgotten_class.retrained).requires_grad_(False)
    with pytest.raises(UNDEFINED, match="no parameter requires a gradient"):
        TIME(forgotten_class.of(frozen))
    with pytest.raises(UNDEFINED, match="original model, which is not given"):
        TIME(forgotten_class.alone(forgotten_class.retrained))
    never = RECIPE.build(forgotten_class.problem.shape, 4, generator(5, "model"))
    with torch.no_grad():
        never.head.bias[0] += 1000
    without = forgotten_class._replace(original=never)
    with pytest.raises(UNDEFINED, match="the original model gets no example of the forget set right"):
        TIME(without.of(forgotten_class.retrained))
