from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from planted_digits import NUMERICS, planted, two_layers
from torch import Tensor
from torch.nn import functional as F

from expunge.detection.agreement import agreement
from expunge.detection.noise_model import confident_count, noise_model
from expunge.detection.out_of_sample import fresh_copies, out_of_sample, short_training
from expunge.detection.wrong_labels import SHOWN, wrong_labels
from expunge.errors import InvalidInput


def confident(true: Tensor, n_classes: int, sure: float = 0.9) -> Tensor:
    other = (1 - sure) / (n_classes - 1)
    return F.one_hot(true, n_classes).double() * (sure - other) + other


def swapped(n: int = 300, n_bad: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """True labels, given labels of which the first ``n_bad`` are wrong, and which these are."""
    true = torch.arange(n) % 3
    bad = torch.arange(n) < n_bad
    return true, torch.where(bad, (true + 1) % 3, true), bad


def test_contradicted_labels_are_named_with_the_label_that_they_should_have() -> None:
    true, given, bad = swapped()
    found = wrong_labels(given, confident(true, 3))
    assert found.usable
    assert abs(int(found.found.flagged.sum()) - 30) <= 1
    assert not bool((found.found.flagged & ~bad).any())
    assert torch.equal(found.found.suggested[found.found.flagged], true[found.found.flagged])
    # 1 - the probability of the given label
    assert float(found.found.scores[0]) == pytest.approx(0.95)
    assert float(found.found.scores[-1]) == pytest.approx(0.1)
    assert found.precision is None  # without known rows nobody can say


def test_nothing_is_named_where_nothing_is_wrong() -> None:
    true = torch.arange(300) % 3
    found = wrong_labels(true, confident(true, 3))
    assert not bool(found.found.flagged.any())
    assert found.precision is None


def test_a_number_that_nothing_tells_is_not_called_none() -> None:
    # Labels that are drawn from the probabilities contradict some of them, and none has to be wrong for that.
    draw = torch.Generator().manual_seed(0)
    first = (2.5 * torch.randn(600, generator=draw)).sigmoid().double()
    p = torch.stack([first, 1 - first], 1)
    given = (torch.rand(600, generator=draw) > first).long()
    assert noise_model(p, given).count < 1
    found = wrong_labels(given, p)
    assert not found.usable
    assert int(found.found.flagged.sum()) == SHOWN
    assert "no usable list: between 0 and " in found.found.notes[0]
    assert "--known" in found.found.notes[0]


def test_known_rows_set_the_cut_and_are_not_named_again() -> None:
    true, given, bad = swapped()
    known = torch.arange(300) < 10
    found = wrong_labels(given, confident(true, 3), known)
    assert not bool((found.found.flagged & known).any())
    assert int((found.found.flagged & bad).sum()) >= 18
    assert int(found.found.flagged.sum()) <= 20
    assert found.recall == 1.0
    assert "100% of the 10 known rows" in found.found.notes[0]


def test_known_rows_that_do_not_stand_out_leave_no_list() -> None:
    true, given, _ = swapped()
    known = torch.arange(300) % 23 == 17
    found = wrong_labels(given, confident(true, 3), known & (given == true))
    assert not found.usable
    assert int(found.found.flagged.sum()) == SHOWN
    assert "no usable list" in found.found.notes[0]


def test_half_of_the_data_is_no_list() -> None:
    true = torch.arange(300) % 3
    given = torch.where(torch.arange(300) % 4 < 3, (true + 1) % 3, true)  # three in four are wrong
    found = wrong_labels(given, confident(true, 3))
    assert not found.usable
    assert int(found.found.flagged.sum()) == SHOWN
    assert "of the rows would stand in it" in found.found.notes[0]


def test_the_number_lies_between_two_estimates() -> None:
    true, given, _ = swapped()
    p = confident(true, 3, sure=0.6)
    low, high = noise_model(p, given).count, confident_count(p, given)
    assert min(low, high) - 1 <= wrong_labels(given, p).estimated <= max(low, high) + 1


@pytest.mark.trains
@pytest.mark.parametrize(("regularity", "n_known"), [(0.0, 0), (0.5, 20)])
def test_planted_label_noise_is_found_by_folds(
    regularity: float, n_known: int, margin: Callable[..., None]
) -> None:
    """Labels at random without a list; two classes exchanged, which self-confidence alone does not tell, with one."""
    digits = planted(regularity)
    known = digits.bad & (digits.bad.cumsum(0) <= n_known)
    recipe = short_training(958, epochs=20)
    probabilities = out_of_sample(
        fresh_copies(two_layers()), digits.examples, NUMERICS, recipe=recipe, folds=3
    )
    found = wrong_labels(digits.examples.labels, probabilities, known).found
    figures = agreement(found, digits.bad & ~known, digits.true_labels)
    assert figures.precision is not None
    assert figures.recall is not None
    assert figures.suggested_right is not None
    margin("precision", figures.precision, above=0.7)
    margin("recall", figures.recall, above=0.6)
    margin("suggested labels that are right", figures.suggested_right, above=0.6)


def test_bad_probabilities() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(InvalidInput, match=r"shape \(2, n_classes\) are expected, got \(3, 2\)"):
        wrong_labels(labels, torch.full((3, 2), 0.5))
    with pytest.raises(InvalidInput, match="probabilities of example 1 are not finite"):
        wrong_labels(labels, torch.tensor([[0.5, 0.5], [torch.nan, 0.5]]))
    with pytest.raises(InvalidInput, match="sum to 1; pass them through a softmax"):
        wrong_labels(labels, torch.tensor([[2.0, -1.0], [0.5, 0.5]]))
    with pytest.raises(InvalidInput, match="all labels are of one class"):
        wrong_labels(torch.zeros(2, dtype=torch.int64), torch.full((2, 2), 0.5))
