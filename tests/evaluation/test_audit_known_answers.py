"""Models whose verdict is known beforehand, on the handwritten digits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

from expunge.api import unlearn
from expunge.data.digits import load_digits
from expunge.evaluation.audit_metrics import Relearned
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.thresholds import THRESHOLDS
from expunge.metrics.attacks import ConfidenceAttack, EntropyAttackAUC
from expunge.metrics.class_damage import ClassDamage
from expunge.metrics.corruption import Healed
from expunge.metrics.idi import IDI, Estimator
from expunge.metrics.probes import ClassMeanProbe
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

pytestmark = pytest.mark.trains

CPU = Numerics(channels_last=False)
DIGITS = load_digits()
NET = Recipe(
    model="resnet9",
    model_settings={"width": 8},
    epochs=6,
    batch_size=64,
    optimiser=Optimiser(lr=0.05),
    schedule="cosine",
    augment=False,
)
MLP = Recipe(
    model="mlp",
    model_settings={"hidden": 64, "activation": "relu"},
    epochs=25,
    batch_size=32,
    optimiser=Optimiser(lr=0.05, weight_decay=0.0),
    schedule="cosine",
    augment=False,
)
OUTPUTS = (ClassDamage(), ConfidenceAttack(resamples=200), EntropyAttackAUC(resamples=200))
INSIDE = (ClassMeanProbe(), IDI(layers=("conv4",), estimator=Estimator(epochs=15)), Relearned())


class Case(NamedTuple):
    """A problem, the model before unlearning, and two that never saw the forget set."""

    problem: Problem
    original: nn.Module
    retrained: nn.Module
    again: nn.Module

    def audit(
        self, unlearned: nn.Module, *, alone: bool = False, inside: bool = False, **more: object
    ) -> Audit:
        references = {} if alone else {"retrained": self.retrained, "second_retrained": self.again}
        split = self.problem.split
        return audit(
            self.original,
            unlearned,
            split.train,
            split.forget_positions,
            self.problem.truth.sets["test"],
            metrics=[*OUTPUTS, *(INSIDE if inside else ())],
            numerics=CPU,
            **(references | more),  # type: ignore[arg-type]
        )


def case(problem: Problem, recipe: Recipe) -> Case:
    models = []
    for seed, examples in enumerate((problem.split.train, problem.split.retain, problem.split.retain)):
        model = recipe.build(problem.shape, problem.n_classes, generator(seed, "initialisation"))
        models.append(recipe.train(model, examples, seed, CPU, Meter()).eval())
    return Case(problem, *models)


@pytest.fixture(scope="module")
def of_classes() -> Case:
    """Half of the classes, so that a probe's 180 test images, and the mean over five, tell the models clearly apart."""
    return case(ForgetClasses(classes=(5, 6, 7, 8, 9)).build(DIGITS), NET)


@pytest.fixture(scope="module")
def of_wrong_labels() -> Case:
    return case(CorruptionTask(regularity=0.0, n_corrupted=80, discovery=1.0).build(DIGITS), MLP)


def noisy(model: nn.Module, scale: float) -> nn.Module:
    broken, draw = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter += scale * parameter.std(unbiased=False) * torch.randn(parameter.shape, generator=draw)
    return broken


def test_a_model_left_as_it_was_did_not_forget(of_classes: Case, margin: Callable[..., None]) -> None:
    verdict = of_classes.audit(of_classes.original).verdict
    assert verdict.headline == "did not forget"
    numbers = verdict.findings[0].numbers
    assert numbers["after"] == numbers["before"]
    margin("forget accuracy", numbers["after"], above=0.95)
    kept = f"the given labels of {numbers['after']:.1%} of the forget set are still predicted"
    assert kept in verdict.findings[0].sentence
    assert verdict.grade == "it did not work: retrain"
    assert "Retrain without the forget set" in verdict.advice
    assert of_classes.audit(of_classes.original, alone=True).verdict.headline == "did not forget"


