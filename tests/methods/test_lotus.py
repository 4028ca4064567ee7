from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch, Examples
from expunge.errors import InvalidInput, UndeclaredNeed
from expunge.methods.base import Needs, Request, Unlearned
from expunge.methods.lotus import (
    LoTUS,
    SmoothedTeacher,
    gumbel_noise,
    gumbel_softmax,
    smoothing_temperature,
)
from expunge.tasks.base import Split
from expunge.testing.method_contract import convolutional_case, image_case, vector_case
from expunge.training.loop import predict

FAST = LoTUS(lr=0.003, batch_size=32, epochs=6)


def unseen(right: bool) -> Examples:
    """Examples that the model gets right, or wrong, but for a few."""
    case = image_case()
    clean = case.split.retain.select(torch.arange(40))
    return clean if right else clean.relabel((clean.labels + 3) % 6)


def request(right: bool = False, seed: int = 0) -> Request:
    case = image_case()
    split = Split(case.split.train, case.split.forget_positions, unseen=unseen(right))
    return Request(split, seed=seed, numerics=case.numerics)


@cache
def outcome(right: bool = False) -> tuple[nn.Module, Unlearned]:
    given = image_case().fresh()
    return given, FAST(given, request(right))


def confidence(model: nn.Module) -> float:
    """Mean probability of the given label over the forget set."""
    forget = image_case().split.forget
    probabilities = predict(model, forget, image_case().numerics).softmax(1)
    return float(probabilities.gather(1, forget.labels[:, None]).mean())


def test_temperature_formula() -> None:
    assert smoothing_temperature(2.0, 1.0, 0.75) == pytest.approx(math.exp(0.5))
    assert smoothing_temperature(8.0, 0.6, 0.9) == pytest.approx(math.exp(-2.4))
    assert smoothing_temperature(5.0, 0.8, 0.8) == 1


def test_gumbel_softmax_equals_a_slow_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, noise = torch.randn(2, 6, 5, generator=draw)
    temperature = torch.tensor([0.3, 0.7, 1.0, 2.0, 5.0, 9.0])
    found = gumbel_softmax(logits, noise, temperature)
    for i in range(6):
        total = sum(math.exp(v) for v in logits[i].tolist())
        scores = [
            math.exp((math.log(math.exp(float(logits[i, k])) / total) + float(noise[i, k])) / temperature[i])
            for k in range(5)
        ]
        for k in range(5):
            assert float(found[i, k]) == pytest.approx(scores[k] / sum(scores), rel=1e-4)


def test_limits_of_the_temperature() -> None:
    draw = torch.Generator().manual_seed(1)
    logits, noise = torch.randn(2, 50, 4, generator=draw)
    hot = gumbel_softmax(logits, noise, torch.full((50,), 1e6))
    assert torch.allclose(hot, torch.full_like(hot, 0.25), atol=1e-4)
    cold = gumbel_softmax(logits, noise, torch.full((50,), 1e-5))
    assert torch.equal(cold.argmax(1), (logits + noise).argmax(1))
    assert torch.allclose(cold.amax(1), torch.ones(50))


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel_noise((200_000,), torch.Generator().manual_seed(0))
    assert bool(noise.isfinite().all())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_draws_at_temperature_near_zero_follow_the_teacher() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]]).repeat(20_000, 1)
    noise = gumbel_noise((20_000, 3), torch.Generator().manual_seed(3))
    drawn = gumbel_softmax(logits, noise, torch.full((20_000,), 1e-3)).mean(0)
    assert torch.allclose(drawn, logits[0].softmax(0), atol=0.015)


def test_only_forgotten_rows_are_smoothed() -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0]]).repeat(4, 1)
    objective = SmoothedTeacher(lambda x: logits, 2, 1e6, 1e-3, torch.Generator().manual_seed(0))
    target = objective.target(Batch(torch.zeros(4, 1), torch.zeros(4).long(), torch.tensor([1, 2, 0, 3])))
    assert torch.allclose(target[[0, 2]], torch.full((2, 3), 1 / 3), atol=1e-4)
    assert torch.allclose(target[[1, 3]], torch.tensor([[1.0, 0, 0]] * 2), atol=1e-4)


def test_whole_classes_count_as_unknown_and_start_at_the_published_temperature() -> None:
    case = vector_case()
    split = Split(
        case.split.train, (case.split.train.labels == 1).nonzero().flatten(), unseen=case.split.retain
    )
    known = Request(split, seed=0, numerics=case.numerics)
    assert known.grant("lotus", LoTUS.needs).whole_classes
    first = LoTUS(lr=0.001, batch_size=16, epochs=1)(case.fresh(), known).log[0]
    assert first["temperature"] == pytest.approx(math.exp(8.0 * first["forget_accuracy"]))
    assert smoothing_temperature(LoTUS.alpha, 1.0, 0.0) == pytest.approx(2981, abs=0.1)


