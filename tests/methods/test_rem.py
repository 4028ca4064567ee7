from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.api import load_method
from expunge.capacity.branches import Branched
from expunge.capacity.route import Router
from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods import redirection
from expunge.methods import removal as removing
from expunge.methods.base import Request
from expunge.methods.rem import REM, AscentREM, IdealREM, REMWithoutRedirection, REMWithoutRemoval
from expunge.methods.removal import CachedLoss, RaiseLoss
from expunge.models.resnet9 import ResNet9
from expunge.models.split import SplitNetwork
from expunge.seeding import generator
from expunge.testing.method_contract import Case, image_case, vector_case
from expunge.training.batchnorm import batch_norms

FAST: dict[str, Any] = {"batch_size": 32, "lr": 0.02, "flush_passes": 20}


def forget_batch(case: Case) -> Batch:
    return next(case.split.forget.batches(len(case.split.forget)))


def widened(case: Case) -> SplitNetwork:
    assert isinstance(case.model, SplitNetwork)
    return case.model.widen(1.0, generator(0, "capacity"))


def base_path_loss(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model.eval()(batch.x), batch.y, reduction="none")


@pytest.mark.parametrize("removal", ["npo", "ascent"])
def test_a_flush_step_raises_the_loss_and_leaves_the_spare_units_without_gradient(removal: str) -> None:
    case = image_case()
    network, batch = widened(case), forget_batch(case)
    request = case.request(REM())
    objective = RaiseLoss(removal, CachedLoss.of(network, case.split.forget, request))
    before = base_path_loss(network, batch)
    network.train()
    objective(network, batch).value.backward()
    narrow = dict(case.model.named_parameters())
    spare_parts = 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        base = parameter.grad[tuple(slice(0, size) for size in narrow[name].shape)].clone()
        spare = parameter.grad.clone()
        spare[tuple(slice(0, size) for size in narrow[name].shape)] = 0
        assert not spare.any(), name
        assert base.any() or name.endswith("conv.bias"), name
        spare_parts += int(parameter.shape != narrow[name].shape)
    assert spare_parts > 20
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    assert float(base_path_loss(network, batch).mean()) > float(before.mean())


def test_a_flush_step_leaves_branches_without_gradient() -> None:
    case = vector_case()
    network = Branched(copy.deepcopy(case.model), 1.0, generator(0))
    objective = RaiseLoss("npo", CachedLoss.of(network, case.split.forget, case.request(REM())))
    objective(network, forget_batch(case)).value.backward()
    assert all(parameter.grad is None for parameter in network.branches.parameters())
    assert all(parameter.grad is not None for parameter in network.model.parameters())


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > 0 else value - math.log1p(math.exp(value))


def slow_objective(
    method: REM, network: nn.Module, batch: Batch, found: Tensor, router: Router, reference: Tensor
) -> float:
    """The formula of step 3, one example after the other, in float64."""
    total, beta = 0.0, method.beta
    for i in range(len(batch)):
        x, label = batch.x[i : i + 1], int(batch.y[i])
        ce_ref = float(reference[batch.index[i]])
        route = router(batch.index[i : i + 1], found[i : i + 1])
        with torch.no_grad():
            base = -float(network(x)[0].log_softmax(0)[label])
            routed = -float(network(x, route)[0].log_softmax(0)[label]) if method.redirect else base
        if method.redirect or not found[i]:
            if method.repair == "cross_entropy":
                total += routed
            else:
                total += 2 / beta * log_sigmoid(beta * (routed - ce_ref))
        if found[i] and method.erase:
            if method.removal == "ascent":
                total -= base
            else:
                total -= 2 / beta * log_sigmoid(beta * (base - ce_ref))
    return total / len(batch)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 2.5},
        {"redirect": False},
        {"redirect": False, "removal": "ascent"},
        {"repair": "cross_entropy"},
        {"removal": "ascent"},
        {"erase": False},
        {"own_masks": False},
        {"compat": "official"},
        {"compat": "official", "redirect": False},
    ],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()) or "default",
)
def test_repair_and_redirect_equals_a_slow_loop(settings: dict[str, Any]) -> None:
    case, method = image_case(), REM(**settings)
    network = widened(case).double().eval()
    batch = next(case.split.train.batches(40, generator(7)))
    batch = Batch(batch.x.double(), batch.y, batch.index)
    discovered = case.split.forget_mask
    found = discovered[batch.index]
    assert 0 < int(found.sum()) < 40
    # values near those of the live network, so that both bends of the loss are used
    reference = torch.rand(192, generator=generator(8)) * 4
    router = Router(method.open_share, 5, own_masks=method.own_masks, site_masks=method.compat is None)
    removal = RaiseLoss(
        method.removal, CachedLoss(reference), method.beta, batch_statistics=method.compat == "official"
    )
    objective = redirection.RepairAndRedirect(method, discovered, router, CachedLoss(reference), removal)
    loss = objective(network, batch)
    expected = slow_objective(method, network, batch, found, router, reference)
    # the loss is taken in float32
    assert float(loss.value.detach()) == pytest.approx(expected, rel=2e-5, abs=2e-6)
    erased = 40 if method.compat == "official" else int(found.sum())
    assert loss.gradients == 40 + (erased if method.erase else 0)


