from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from corrupted_digits import corrupted_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import expunge
from expunge.api import load_method
from expunge.capacity.route import Router
from expunge.data.examples import Batch, examples_from_dataset
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods import rem_discovery
from expunge.methods.base import Request, Unlearned
from expunge.methods.rem_discovery import AttachedREM, REMDiscovery
from expunge.seeding import derive_seed, generator, global_generator
from expunge.tasks.base import Split
from expunge.tasks.corruption import CorruptionTask
from expunge.testing.method_contract import Case, convolutional_case, image_case, vector_case
from expunge.training.cost import Meter
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import Loss, accuracy
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

NUMERICS = Numerics(channels_last=False)
SMALL: dict[str, Any] = {"batch_size": 32, "rounds": 4, "first_naming": 2, "least_steps": 0}


def search(method: REMDiscovery, case: Case, seed: int = 0) -> rem_discovery._Search:
    granted = case.request(method, seed).grant(method.name, method.needs)
    return rem_discovery._Search(method, copy.deepcopy(case.model), granted)


def whole(case: Case) -> Batch:
    return next(case.split.train.batches(len(case.split.train)))


def fixed_beliefs(run: rem_discovery._Search, belief: Tensor) -> None:
    run.belief = belief.clone()


# ---- the network and its branches


@pytest.mark.parametrize("make", [image_case, convolutional_case, vector_case])
def test_base_path_is_the_network_and_dropping_the_branches_gives_it_back(make: Any) -> None:
    case = make()
    run = search(REMDiscovery(), case)
    x = whole(case).x
    case.model.eval()
    run.network.eval()
    with torch.no_grad():
        expected = case.model(x)
        routed = run.network(x, run.router(whole(case).index, run.known))
        assert torch.equal(run.network(x), expected)
        detached = run.network.narrow()
        assert torch.equal(detached(x), expected)
    assert not torch.allclose(routed, expected)
    assert detached is run.model
    assert str(detached) == str(case.model)
    assert list(detached.state_dict()) == list(case.model.state_dict())


def test_masks_follow_the_example_s_index_and_s_shares_one() -> None:
    case, seen = image_case(), dict[int, Tensor]()
    run = search(REMDiscovery(batch_size=32, augment=False), case)
    run.taken[:10] = True
    shared = run.router(torch.tensor([0]), torch.tensor([True])).mask(50, 0)[0]
    assert run.router.seed == derive_seed(0, "masks")
    original = type(run.router).__call__

    def note(router: Any, index: Tensor, marked: Tensor) -> Any:
        route = original(router, index, marked)
        for row, mask in zip(index.tolist(), route.mask(50, 0), strict=True):
            seen[row] = mask
        return route

    with pytest.MonkeyPatch.context() as patch, run.request.meter:
        patch.setattr(type(run.router), "__call__", note)
        run._redirect(0, run.method.optimiser_over(run.network))
    assert sorted(seen) == list(range(192))
    for row, mask in seen.items():
        own = run.router(torch.tensor([row]), torch.tensor([False])).mask(50, 0)[0]
        assert torch.equal(mask, shared if run.taken[row] else own)
    assert len({tuple(mask.tolist()) for mask in seen.values()}) == 193 - int(run.taken.sum())


def test_masks_go_with_the_row_of_the_source_not_with_the_position() -> None:
    case = image_case()
    part = case.split.train.select(torch.arange(100, 192))
    method = REMDiscovery(**SMALL)
    request = Request(Split(part, torch.arange(5)), seed=0, numerics=NUMERICS)
    run = rem_discovery._Search(method, copy.deepcopy(case.model), request.grant(method.name, method.needs))
    with run.request.meter:
        run._redirect(0, method.optimiser_over(run.network))
    assert run.rows.nonzero().flatten().tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("redirect_found", [False, True])
