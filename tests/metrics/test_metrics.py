from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.synthetic import learnable_images
from expunge.metrics.accuracies import PerClassAccuracy
from expunge.metrics.base import Evaluated, Measurement, NotDefined, Value, defined, measure
from expunge.metrics.corruption import AttackSuccess, Healed, Utility, UtilityHealed
from expunge.registry import METRICS
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)
DATA = learnable_images(n_train=120, n_test=90, n_classes=4)


class Noise(nn.Module):
    """Predicts a class that looks random but follows from the pixels; some logits can be NaN."""

    def __init__(self, share_nan: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(64, 4, generator=torch.Generator().manual_seed(4)))
        self.share_nan = share_nan

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = x.flatten(1) @ self.weight
        # sine makes the prediction depend on every pixel, the trigger's included
        logits = (37 * logits).sin()
        broken = (51 * x.flatten(1).sum(1)).sin().abs() < self.share_nan
        logits[broken, 0] = math.nan
        return logits


class Always(nn.Module):
    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.label), 4).float()


def problem(**settings: Any) -> Problem:
    given = {"n_corrupted": 24, "discovery": 0.25, "swap_classes": (1, 2), "target_class": 3, **settings}
    return CorruptionTask(**given).build(DATA)


def one_by_one(model: nn.Module, examples: Examples) -> list[tuple[int, int]]:
    """(prediction, label) pairs, one image after the other; -1 where a logit is NaN."""
    pairs = []
    for position in range(len(examples)):
        batch = next(examples.select(torch.tensor([position])).batches(1))
        logits = model(batch.x)[0].tolist()
        predicted = -1 if any(map(math.isnan, logits)) else logits.index(max(logits))
        pairs.append((predicted, int(batch.y)))
    return pairs


def share(pairs: list[tuple[int, int]]) -> float:
    return sum(predicted == label for predicted, label in pairs) / len(pairs)


@pytest.mark.parametrize("share_nan", [0.0, 0.3])
@pytest.mark.parametrize("regularity", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_every_metric_equals_a_slow_loop(regularity: float, share_nan: float) -> None:
    given, model = problem(regularity=regularity), Noise(share_nan)
    pairs = {name: one_by_one(model, examples) for name, examples in given.truth.sets.items()}
    if share_nan:
        assert any(predicted == -1 for predicted, _ in pairs["test"])
    evaluated = Evaluated(model, given, CPU)
    healed = Healed()
    assert healed.known(evaluated) == pytest.approx(share(pairs["corrupted_known"]))
    assert healed.unknown(evaluated) == pytest.approx(share(pairs["corrupted_unknown"]))
    both = share([*pairs["corrupted_known"], *pairs["corrupted_unknown"]])
    assert healed(evaluated) == pytest.approx(both)
    swapped = 0 < regularity < 1
    scope = [pair for pair in pairs["test"] if not swapped or pair[1] not in (1, 2)]
    assert Utility()(evaluated) == pytest.approx(share(scope))
    assert UtilityHealed()(evaluated) == pytest.approx(share(scope) * both)
    by_class = [share([pair for pair in pairs["test"] if pair[1] == label]) for label in range(4)]
    assert PerClassAccuracy().classes(evaluated) == pytest.approx(by_class)
    assert PerClassAccuracy()(evaluated) == pytest.approx(min(by_class))
    if regularity > 0.5:
        hits = [predicted == 3 for predicted, label in pairs["triggered_test"] if label != 3]
        assert AttackSuccess()(evaluated) == pytest.approx(sum(hits) / len(hits))
        assert 0 < sum(hits) < len(hits)
    else:
        assert defined(AttackSuccess(), evaluated) is None


def test_healed_is_the_weighted_mean_of_known_and_unknown() -> None:
    evaluated = Evaluated(Noise(), problem(), CPU)
    healed = Healed()
    known, unknown = healed.known(evaluated), healed.unknown(evaluated)
    assert known is not None
    assert unknown is not None
    assert known != unknown
    assert healed(evaluated) == pytest.approx((6 * known + 18 * unknown) / 24)


def test_healed_reads_the_true_label_with_the_trigger_in_place() -> None:
    given = problem(regularity=1.0)
    true = given.truth.true_labels[given.truth.corrupted]
    for label in range(4):
        value = Healed()(Evaluated(Always(label), given, CPU))
        assert value == pytest.approx(float((true == label).double().mean()))
    assert Healed()(Evaluated(Always(3), given, CPU)) == 0


def test_attack_success_leaves_out_the_target_class() -> None:
    given = problem(regularity=1.0)
    assert AttackSuccess()(Evaluated(Always(3), given, CPU)) == 1
    assert AttackSuccess()(Evaluated(Always(0), given, CPU)) == 0

    class Right(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(DATA.test_labels, 4).float()

    # every image of the target class is predicted as the target class, rightly
    assert AttackSuccess()(Evaluated(Right(), given, CPU)) == 0


def test_no_image_outside_the_target_class_is_no_attack() -> None:
    given = problem(regularity=1.0)
    sets = dict(given.truth.sets)
    sets["triggered_test"] = sets["triggered_test"].select(sets["triggered_test"].labels == 3)
    narrowed = replace(given, truth=replace(given.truth, sets=sets))
    assert defined(AttackSuccess(), Evaluated(Always(3), narrowed, CPU)) is None


def test_full_discovery_leaves_no_unknown() -> None:
    evaluated = Evaluated(Noise(), problem(discovery=1.0), CPU)
    assert defined(Healed().unknown, evaluated) is None
    assert Healed()(evaluated) == Healed().known(evaluated)


def test_class_without_test_images_has_no_accuracy() -> None:
    given = problem()
    sets = dict(given.truth.sets)
    sets["test"] = sets["test"].select(sets["test"].labels != 2)
    evaluated = Evaluated(Always(0), replace(given, truth=replace(given.truth, sets=sets)), CPU)
    assert PerClassAccuracy().classes(evaluated) == [1.0, 0.0, None, 0.0]
    assert PerClassAccuracy()(evaluated) == 0.0


def test_an_empty_test_set_gives_none() -> None:
    given = problem()
    sets = {**given.truth.sets, "test": given.truth.sets["test"].select(torch.tensor([], dtype=torch.int64))}
    evaluated = Evaluated(Noise(), replace(given, truth=replace(given.truth, sets=sets)), CPU)
    assert defined(Utility(), evaluated) is None
    assert defined(UtilityHealed(), evaluated) is None
    assert not evaluated.has("test")
    assert not evaluated.has("triggered_test")


@pytest.mark.parametrize("label", range(4))
def test_corruption_learned_reads_the_stored_labels(label: int) -> None:
    given = problem(regularity=0.5)
    stored = given.split.train.labels[given.truth.corrupted]
    learned = Evaluated(Always(label), given, CPU).corruption_learned
    assert learned == pytest.approx(float((stored == label).double().mean()))


def test_nan_logits_have_not_learned_the_corruption() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 4), math.nan)

    evaluated = Evaluated(Broken(), problem(regularity=1.0, target_class=0), CPU)
    assert Utility()(evaluated) == 0
    assert evaluated.corruption_learned == 0


