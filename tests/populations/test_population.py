from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods.finetune import FineTune
from expunge.methods.npo import NPO
from expunge.populations.population import (
    PopulationSettings,
    draw_halves,
    draw_retrained,
    draw_whole,
    inside,
)
from expunge.tasks.forgetting import ForgetClasses, ForgetIndices
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

CPU = Numerics(channels_last=False)
PROBLEM = ForgetIndices(indices=tuple(range(3, 90, 8))).build(learnable_images(n_train=90, n_test=8))
SETTINGS = PopulationSettings(recipe=Recipe(model="mlp"), n_models=40)


def test_halves_are_random_parts_of_one_size() -> None:
    forget = PROBLEM.split.forget_positions
    members = draw_halves(PROBLEM, SETTINGS, CPU)
    assert len(forget) == 11
    assert len({member.seed for member in members}) == len({member.key for member in members}) == 40
    for member in members:
        assert len(member.positions) == 5 + 39
        assert len(member.forget) == 5
        assert member.positions.tolist() == sorted(set(member.positions.tolist()))
        assert torch.equal(member.forget, member.positions[torch.isin(member.positions, forget)])
    trained_on = inside(members, forget)
    assert trained_on.shape == (40, 11)
    assert trained_on.sum(1).tolist() == [5] * 40
    assert 6 < int(trained_on.sum(0).min()) < int(trained_on.sum(0).max()) < 32


def test_whole_and_retrained_differ_by_their_seeds() -> None:
    whole, retrained = draw_whole(PROBLEM, SETTINGS, CPU), draw_retrained(PROBLEM, SETTINGS, CPU)
    assert all(torch.equal(member.positions, torch.arange(90)) for member in whole)
    assert all(torch.equal(member.forget, PROBLEM.split.forget_positions) for member in whole)
    assert all(len(member.positions) == 79 and len(member.forget) == 0 for member in retrained)
    assert len({member.seed for member in [*whole, *retrained]}) == 80


def test_keys_follow_from_what_the_weights_follow_from() -> None:
    def first(settings: PopulationSettings = SETTINGS, numerics: Numerics = CPU) -> str:
        return draw_halves(PROBLEM, settings, numerics)[0].key

    assert first() == first()
    # more models leave those that are there as they are
    assert first() == first(replace(SETTINGS, n_models=64))
    others = {
        first(replace(SETTINGS, seed=1)),
        first(replace(SETTINGS, share=0.6)),
        first(replace(SETTINGS, recipe=Recipe(model="mlp", epochs=3))),
        first(numerics=Numerics(dtype="bfloat16")),
    }
    assert len({first(), *others}) == 5
    member = draw_halves(PROBLEM, SETTINGS, CPU)[0]
    methods = [FineTune(), FineTune(lr=0.1), NPO()]
    assert len({member.scores_key(method) for method in [None, *methods]}) == 4


def test_two_tasks_share_the_models_that_saw_everything() -> None:
    data = learnable_images(n_train=90, n_test=8)
    other = ForgetClasses(classes=(1,)).build(data)
    ours, theirs = draw_whole(PROBLEM, SETTINGS, CPU)[0], draw_whole(other, SETTINGS, CPU)[0]
    assert ours.key == theirs.key
    assert ours.scores_key(None) == theirs.scores_key(None)
    assert ours.scores_key(FineTune()) != theirs.scores_key(FineTune())


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least 8 models, got 7; 64 are customary"):
        replace(SETTINGS, n_models=7)
    with pytest.raises(InvalidInput, match=r"share must lie in \(0, 1\)"):
        replace(SETTINGS, share=1.0)
    with pytest.raises(InvalidInput, match=r"vulnerable in \(0, 1\]"):
        replace(SETTINGS, vulnerable=0.0)
    single = ForgetIndices(indices=(4,)).build(learnable_images(n_train=90, n_test=8))
    with pytest.raises(InvalidInput, match="both need at least two examples; got 1 and 89"):
        draw_halves(single, SETTINGS, CPU)
