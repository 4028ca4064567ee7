from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from memory import Constant, class_problem, evaluated, random_problem

from expunge.errors import InvalidInput
from expunge.metrics.attack_scores import confidence, modified_entropy
from expunge.metrics.base import UNDEFINED, Evaluated, NotDefined, Scored, Value
from expunge.metrics.fitted_attacks import SVCEfficacy, svc_efficacy
from expunge.seeding import generator
from expunge.tasks.base import Problem


def test_separated_features_are_told_apart() -> None:
    members, others = torch.linspace(0.8, 1, 40), torch.linspace(0, 0.2, 40)
    assert svc_efficacy(members, others, torch.tensor([0.85, 0.9, 1.0])) == 0.0
    assert svc_efficacy(members, others, torch.tensor([0.0, 0.1, 0.15, 0.95])) == 0.75


def test_it_is_a_kernel_method() -> None:
    # members in the middle, non-members on both sides: no single threshold tells them apart
    members = torch.linspace(-0.5, 0.5, 40)
    others = torch.cat([torch.linspace(-4, -3, 20), torch.linspace(3, 4, 20)])
    assert svc_efficacy(members, others, torch.tensor([-3.5, 0.0, 3.5])) == pytest.approx(2 / 3)


def test_vectors() -> None:
    members = torch.eye(3).repeat(10, 1)
    others = torch.full((30, 3), 1 / 3)
    assert svc_efficacy(members, others, torch.tensor([[0.34, 0.33, 0.33], [0, 1, 0]])) == 0.5


def test_two_points_by_hand() -> None:
    # one member at 1, one non-member at 0: the boundary of the RBF classifier is half way
    targets = torch.tensor([0.49, 0.51, 0.2, 0.9])
    assert svc_efficacy(torch.tensor([1.0]), torch.tensor([0.0]), targets) == 0.5


@pytest.mark.parametrize("problem", [random_problem, class_problem])
def test_higher_is_more_forgotten_and_the_retrained_model_sets_the_aim(
    problem: Callable[[], Problem],
) -> None:
    given = evaluated(problem())
    assert SVCEfficacy()(given) < 0.1
    assert SVCEfficacy()(given.retrained) > 0.7
    assert SVCEfficacy.better == "reference"


def test_every_feature_is_measured() -> None:
    given = evaluated(random_problem())
    found = SVCEfficacy().values(given.retrained)
    assert list(found) == [
        "svc_efficacy",
        "svc_efficacy_correctness",
        "svc_efficacy_entropy",
        "svc_efficacy_modified_entropy",
        "svc_efficacy_probability",
    ]
    draws = generator(0, "svc_efficacy")
    (retain, of_retain), (test, of_test) = given.retrained.retain, given.retrained.test
    # 192 retained and 200 test images: 192 of each
    members, others = (torch.randperm(count, generator=draws)[:192] for count in (192, 200))
    for score, name in ((confidence, "svc_efficacy"), (modified_entropy, "svc_efficacy_modified_entropy")):
        by_hand = svc_efficacy(
            score(retain[members], of_retain[members]),
            score(test[others], of_test[others]),
            score(*given.retrained.forget),
        )
        assert found[name].value == by_hand


def test_a_feature_that_is_the_same_everywhere_has_a_reason() -> None:
    given = evaluated(random_problem())

    class Right(Evaluated):
        """Right everywhere, and surer of some."""

        def logits(self, name: str) -> torch.Tensor:
            labels = self.examples(name).labels
            return torch.nn.functional.one_hot(labels, 4) * torch.linspace(1, 2, len(labels))[:, None]

        @property
        def forget(self) -> Scored:
            return self.scored("forget")

        @property
        def retain(self) -> Scored:
            return self.scored("retain")

    right = Right(given.model, given.problem, given.numerics)
    found = SVCEfficacy().values(right)
    reason = found["svc_efficacy_correctness"]
    assert isinstance(reason, NotDefined)
    assert "every member and every non-member has the same feature" in str(reason)
    assert isinstance(found["svc_efficacy_entropy"], Value)
    with pytest.raises(UNDEFINED, match="every member and every non-member has the same feature"):
        SVCEfficacy().of(right, "correctness")


def test_the_published_modified_entropy_has_a_name_of_its_own() -> None:
    given = evaluated(random_problem())
    correct, published = SVCEfficacy().values(given), SVCEfficacy(legacy=True).values(given)
    assert set(published) - set(correct) == {"svc_efficacy_modified_entropy_legacy"}
    assert all(published[name] == correct[name] for name in set(published) & set(correct))


def test_the_sample_is_capped_and_follows_its_seed() -> None:
    given = evaluated(random_problem()).retrained
    few = [SVCEfficacy(most=20, seed=seed)(given) for seed in range(4)]
    assert few[0] == SVCEfficacy(most=20)(given)
    assert len(set(few)) > 1


def test_logits_that_are_not_finite() -> None:
    with pytest.raises(UNDEFINED, match="NaN or inf"):
        SVCEfficacy()(evaluated(random_problem(), Constant(0.0, math.nan, 0.0, 0.0)))


def test_refusals() -> None:
    one, none = torch.tensor([0.0, 1.0]), torch.tensor([])
    with pytest.raises(InvalidInput, match="members, non-members and targets, got 2, 0, 2"):
        svc_efficacy(one, none, one)
    with pytest.raises(InvalidInput, match="must be finite"):
        svc_efficacy(one, torch.tensor([math.nan]), one)
    with pytest.raises(InvalidInput, match="at least 1 example a side, got 0"):
        SVCEfficacy(most=0)
    with pytest.raises(InvalidInput, match="unknown feature 'margin'; known: confidence, correctness"):
        SVCEfficacy().of(evaluated(random_problem()), "margin")
