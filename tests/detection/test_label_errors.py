from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from planted_digits import NUMERICS, planted, two_layers

from expunge.detection.agreement import agreement
from expunge.detection.label_errors import check_cleanlab, label_errors
from expunge.detection.out_of_sample import fresh_copies, out_of_sample, short_training
from expunge.errors import InvalidInput

pytest.importorskip("cleanlab")


def test_one_contradicted_label_is_flagged_and_corrected() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10)
    probabilities = torch.nn.functional.one_hot(labels, 2).double() * 0.8 + 0.1
    probabilities[3] = torch.tensor([0.05, 0.95])
    found = label_errors(labels, probabilities)
    assert found.positions.tolist() == [3]
    assert found.suggested[3] == 1
    assert found.suggested[0] == -1
    # 1 - the probability of the stored label
    assert found.scores[3] == pytest.approx(0.95)
    assert found.scores[0] == pytest.approx(0.1)
    assert found.per_class == (1, 0)
    assert "95.0%" in found.notes[0]


@pytest.mark.trains
@pytest.mark.parametrize(("regularity", "precision", "recall"), [(0.0, 0.75, 0.8), (0.5, 0.65, 0.75)])
def test_planted_label_noise_is_found(
    regularity: float, precision: float, recall: float, margin: Callable[..., None]
) -> None:
    digits = planted(regularity)
    recipe = short_training(958, epochs=20)
    probabilities = out_of_sample(
        fresh_copies(two_layers()), digits.examples, NUMERICS, recipe=recipe, folds=3
    )
    figures = agreement(label_errors(digits.examples.labels, probabilities), digits.bad, digits.true_labels)
    assert figures.precision is not None
    assert figures.recall is not None
    assert figures.suggested_right is not None
    margin("precision", figures.precision, above=precision)
    margin("recall", figures.recall, above=recall)
    margin("suggested labels that are right", figures.suggested_right, above=precision - 0.1)


def test_a_class_without_examples_is_allowed() -> None:
    labels = torch.tensor([0] * 10 + [2] * 10)
    probabilities = torch.nn.functional.one_hot(labels, 4).double()
    assert label_errors(labels, probabilities).per_class == (0, 0, 0, 0)


def test_weak_models_are_told() -> None:
    labels = torch.arange(20) % 2
    found = label_errors(labels, torch.nn.functional.one_hot(torch.arange(20) // 10, 2).double() * 0.2 + 0.4)
    assert "50.0%: models this weak list many good rows too" in found.notes[0]


def test_bad_probabilities() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(InvalidInput, match=r"shape \(2, n_classes\) are expected, got \(3, 2\)"):
        label_errors(labels, torch.full((3, 2), 0.5))
    with pytest.raises(InvalidInput, match="probabilities of example 1 are not finite"):
        label_errors(labels, torch.tensor([[0.5, 0.5], [torch.nan, 0.5]]))
    with pytest.raises(InvalidInput, match="sum to 1; pass them through a softmax"):
        label_errors(labels, torch.tensor([[2.0, -1.0], [0.5, 0.5]]))
    with pytest.raises(InvalidInput, match="all labels are of one class"):
        label_errors(torch.zeros(2, dtype=torch.int64), torch.full((2, 2), 0.5))


def test_a_missing_cleanlab_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cleanlab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r'needs cleanlab, .* run: pip install "expunge\[find\]"'):
        check_cleanlab()


def test_the_caller_keeps_its_tensors() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    probabilities = torch.full((4, 2), 0.5)
    label_errors(labels, probabilities)
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(probabilities, torch.full((4, 2), 0.5))
