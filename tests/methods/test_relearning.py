from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from corrupted_digits import corrupted_digits
from torch import Tensor, nn

from expunge.data.examples import Batch
from expunge.data.joined import in_memory
from expunge.errors import Diverged, InvalidInput
from expunge.methods import relearning
from expunge.methods.base import Request, Unlearned
from expunge.methods.feature_neighbours import Neighbours
from expunge.methods.given_labels import second_answers, wrong_label_probability
from expunge.methods.relearn import Relearn
from expunge.methods.relearning import Run
from expunge.models.head import find_head
from expunge.seeding import generator, global_generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import Case, convolutional_case, image_case, vector_case
from expunge.training.continued import Continued
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import accuracy, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

NUMERICS = Numerics(channels_last=False)
QUICK: dict[str, Any] = {"lr": 0.05, "optimiser": "sgd", "batch_size": 16, "epochs": 2, "least_steps": 0}
HOW = Continued(
    optimiser=Optimiser(lr=0.05, momentum=0.0, weight_decay=0.0),
    batch_size=16,
    augment=False,
    why="as was given",
)


def run_of(method: Relearn, case: Case, how: Continued = HOW, **there: Any) -> Run:
    request = Request(case.split, seed=0, numerics=case.numerics, **there)
    granted = request.grant(method.name, method.needs, method.uses)
    second = second_answers(predict(case.model, granted.forget, case.numerics), granted.forget.labels)
    return Run(method, copy.deepcopy(case.model), granted, how, told=second)


def unlearned(method: Relearn, case: Case, model: nn.Module | None = None, **there: Any) -> Unlearned:
    request = Request(case.split, seed=0, numerics=case.numerics, **there)
    return method(case.model if model is None else model, request)


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    there = theirs.state_dict()
    return all(torch.equal(tensor, there[name]) for name, tensor in ours.state_dict().items())


# ---- the loss of a step


@pytest.mark.parametrize("number", [0, 1])
def test_loss_of_a_step_equals_a_slow_loop(number: int) -> None:
    case = vector_case()
    weights = {"early_learning": 3.0, "memory": 0.6, "not_label": 0.5, "own_label": 0.25}
    run = run_of(Relearn(**weights), case)
    run.number = number
    unlisted = torch.arange(int((~run.known).sum()))
    run.quarantined[~run.known], run.flagged[~run.known] = unlisted % 5 == 0, unlisted % 5 == 1
    run.told[:-1:2] = torch.rand(int(run.known.sum()), 4, generator=generator(3)).softmax(1)[::2]
    told = dict(zip(case.split.forget_positions.tolist(), run.told.double().tolist(), strict=False))
    average = torch.rand(64, 4, generator=generator(1)) / 4
    run.average = average.clone()
    batch = next(case.split.train.batches(32, generator(2)))
    rows = run.position[batch.index].tolist()
    kinds = {(bool(run.flagged[i]), bool(run.known[i]), bool(run.quarantined[i])) for i in rows}
    assert kinds == {(True, True, False), (True, False, False), (False, False, True), (False, False, False)}

    loss, value = run._objective(run.model, batch), 0.0
    with torch.no_grad():
        for i, x, y in zip(rows, batch.x, batch.y.tolist(), strict=True):
            p = run.model(x[None])[0].double().softmax(0)
            target = 0.6 * average[i].double() + 0.4 * p
            assert run.average[i].tolist() == pytest.approx(target.tolist(), abs=1e-6)
            rival = max(float(p[j]) for j in range(4) if j != y)
            assert float(run.margin[i]) == pytest.approx(rival - float(p[y]), abs=1e-5)
            if run.quarantined[i]:
                continue
            if run.flagged[i]:
                value -= 0.5 * math.log(1 - float(p[y]))
                own = [0.0 if j == y else float(target[j]) ** 2 for j in range(4)]
                own = told[i] if any(told.get(i, [])) else own
                share = sum(own)
                if number:
                    value -= 0.25 * sum(w / share * math.log(float(p[j])) for j, w in enumerate(own))
            else:
                value += -math.log(float(p[y])) + 3.0 * math.log(1 - float(p @ target))
    assert float(loss.value.detach()) == pytest.approx(value / 32, rel=1e-3)
    assert loss.gradients == 32