def test_a_batch_without_discovered_examples_is_only_repaired() -> None:
    case, method = image_case(), REM()
    network = widened(case).eval()
    batch = next(case.split.retain.batches(10))
    cached = CachedLoss(torch.ones(192))
    objective = redirection.RepairAndRedirect(
        method, case.split.forget_mask, Router(), cached, RaiseLoss("npo", cached)
    )
    loss = objective(network, batch)
    nothing = torch.zeros(10, dtype=torch.bool)
    expected = slow_objective(method, network, batch, nothing, Router(), torch.ones(192))
    assert loss.gradients == 10
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_routed_path_leaves_running_statistics_alone() -> None:
    case = image_case()
    network = widened(case).train()
    batch, cached = next(case.split.train.batches(40)), CachedLoss(torch.ones(192))
    before = [norm.running_mean.clone() for norm in batch_norms(network)]
    for compat, still in ((None, True), ("official", False)):
        method = REM(compat=compat)
        removal = RaiseLoss("npo", cached, batch_statistics=not still)
        redirection.RepairAndRedirect(method, case.split.forget_mask, Router(), cached, removal)(
            network, batch
        )
        same = [torch.equal(n.running_mean, old) for n, old in zip(batch_norms(network), before, strict=True)]
        assert all(same) is still


@pytest.mark.parametrize("compat", [None, "official"])
def test_the_flush_normalises_by_the_batch_and_the_erasure_by_running_statistics(
    compat: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = image_case()
    method = REM(compat=compat, rounds=1, **FAST)
    request = case.request(method).grant("rem", REM.needs)
    run = redirection.Run(method, copy.deepcopy(case.model), request, torch.arange(8))
    seen: list[bool] = []
    monkeypatch.setattr(
        redirection, "remove", lambda *args, **kwargs: seen.append(args[3].batch_statistics) or 0
    )
    run._flush()
    assert seen == [True]
    assert run.objective.removal.batch_statistics is (compat == "official")


def test_the_published_reference_is_the_frozen_masked_network() -> None:
    case = image_case()
    network, batch = widened(case), next(case.split.train.batches(20))
    router = Router(0.2, 3, shared=42, site_masks=False)
    reference = redirection._MaskedReference(network.train(), router, case.split.forget_mask)
    values = reference(batch)
    assert network.training
    assert not values.requires_grad
    found = case.split.forget_mask[batch.index]
    network.eval()
    for i in range(20):
        route = router(batch.index[i : i + 1], found[i : i + 1])
        assert bool((route.ids == 42).all()) is bool(found[i])
        loss = -network(batch.x[i : i + 1], route)[0].log_softmax(0)[batch.y[i]]
        assert float(values[i]) == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("kept", "remaining", "threshold", "score"),
    [(0.93, 0.05, 0.2, 0.744), (0.93, 0.5, 0.2, 0.465), (0.5, 0.2, 0.0, 0.4), (1.0, 1.0, 0.2, 0.0)],
)
def test_score(
    monkeypatch: pytest.MonkeyPatch, kept: float, remaining: float, threshold: float, score: float
) -> None:
    case = image_case()
    request = case.request(REM()).grant("rem", REM.needs)
    run = redirection.Run(REM(threshold=threshold), case.fresh(), request, case.split.forget_positions)
    measured = {id(run.scored): kept, id(run.forget): remaining}
    monkeypatch.setattr(
        redirection, "accuracy", lambda network, examples, numerics, **_: measured[id(examples)]
    )
    with request.meter:
        assert run._score(round=3) == pytest.approx(score)
    (row,) = request.meter.log
    del row["seconds"]
    assert row == pytest.approx(
        {"round": 3, "retain_accuracy": kept, "forget_accuracy": remaining, "score": score}
    )


