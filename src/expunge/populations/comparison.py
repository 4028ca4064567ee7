"""The metrics of scored populations, each with its interval and its retrain-versus-retrain floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from scipy.special import stdtrit
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.forgetting_quality import final_score, forgetting_quality
from expunge.metrics.klom import klom
from expunge.metrics.ruli import efficacy_game, privacy_game
from expunge.metrics.ulira import PerExampleAttack
from expunge.populations.population import FEWEST, Scores

LOW_FPR = 0.01
_TAIL = 0.95


@dataclass(frozen=True)
class PopulationValue:
    """One number about a method, beside what two halves of the retrained models give.

    Args:
        name: of the number.
        value: from all models; ``None`` where it is not defined.
        low: lower end of its 95 % interval over models, if there is one.
        high: its upper end.
        floor: the same number between two halves of the retrained population: what a perfect method scores.
        comparable: the value from as many models as the floor has; compare these two.
        because: why there is no value.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    comparable: float | None = None
    because: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of the populations that the metrics compare; all have N models.

    Args:
        halves: after unlearning, of the models trained on random parts.
        trained_on: bool (N, F), which of the forget examples each of them was trained on.
        unlearned: after unlearning, of the models trained on everything.
        retrained: of the models trained on the retain set.
        forget_mask: bool (T,), the forget set among the training examples.
        targets: int64 (V,), positions in the forget set of RULI's targets.
    """

    halves: Scores
    trained_on: Tensor
    unlearned: Scores
    retrained: Scores
    forget_mask: Tensor
    targets: Tensor

    def values(self) -> Iterator[PopulationValue]:
        """Every number, in the order in which :func:`~expunge.populations.assess.assess_population` lists them."""
        yield self._attack("ulira_accuracy", lambda attack: float(attack.accuracy.mean()))
        yield self._attack("ulira_auc", lambda attack: float(attack.auc.mean()))
        yield self._attack("ulira_auc_p95", lambda attack: float(attack.auc.quantile(_TAIL)))
        yield self._attack("ulira_tpr_at_1_percent", lambda attack: attack.pooled().tpr_at(LOW_FPR))
        for name in self._sets:
            yield self._pair(f"klom_{name}", partial(self._klom_tail, name))
        yield self._pair("forgetting_quality", self._quality)
        yield self._pair("final_score", self._score)
        yield self._attack("ruli_privacy_auc", lambda attack: float(attack.auc.mean()), self.targets)
        yield self._pair("ruli_efficacy_auc", self._efficacy)

    def _margins(self, scores: Scores, name: str) -> Tensor:
        return scores.margins[:, self._sets[name]]

    @property
    def _sets(self) -> dict[str, Tensor]:
        examples = self.unlearned.margins.shape[1]
        trained = torch.zeros(examples, dtype=torch.bool)
        trained[: len(self.forget_mask)] = True
        forget = torch.zeros(examples, dtype=torch.bool)
        forget[: len(self.forget_mask)] = self.forget_mask
        return {"forget": forget, "retain": trained & ~forget, "validation": ~trained}

    def _forget(self, scores: Scores) -> Tensor:
        return self._margins(scores, "forget")

    def _attack(
        self, name: str, read: Callable[[PerExampleAttack], float], targets: Tensor | None = None
    ) -> PopulationValue:
        """A number of the attack on the halves; its floor tells one half of the retrained from the other."""
        chosen = torch.arange(self.trained_on.shape[1]) if targets is None else targets
        scores, retrained = self._forget(self.halves), self._forget(self.retrained)
        count = len(scores)
        first_half = (torch.arange(count) < count // 2)[:, None].expand_as(self.trained_on)

        def value(kept: Tensor) -> float:
            return read(privacy_game(scores[kept], self.trained_on[kept], chosen))

        def floor() -> float:
            return read(privacy_game(retrained, first_half, chosen))

        # Both sides have about half of the models, as in the halves themselves.
        return _value(name, count, value, floor, partial(value, torch.arange(count)))

    def _pair(self, name: str, read: Callable[[Scores, Scores], float]) -> PopulationValue:
        """A number between the unlearned and the retrained models."""
        count = len(self.unlearned)
        first = torch.arange(count // 2)
        second = first + count // 2

        def value(kept: Tensor) -> float:
            return read(self.unlearned.models(kept), self.retrained.models(kept))

        def floor() -> float:
            return read(self.retrained.models(second), self.retrained.models(first))

        return _value(name, count, value, floor, partial(value, first))

    def _klom_tail(self, name: str, first: Scores, second: Scores) -> float:
        return float(klom(self._margins(first, name), self._margins(second, name)).quantile(_TAIL))

    def _quality(self, unlearned: Scores, retrained: Scores) -> float:
        return forgetting_quality(self._forget(unlearned), self._forget(retrained))

    def _score(self, unlearned: Scores, retrained: Scores) -> float:
        def accuracy(scores: Scores, name: str) -> float:
            return float(scores.right[:, self._sets[name]].double().mean())

        return final_score(
            self._quality(unlearned, retrained),
            retain=accuracy(unlearned, "retain"),
            retain_of_retrained=accuracy(retrained, "retain"),
            test=accuracy(unlearned, "validation"),
            test_of_retrained=accuracy(retrained, "validation"),
        )

    def _efficacy(self, unlearned: Scores, retrained: Scores) -> float:
        game = efficacy_game(self._forget(unlearned), self._forget(retrained), self.targets)
        return float(game.auc.mean())


def _value(
    name: str, count: int, value: Callable[[Tensor], float], floor: Callable[[], float],
    comparable: Callable[[], float],
) -> PopulationValue:  # fmt: skip
    try:
        found = value(torch.arange(count))
    except InvalidInput as error:
        return PopulationValue(name, because=str(error))
    ends = jackknife(value, count)
    # All but the divergence are fractions; the t-interval does not know.
    largest = math.inf if name.startswith("klom") else 1.0
    low, high = (None, None) if ends is None else (max(0.0, ends[0]), min(largest, ends[1]))
    return PopulationValue(name, found, low, high, _or_none(floor), _or_none(comparable))


def _or_none(call: Callable[[], float]) -> float | None:
    """A half may have too few models for a number that the whole population has."""
    try:
        return call()
    except InvalidInput:
        return None


def jackknife(statistic: Callable[[Tensor], float], n_models: int) -> tuple[float, float] | None:
    """95 % t-interval of ``statistic`` over models: each of eight groups is left out in turn.

    With theta the value on all models, theta_(g) that without group g and G = 8; model i is in group i mod G,

        theta -+ t_{G-1, 0.975} sqrt((G - 1) / G sum_g (theta_(g) - mean theta_(.))^2).

    It is the uncertainty of a finite number of models; the examples are held fixed, they are the forget
    set in question. For a statistic with jumps, such as a quantile over few examples, it is rough.

    Args:
        statistic: of the positions int64 of the models that are kept.
        n_models: in the population, at least eight.

    Returns:
        Its two ends, ``None`` where too few models are left for the statistic.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 11.5.
    """
    every = torch.arange(n_models)
    try:
        value = statistic(every)
        left = [statistic(every[every % FEWEST != group]) for group in range(FEWEST)]
    except InvalidInput:
        return None
    mean = sum(left) / FEWEST
    error = math.sqrt((FEWEST - 1) / FEWEST * sum((entry - mean) ** 2 for entry in left))
    half = float(stdtrit(FEWEST - 1, 0.975)) * error
    return value - half, value + half
