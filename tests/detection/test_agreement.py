from __future__ import annotations

import pytest
import torch

from expunge.detection.agreement import agreement
from expunge.detection.result import Detection
from expunge.errors import InvalidInput


def found(flagged: list[int], suggested: list[int] | None = None) -> Detection:
    mask = torch.tensor(flagged, dtype=torch.bool)
    wanted = None if suggested is None else torch.tensor(suggested)
    return Detection.of(
        "d", torch.zeros(len(mask)), mask, torch.zeros(len(mask), dtype=torch.int64), 3, suggested=wanted
    )


def test_counts_and_shares() -> None:
    bad = torch.tensor([True, True, True, False, False])
    figures = agreement(found([1, 0, 0, 1, 0], [1, -1, -1, 2, -1]), bad, torch.tensor([1, 0, 0, 0, 0]))
    assert (figures.n_flagged, figures.n_bad, figures.n_found) == (2, 3, 1)
    assert figures.precision == 0.5
    assert figures.recall == pytest.approx(1 / 3)
    assert figures.suggested_right == 0.5


def test_what_is_not_defined_is_none() -> None:
    nothing = agreement(found([0, 0]), torch.tensor([True, False]))
    assert (nothing.precision, nothing.recall, nothing.suggested_right) == (None, 0.0, None)
    assert agreement(found([1, 0]), torch.tensor([False, False])).recall is None


def test_another_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"bad must have one entry for each of the 2 examples, got \(3,\)"):
        agreement(found([1, 0]), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="true_labels must have one entry"):
        agreement(found([1, 0]), torch.zeros(2, dtype=torch.bool), torch.zeros(1))
