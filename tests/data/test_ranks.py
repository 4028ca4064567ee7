from __future__ import annotations

import pytest
import torch

from expunge.data.images import rank_in_class


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_a_rank_counts_those_of_the_same_label_before(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 5, (60,), generator=torch.Generator().manual_seed(0))
    seen: dict[int, int] = {}
    expected = []
    for label in labels.tolist():
        expected.append(seen.get(label, 0))
        seen[label] = expected[-1] + 1
    found = rank_in_class(labels.to(dtype))
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_nothing_to_rank() -> None:
    assert rank_in_class(torch.empty(0, dtype=torch.int64)).tolist() == []