def test_a_third_retraining_forgot(of_classes: Case) -> None:
    model = NET.build(of_classes.problem.shape, 10, generator(7, "initialisation"))
    NET.train(model, of_classes.problem.split.retain, 7, CPU, Meter())
    found = of_classes.audit(model, inside=True)
    assert found.verdict.headline == "forgot", found.verdict.findings
    assert "forget accuracy" in found.verdict.findings[0].sentence
    alone = of_classes.audit(model, alone=True).verdict
    assert alone.headline == "forgot, as far as can be told without a retrained model"


def test_a_masked_logit_passes_on_accuracy_and_is_caught_inside(
    of_classes: Case, margin: Callable[..., None]
) -> None:
    split = of_classes.problem.split
    masked = unlearn(
        of_classes.original, split.train, forget=split.forget_positions, method="logit_mask", device="cpu"
    ).model
    assert of_classes.audit(masked).verdict.headline == "forgot"
    found = of_classes.audit(masked, inside=True)
    assert found.verdict.headline == "hidden, not forgotten"
    said = {finding.sentence: finding.numbers for finding in found.verdict.findings}
    for what in ("nearest class mean", "information difference index"):
        (numbers,) = (numbers for sentence, numbers in said.items() if what in sentence)
        margin(what, abs(numbers["after"] - numbers["reference"]), above=numbers["allowed"])
    (numbers,) = (numbers for sentence, numbers in said.items() if "is learned again after" in sentence)
    margin("relearning steps", numbers["steps"], below=THRESHOLDS.relearn * numbers["fewest"])
    # without a retrained model it cannot be caught, which is said
    alone = of_classes.audit(masked, alone=True, inside=True).verdict
    assert alone.worked
    assert any("tell the forgotten class as well as before" in note for note in alone.notes)


def test_noise_on_the_weights_damages_utility(of_classes: Case) -> None:
    for alone in (False, True):
        verdict = of_classes.audit(noisy(of_classes.original, 1.0), alone=alone).verdict
        assert verdict.outcomes[0] == "damaged utility"
        assert "test accuracy is" in verdict.findings[0].sentence


def test_wrong_labels_left_and_taken_out(of_wrong_labels: Case) -> None:
    true = of_wrong_labels.problem.truth.true_labels
    left = of_wrong_labels.audit(of_wrong_labels.original, true_labels=true)
    assert left.verdict.headline == "did not forget"
    assert left.facts.labels == "wrong"
    oracle = MLP.build(of_wrong_labels.problem.shape, 10, generator(9, "initialisation"))
    MLP.train(oracle, of_wrong_labels.problem.split.train.relabel(true), 9, CPU, Meter())
    split = of_wrong_labels.problem.split
    found = audit(
        of_wrong_labels.original, of_wrong_labels.retrained, split.train, split.forget_positions,
        of_wrong_labels.problem.truth.sets["test"], oracle=oracle, true_labels=true, metrics=[*OUTPUTS, Healed()],
        numerics=CPU,
    )  # fmt: skip
    assert found.verdict.headline == "forgot"
    assert found.facts.reference == "oracle"
    assert "of the wrong labels in the forget set" in found.verdict.notes[0].lower()


def test_ascent_past_the_retrained_model_over_forgets() -> None:
    given = case(ForgetRandom(share=0.05).build(DIGITS), MLP)
    split = given.problem.split
    gone = unlearn(
        given.original, split.train, forget=split.forget_positions, method="gradient_ascent", device="cpu",
        lr=0.01, threshold=0.3, passes=200,
    ).model  # fmt: skip
    verdict = given.audit(gone).verdict
    assert "over-forgot" in verdict.outcomes
    assert any("below the retrained model's" in finding.sentence for finding in verdict.findings)
    # nothing tells these models apart before: an easy sample is answered by a model that never saw it
    assert given.audit(given.original).verdict.headline == "undecided"