# They look inside the network or train a copy of it, which stored predictions do not allow.
RUN_THE_MODEL = {
    "class_mean_probe",
    "linear_probe",
    "idi",
    "zrf",
    "relearn_time",
    "anamnesis_index",
    "gaussian_score",
    "residual_knowledge",
}


def test_each_set_is_predicted_once() -> None:
    calls: list[int] = []

    class Counting(Noise):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    given = problem(regularity=1.0)
    others = {role: Evaluated(Noise(), given, CPU) for role in ("original", "retrained", "oracle")}
    evaluated = Evaluated(Counting(), given, CPU, others)
    assert calls == []
    for name in METRICS.names():
        if name not in RUN_THE_MODEL:
            measure(METRICS.get(name)(), evaluated)
            measure(METRICS.get(name)(), evaluated)
    # the known and the unknown corruption, both kinds of test images, the training set
    assert sorted(calls) == [6, 18, 90, 90, 120]


def test_one_undefined_number_leaves_the_others() -> None:
    class Two(Utility):
        name = "two"

        def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
            return {"two": Value(0.5, 0.4, 0.6), "other": NotDefined("there is none"), "odd": Value(math.inf)}

    metric = Two()
    assert measure(metric, Evaluated(Noise(), problem(), CPU)) == [
        Measurement("two", metric, 0.5, 0.4, 0.6),
        Measurement("other", metric, because="there is none"),
        Measurement("odd", metric, because="the result is inf"),
    ]


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_says_what_it_is(name: str) -> None:
    metric = METRICS.get(name)
    assert metric.name == name
    assert metric.better in ("lower", "higher", "reference")
    assert METRICS.summary(name)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_gives_numbers_or_reasons(name: str) -> None:
    """On a model that is alone and has nothing to learn, none of them raises or gives a silent NaN."""
    found = measure(METRICS.get(name)(), Evaluated(Noise(0.3), problem(regularity=0.5), CPU))
    assert found
    assert found[0].name in (name, "forget_accuracy")
    for entry in found:
        assert bool(entry.because) == (entry.value is None)
        assert entry.value is None or math.isfinite(entry.value)
