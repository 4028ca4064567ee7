from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Request
from expunge.methods.cuts import CUTS, agreement
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def test_agreement_equals_a_slow_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    features, logits = torch.randn(40, 6, generator=draw), torch.randn(40, 3, generator=draw)
    logits[:, 2] -= 3
    given, k = logits.argmax(1).tolist(), 4
    same = 0
    for i in range(40):
        angles = [float(F.cosine_similarity(features[i], features[j], dim=0)) for j in range(40)]
        order = sorted((j for j in range(40) if j != i), key=lambda j: -angles[j])
        same += sum(given[j] == given[i] for j in order[:k])
    mean = logits.softmax(1).mean(0).tolist()
    chance = sum(p**2 for p in mean)
    supported = sum(given.count(c) >= 4 for c in range(3))
    assert supported == 2
    expected = (same / 160 - chance) / (1 - chance) - max(0, 3 - 1 / chance) / 3 - 1 / 3
    assert agreement(features, logits, k) == pytest.approx(expected, rel=1e-5)


def test_agreement_of_clusters_and_of_a_single_class() -> None:
    corners = torch.eye(4).repeat_interleave(6, 0)
    assert agreement(corners, 50 * corners, 5) == pytest.approx(1.0)
    assert agreement(corners, torch.tensor([[9.0, 0, 0, 0]]).repeat(24, 1), 5) == -math.inf


def test_a_multiple_of_the_task_vector_is_subtracted() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=draw)
    train = in_memory(torch.cat([x, x]), (torch.cat([x, x])[:, 0] > 0).long(), 2)
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.3, 0.1, 0.0], [0.3, 0.0, 0.1]]))
    # Two steps, at half of the rate and at 0.
    method = CUTS(
        lr=0.5, batch_size=3, optimiser="sgd", momentum=0, weight_decay=0, epochs=1, rule="accuracy", step=0.25,
        largest=50.0, threshold=0.4,
    )  # fmt: skip
    request = Request(Split(train, torch.arange(6)), seed=0, numerics=CPU)
    outcome = method(model, request)
    first = next(train.select(torch.arange(6)).batches(3, request.generator("order")))
    (slope,) = torch.autograd.grad(F.cross_entropy(model(first.x), first.y), model.weight)
    added = -0.5 * 0.5 * slope
    strengths = [row["strength"] for row in outcome.log]
    assert strengths == [0.25 * number for number in range(len(strengths))]
    assert torch.allclose(outcome.model.weight, model.weight - strengths[-1] * added, atol=1e-5)
    assert outcome.log[-1]["forget_accuracy"] <= 0.4
    assert len(strengths) > 1
    assert all(row["forget_accuracy"] > 0.4 for row in outcome.log[:-1])


def test_neighbours_choose_the_best_agreement_and_statistics_are_the_first_ones() -> None:
    case = image_case()
    method = CUTS(batch_size=16, lr=1e-3, epochs=3, step=0.5)
    outcome = method(case.model, case.request(method))
    assert [row["strength"] for row in outcome.log] == [0.0, 0.5, 1.0, 1.5, 2.0]
    best = max(outcome.log, key=lambda row: row.get("agreement", -math.inf))
    start, found = case.model.state_dict(), outcome.model.state_dict()
    moved = torch.cat([(found[name] - start[name]).flatten() for name, _ in case.model.named_parameters()])
    assert bool(moved.any()) is (best["strength"] > 0)
    assert all(torch.equal(start[name], found[name]) for name in start if "running" in name)


def test_reads_the_forget_set_alone() -> None:
    assert CUTS.needs == Needs.FORGET


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="rule must be one of 'neighbours', 'accuracy', got 'luck'"):
        CUTS(rule="luck")
    with pytest.raises(InvalidInput, match="threshold is an accuracy"):
        CUTS(threshold=1.0)
    train = in_memory(torch.randn(4, 2), torch.arange(4) % 2, 2)
    with pytest.raises(InvalidInput, match="which has 1 example; list at least 2"):
        CUTS()(nn.Linear(2, 2), Request(Split(train, torch.arange(1)), seed=0, numerics=CPU))
