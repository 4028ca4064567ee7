"""Robust accuracy, defence effectiveness, corrective accuracy and the healed parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from trained_models import CPU

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, NotDefined
from expunge.metrics.corruption import (
    DER,
    AttackSuccess,
    Corrective,
    Healed,
    RobustAccuracy,
    defence_effectiveness,
)
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask

DATA = learnable_images(n_train=120, n_test=90, n_classes=4)


class Noise(nn.Module):
    """Predicts a class that looks random but follows from the pixels, the trigger's included."""

    def __init__(self, seed: int = 4) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(64, 4, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (37 * (x.flatten(1) @ self.weight)).sin()
        return logits


class Always(nn.Module):
    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.label), 4).float()


def problem(regularity: float = 1.0, discovery: float = 0.5) -> Problem:
    task = CorruptionTask(
        n_corrupted=24, regularity=regularity, discovery=discovery, swap_classes=(1, 2), target_class=3
    )
    return task.build(DATA)


def pairs(model: nn.Module, given: Problem, name: str) -> list[tuple[int, int]]:
    batch = next(given.truth.sets[name].batches(1000))
    return [(int(model(x[None]).argmax()), int(y)) for x, y in zip(batch.x, batch.y, strict=True)]


def share(found: list[tuple[int, int]]) -> float:
    return sum(predicted == label for predicted, label in found) / len(found)


def test_robust_accuracy_agrees_with_a_plain_loop() -> None:
    given, model = problem(), Noise()
    evaluated = Evaluated(model, given, CPU)
    scope = [pair for pair in pairs(model, given, "triggered_test") if pair[1] != 3]
    assert RobustAccuracy()(evaluated) == pytest.approx(share(scope))
    assert RobustAccuracy()(evaluated) + AttackSuccess()(evaluated) <= 1


def test_a_model_that_obeys_the_trigger_has_no_robust_accuracy() -> None:
    evaluated = Evaluated(Always(3), problem(), CPU)
    assert RobustAccuracy()(evaluated) == 0
    assert AttackSuccess()(evaluated) == 1
    assert Healed().triggered(evaluated) == pytest.approx(float((DATA.test_labels == 3).double().mean()))


def test_defence_effectiveness_by_hand() -> None:
    assert defence_effectiveness(0.9, 0.9, 0.8, 0.8) == 0.5
    assert defence_effectiveness(1.0, 0.0, 0.8, 0.8) == 1
    assert defence_effectiveness(0.9, 0.1, 0.8, 0.6) == pytest.approx((0.8 - 0.2 + 1) / 2)
    # a gain of accuracy earns nothing, a rise of the attack costs nothing
    assert defence_effectiveness(0.9, 0.4, 0.5, 0.9) == pytest.approx(0.75)
    assert defence_effectiveness(0.2, 0.9, 0.8, 0.3) == pytest.approx(0.25)
    with pytest.raises(InvalidInput, match=r"rates in \[0, 1\] are expected, got 90, 0, 0.8, 0.8"):
        defence_effectiveness(90, 0, 0.8, 0.8)
    with pytest.raises(InvalidInput, match="nan"):
        defence_effectiveness(float("nan"), 0, 0.8, 0.8)


def test_der_of_models() -> None:
    given = problem()
    original = Evaluated(Always(3), given, CPU)
    evaluated = Evaluated(Noise(), given, CPU, {"original": original})
    success = AttackSuccess()(evaluated)
    lost = max(0.0, original.accuracy("test") - evaluated.accuracy("test"))
    assert DER()(evaluated) == pytest.approx((1 - success - lost + 1) / 2)
    assert DER()(Evaluated(Always(3), given, CPU, {"original": original})) == 0.5
    with pytest.raises(NotDefined, match="original model, which is not given"):
        DER()(original)


@pytest.mark.parametrize("regularity", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_corrective_agrees_with_a_plain_loop(regularity: float) -> None:
    given, model = problem(regularity), Noise()
    evaluated = Evaluated(model, given, CPU)
    if regularity == 0:
        with pytest.raises(NotDefined, match="no domain of its own"):
            Corrective()(evaluated)
        return
    affected = []
    if regularity > 0.5:
        affected += pairs(model, given, "triggered_test")
    elsewhere = pairs(model, given, "test")
    if regularity < 1:
        affected += [pair for pair in elsewhere if pair[1] in (1, 2)]
        elsewhere = [pair for pair in elsewhere if pair[1] not in (1, 2)]
    found = {name: value.value for name, value in Corrective().values(evaluated).items()}
    expected = {"corrected_accuracy": share(affected), "retained_accuracy": share(elsewhere)}
    assert found == pytest.approx(expected)
    assert Corrective()(evaluated) == found["corrected_accuracy"]


def test_healed_in_parts() -> None:
    given, model = problem(), Noise()
    found = {name: value.value for name, value in Healed().values(Evaluated(model, given, CPU)).items()}
    known, unknown = pairs(model, given, "corrupted_known"), pairs(model, given, "corrupted_unknown")
    assert found == pytest.approx(
        {
            "healed": share([*known, *unknown]),
            "healed_known": share(known),
            "healed_unknown": share(unknown),
            "healed_triggered": share(pairs(model, given, "triggered_test")),
        }
    )


def test_healed_leaves_out_parts_that_are_not_there() -> None:
    found = Healed().values(Evaluated(Noise(), problem(0.5, discovery=1.0), CPU))
    assert list(found) == ["healed", "healed_known"]


@pytest.mark.parametrize("metric", [RobustAccuracy(), DER(), AttackSuccess()])
def test_not_defined_without_a_poison(metric: RobustAccuracy | DER | AttackSuccess) -> None:
    given = problem(0.5)
    original = Evaluated(Always(3), given, CPU)
    with pytest.raises(NotDefined, match="nothing was poisoned"):
        metric(Evaluated(Noise(), given, CPU, {"original": original}))
