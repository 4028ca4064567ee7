"""What a repair is going to cost, beside a retraining, from a few timed steps."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import nn

from expunge.choice import RETRAIN
from expunge.data.examples import Examples
from expunge.repair.prepare import Prepared
from expunge.results.wording import duration
from expunge.training.cost import Meter
from expunge.training.loop import cross_entropy, fit, predict
from expunge.training.numerics import Numerics

_BATCH = 64
_STEPS = 8
_LONG_ENOUGH = 1.0
"""Seconds of timed steps after which no more are made."""
_FORWARD_ROWS = 512
_MEASURED = 5
"""Forward passes over the data that measuring and auditing make, about."""


@dataclass(frozen=True)
class Price:
    """Seconds that a repair is expected to take."""

    unlearning: float  # of the method
    measuring: float  # of the measurements before and after, and the audit
    epoch: float  # of one epoch of training on the rows that stay
    retraining: float | None  # of a retraining on them; ``None`` where nobody knows for how many epochs
    may_repeat: bool = False  # whether the method may do its work twice

    @property
    def share(self) -> float | None:
        """The unlearning over a retraining; measuring costs the same after either."""
        return None if self.retraining is None else self.unlearning / max(self.retraining, 1e-9)

    @property
    def dearer(self) -> bool:
        """Whether retraining is expected to take less."""
        return self.share is not None and self.share > 1

    def __str__(self) -> str:
        twice = f" ({duration(2 * self.unlearning)} if it has to be done twice)" if self.may_repeat else ""
        said = f"about {duration(self.unlearning)}{twice}, and {duration(self.measuring)} to measure it"
        if self.retraining is None:
            epoch = f"an epoch of training takes {duration(self.epoch)}"
            return f"{said}; {epoch} (--recipe epochs=N compares with retraining)"
        share = "more than" if self.dearer else f"{self.share:.2g} of"
        return f"{said}; {share} a retraining, which takes {duration(self.retraining)} (--method retrain)"


def price(prepared: Prepared) -> Price:
    """Return the price; a copy of the model is trained for a few steps at rate 0, and nothing is changed."""
    recipe, method = prepared.first.recipe, prepared.method
    size = getattr(method, "batch_size", None) or (_BATCH if recipe is None else recipe.batch_size)
    n, stay = len(prepared.split.train), len(prepared.split.retain)
    retain, numerics = prepared.split.retain, prepared.numerics
    gradient = seconds_of_a_gradient(prepared.model, retain, numerics, min(size, stay), prepared.job.seed)
    some = retain.select(torch.arange(min(_FORWARD_ROWS, len(retain)), device=retain.device))
    begun = time.perf_counter()
    predict(prepared.model, some, numerics, prepared.job.measure_batch)
    forward = (time.perf_counter() - begun) / len(some)
    retraining = None if recipe is None else recipe.epochs * stay * gradient
    unlearning = method.epochs_on(n, size, recipe) * (stay if method.name == RETRAIN else n) * gradient
    return Price(unlearning, _MEASURED * n * forward, stay * gradient, retraining, method.may_repeat)


def seconds_of_a_gradient(
    model: nn.Module, retain: Examples, numerics: Numerics, size: int, seed: int
) -> float:
    """Return the seconds that training takes for one example, from a few steps of ``size`` on a copy at rate 0."""
    draw, model = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient = 0.0
    if trained and size > 1:
        optimizer, steps = torch.optim.SGD(trained, lr=0.0), list[float]()
        while len(steps) <= _STEPS and sum(steps[1:]) < _LONG_ENOUGH:
            with Meter(numerics.device) as meter:
                fit(model, [[retain.sample(size, draw)]], cross_entropy, optimizer, numerics, meter)
            steps.append(meter.seconds)
        # The first step also pays for what is set up once.
        gradient = sum(steps[1:]) / max(1, len(steps) - 1) / size
    return gradient
