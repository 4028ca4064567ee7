from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from expunge.detection.feature_probabilities import feature_probabilities
from expunge.detection.folds import stratified_folds
from expunge.errors import InvalidInput

LABELS = torch.arange(60) % 3
FEATURES = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double() + LABELS[:, None]


def test_each_fold_is_predicted_by_a_regression_on_the_others() -> None:
    found = feature_probabilities(FEATURES, LABELS, 3, folds=3, seed=2)
    fold = stratified_folds(LABELS, 3, 2)
    for number in range(3):
        known = FEATURES[fold != number]
        mean, std = known.mean(0), known.std(0, unbiased=False)
        fitted = LogisticRegression(max_iter=300).fit(((known - mean) / std).numpy(), LABELS[fold != number])
        expected = fitted.predict_proba(((FEATURES[fold == number] - mean) / std).numpy())
        torch.testing.assert_close(found[fold == number], torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


def test_a_class_without_examples_has_probability_zero() -> None:
    found = feature_probabilities(FEATURES, torch.where(LABELS == 2, 4, LABELS), 6, folds=2)
    assert found.shape == (60, 6)
    assert bool((found[:, [2, 3, 5]] == 0).all())
    torch.testing.assert_close(found.sum(1), torch.ones(60, dtype=torch.float64))


def test_bad_features() -> None:
    broken = FEATURES.clone()
    broken[7, 0] = torch.nan
    with pytest.raises(
        InvalidInput, match=r"features of 1 examples hold NaN or inf \(the first is example 7"
    ):
        feature_probabilities(broken, LABELS, 3)
    with pytest.raises(InvalidInput, match=r"shape \(60, D\) are expected, .* got \(59, 5\)"):
        feature_probabilities(FEATURES[1:], LABELS, 3)
    with pytest.raises(InvalidInput, match="one class"):
        feature_probabilities(FEATURES, torch.zeros(60, dtype=torch.int64), 3)
