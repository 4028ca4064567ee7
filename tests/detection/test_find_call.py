from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_digits import planted, two_layers
from torch import nn

import expunge
from expunge.detection.relearned import relearned
from expunge.errors import InvalidInput
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.initialisation import reinitialise
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(
    epochs=12, batch_size=32, augment=False, optimiser=Optimiser(name="adamw", lr=3e-3, weight_decay=0.01)
)
NUMERICS = Numerics(channels_last=False)
_MODELS: dict[float, nn.Module] = {}


def trained(regularity: float) -> nn.Module:
    if regularity not in _MODELS:
        model = two_layers()
        reinitialise(model, generator(0, "initialisation"))
        RECIPE.train(model, planted(regularity).examples, 0, NUMERICS, Meter())
        _MODELS[regularity] = model
    return _MODELS[regularity]


@pytest.mark.trains
def test_random_labels_without_a_list(margin: Callable[..., None]) -> None:
    digits, model = planted(0.0), trained(0.0)
    before = [parameter.clone() for parameter in model.parameters()]
    found = expunge.find(model, digits.examples, recipe=RECIPE)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    flagged = torch.tensor(found["is_label_issue"].to_numpy())
    right = float((flagged & digits.bad).sum())
    margin("precision", right / max(1, int(flagged.sum())), above=0.7)
    margin("recall", right / int(digits.bad.sum()), above=0.5)
    assert int(flagged.sum()) <= found.attrs["expected"] + 0.5
    assert set(found["detector"]) == {"", "labels"}
    assert bool((found.loc[~found["is_label_issue"], "suggested_label"] == -1).all())


@pytest.mark.trains
def test_a_trigger_that_twenty_known_rows_carry(margin: Callable[..., None]) -> None:
    digits, model = planted(1.0), trained(1.0)
    known = digits.bad & (digits.bad.cumsum(0) <= 20)
    found = expunge.find(model, digits.examples, known=known, recipe=RECIPE)
    flagged = torch.tensor(found["is_label_issue"].to_numpy())
    beside = torch.tensor(found["detector"].str.contains("neighbours").to_numpy())
    assert bool(flagged[known].all())
    margin("share of the others found", float(beside[digits.bad & ~known].float().mean()), above=0.6)
    margin("precision", float(digits.bad[beside].float().mean()), above=0.7)


def test_a_known_row_is_learned_as_any_other() -> None:
    """Else the share of known rows above a cut would not be its recall."""
    digits, model = planted(0.0), trained(0.0)
    known = digits.bad & (digits.bad.cumsum(0) <= 10)
    with_list = relearned(model, digits.examples, NUMERICS, known=known, recipe=RECIPE)
    without = relearned(model, digits.examples, NUMERICS, recipe=RECIPE)
    if not bool(with_list.neighbours.any()):
        assert torch.equal(with_list.probabilities, without.probabilities)
    assert torch.allclose(without.probabilities.sum(1), torch.ones(len(known)), atol=1e-4)


def test_what_was_recorded_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = planted(0.0)
    path = tmp_path / "recorded.safetensors"
    with expunge.Recording(digits.examples.labels, path) as recording:
        logits = 4.0 * torch.nn.functional.one_hot(digits.true_labels, 10)
        recording.see(logits, torch.arange(len(logits)))

    def never(*given: Any, **named: Any) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr("expunge.detection.find.relearned", never)
    found = expunge.find(two_layers(), digits.examples, recorded=path)
    flagged = torch.tensor(found["is_label_issue"].to_numpy())
    assert int((flagged & digits.bad).sum()) >= 90
    assert not bool((flagged & ~digits.bad).any())


def test_bad_requests() -> None:
    digits = planted(0.0)
    with pytest.raises(InvalidInput, match="give folds or recorded, not both"):
        expunge.find(two_layers(), digits.examples, folds=3, recorded="a.safetensors")
    with pytest.raises(InvalidInput, match=r"known must be positions .* give a list, such as known=\[3, 5\]"):
        expunge.find(two_layers(), digits.examples, known=["a"])  # type: ignore[list-item]