@pytest.mark.trains
def test_returned_model_has_the_statistics_of_its_own_path_on_retain() -> None:
    case, method = image_case(), REM(rounds=1, **FAST)
    outcome = method(case.model, case.request(method))
    start, first = outcome.log
    assert first["score"] > start["score"]
    result = outcome.model
    assert isinstance(result, ResNet9)
    assert result.spare == 0
    assert [(n, t.shape) for n, t in result.state_dict().items()] == [
        (n, t.shape) for n, t in case.model.state_dict().items()
    ]
    again = copy.deepcopy(result).train()
    for norm in batch_norms(again):
        norm.momentum = 1.0
    again(next(case.split.retain.batches(len(case.split.retain))).x)
    for ours, theirs in zip(batch_norms(result), batch_norms(again), strict=True):
        assert torch.allclose(ours.running_mean, theirs.running_mean, rtol=1e-3, atol=1e-5)
        assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-3, atol=1e-6)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, Tensor]]:
    """Make the run score its models as told, and record them."""
    seen: list[dict[str, Tensor]] = []

    def score(self: Any, **row: float) -> float:
        seen.append(self._snapshot())
        return scores[len(seen) - 1]

    monkeypatch.setattr(redirection.Run, "_score", score)
    return seen


@pytest.mark.parametrize(
    ("compat", "scores", "chosen"),
    [
        (None, [0.1, 0.3, 0.5, 0.4], 2),
        (None, [0.9, 0.3, 0.5, 0.4], 0),
        (None, [0.4, 0.4, 0.4, 0.4], 0),
        ("official", [0.1, 0.3, 0.5, 0.4], 2),
        # the published code's first candidate is the live network: unless beaten, it is the last model
        ("official", [0.9, 0.3, 0.5, 0.4], 3),
    ],
)
def test_the_round_that_is_returned(
    monkeypatch: pytest.MonkeyPatch, compat: str | None, scores: list[float], chosen: int
) -> None:
    case, method = image_case(), REM(rounds=3, redirect=False, compat=compat, **FAST)
    seen = scripted(monkeypatch, scores)
    result = method(case.model, case.request(method)).model.state_dict()
    same = [all(torch.equal(state[name], result[name]) for name in result) for state in seen]
    assert same == [number == chosen for number in range(4)]


def test_ideal_is_told_all_of_the_corruption() -> None:
    case = image_case()
    ideal, plain = IdealREM(rounds=1, **FAST), REM(rounds=1, **FAST)
    granted = case.request(ideal).grant("rem_ideal", ideal.needs)
    assert torch.equal(ideal.discovered(granted), case.truth.corrupted)
    assert torch.equal(plain.discovered(granted), case.truth.known)
    assert len(case.truth.unknown) == 8
    blind = replace(case, truth=replace(case.truth, corrupted=case.truth.known))
    without = plain(case.model, case.request(plain)).model.state_dict()
    told = ideal(case.model, case.request(ideal)).model.state_dict()
    untold = ideal(case.model, blind.request(ideal)).model.state_dict()
    assert all(torch.equal(without[name], untold[name]) for name in without)
    assert not all(torch.equal(without[name], told[name]) for name in without)


def test_ideal_flushes_only_what_was_discovered() -> None:
    case, ideal = image_case(), IdealREM(**FAST)
    granted = case.request(ideal).grant("rem_ideal", ideal.needs)
    run = redirection.Run(ideal, case.fresh(), granted, ideal.discovered(granted))
    assert torch.equal(run.forget.index, case.truth.known)
    assert torch.equal(run.rows.nonzero().flatten(), case.truth.corrupted)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (REMWithoutRedirection, {"redirect": False}),
        (REMWithoutRemoval, {"flush": False, "erase": False}),
        (AscentREM, {"removal": "ascent", "repair": "cross_entropy", "erase": False}),
    ],
)
def test_ablations_are_rem_with_a_setting(kind: type[REM], settings: dict[str, Any]) -> None:
    assert {**kind().settings()} == {**REM().settings(), **settings}