def test_objective_equals_a_slow_loop(monkeypatch: pytest.MonkeyPatch, redirect_found: bool) -> None:
    case = vector_case()  # no normalisation: training and evaluation are one function
    method = REMDiscovery(batch_size=16, erase=0.7, margin=1.3, augment=False, redirect_found=redirect_found)
    run, twin = search(method, case), search(method, case)
    caught: list[tuple[Batch, Loss]] = []

    def catch(network: nn.Module, examples: Any, objective: Any, request: Request, **_: Any) -> float:
        batch = next(examples.batches(16, generator(5)))
        caught.append((batch, objective(network, batch)))
        return 0.0

    monkeypatch.setattr(REMDiscovery, "fit", lambda self, *given, **rest: catch(*given, **rest))
    run._redirect(0, method.optimiser_over(run.network))
    ((batch, loss),) = caught
    drawn = case.split.forget.sample(4, twin.draw)  # a quarter of the batch
    assert loss.gradients == 16 + len(drawn)
    value = 0.0
    with torch.no_grad():
        for i in range(16):
            mark = case.split.forget_mask[batch.index[i : i + 1]]
            if bool(mark) and not redirect_found:
                continue
            logits = run.network(batch.x[i : i + 1], run.router(batch.index[i : i + 1], mark))
            value += float(F.cross_entropy(logits, batch.y[i : i + 1])) / 16
        for i in range(len(drawn)):
            ce = float(F.cross_entropy(run.model(drawn.x[i : i + 1]), drawn.y[i : i + 1]))
            value += 0.7 * 2 * math.log1p(math.exp(-(ce - 1.3))) / len(drawn)
    assert float(loss.value.detach()) == pytest.approx(value, rel=1e-5)


def test_without_erasure_only_the_routed_loss_is_left() -> None:
    case, method = image_case(), REMDiscovery(**SMALL, erase=0.0, look_for_kin=False)
    outcome = method(case.model, case.request(method))
    assert outcome.cost.sample_gradients == 4 * 192


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_weights_before_the_first_round(keep: float, monkeypatch: pytest.MonkeyPatch) -> None:
    case, method = image_case(), REMDiscovery(**SMALL, keep=keep)
    expected = copy.deepcopy(case.model)
    shrink_and_perturb(expected, keep, case.request(method).generator("loosen"))

    class Reached(Exception):
        pass

    def stop(run: rem_discovery._Search, number: int, _: Any) -> float:
        assert number == 0
        for name, tensor in expected.state_dict().items():
            assert torch.equal(run.model.state_dict()[name], tensor), name
        raise Reached

    monkeypatch.setattr(rem_discovery._Search, "_redirect", stop)
    with pytest.raises(Reached):
        method(case.model, case.request(method))
    same = all(torch.equal(a, b) for a, b in zip(expected.parameters(), case.model.parameters(), strict=True))
    assert same is (keep == 1)


def test_learning_rate_is_constant_then_falls() -> None:
    case, rates = vector_case(), list[float]()
    method = REMDiscovery(lr=0.2, rounds=5, discover=False)
    run = search(method, case)
    with pytest.MonkeyPatch.context() as patch, run.request.meter:

        def note(run: rem_discovery._Search, number: int, optimizer: torch.optim.Optimizer) -> float:
            rates.append(optimizer.param_groups[0]["lr"])
            return 0.0

        patch.setattr(rem_discovery._Search, "_redirect", note)
        run.run()
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.2 * 2 / 3, 0.2 / 3])


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.1, 0.9, 0.885], 3),  # within the tolerance: the last
        ([0.1, 0.9, 0.5], 2),
        ([0.9, 0.9, 0.5], 1),  # the first of equals
        ([0.1, 0.5, 0.9], 3),
    ],
)
def test_the_last_round_is_returned_unless_one_was_better(
    monkeypatch: pytest.MonkeyPatch, scores: list[float], chosen: int
) -> None:
    case, method = vector_case(), REMDiscovery(rounds=3, keep=1.0, discover=False, least_steps=0)

    def mark(run: rem_discovery._Search, number: int, _: Any) -> float:
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.fill_(number + 1)
        return 0.0

    def judge(run: rem_discovery._Search, number: int, _: float) -> float:
        run.belief = torch.zeros(64)
        return scores[number]

    monkeypatch.setattr(rem_discovery._Search, "_redirect", mark)
    monkeypatch.setattr(rem_discovery._Search, "_judge", judge)
    result = method(case.model, case.request(method)).model
    assert {float(value) for p in result.parameters() for value in p.detach().flatten()} == {float(chosen)}


