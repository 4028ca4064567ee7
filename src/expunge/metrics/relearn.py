"""Relearning: how many steps bring back what was forgotten."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED, Compares, Evaluated, Metric, NotDefined
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, cross_entropy, fit
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser


@dataclass(frozen=True)
class Curve:
    """Accuracy on the forget set while it is learned again.

    Args:
        steps: numbers of steps taken, from 0 on.
        accuracies: in [0, 1], after that many steps.
    """

    steps: tuple[int, ...]
    accuracies: tuple[float, ...]

    def reached(self, target: float) -> int | None:
        """Return the first number of steps after which the accuracy is at least ``target``, if there is one."""
        # an accuracy is a quotient of counts, a target a product: equal values may differ in the last bit
        pairs = zip(self.steps, self.accuracies, strict=True)
        return next((step for step, value in pairs if value >= target - 1e-9), None)


@dataclass(frozen=True, kw_only=True)
class Relearning:
    """How the forget set is learned again.

    Args:
        optimiser: of the training, constant learning rate.
        batch_size: examples a step.
        max_steps: the training ends here at the latest.
        every: steps between two looks at the accuracy.
        max_examples: the accuracy is taken on at most this many of the forget set, the first ones.

    Raises:
        InvalidInput: a number below one.
    """

    optimiser: Optimiser = field(default_factory=lambda: Optimiser(lr=0.01, weight_decay=0.0))
    batch_size: int = 128
    max_steps: int = 100
    every: int = 1
    max_examples: int = 1000

    def __post_init__(self) -> None:
        if min(self.batch_size, self.max_steps, self.every, self.max_examples) < 1:
            raise InvalidInput(
                "relearning needs batch_size, max_steps, every and max_examples of at least 1, got "
                f"{self.batch_size}, {self.max_steps}, {self.every} and {self.max_examples}"
            )

    def curve(
        self,
        model: nn.Module,
        forget: Examples,
        numerics: Numerics,
        generator: torch.Generator,
        *,
        until: float = float("inf"),
    ) -> Curve:
        """Train a copy of ``model`` on the given labels of ``forget``; the model itself is left as it is.

        Args:
            model: where to start.
            forget: what is learned again, unaugmented.
            numerics: where to compute.
            generator: CPU generator of the order.
            until: stop once the accuracy is this high.

        Raises:
            InvalidInput: no examples, or no parameter to train.
            Diverged: the loss is not finite.
        """
        if len(forget) == 0:
            raise InvalidInput("there is nothing to learn again: the forget set is empty")
        student = copy.deepcopy(model)
        optimizer = self.optimiser.over(student)
        looked = forget.select(torch.arange(min(self.max_examples, len(forget))))
        steps, values = [0], [accuracy(student, looked, numerics)]
        while values[-1] < until - 1e-9 and steps[-1] < self.max_steps:
            done = steps[-1]
            for batch in forget.batches(self.batch_size, generator):
                if done == self.max_steps or values[-1] >= until - 1e-9:
                    break
                fit(student, [[batch]], cross_entropy, optimizer, numerics, Meter())
                done += 1
                if done % self.every == 0 or done == self.max_steps:
                    steps.append(done)
                    values.append(accuracy(student, looked, numerics))
        return Curve(tuple(steps), tuple(values))


def anamnesis_index(unlearned: int, retrained: int) -> float:
    """AIN = rt(theta_u) / rt(theta_r), the quotient of two relearn times.

    1 is the aim; near 0 a residue is left, above 1 the forgetting itself left a mark. Times are in steps.

    Raises:
        InvalidInput: a negative number of steps, or a retrained model that needs none.

    Source: Chundawat et al., IEEE TIFS 2023, arXiv 2201.05629.
    """
    if unlearned < 0 or retrained < 1:
        raise InvalidInput(
            "the index needs relearn times of at least 0 (unlearned) and 1 (retrained), got "
            f"{unlearned} and {retrained}; a retrained model that needs no step never lost the forget set"
        )
    return unlearned / retrained


@dataclass(frozen=True, kw_only=True)
class RelearnTime(Metric):
    """Steps of training on D_f until its accuracy is within alpha of the original model's.

    rt(theta) = min {t: a(theta_t, D_f) >= (1 - alpha) a(theta_o, D_f)}, theta_0 = theta, given labels. A copy
    is trained. Closer to the retrained model's time is better.

    Args:
        alpha: share of the original's accuracy that may be missing, in [0, 1).
        relearning: how to train.
        seed: of the order.

    Raises:
        InvalidInput: ``alpha`` outside [0, 1).
    """

    name = "relearn_time"
    unit = "steps"
    better = "reference"
    compares = Compares.ORIGINAL
    source = "Chundawat et al., IEEE TIFS 2023, arXiv 2201.05629"

    alpha: float = 0.05
    relearning: Relearning = field(default_factory=Relearning)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise InvalidInput(f"alpha is a share of the original's accuracy in [0, 1), got {self.alpha}")

    def target(self, evaluated: Evaluated) -> float:
        """Return the accuracy that counts as regained, in [0, 1]; not defined where the original's is 0."""
        scored = evaluated.original.forget
        right = scored.predicted == scored.labels
        value = float(right[: self.relearning.max_examples].double().mean())
        if value == 0:
            raise NotDefined("the original model gets no example of the forget set right; nothing can return")
        return (1 - self.alpha) * value

    def curve(self, evaluated: Evaluated, *, until: float = float("inf")) -> Curve:
        """Return the accuracies by step, of a copy of the model; not defined where training diverges."""
        draw, forget = torch.Generator().manual_seed(self.seed), evaluated.problem.split.forget
        return self.relearning.curve(evaluated.model, forget, evaluated.numerics, draw, until=until)

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the number of steps; not defined where it is not reached within the cap."""
        return self.steps(evaluated, self.target(evaluated))

    def steps(self, evaluated: Evaluated, target: float) -> int:
        """Return the steps of one model to ``target``; not defined where the cap comes first."""
        curve = self.curve(evaluated, until=target)
        steps = curve.reached(target)
        if steps is None:
            raise NotDefined(
                f"the accuracy is not regained within {self.relearning.max_steps} steps: "
                f"{max(curve.accuracies):.3f} of {target:.3f}"
            )
        return steps


@dataclass(frozen=True, kw_only=True)
class AnamnesisIndex(Metric):
    """AIN: relearn time of the unlearned model over that of the retrained one; 1 is the aim.

    Not defined where one of the two does not regain the accuracy within the cap, or where the retrained model has it
    from the start, as with forgotten samples that it generalises to.

    Args:
        relearn_time: how the two times are taken.
    """

    name = "anamnesis_index"
    unit = "quotient"
    better = "reference"
    compares = Compares.ORIGINAL | Compares.RETRAINED
    source = "Chundawat et al., IEEE TIFS 2023, arXiv 2201.05629"

    relearn_time: RelearnTime = field(default_factory=RelearnTime)

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the quotient of the two relearn times."""
        target = self.relearn_time.target(evaluated)
        retrained = self._steps("retrained", evaluated.retrained, target)
        if retrained == 0:
            raise NotDefined(
                "the retrained model has the accuracy from the start; there is nothing to relearn"
            )
        return anamnesis_index(self._steps("unlearned", evaluated, target), retrained)

    def _steps(self, role: str, evaluated: Evaluated, target: float) -> int:
        try:
            return self.relearn_time.steps(evaluated, target)
        except UNDEFINED as error:
            raise NotDefined(f"from the {role} model {error}") from error