def test_erasure_as_a_mean_over_a_sample_of_the_forget_set() -> None:
    case = image_case()
    network, batch = widened(case).eval(), next(case.split.train.batches(40, generator(7)))
    cached, forget = CachedLoss(torch.rand(192, generator=generator(8)) * 4), case.split.forget
    removal, mask = RaiseLoss("npo", cached), case.split.forget_mask
    loss = redirection.RepairAndRedirect(
        REM(erase_mean=True), mask, Router(), cached, removal, forget, case.numerics, generator(9)
    )(network, batch)
    drawn = forget.sample(10, generator(9))
    values = []
    for x, y, row in zip(drawn.x, drawn.y, drawn.index, strict=True):
        ce = -float(network(x[None])[0].log_softmax(0)[y].detach())
        values.append(-2 * log_sigmoid(ce - float(cached.values[row])))
    repair = slow_objective(REM(erase=False), network, batch, mask[batch.index], Router(), cached.values)
    assert bool(torch.isin(drawn.index, forget.index).all())
    assert float(loss.value.detach()) == pytest.approx(repair + sum(values) / 10, rel=2e-5)
    assert loss.gradients == 50


@pytest.mark.parametrize("kind", [REM, IdealREM])
def test_the_erasure_term_draws_from_what_was_discovered(kind: type[REM]) -> None:
    case, method = image_case(), kind(erase_mean=True, **FAST)
    granted = case.request(method).grant(method.name, method.needs)
    run = redirection.Run(method, case.fresh(), granted, method.discovered(granted))
    assert run.objective.forget is not None
    expected = case.truth.corrupted if kind is IdealREM else case.truth.known
    assert torch.equal(run.objective.forget.index, expected)


def test_parameters_of_the_widened_network_are_reported() -> None:
    case, method = image_case(), REM(rounds=1, spare=0.5, **FAST)
    cost = method(case.model, case.request(method)).cost
    wider = case.model.widen(0.5, generator(0))
    assert cost.parameters["during"] == sum(parameter.numel() for parameter in wider.parameters())
    assert cost.parameters["before"] == cost.parameters["after"] < cost.parameters["during"]


def test_log_has_a_row_for_the_start_and_each_round() -> None:
    case, method = image_case(), REM(rounds=2, **FAST)
    start, *rounds = method(case.model, case.request(method)).log
    assert "round" not in start
    assert [row["round"] for row in rounds] == [1, 2]
    for row in [start, *rounds]:
        kept, remaining = row["retain_accuracy"], row["forget_accuracy"]
        assert row["score"] == pytest.approx(kept * (1 - max(2 / 6, remaining)))