# ---- who is named


@pytest.mark.parametrize(
    ("kept", "tried", "chosen"),
    [
        ({0.4: 0.71}, [0.4], 0.4),
        ({0.4: 0.69, 0.7: 0.9}, [0.4, 0.7], 0.7),
        ({0.4: 0.5, 0.7: 0.3, 0.85: 0.8}, [0.4, 0.7, 0.85], 0.85),
        ({0.4: 0.5, 0.7: 0.3, 0.85: 0.2}, [0.4, 0.7, 0.85], 0.4),
        ({1.0: 0.1}, [1.0], 1.0),  # nothing was loosened
    ],
)
def test_a_network_that_does_not_come_back_is_loosened_less(
    monkeypatch: pytest.MonkeyPatch, kept: dict[float, float], tried: list[float], chosen: float
) -> None:
    case, seen = image_case(), list[float]()
    start = copy.deepcopy(case.model.state_dict())

    def run(self: rem_discovery._Search) -> None:
        keep = round(self.method.keep, 3)
        seen.append(keep)
        given = self.model.state_dict()
        assert all(torch.equal(given[name], start[name]) for name in start)
        self.kept, self.belief = kept[keep] * before, torch.full((192,), keep)
        with torch.no_grad():
            next(self.model.parameters()).fill_(keep)

    before = accuracy(case.model, case.split.retain, case.numerics)
    assert before > 0.5
    monkeypatch.setattr(rem_discovery._Search, "run", run)
    method = REMDiscovery(keep=tried[0])
    outcome = method(case.model, case.request(method))
    assert seen == tried
    assert float(next(outcome.model.parameters()).detach().min()) == pytest.approx(chosen)
    assert outcome.found is not None
    assert outcome.found.scores[0] == pytest.approx(chosen)


def test_kept_is_that_of_the_round_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    run = search(REMDiscovery(rounds=3, discover=False, keep=1.0), vector_case())
    rounds = iter([(0.2, 0.3), (0.9, 0.8), (0.5, 0.6)])

    def judge(run: rem_discovery._Search, number: int, _: float) -> float:
        score, run.kept = next(rounds)
        return score

    monkeypatch.setattr(rem_discovery._Search, "_judge", judge)
    with run.request.meter:
        run.run()
    assert run.kept == 0.8


def test_beliefs_and_score_equal_a_slow_loop() -> None:
    case = image_case()
    run = search(REMDiscovery(discover=False), case)
    former = torch.rand(192, generator=generator(0)) * 2 - 1
    fixed_beliefs(run, former)
    with run.request.meter:
        score = run._judge(0, 0.25)
    model, batch = case.model.eval(), whole(case)
    kept, remaining = [], []
    with torch.no_grad():
        p = model(batch.x).double().softmax(1).tolist()
    for i, label in enumerate(batch.y.tolist()):
        now = max(value for j, value in enumerate(p[i]) if j != label) - p[i][label]
        assert float(run.belief[i]) == pytest.approx((float(former[i]) + now) / 2, abs=1e-5)
        (remaining if run.known[i] else kept).append(now < 0)
    share, left = sum(kept) / len(kept), sum(remaining) / len(remaining)
    assert score == pytest.approx(share * (1 - max(2 / 6, left)))
    (row,) = run.request.meter.log
    del row["seconds"]
    assert row == pytest.approx({
        "round": 1, "keep": 0.4, "loss": 0.25, "retain_accuracy": share, "forget_accuracy": left, "named": 0,
        "taken": 24, "score": score,
    })  # fmt: skip


