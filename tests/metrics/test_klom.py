from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.klom import klom
from expunge.seeding import generator


def draw(models: int, examples: int, mean: float, std: float, seed: int) -> Tensor:
    return mean + std * torch.randn(models, examples, generator=generator(seed), dtype=torch.float64)


def one_by_one(first: Tensor, second: Tensor) -> list[float]:
    """KL(first || second) with numpy's histogram, whose last bin holds its right edge."""
    found = []
    for p_of, q_of in zip(first.T.numpy().clip(-100, 100), second.T.numpy().clip(-100, 100), strict=True):
        low, high = min(p_of.min(), q_of.min()), max(p_of.max(), q_of.max())
        edges = np.linspace(low, high if high > low else low + 1, 21)
        p, q = (np.histogram(values, edges)[0] / len(values) for values in (p_of, q_of))
        found.append(sum(a * math.log(a / max(b, 1e-5)) for a, b in zip(p, q, strict=True) if a > 0))
    return found


@pytest.mark.parametrize("models", [(100, 100), (40, 70)])
def test_equals_a_slow_loop(models: tuple[int, int]) -> None:
    unlearned, retrained = draw(models[0], 30, 0.5, 1.0, 1), draw(models[1], 30, 0.0, 2.0, 2)
    assert klom(unlearned, retrained).tolist() == pytest.approx(one_by_one(retrained, unlearned))
    other = klom(unlearned, retrained, direction="unlearned_first")
    assert other.tolist() == pytest.approx(one_by_one(unlearned, retrained))


def test_the_direction_matters() -> None:
    """A narrow population inside a wide one: the wide one has mass where the narrow one has none."""
    wide, narrow = draw(100, 1, 0.0, 3.0, 1), draw(100, 1, 0.0, 0.5, 2)
    retrained_first = float(klom(narrow, wide))
    assert retrained_first == pytest.approx(one_by_one(wide, narrow)[0])
    assert retrained_first > 3 * float(klom(narrow, wide, direction="unlearned_first")) > 0
    assert float(klom(wide, narrow, direction="unlearned_first")) == retrained_first


def test_closed_form_of_two_points() -> None:
    retrained = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    unlearned = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    expected = 0.75 * math.log(3) + 0.25 * math.log(1 / 3)
    assert float(klom(unlearned, retrained)) == pytest.approx(expected)
    apart = klom(torch.ones(5, 1), torch.zeros(5, 1))
    assert float(apart) == pytest.approx(math.log(1e5))


def test_the_right_edge_is_in_the_last_bin() -> None:
    """All mass on the maximum: a histogram without its right edge has nothing to divide by."""
    unlearned = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    retrained = torch.full((4, 1), 3.0)
    assert float(klom(unlearned, retrained)) == pytest.approx(math.log(4))


def test_equal_populations_and_constants_are_at_zero() -> None:
    margins = draw(50, 4, 3.0, 1.0, 3)
    assert klom(margins, margins).tolist() == [0.0] * 4
    assert klom(torch.full((6, 2), 5.0), torch.full((9, 2), 5.0)).tolist() == [0.0] * 2


def test_margins_are_clipped() -> None:
    far, further = torch.full((5, 1), 150.0), torch.full((5, 1), 900.0)
    assert float(klom(far, further)) == 0


def test_refusals() -> None:
    margins = draw(5, 3, 0.0, 1.0, 4)
    with pytest.raises(InvalidInput, match=r"got \(0, 3\) of the unlearned models"):
        klom(margins[:0], margins)
    with pytest.raises(InvalidInput, match="scored on the same examples, got 3 and 2"):
        klom(margins, margins[:, :2])
    with pytest.raises(InvalidInput, match="1 of 5 retrained models have scores that are not finite"):
        klom(margins, margins.index_fill(0, torch.tensor([1]), math.inf))
    with pytest.raises(InvalidInput, match="bins must be at least 1"):
        klom(margins, margins, bins=0)
    with pytest.raises(InvalidInput, match="direction one of retrained_first, unlearned_first"):
        klom(margins, margins, direction="both")  # type: ignore[arg-type]
