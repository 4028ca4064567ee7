"""What every unlearning method must keep to, as tests to inherit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from expunge.data.mapped import examples_from_dataset
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, UndeclaredNeed, UnknownName
from expunge.methods.base import Method, Needs, Request, Unlearned
from expunge.seeding import generator, global_generator
from expunge.tasks.base import Split, Truth
from expunge.tasks.corruption import CorruptionTask
from expunge.training.cost import Meter
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

_READS: dict[str, Needs] = {
    "forget": Needs.FORGET,
    "forget_mask": Needs.FORGET,
    "retain": Needs.RETAIN,
    "train": Needs.FORGET | Needs.RETAIN,
    "recipe": Needs.RECIPE,
    "truth": Needs.TRUTH,
}


@dataclass(frozen=True)
class Case:
    """A model that was trained on bad examples, and what a method may be told about it.

    Args:
        model: the trained model; never hand it to a method without :meth:`fresh`.
        split: training examples and the forget set.
        truth: what happened to the data, for oracles.
        recipe: how the model was trained.
        numerics: where to compute.
    """

    model: nn.Module
    split: Split
    truth: Truth
    recipe: Recipe
    numerics: Numerics

    def fresh(self) -> nn.Module:
        """Return a copy of the model, with an unusual mode and a frozen parameter to keep."""
        model = copy.deepcopy(self.model).train()
        list(model.modules())[-1].eval()
        next(model.parameters()).requires_grad_(False)
        return model

    def request(self, method: Method, seed: int = 0) -> Request:
        """Return a request that has the recipe and the truth only if ``method`` declares them."""
        return Request(
            self.split,
            seed=seed,
            numerics=self.numerics,
            recipe=self.recipe if Needs.RECIPE in method.needs else None,
            truth=self.truth if Needs.TRUTH in method.needs else None,
        )

    def forget_accuracy(self, model: nn.Module) -> float:
        """Accuracy on the given labels of the forget set, in [0, 1]."""
        return accuracy(model, self.split.forget, self.numerics)


@lru_cache(maxsize=1)
def image_case() -> Case:
    """A small ResNet9 that has learned 32 images of two swapped classes, 24 of them discovered."""
    task = CorruptionTask(regularity=0.5, discovery=0.75, n_corrupted=32, swap_classes=(1, 2))
    problem = task.build(learnable_images(n_train=192, n_classes=6))
    recipe = Recipe(
        model="resnet9",
        model_settings={"width": 8},
        epochs=12,
        batch_size=32,
        optimiser=Optimiser(lr=0.1),
        augment=False,
    )
    numerics = Numerics(channels_last=False)
    model = recipe.build(problem.shape, problem.n_classes, generator(0, "initialisation"))
    recipe.train(model, problem.split.train, 0, numerics, Meter())
    return Case(model, problem.split, problem.truth, recipe, numerics)


def _own_model_case(model: nn.Module, inputs: Tensor, labels: Tensor) -> Case:
    train = examples_from_dataset(TensorDataset(inputs, labels), n_classes=4)
    wrong = torch.arange(0, len(train), 8)
    truth = Truth(
        corrupted=wrong,
        known=wrong,
        true_labels=labels,
        stamped=torch.zeros(len(train), dtype=torch.bool),
        sets={},
    )
    stored = labels.clone()
    stored[wrong] = (stored[wrong] + 1) % 4
    recipe = Recipe(epochs=2, batch_size=16, optimiser=Optimiser(lr=0.05), augment=False)
    numerics = Numerics(channels_last=False)
    split = Split(train.relabel(stored), wrong)
    recipe.train(model, split.train, 0, numerics, Meter())
    return Case(model, split, truth, recipe, numerics)


@lru_cache(maxsize=1)
def convolutional_case() -> Case:
    """A plain convolutional ``nn.Sequential`` on a ``TensorDataset`` of images."""
    data = learnable_images(n_train=64, n_test=4)
    draw = generator(0, "convolutional case")
    with global_generator(draw):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, 4),
        )
    return _own_model_case(model, data.train_images / 255, data.train_labels)


@lru_cache(maxsize=1)
def vector_case() -> Case:
    """A multilayer perceptron without normalisation on a ``TensorDataset`` of vectors."""
    draw = generator(0, "vector case")
    with global_generator(draw):
        model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(64, 5, generator=draw)
    return _own_model_case(model, inputs, inputs[:, :4].argmax(1))


class MethodContract:
    """Tests of an unlearning method; inherit them under a name that pytest collects.

    Example::

        class TestMine(MethodContract):
            method = Mine(passes=20)
            margin = 0.3

    Attributes:
        method: the method, with settings under which it is fast: the training set has 192 images of 8x8.
        margin: by how much the accuracy on the given labels of the forget set, about 1 before, falls at
            least; ``None`` for a method that does not promise to forget.
        gradients: whether it computes gradients, which are then counted.
    """

    method: Method
    margin: float | None = None
    gradients: bool = True

    _kept: ClassVar[dict[tuple[type[Method], str], tuple[nn.Module, Unlearned]]] = {}

    def _run(self) -> tuple[nn.Module, Unlearned]:
        """Return the model given and the result on the image case with seed 0, computed once per method."""
        key = type(self.method), repr(self.method)
        if key not in self._kept:
            case = image_case()
            given = case.fresh()
            self._kept[key] = given, self.method(given, case.request(self.method))
        return self._kept[key]

    def _outcome(self) -> Unlearned:
        return self._run()[1]

    def test_model_passed_in_is_untouched(self) -> None:
        """State, modes, frozen parameters and gradients of the input stay bit for bit."""
        (given, outcome), before = self._run(), image_case().fresh()
        assert outcome.model is not given, "the method returned the very model it was given"
        assert _differing(before.state_dict(), given.state_dict()) == [], "the model given was changed"
        assert _flags(given) == _flags(before), "modes or requires_grad of the model given were changed"
        assert all(parameter.grad is None for parameter in given.parameters()), "gradients were left"

    def test_same_seed_gives_same_weights(self) -> None:
        """Everything random follows the request's seed; the global generator is neither read nor set.

        The call sets it for the network's own draws, such as dropout, which this one has none of.
        """
        case, kind = image_case(), type(self.method)
        first, body = self._outcome().model.state_dict(), kind.unlearn

        def watched(method: Method, model: nn.Module, request: Request) -> nn.Module:
            state = torch.get_rng_state()
            result = body(method, model, request)
            assert torch.equal(torch.get_rng_state(), state), "the method used torch's global generator"
            return result

        with global_generator(torch.Generator().manual_seed(1)), patch.object(kind, "unlearn", watched):
            state = torch.get_rng_state()
            second = self.method(case.fresh(), case.request(self.method)).model.state_dict()
            assert torch.equal(torch.get_rng_state(), state), "the caller's global generator was changed"
        assert _differing(first, second) == [], "two runs with one seed gave different weights"

    def test_reads_only_what_it_declares(self) -> None:
        """Undeclared parts of the request are refused; the method ran without them."""
        granted = image_case().request(self.method).grant(self.method.name, self.method.needs)
        for read, need in _READS.items():
            if need in self.method.needs:
                getattr(granted, read)
                continue
            message = _refusal(UndeclaredNeed, partial(getattr, granted, read))
            assert message, f"request.{read} was readable though {need} is not declared"
            assert str(need) in message, f"the message does not name the need: {message}"
        self._outcome()

    def test_result_has_the_form_of_the_model(self) -> None:
        """Finite, same names, shapes and types, modes and freezing restored, no gradient left."""
        case = image_case()
        given, result = case.fresh(), self._outcome().model
        ours, theirs = result.state_dict(), given.state_dict()
        assert [(n, t.shape, t.dtype) for n, t in ours.items()] == [
            (n, t.shape, t.dtype) for n, t in theirs.items()
        ], "names, shapes or types differ"
        assert type(result) is type(given), f"a {type(given).__name__} became a {type(result).__name__}"
        assert all(bool(t.isfinite().all()) for t in ours.values() if t.is_floating_point()), "not finite"
        assert _flags(result) == _flags(given), "modes or requires_grad were not restored"
        assert all(parameter.grad is None for parameter in result.parameters()), "gradients were left"
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in result.modules()), "hooks were left"

    def test_forgets(self) -> None:
        """The forget measure falls by at least :attr:`margin`."""
        case = image_case()
        before, after = case.forget_accuracy(case.model), case.forget_accuracy(self._outcome().model)
        assert before > 0.9, f"the case is broken: its model gets only {before:.2f} of the forget set"
        if self.margin is not None:
            assert before - after >= self.margin, (
                f"accuracy on the forget set fell from {before:.2f} to {after:.2f}, "
                f"by less than the margin of {self.margin}"
            )

    def test_cost_is_filled(self) -> None:
        """Seconds, sample gradients and parameter counts are there."""
        case = image_case()
        outcome = self._outcome()
        cost, count = outcome.cost, sum(parameter.numel() for parameter in case.model.parameters())
        assert cost.seconds > 0
        assert math.isfinite(cost.seconds)
        if _differing(case.model.state_dict(), outcome.model.state_dict()):
            if self.gradients:
                assert cost.sample_gradients > 0, "the weights changed but no sample gradient was counted"
            else:
                assert cost.sample_gradients == 0, "sample gradients were counted, but `gradients` is false"
        assert cost.peak_memory is None or cost.peak_memory >= 0
        assert (cost.parameters["before"], cost.parameters["after"]) == (count, count)
        assert cost.parameters["during"] >= count
        assert outcome.method == self.method

    def test_other_networks(self) -> None:
        """A plain convolutional network and a perceptron work, on data that are no images of ours."""
        for case in (convolutional_case(), vector_case()):
            result = self.method(case.fresh(), case.request(self.method)).model
            assert type(result) is type(case.model)
            assert [(n, t.shape) for n, t in result.state_dict().items()] == [
                (n, t.shape) for n, t in case.model.state_dict().items()
            ], "names or shapes differ"
            assert math.isfinite(case.forget_accuracy(result))

    def test_needs_are_refused_when_missing(self) -> None:
        """A method that declares the recipe or the truth refuses a request without it."""
        case = image_case()
        bare = Request(case.split, seed=0, numerics=case.numerics)
        for need in (Needs.RECIPE, Needs.TRUTH):
            if need in self.method.needs:
                message = _refusal(InvalidInput, partial(bare.grant, self.method.name, need))
                assert message, f"a request without the {need} was accepted"
                assert str(need) in message, f"the message does not name the {need}: {message}"

    def test_settings_round_trip(self) -> None:
        """``configured(settings())`` gives the method back; a setting it does not have is refused."""
        kind = type(self.method)
        assert kind.configured(self.method.settings()) == self.method
        message = _refusal(UnknownName, partial(kind.configured, {"no_such_setting": 1}))
        assert "no_such_setting" in message, f"an unknown setting was accepted, or not named: {message!r}"


def _refusal(error: type[Exception], call: Callable[[], object]) -> str:
    """Message of the ``error`` that ``call`` raises, empty if it raises none."""
    try:
        call()
    except error as raised:
        return str(raised)
    return ""


def _differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Names at which two state dictionaries differ in a bit."""
    return [
        name for name in first.keys() | second.keys()
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]  # fmt: skip


def _flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
    """Training mode of every module and ``requires_grad`` of every parameter."""
    modes = [module.training for module in model.modules()]
    return modes, [parameter.requires_grad for parameter in model.parameters()]