@pytest.mark.parametrize("cap", [0.0, 0.1, 0.5, 1.0])
def test_the_most_suspicious_of_each_label_are_named_up_to_the_cap(cap: float) -> None:
    case = image_case()
    run = search(REMDiscovery(cap=cap, belief=0.2, contrast=0.1), case)
    belief = torch.rand(192, generator=generator(1)) * 2 - 1
    fixed_beliefs(run, belief)
    labels, free = case.split.train.labels, ~run.known
    run.taken |= (labels == 4) & free & (torch.arange(192) < 60)  # some have been named before
    before = run.taken.clone()
    count = run._name()
    new = run.taken & ~before
    assert count == int(new.sum())
    for label in range(6):
        mine = (labels == label) & free
        room = max(0, int(cap * int(mine.sum())) - int((before & mine).sum()))
        eligible = (mine & ~before & (belief > 0.2)).nonzero().flatten().tolist()
        expected = sorted(eligible, key=lambda i: -float(belief[i]))[:room]
        assert sorted(expected) == (new & mine).nonzero().flatten().tolist()
    assert not (new & run.known).any()
    assert cap == 0 or count > 0


def test_others_are_named_from_the_round_given_to_the_last_but_one() -> None:
    case = image_case()
    method = REMDiscovery(batch_size=32, rounds=5, first_naming=3, look_for_kin=False, least_steps=0)
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            rem_discovery._Search, "_name", lambda run: asked.append(len(run.request.meter.log)) or 0
        )
        outcome = method(case.model, case.request(method))
    assert asked == [2, 3]  # after rounds 3 and 4
    assert [row["round"] for row in outcome.log] == [1, 2, 3, 4, 5]


def test_found_are_outside_the_forget_set_and_the_most_suspicious_come_first() -> None:
    case = image_case()
    method = REMDiscovery(**SMALL, belief=0.0, cap=0.4)
    given = copy.deepcopy(case.split.forget_mask)
    outcome = method(case.model, case.request(method))
    found, train = outcome.found, case.split.train
    assert found is not None
    assert found.positions.dtype == torch.int64
    assert len(found.positions) == len(set(found.positions.tolist())) > 0
    assert not given[found.positions].any()
    assert torch.equal(case.split.forget_mask, given)
    assert found.scores.shape == (192,)
    assert found.scores.dtype == torch.float32
    assert found.scores.abs().max() <= 1
    ordered = found.scores[found.positions].tolist()
    assert ordered == sorted(ordered, reverse=True)
    wrong = sum((1 - score) / 2 for score in ordered) / len(ordered)
    assert found.false_discovery == pytest.approx(wrong, abs=1e-6)
    for label in range(6):
        free = (train.labels == label) & ~given
        assert int((train.labels[found.positions] == label).sum()) <= 0.4 * int(free.sum())
    assert outcome.log[-1]["taken"] == len(found.positions) + int(given.sum())
    assert sum(row["named"] for row in outcome.log) <= len(found.positions)