@pytest.mark.parametrize("name", ["rem", "npo", "finetune"])
def test_progress_never_falls_and_ends_at_one(name: str) -> None:
    case, shares = image_case(), list[float]()
    length = {"rem": {"rounds": 2, "flush_passes": 5}, "npo": {"passes": 4, "threshold": 0.0}}
    method = load_method(name, batch_size=8, **length.get(name, {"epochs": 2}))
    method(case.model, Request(case.split, seed=0, numerics=case.numerics, progress=shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_a_network_that_has_spare_units_keeps_them() -> None:
    case, method = image_case(), REM(rounds=1, **FAST)
    model = widened(case)
    result = method(model, case.request(method)).model
    assert [(n, t.shape) for n, t in result.state_dict().items()] == [
        (n, t.shape) for n, t in model.state_dict().items()
    ]


@pytest.mark.trains
def test_frozen_parameters_stay_what_they_were() -> None:
    case, method = image_case(), REM(rounds=1, **FAST)
    model = copy.deepcopy(case.model)
    model.conv1.requires_grad_(False)
    outcome = method(model, case.request(method))
    assert outcome.log[1]["score"] > outcome.log[0]["score"]
    assert torch.equal(outcome.model.conv1.conv.weight, model.conv1.conv.weight)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"spare": 0.0}, "spare must be positive and finite, got 0.0"),
        ({"beta": -1.0}, "beta must be positive and finite, got -1.0"),
        ({"rounds": 0}, "rounds must be positive and finite, got 0"),
        ({"flush_passes": 0}, "flush_passes must be positive and finite, got 0"),
        ({"score_examples": 0}, "score_examples must be positive and finite, got 0"),
        ({"open_share": 0.0}, r"share of open units p must lie in \(0, 1\], got 0.0"),
        ({"open_share": 1.1}, r"share of open units p must lie in \(0, 1\], got 1.1"),
        ({"removal": "relabel"}, r"removal must be one of \('npo', 'ascent'\), got 'relabel'"),
        ({"repair": "mse"}, r"repair must be one of \('npo', 'cross_entropy'\), got 'mse'"),
        ({"compat": "paper"}, r"compat must be one of \(None, 'official'\), got 'paper'"),
        ({"lr": 0.0}, "learning rate must be positive and finite, got 0.0"),
        ({"batch_size": 0}, "batch_size must be positive and finite, got 0"),
        ({"optimiser": "lion"}, "optimiser must be 'sgd', 'adam' or 'adamw', got 'lion'"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        REM(**wrong)


@pytest.mark.parametrize(
    ("kind", "idle", "why"),
    [
        (REMWithoutRedirection, {"spare": 2.0}, "no capacity is added"),
        (REMWithoutRedirection, {"open_share": 0.5}, "no capacity is added"),
        (REMWithoutRedirection, {"own_masks": False}, "no capacity is added"),
        (REMWithoutRemoval, {"erase_mean": True}, "there is no erasure term"),
        (REMWithoutRemoval, {"flush_passes": 3}, "nothing is flushed"),
        (REMWithoutRemoval, {"removal": "ascent"}, "nothing is removed"),
        (AscentREM, {"beta": 2.0}, "no loss is NPO"),
        (AscentREM, {"erase_mean": True}, "there is no erasure term"),
        (REM, {"compat": "official", "score_examples": 10}, "the published code scores on all"),
    ],
)
def test_a_setting_without_effect_is_refused(kind: type[REM], idle: dict[str, Any], why: str) -> None:
    name, value = list(idle.items())[-1]
    with pytest.raises(InvalidInput, match=rf"{name}={value} has no effect in '{kind.name}': {why}"):
        kind(**idle)


def test_the_published_order_of_the_two_passes() -> None:
    class Recorder(nn.Linear):
        def forward(self, x: Tensor, route: object = None) -> Tensor:
            passes.append("base" if route is None else "routed")
            return super().forward(x)

    passes: list[str] = []
    batch = Batch(torch.randn(6, 3, generator=generator(0)), torch.arange(6) % 2, torch.arange(6))
    cached = CachedLoss(torch.zeros(6))
    for compat, order in (("official", ["base", "routed"]), (None, ["routed", "base"])):
        method = REM(compat=compat)
        removal = RaiseLoss("npo", cached, batch_statistics=compat == "official")
        redirection.RepairAndRedirect(method, torch.arange(6) < 3, Router(), cached, removal)(
            Recorder(3, 2), batch
        )
        assert passes == order
        passes.clear()


@pytest.mark.parametrize("compat", [None, "official"])
def test_the_published_scores_are_of_all_retained_examples_and_augmented(
    monkeypatch: pytest.MonkeyPatch, compat: str | None
) -> None:
    case = image_case()
    method = REM(compat=compat, rounds=1, **({} if compat else {"score_examples": 50}), **FAST)
    request = case.request(method).grant("rem", REM.needs)
    seen: list[tuple[int, bool]] = []

    def noted(network: object, examples: Any, numerics: object, *, augmentation: object = None) -> float:
        seen.append((len(examples), augmentation is not None))
        return 0.5

    monkeypatch.setattr(redirection, "accuracy", noted)
    monkeypatch.setattr(removing, "accuracy", noted)
    run = redirection.Run(method, case.fresh(), request, case.split.forget_positions)
    with request.meter:
        run._score()
    assert seen == [(168, True), (24, True)] if compat else [(50, False), (24, False)]
    seen.clear()
    run._flush()
    assert set(seen) == {(24, compat == "official")}


@pytest.mark.parametrize("kind", [REM, IdealREM, REMWithoutRedirection, REMWithoutRemoval, AscentREM])
def test_official_behaviour_runs(kind: Callable[..., REM]) -> None:
    settings = {"rounds": 1, "compat": "official", "batch_size": 32, "lr": 0.001}
    case, method = image_case(), kind(**settings, **({"flush_passes": 20} if kind().flush else {}))
    outcome = method(case.model, case.request(method))
    assert len(outcome.log) == 2