def test_second_answers_count_where_two_labels_name_each_other() -> None:
    """Labels 0 and 1 do; those of 2 name 3, which has no examples, and those of 4 name 0, which names 1."""
    labels = torch.tensor([0] * 6 + [1] * 5 + [2] * 6 + [4] * 6)
    second = torch.tensor([1] * 4 + [2] * 2 + [0] * 5 + [3] * 6 + [0] * 6)
    answers = torch.zeros(23, 5)
    answers[torch.arange(23), second] = math.log(3)
    answers[torch.arange(23), labels] = 9.0
    found = second_answers(answers, labels)
    assert found[0].tolist() == pytest.approx([0, 9 / 12, 1 / 12, 1 / 12, 1 / 12])
    assert found.any(1).tolist() == [True] * 11 + [False] * 12
    few = second_answers(answers[1:10], labels[1:10])
    assert not few.any(), "four examples of a label are too few"


def test_nothing_is_learned_from_the_quarantined() -> None:
    case, gradients = vector_case(), []
    batch = next(case.split.train.batches(64))
    for labels in (batch.y, (batch.y + 1) % 4):
        run = run_of(Relearn(), case)
        run.quarantined[~run.known] = True
        given = torch.where(run.quarantined, labels, batch.y)
        run._objective(run.model, Batch(batch.x, given, batch.index)).value.backward()
        gradients.append([parameter.grad for parameter in run.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_targets_are_not_learned_through() -> None:
    run = run_of(Relearn(memory=0.0), vector_case())
    run._objective(run.model, next(vector_case().split.train.batches(64))).value.backward()
    assert not run.average.requires_grad


# ---- the probability that a label is wrong


def predictions(share: float, sharpness: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions p (N, 6) that are calibrated at sharpness 1, given labels, and whether those are wrong."""
    n, draw = 6000, generator(seed)
    p = (torch.randn(n, 6, generator=draw) * 4).softmax(1)
    true = torch.multinomial(p, 1, generator=draw).squeeze(1)
    wrong = torch.rand(n, generator=draw) < share
    other = (true + torch.randint(1, 6, (n,), generator=draw)) % 6
    return p.pow(sharpness) / p.pow(sharpness).sum(1, keepdim=True), torch.where(wrong, other, true), wrong


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_the_probability_of_a_wrong_label_is_calibrated(share: float, sharpness: float) -> None:
    p, labels, wrong = predictions(share, sharpness)
    everybody = torch.ones(len(labels), dtype=torch.bool)
    found = wrong_label_probability(p, labels, everybody)
    assert found.shape == labels.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float(found.mean()) == pytest.approx(share, abs=0.03)
    for low, high in ((0.0, 0.1), (0.5, 0.9), (0.9, 1.01)):
        inside = (found >= low) & (found < high)
        if int(inside.sum()) >= 300:
            assert float(found[inside].mean()) == pytest.approx(
                float(wrong[inside].double().mean()), abs=0.03
            )


def test_the_share_is_estimated_without_those_left_out() -> None:
    p, labels, wrong = predictions(0.1, 1.0)
    listed = wrong & (torch.arange(len(wrong)) % 2 == 0)
    left = ~listed
    found = wrong_label_probability(p, labels, left)
    assert float(found[left].mean()) == pytest.approx(float(wrong[left].double().mean()), abs=0.03)


# ---- when there is nothing to repair


def test_nothing_to_repair_gives_the_same_weights_and_a_note() -> None:
    case = vector_case()
    labels = case.split.train.labels.clone()
    listed = torch.arange(0, 48, 4)
    with torch.no_grad():
        scores = case.model(next(case.split.train.batches(64)).x)
    labels[listed] = scores[listed].argmin(1)  # which the model does not give
    split = Split(case.split.train.relabel(labels), listed)
    outcome = unlearned(Relearn(**QUICK), replace(case, split=split))
    assert same(outcome.model, case.model)
    (note,) = outcome.notes
    assert note.startswith(
        "nothing to repair: the model gives only 0 of 12 listed examples their given label"
    )


def test_few_listed_examples_do_not_stop_it() -> None:
    case = vector_case()
    labels, listed = case.split.train.labels.clone(), torch.arange(3)
    with torch.no_grad():
        labels[listed] = case.model(next(case.split.train.batches(64)).x)[listed].argmin(1)
    outcome = unlearned(
        Relearn(**QUICK), replace(case, split=Split(case.split.train.relabel(labels), listed))
    )
    assert not any("nothing to repair" in note for note in outcome.notes)
    assert not same(outcome.model, case.model)


# ---- training that fails


def failing(monkeypatch: pytest.MonkeyPatch, fails: Any) -> list[float]:
    """Let ``fit`` spoil the weights and raise where ``fails(call)``; the list fills with the factors on the rate."""
    factors: list[float] = []
    original = relearning.fit

    def fit(model: nn.Module, *given: Any, **rest: Any) -> float:
        factors.append(rest["schedule"].keywords["factor"])
        if fails(len(factors)):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(math.nan)
            raise Diverged("the training loss became nan")
        return original(model, *given, **rest)

    monkeypatch.setattr(relearning, "fit", fit)
    return factors


def test_a_pass_that_diverges_is_made_again_at_half_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = failing(monkeypatch, lambda call: call == 1)
    method = Relearn(**QUICK, keep=0.9, class_shares=False)
    outcome = unlearned(method, vector_case())
    assert factors == [1.0, 0.5, 0.5]
    assert all(bool(tensor.isfinite().all()) for tensor in outcome.model.state_dict().values())
    (note,) = outcome.notes
    assert note == "pass 1 diverged; made again from its start at half the learning rate (0.025)"
    assert [row["lr"] for row in outcome.log] == [0.025, 0.025]


def test_a_pass_begins_again_from_the_weights_and_averages_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of(Relearn(**QUICK), vector_case())
    optimizer = run.how.optimiser.over(run.model)
    seen: list[tuple[dict[str, Tensor], Tensor]] = []

    def fit(model: nn.Module, *given: Any, **rest: Any) -> float:
        seen.append((copy.deepcopy(model.state_dict()), run.average.clone()))
        if len(seen) == 1:
            run.average += 1
            with torch.no_grad():
                next(model.parameters()).add_(1)
            raise Diverged("nan")
        return 0.0

    monkeypatch.setattr(relearning, "fit", fit)
    assert run._pass(optimizer, 1.0) == (0.0, 0.5)
    (first, averages), (second, again) = seen
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(averages, again)


def test_a_pass_that_goes_on_diverging_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = failing(monkeypatch, lambda call: True)
    with pytest.raises(
        Diverged,
        match=r"pass 1 diverged at the learning rates 0.05, 0.025, 0.0125 \(.*\); give a lower one, or the",
    ):
        unlearned(Relearn(**QUICK), vector_case())
    assert factors == [0.5**number for number in range(len(factors))]
    assert len(factors) >= 2


def test_a_network_that_does_not_come_back_is_begun_again_with_less_shrinking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, begun = vector_case(), list[tuple[float, float]]()
    shrink, train = relearning.shrink_and_perturb, Run._pass
    unshrunk: list[bool] = []

    def note(model: nn.Module, *given: Any) -> None:
        unshrunk.append(same(model, case.model))
        shrink(model, *given)

    def spoil(run: Run, optimizer: torch.optim.Optimizer, factor: float) -> tuple[float, float]:
        if run.number == 0:
            begun.append((run.keep, factor))
        result = train(run, optimizer, factor)
        if len(begun) < 3:
            run.margin[:] = 1.0  # all that is trusted has another label
        return result

    monkeypatch.setattr(relearning, "shrink_and_perturb", note)
    monkeypatch.setattr(Run, "_pass", spoil)
    outcome = unlearned(Relearn(**QUICK, keep=0.2, class_shares=False), case)
    keeps, factors = zip(*begun, strict=True)
    assert keeps == pytest.approx((0.2, 0.6, 0.8))
    assert factors == pytest.approx((1.0, 0.5, 0.25))
    assert unshrunk == [True] * 3
    assert [note.split(";")[0] for note in outcome.notes] == [
        f"with {keep} of the weights kept the network did not come back to half of its accuracy"
        for keep in ("0.20", "0.60")
    ]
    assert outcome.notes[0].endswith("begun again with less shrinking and half the learning rate")


def test_a_network_that_never_comes_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []
    monkeypatch.setattr(Run, "relearn", lambda run: bool(begun.append(run.keep)))
    with pytest.raises(
        Diverged,
        match="the network did not come back to half of its accuracy on retained examples, the last at",
    ):
        unlearned(Relearn(**QUICK, keep=0.2), vector_case())
    assert len(begun) == 3


def test_whether_it_came_back_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for margin, back in ((-1.0, True), (1.0, False)):
        run = run_of(Relearn(**QUICK, neighbours=False), vector_case())

        def answer(*_: Any, run: Run = run, margin: float = margin) -> tuple[float, float]:
            run.margin[:] = margin
            return 0.0, 1.0

        monkeypatch.setattr(run, "_pass", answer)
        with run.request.meter:
            assert run.relearn() is back


# ---- what it begins with


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x))
        return logits


AUGMENTED = replace(HOW, augment=True)
ADAM = replace(HOW, optimiser=Optimiser(name="adamw", lr=0.001))


@pytest.mark.parametrize(
    ("known", "how", "expected", "factor"),
    [
        (1.0, HOW, (0.4, 0.4, 1.0), 1.0),
        (0.96, HOW, (0.85, 0.85, 1.0), 1.0),
        (1.0, ADAM, (0.55, 0.4, 1.0), 1.0),
        (0.96, ADAM, (0.85, 0.85, 1.0), 1.0),
        (0.97, AUGMENTED, (0.4, 0.4, 1.0), 1.0),
        (0.96, AUGMENTED, (0.85, 0.85, 1.0), 0.25),  # it has memorised little
    ],
)
def test_what_is_kept_depends_on_the_network_and_on_whether_it_has_memorised(
    known: float,
    how: Continued,
    expected: tuple[float, float, float],
    factor: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("expunge.methods.relearning._SMALL", 0)
    case = vector_case()
    cases = (convolutional_case(), case, replace(case, model=Tokens()))
    runs = [run_of(Relearn(), each, how) for each in cases]
    assert [run._choose(known) for run in runs] == [factor] * 3
    assert tuple(run.keep for run in runs) == expected


def test_more_is_kept_where_there_is_little_to_come_back_with() -> None:
    case = vector_case()
    runs = [run_of(Relearn(), each, HOW) for each in (case, replace(case, model=Tokens()))]
    for run in runs:
        run._choose(1.0)
    assert [run.keep for run in runs] == [0.7, 1.0]


@pytest.mark.parametrize("known", [1.0, 0.5])
@pytest.mark.parametrize("how", [HOW, AUGMENTED])
def test_nothing_is_kept_where_the_weights_of_the_start_are_known(known: float, how: Continued) -> None:
    case = vector_case()
    for each in (case, replace(case, model=Tokens())):
        run = run_of(Relearn(), each, how, start=other_weights(each))
        assert run._choose(known) == 1.0
        assert run.keep == 0.0


def test_a_share_that_is_given_is_kept_and_a_rate_that_is_given_stays() -> None:
    case = vector_case()
    for there in ({}, {"start": other_weights(case)}):
        run = run_of(Relearn(keep=0.123, lr=0.01), case, AUGMENTED, **there)
        assert run._choose(0.5) == 1.0
        assert run.keep == pytest.approx(0.123)


def first_weights(monkeypatch: pytest.MonkeyPatch, method: Relearn, case: Case, **there: Any) -> nn.Module:
    """The network as the first pass gets it."""
    caught: list[nn.Module] = []

    def stop(run: Run, *_: Any) -> tuple[float, float]:
        caught.append(copy.deepcopy(run.model))
        run.margin[:] = -1
        return 0.0, 1.0

    monkeypatch.setattr(Run, "_pass", stop)
    unlearned(method, case, **there)
    return caught[0]


def other_weights(case: Case) -> dict[str, Tensor]:
    return {name: torch.randn(p.shape, generator=generator(4)) for name, p in case.model.named_parameters()}


def test_weights_of_the_start_are_gone_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    case = vector_case()
    start = other_weights(case)
    given = first_weights(monkeypatch, Relearn(**QUICK, keep=0.0), case, start=start)
    assert all(torch.equal(parameter, start[name]) for name, parameter in given.named_parameters())
    half = first_weights(monkeypatch, Relearn(**QUICK, keep=0.5), case, start=start)
    for (name, parameter), old in zip(half.named_parameters(), case.model.parameters(), strict=True):
        assert torch.allclose(parameter, (start[name] + old) / 2, atol=1e-6)


def test_without_a_start_the_weights_are_mixed_with_fresh_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    case, method = vector_case(), Relearn(**QUICK, keep=0.3)
    expected = copy.deepcopy(case.model)
    request = Request(case.split, seed=0, numerics=case.numerics)
    shrink_and_perturb(expected, 0.3, request.generator("shrink"))
    assert same(first_weights(monkeypatch, method, case), expected)
    assert same(first_weights(monkeypatch, replace(method, keep=1.0), case), case.model)


def test_a_start_with_a_head_for_other_classes_goes_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = vector_case()
    start = other_weights(case) | {"4.weight": torch.zeros(1000, 16), "4.bias": torch.zeros(1000)}
    given = first_weights(monkeypatch, Relearn(**QUICK, keep=0.0), case, start=start)
    assert torch.equal(given[2].weight, start["2.weight"])
    assert given[4].weight.any()


def test_a_start_of_another_shape_is_refused() -> None:
    start = other_weights(vector_case()) | {"0.weight": torch.zeros(3, 3)}
    with pytest.raises(InvalidInput, match=r"'0.weight' of shape \(3, 3\) and the model has \(16, 5\)"):
        unlearned(Relearn(**QUICK), vector_case(), start=start)


# ---- rate and optimiser


def how_it_trains(monkeypatch: pytest.MonkeyPatch, method: Relearn, case: Case, **there: Any) -> Continued:
    hows: list[Continued] = []
    original = Run.__init__

    def note(run: Run, *given: Any, **named: Any) -> None:
        hows.append(given[3])
        original(run, *given, **named)

    monkeypatch.setattr(Run, "__init__", note)
    unlearned(method, case, **there)
    return hows[-1]


def test_rate_optimiser_and_batch_come_from_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(
        batch_size=24, optimiser=Optimiser(name="adamw", lr=0.004, weight_decay=0.1), augment=False
    )
    how = how_it_trains(monkeypatch, Relearn(epochs=2, least_steps=0, keep=1.0), vector_case(), recipe=recipe)
    assert how.optimiser == recipe.optimiser
    assert how.batch_size == 24
    given = Relearn(epochs=2, least_steps=0, keep=1.0, lr=0.002, batch_size=32)
    how = how_it_trains(monkeypatch, given, vector_case(), recipe=recipe)
    assert how.optimiser == replace(recipe.optimiser, lr=0.002)
    assert how.batch_size == 32


def test_without_a_recipe_a_finite_rate_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Relearn(epochs=2, least_steps=0, keep=1.0)
    for case, name in ((vector_case(), "adamw"), (convolutional_case(), "sgd")):
        how = how_it_trains(monkeypatch, method, case)
        assert how.optimiser.name == name
        assert 0 < how.optimiser.lr < 1


def test_the_rate_rises_then_falls_to_nothing() -> None:
    run = run_of(Relearn(**{**QUICK, "epochs": 5}), vector_case())
    factors = []
    for number in range(run.passes):
        run.number = number
        factors += [run._schedule(step, run.steps, 0.5) for step in range(run.steps)]
    assert len(factors) == run.passes * run.steps
    top = factors.index(max(factors))
    assert max(factors) == 0.5
    assert top < len(factors) / 4
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert 0 <= factors[-1] < 0.05


@pytest.mark.parametrize("there", [{}, {"recipe": Recipe(batch_size=16)}])
def test_everything_frozen(there: dict[str, Any]) -> None:
    model = copy.deepcopy(vector_case().model).requires_grad_(False)
    with pytest.raises(InvalidInput, match="every parameter is frozen"):
        unlearned(Relearn(), vector_case(), model, **there)


def test_no_retained_example_is_an_error_that_says_what_to_do() -> None:
    case = vector_case()
    split = Split(case.split.train, torch.arange(64))
    with pytest.raises(InvalidInput, match="no retained example to relearn from; leave some out of the list"):
        unlearned(Relearn(**QUICK), replace(case, split=split))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": -0.1}, r"keep must lie in \[0, 1\], got -0.1"),
        ({"keep": math.nan}, r"keep must lie in \[0, 1\], got nan"),
        ({"memory": 1.1}, r"memory must lie in \[0, 1\], got 1.1"),
        ({"neighbour_cap": -1}, r"neighbour_cap must lie in \[0, 1\], got -1"),
        ({"least_learned": 1.5}, r"least_learned must lie in \[0, 1\], got 1.5"),
        ({"early_learning": -1.0}, "early_learning is a weight of at least 0, got -1"),
        ({"not_label": math.inf}, "not_label is a weight of at least 0, got inf"),
        ({"own_label": math.nan}, "own_label is a weight of at least 0, got nan"),
        ({"epochs": 1}, "epochs must be at least 2: .* got 1"),
        ({"least_steps": -1}, "least_steps is a number of steps, at least 0, got -1"),
        ({"separation": 0.0}, "separation must be positive and finite, got 0"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"batch_size": 0}, "batch_size must be positive and finite, got 0"),
        ({"optimiser": "lion"}, "optimiser must be .* got 'lion'"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight decay be at least 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Relearn(**settings)


# ---- who is flagged


@pytest.mark.parametrize(
    ("of_neighbours", "of_control", "flagged"), [(0.9, 0.1, True), (0.1, 0.1, False), (0.9, 0.9, False)]
)
def test_neighbours_are_flagged_where_they_are_disagreed_with_more_than_the_control(
    of_neighbours: float, of_control: float, flagged: bool
) -> None:
    run = run_of(Relearn(), image_case())
    labels = run.train.labels
    label = int(labels[run.known][0])
    mine = ((labels == label) & ~run.known).nonzero().flatten()
    found, control = mine[:10], mine[10:20]
    elsewhere = ((labels != label) & ~run.known).nonzero().flatten()[:5]  # the network agrees with these
    other = int(labels[elsewhere[0]])
    elsewhere = elsewhere[labels[elsewhere] == other]
    run.neighbours = Neighbours(torch.zeros_like(run.known), {label: 0.25, other: 1.0})
    run.neighbours.found[found] = run.neighbours.found[elsewhere] = True
    run.quarantined[mine[:20]] = run.quarantined[elsewhere] = True
    run.control[control] = True
    run.margin[:] = -0.5
    run.margin[found[: round(10 * of_neighbours)]] = 0.5
    run.margin[control[: round(10 * of_control)]] = 0.5
    run._judge()
    # All of them, those included that the network agrees with.
    assert run.flagged[found].all() if flagged else not run.flagged[found].any()
    assert not run.flagged[control].any()
    assert not run.flagged[elsewhere].any()
    assert not run.quarantined.any()
    assert torch.equal(run.flagged[run.known], run.known[run.known])
    assert run.good == (0.25 if flagged else 0.0)


def test_the_share_of_good_ones_is_that_of_all_who_are_flagged() -> None:
    run = run_of(Relearn(), image_case())
    unlisted = [((run.train.labels == label) & ~run.known).nonzero().flatten() for label in range(3)]
    run.neighbours = Neighbours(torch.zeros_like(run.known), {0: 0.1, 1: 0.5, 2: 0.9})
    for rows, count in zip(unlisted, (12, 4, 8), strict=True):
        run.neighbours.found[rows[:count]] = True
    run.margin[torch.cat(unlisted[:2])] = 0.5
    run.margin[unlisted[2]] = -0.5
    run._judge()
    assert int((run.flagged & ~run.known).sum()) == 16
    assert run.good == pytest.approx((12 * 0.1 + 4 * 0.5) / 16)


def test_neighbours_and_a_control_of_their_label_are_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(Relearn(), image_case())
    label = int(run.train.labels[run.known][0])
    mine = ((run.train.labels == label) & ~run.known).nonzero().flatten()
    found = torch.zeros_like(run.known)
    found[mine[:2]] = True
    monkeypatch.setattr(relearning, "feature_neighbours", lambda *_, **__: Neighbours(found, {label: 0.0}))
    run._quarantine()
    control = run.control.nonzero().flatten()
    assert len(control) == min(2, (len(mine) - 2) // 10) > 0
    assert set(control.tolist()) <= set(mine[2:].tolist())
    assert torch.equal(run.quarantined, found | run.control)
    assert int(found.sum()) == 2


def test_found_are_unlisted_and_the_most_suspicious_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    case = image_case()
    picked = (~case.split.forget_mask).nonzero().flatten()[:9]

    def flag(run: Run) -> None:
        run.flagged[picked] = True
        run.neighbours = Neighbours(run.flagged, dict.fromkeys(range(run.train.n_classes), 0.125))

    monkeypatch.setattr(Run, "_judge", flag)
    outcome = unlearned(Relearn(epochs=2, least_steps=0), case, recipe=case.recipe)
    found = outcome.found
    assert found is not None
    assert sorted(found.positions.tolist()) == picked.tolist()
    assert found.scores.shape == (192,)
    ordered = found.scores[found.positions].tolist()
    assert ordered == sorted(ordered, reverse=True)
    assert len(set(ordered)) > 1
    assert found.false_discovery == 0.125


# ---- the second look


@pytest.mark.parametrize(("given", "count", "looked"), [(0.6, 10, True), (0.4, 10, False), (1.0, 9, False)])
def test_it_looks_again_at_labels_that_most_of_ten_known_ones_have_again(
    monkeypatch: pytest.MonkeyPatch, given: float, count: int, looked: bool
) -> None:
    run = run_of(Relearn(), image_case())
    mine = (run.train.labels == 1).nonzero().flatten()
    other = (run.train.labels == 2).nonzero().flatten()[:9]
    run.known[:] = False
    run.known[mine[:count]] = run.known[other] = True
    run.margin[:] = 0.5
    run.margin[mine[: round(given * count)]] = run.margin[other] = -0.5
    asked: list[Any] = []

    def found(model: nn.Module, *_: Any, learned: Any = (), **__: Any) -> Neighbours:
        asked.append((model, list(learned)))
        return Neighbours(run.train.labels == 1, {1: 0.0})

    monkeypatch.setattr(relearning, "feature_neighbours", found)
    again = run.look_again()
    assert asked == ([(run.model, [1])] if looked else [])
    assert (again is not None) == looked


def test_a_rule_that_unlisted_examples_teach_again_is_found_inside_the_relearned_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, real = corrupted_digits(1.0, 0.2), relearning.feature_neighbours

    def blind_at_first(*given: Any, **named: Any) -> Neighbours:
        nobody = torch.zeros_like(case.split.forget_mask)
        return real(*given, **named) if named["learned"] else Neighbours(nobody, {})

    monkeypatch.setattr(relearning, "feature_neighbours", blind_at_first)
    outcome = unlearned(Relearn(), case, recipe=case.recipe)
    with_one_look = unlearned(Relearn(neighbours=False), case, recipe=case.recipe)
    assert any(note.startswith("unlisted examples had taught the network again") for note in outcome.notes)
    assert outcome.found is not None
    bad = torch.isin(outcome.found.positions, case.truth.corrupted)
    assert len(bad) >= 50
    assert float(bad.float().mean()) > 0.9
    unknown = case.truth.sets["corrupted_unknown"]
    healed = [accuracy(found.model, unknown, NUMERICS) for found in (with_one_look, outcome)]
    assert healed[0] < 0.3
    assert healed[1] > 0.8
    assert outcome.cost.sample_gradients > 1.5 * with_one_look.cost.sample_gradients


def test_the_first_result_is_kept_where_the_second_is_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    case = image_case()
    some = torch.zeros_like(case.split.forget_mask)
    some[(~case.split.forget_mask).nonzero().flatten()[:5]] = True
    expected = unlearned(Relearn(**QUICK), case)
    monkeypatch.setattr(Run, "look_again", lambda run: Neighbours(some, dict.fromkeys(range(4), 0.0)))
    monkeypatch.setattr(Run, "known_given", property(lambda run: 0.75))
    outcome = unlearned(Relearn(**QUICK), case)
    assert outcome.notes[-1].endswith("5 that look like them inside it: 75%; the first result is kept")
    assert same(outcome.model, expected.model)
    assert outcome.found is not None
    assert expected.found is not None
    assert torch.equal(outcome.found.positions, expected.found.positions)


def test_the_first_result_is_kept_where_the_second_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    case, real, begun = image_case(), Run.relearn, list[Run]()
    some = torch.zeros_like(case.split.forget_mask)
    some[(~case.split.forget_mask).nonzero().flatten()[:5]] = True
    expected = unlearned(Relearn(**QUICK), case)

    def diverge_later(run: Run) -> bool:
        begun.append(run)
        if len(begun) == 2:
            raise Diverged("NaN")
        return real(run)

    monkeypatch.setattr(Run, "look_again", lambda run: Neighbours(some, dict.fromkeys(range(4), 0.0)))
    monkeypatch.setattr(Run, "relearn", diverge_later)
    outcome = unlearned(Relearn(**QUICK), case)
    assert len(begun) == 2
    assert outcome.notes[-1].endswith("that look like them inside it: it diverged; the first result is kept")
    assert same(outcome.model, expected.model)


# ---- what it does to a model


def test_it_forgets_and_keeps_the_accuracy() -> None:
    case = image_case()
    result = unlearned(Relearn(), case, recipe=case.recipe).model
    before, after = (accuracy(model, case.split.retain, NUMERICS) for model in (case.model, result))
    assert after >= before - 0.1
    assert case.forget_accuracy(case.model) > 0.8
    assert case.forget_accuracy(result) <= 0.3


def test_dropout_follows_the_seed() -> None:
    with global_generator(generator(0)):
        model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
    x = torch.randn(64, 5, generator=generator(1))
    split = Split(in_memory(x, x[:, :4].argmax(1), 4), torch.arange(5))
    results = [
        Relearn(**QUICK, keep=1.0)(model, Request(split, seed=seed, numerics=NUMERICS)).model
        for seed in (0, 0, 1)
    ]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_a_class_that_is_lost_is_brought_back_and_told() -> None:
    run = run_of(Relearn(**QUICK), vector_case())
    head = find_head(run.model, 4)
    with torch.no_grad():
        head.weight.zero_()  # every example is given what the bias says
        head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.0]))
    trusted = run.train.select(run.trusted)
    run._bring_back(trusted)
    shares = torch.bincount(trusted.labels, minlength=4) / len(trusted)
    torch.testing.assert_close(head.bias.detach().softmax(0), shares, atol=1e-3, rtol=0)
    (note,) = run.request.notes
    assert "classes were given less than half as often as they are there (the first: " in note