def test_kin_of_a_label_are_named_or_let_go_together() -> None:
    case = image_case()
    run, labels = search(REMDiscovery(belief=0.3, contrast=100.0), case), case.split.train.labels
    free = ~run.known
    run.held = free & (labels < 2)
    belief = torch.full((192,), -1.0)
    zero, one = (free & (labels == 0)).nonzero().flatten(), (free & (labels == 1)).nonzero().flatten()
    belief[zero[: len(zero) // 2 + 1]] = 0.31  # most of them
    belief[one] = 0.29
    fixed_beliefs(run, belief)
    assert run._name() == len(zero)
    assert (run.taken & ~run.known).nonzero().flatten().tolist() == zero.tolist()
    assert not run.held.any()


def test_what_is_held_is_neither_trained_on_nor_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    case, kin = image_case(), torch.zeros(192, dtype=torch.bool)
    kin[(~case.split.forget_mask).nonzero().flatten()[:7]] = True
    monkeypatch.setattr(rem_discovery, "kin", lambda *given, **settings: kin.clone())
    for redirect_found in (False, True):
        # Nobody is named, so that kin stay held up to the end.
        method = REMDiscovery(**SMALL, redirect_found=redirect_found, ready=1.0, keep=0.0)
        results = []
        for labels in (case.split.train.labels, (case.split.train.labels + kin.long()) % 6):
            request = Request(
                Split(case.split.train.relabel(labels), case.split.forget_positions),
                seed=0,
                numerics=case.numerics,
            )
            results.append(method(case.fresh(), request))
        states = [result.model.state_dict() for result in results]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert [row["taken"] for row in results[0].log] == [24] * 4


@pytest.mark.parametrize(("spread", "named"), [(0.1, True), (0.6, False)])
def test_nobody_is_named_unless_the_beliefs_fall_into_two_parts(spread: float, named: bool) -> None:
    case = image_case()
    run = search(REMDiscovery(contrast=4.5), case)
    belief = torch.randn(192, generator=generator(0)) * spread - 0.6
    belief[~run.known] += (torch.arange(int((~run.known).sum())) < 20) * 1.3
    fixed_beliefs(run, belief)
    assert int((belief[~run.known] > 0.4).sum()) > 0
    assert (run._name() > 0) is named


def test_without_a_search_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("kin were looked for")

    monkeypatch.setattr(rem_discovery, "kin", refuse)
    case = image_case()
    for method in (REMDiscovery(**SMALL, discover=False), AttachedREM(**SMALL)):
        outcome = method(case.model, case.request(method))
        assert outcome.found is None
        assert all(row["taken"] == 24 for row in outcome.log)
    searched = REMDiscovery(**SMALL, look_for_kin=False, belief=1.0)
    found = searched(case.model, case.request(searched)).found
    assert found is not None
    assert found.positions.tolist() == []
    assert found.false_discovery == 0


def test_methods_that_do_not_look_find_none() -> None:
    case, method = image_case(), load_method("npo", passes=1)
    assert method(case.model, case.request(method)).found is None


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": -0.1}, r"keep must lie in \[0, 1\], got -0.1"),
        ({"keep": math.nan}, r"keep must lie in \[0, 1\], got nan"),
        ({"belief": 1.1}, r"belief must lie in \[0, 1\], got 1.1"),
        ({"cap": 2}, r"cap must lie in \[0, 1\], got 2"),
        ({"kin_cap": -1}, r"kin_cap must lie in \[0, 1\], got -1"),
        ({"tolerance": -0.01}, r"tolerance must lie in \[0, 1\], got -0.01"),
        ({"erase": -1.0}, "erase is a weight of at least 0, got -1"),
        ({"erase": math.nan}, "erase is a weight of at least 0, got nan"),
        ({"margin": math.inf}, "margin is a cross-entropy in nats, got inf"),
        ({"open_share": 0.0}, r"share of open units p must lie in \(0, 1\], got 0"),
        ({"width": 0.0}, "width must be positive and finite, got 0"),
        ({"rounds": 0}, "rounds must be positive and finite, got 0"),
        ({"first_naming": 0}, "first_naming must be positive and finite, got 0"),
        ({"separation": -3.0}, "separation must be positive and finite, got -3"),
        ({"least_steps": -1}, "least_steps is a number of steps, at least 0, got -1"),
        ({"lr": 0.0}, "learning rate must be positive and finite, got 0"),
        ({"batch_size": 0}, "batch_size must be positive and finite, got 0"),
        ({"optimiser": "lion"}, "optimiser must be .* got 'lion'"),
    ],
)
@pytest.mark.parametrize("kind", [REMDiscovery, AttachedREM])
def test_settings_out_of_range(kind: type[REMDiscovery], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(**settings)


def test_a_first_naming_that_never_comes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="first_naming 3 with rounds 3 names nobody"):
        REMDiscovery(rounds=3)
    assert AttachedREM(rounds=1).rounds == 1  # it names nobody anyway