def test_stops_once_the_forget_set_is_known_less_than_the_unseen() -> None:
    case = image_case()
    wrong = case.split.train.relabel((case.split.train.labels + 3) % 6)
    split = Split(wrong, case.split.forget_positions, unseen=unseen(True))
    outcome = FAST(case.fresh(), Request(split, seed=0, numerics=case.numerics))
    (row,) = outcome.log
    assert row["epoch"] == 1
    assert "temperature" not in row
    assert outcome.cost.sample_gradients == 0
    before = case.fresh().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in outcome.model.state_dict().items())


def test_rate_and_batch_are_the_published_ones() -> None:
    assert (LoTUS().lr, LoTUS().batch_size, LoTUS().weight_decay) == (1e-4, 128, 5e-4)


@pytest.mark.trains
def test_forgets_where_the_original_knows_nothing_of_the_unseen(margin: Callable[..., None]) -> None:
    before, after = confidence(image_case().model), confidence(outcome()[1].model)
    margin("confidence lost", before - after, above=0.3)
    margin("confidence kept where the unseen is known", confidence(outcome(right=True)[1].model), above=after)


def test_log_tells_the_temperature_of_every_pass() -> None:
    log = outcome()[1].log
    assert [row["epoch"] for row in log] == list(range(1, 7))
    from_first = [row["temperature"] for row in log]
    reached = [row["forget_accuracy"] - math.log(row["temperature"]) / 8.0 for row in log]
    assert from_first[0] > 1
    assert all(share == pytest.approx(reached[0], abs=1e-6) for share in reached)


def test_model_given_is_untouched_and_result_is_finite() -> None:
    given, result = outcome()
    before = image_case().fresh()
    assert all(
        torch.equal(a, b)
        for a, b in zip(given.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert [m.training for m in given.modules()] == [m.training for m in before.modules()]
    assert all(t.isfinite().all() for t in result.model.state_dict().values())
    assert [p.requires_grad for p in result.model.parameters()] == [
        p.requires_grad for p in given.parameters()
    ]
    # 24 to forget and 0.3 of 168, six times
    assert result.cost.sample_gradients == 6 * (24 + round(0.3 * 168))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, second = outcome()[1].model, FAST(image_case().fresh(), request()).model
    other = FAST(image_case().fresh(), request(seed=1)).model
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("read", ["recipe", "truth", "codes", "classes"])
def test_undeclared_reads_are_refused(read: str) -> None:
    with pytest.raises(UndeclaredNeed, match="declares only 'forget, retain, unseen'"):
        getattr(request().grant("lotus", LoTUS.needs), read)


def test_no_unseen_data_is_refused_before_any_work() -> None:
    assert Needs.UNSEEN in LoTUS.needs
    case = image_case()
    bare = Request(case.split, seed=0, numerics=case.numerics)
    with pytest.raises(InvalidInput, match=r"examples the model was not trained on \(unseen=...\)"):
        FAST(case.fresh(), bare)
    assert bare.meter.sample_gradients == 0


def test_empty_or_foreign_unseen_data_is_refused() -> None:
    case = image_case()
    none = Split(case.split.train, case.split.forget_positions, unseen=unseen(True).select(torch.arange(0)))
    with pytest.raises(InvalidInput, match="got 0 of them; pass at least 1"):
        FAST(case.fresh(), Request(none, seed=0, numerics=case.numerics))
    foreign = Split(case.split.train, case.split.forget_positions, unseen=vector_case().split.train)
    with pytest.raises(InvalidInput, match="have 4 classes and the training set 6"):
        FAST(case.fresh(), Request(foreign, seed=0, numerics=case.numerics))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_other_networks_and_shares(share: float) -> None:
    for case in (convolutional_case(), vector_case()):
        retain = case.split.retain
        unknown = retain.relabel(predict(case.model, retain, case.numerics).argmin(1))
        split = Split(case.split.train, case.split.forget_positions, unseen=unknown)
        method = LoTUS(batch_size=16, epochs=1, retain_share=share)
        result = method(case.fresh(), Request(split, seed=0, numerics=case.numerics))
        assert result.cost.sample_gradients == len(split.forget) + int(share) * len(split.retain)


def test_settings() -> None:
    assert LoTUS.configured(FAST.settings()) == FAST
    with pytest.raises(InvalidInput, match=r"retain_share must lie in \[0, 1\], got 1.5"):
        LoTUS(retain_share=1.5)
    with pytest.raises(InvalidInput, match="alpha must be positive"):
        LoTUS(alpha=0)