@pytest.mark.parametrize(
    ("n_train", "batch_size", "rounds", "steps"),
    [
        (50_000, 64, 6, 4692),
        (1437, 64, 6, 138),
        (600, 16, 6, 228),  # 114 in batches of 32
        (90, 8, 11, 132),
        (3, 8, 130, 130),
    ],
)
def test_little_data_is_seen_in_smaller_batches_then_more_often(
    n_train: int, batch_size: int, rounds: int, steps: int
) -> None:
    method = REMDiscovery(lr=0.07).fitted_to(n_train)
    assert (method.batch_size, method.rounds) == (batch_size, rounds)
    assert math.ceil(n_train / batch_size) * rounds == steps
    assert method == REMDiscovery(lr=0.07, batch_size=batch_size, rounds=rounds)
    as_given = REMDiscovery(batch_size=7, least_steps=0)
    assert as_given.fitted_to(n_train) == as_given
    assert REMDiscovery(batch_size=4).fitted_to(40_000).batch_size == 4


def test_a_call_takes_the_steps_that_little_data_needs() -> None:
    case, method = image_case(), REMDiscovery(least_steps=50, look_for_kin=False)
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:

        def note(self: Router, index: Tensor, shared: Tensor) -> Any:
            sizes.append(len(index))
            return route(self, index, shared)

        route = Router.__call__
        patch.setattr(Router, "__call__", note)
        outcome = method(case.model, case.request(method))
    assert len(case.split.train) == 192  # 6 rounds in batches of 32 are 36 steps
    assert sizes == [16] * 72
    assert [row["round"] for row in outcome.log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("given", ["res*", ["res*"], ("res*",)])
def test_layers_are_a_name_or_several(given: Any) -> None:
    method = REMDiscovery(layers=given)
    assert method.layers == ("res*",)
    assert hash(method) == hash(REMDiscovery.configured(method.settings()))
    assert len(search(method, image_case()).network.branches) == 4


def test_a_layer_that_is_not_there() -> None:
    case, method = image_case(), REMDiscovery(layers=("conv5.conv",))
    with pytest.raises(
        InvalidInput, match=r"is called 'conv5.conv'; did you mean 'conv\d.conv'\? \(there are:"
    ):
        method(case.model, case.request(method))


def test_a_network_without_a_place_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples_from_dataset(TensorDataset(torch.randn(40, 4), torch.arange(40) % 2), 2)
    request = Request(Split(data, torch.arange(5)), seed=0, numerics=NUMERICS)
    monkeypatch.setattr(Meter, "count", lambda *_: pytest.fail("work was done"))
    with pytest.raises(InvalidInput, match="Linear has no Conv2d, and no Linear beside its head"):
        REMDiscovery()(nn.Linear(4, 2), request)


# ---- what it does to a model


def healed(case: Case, result: Unlearned) -> float:
    """Accuracy on the corrupted digits nobody named, true labels."""
    return accuracy(result.model, case.truth.sets["corrupted_unknown"], case.numerics)


@pytest.mark.trains
def test_mislabelled_digits_nobody_named_are_found_and_healed(margin: Callable[..., None]) -> None:
    case = corrupted_digits(0.0, 0.1)
    found, attached = (method(case.model, case.request(method)) for method in (REMDiscovery(), AttachedREM()))
    margin("healed", healed(case, found), above=0.85)
    margin("healed beyond rem_attached", healed(case, found) - healed(case, attached), above=0.05)
    assert found.found is not None
    bad = set(case.truth.unknown.tolist())
    hits = bad & set(found.found.positions.tolist())
    margin("precision", len(hits) / len(found.found.positions), above=0.9)
    margin("recall", len(hits) / len(bad), above=0.75)
    test = case.truth.sets["test"]
    margin(
        "utility won", accuracy(found.model, test, NUMERICS) - accuracy(case.model, test, NUMERICS), above=0
    )
    margin("forget accuracy", case.forget_accuracy(found.model), below=0.1 + 1e-9)
    # 6 rounds of one pass and a quarter, and the probe for kin
    assert found.cost.sample_gradients <= 8 * 1437


@pytest.mark.trains
def test_utility_is_kept_where_all_corruption_is_named(margin: Callable[..., None]) -> None:
    task = CorruptionTask(n_corrupted=40)
    problem = task.build(learnable_images(n_train=400, n_test=400, n_classes=6))
    recipe = Recipe(
        model_settings={"width": 8}, epochs=15, batch_size=32, optimiser=Optimiser(lr=0.1), augment=False
    )
    model = recipe.build(problem.shape, problem.n_classes, generator(0, "initialisation"))
    recipe.train(model, problem.split.train, 0, NUMERICS, Meter())
    case, method = Case(model, problem.split, problem.truth, recipe, NUMERICS), REMDiscovery()
    margin("forget accuracy before", case.forget_accuracy(model), above=0.8)
    result, test = method(model, case.request(method)), problem.truth.sets["test"]
    margin("utility", accuracy(result.model, test, NUMERICS) - accuracy(model, test, NUMERICS), above=-0.02)
    margin("forget accuracy", case.forget_accuracy(result.model), below=0.1 + 1e-9)
    assert result.found is not None
    margin("rows named", len(result.found.positions), below=0.02 * 400 + 1)


# ---- other people's networks


class Encoder(nn.Module):
    """Image rows as tokens through torch's encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.embed(x.flatten(0, 1))).mean(1))
        return logits


def images() -> TensorDataset:
    """64 images of four classes, eight of which have a wrong label."""
    data = learnable_images(n_train=64)
    labels = data.train_labels.clone()
    labels[:8] = (labels[:8] + 1) % 4
    return TensorDataset(data.train_images / 255, labels)


def built(make: Any) -> nn.Module:
    with global_generator(generator(0)):
        model: nn.Module = make()
    return model


def repaired(model: nn.Module, data: TensorDataset, **settings: Any) -> expunge.Unlearned:
    return expunge.unlearn(
        model, data, forget=range(4), method="rem_discovery", batch_size=16, device="cpu", **settings
    )


def check_same_form(before: nn.Module, after: nn.Module) -> None:
    assert type(after) is type(before)
    assert list(after.state_dict()) == list(before.state_dict())
    for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert old.shape == new.shape, name
        assert old.dtype == new.dtype, name
    assert str(after) == str(before)
    assert not any(module._forward_hooks for module in after.modules())


def test_torch_s_encoder_layer() -> None:
    model = built(Encoder)
    result = repaired(model, images(), rounds=2, first_naming=1)
    check_same_form(model, result.model)
    assert result.found is not None
    assert result.cost.parameters["during"] > result.cost.parameters["after"]


class Logits(nn.Module):
    """A classifier of the transformers library that returns its logits."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x).logits
        return logits


def small_bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Logits(transformers.BertForSequenceClassification(config))


def small_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8,
        patch_size=4, num_channels=1, num_labels=4,
    )  # fmt: skip
    return Logits(transformers.ViTForImageClassification(config))


def sentences() -> TensorDataset:
    tokens = torch.randint(0, 30, (64, 10), generator=generator(0))
    return TensorDataset(tokens, tokens[:, 0] % 3)


@pytest.mark.parametrize(("make", "data"), [(small_bert, sentences), (small_vit, images)])
def test_networks_of_the_transformers_library(make: Any, data: Any) -> None:
    model = built(make)
    result = repaired(model, data(), rounds=2, first_naming=1)
    check_same_form(model, result.model)
    pattern = repaired(model, data(), rounds=1, discover=False, layers="*.layer*.0.*")
    check_same_form(model, pattern.model)
    assert pattern.cost.parameters["during"] < result.cost.parameters["during"]


def test_nobody_is_named_before_the_network_has_recovered() -> None:
    case, method = image_case(), REMDiscovery(**SMALL, ready=1.0, belief=0.0, look_for_kin=False)
    outcome = method(case.fresh(), case.request(method))
    assert all(row["retain_accuracy"] >= 1.0 or row["named"] == 0 for row in outcome.log)
