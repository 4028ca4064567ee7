from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.attack_scores import (
    confidence,
    correctness,
    entropy,
    logit_gap,
    loss,
    modified_entropy,
)

# A sure right answer and a sure wrong one; published programs give both the same modified entropy.
SURE = torch.tensor([[0.9997, 1e-4, 1e-4, 1e-4]] * 2, dtype=torch.float64).log()
RIGHT_AND_WRONG = torch.tensor([0, 1])
WITH_LABELS = (loss, confidence, modified_entropy, correctness, logit_gap)


def random_logits(count: int = 40, n_classes: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(count, n_classes, generator=draw)
    return logits, torch.randint(n_classes, (count,), generator=draw)


def probabilities(row: Tensor) -> list[float]:
    powers = [math.exp(z) for z in row.tolist()]
    return [power / sum(powers) for power in powers]


def one_by_one(name: str, row: Tensor, y: int) -> float:
    p = probabilities(row)
    rest = [(j, p_j) for j, p_j in enumerate(p) if j != y]
    return {
        "loss": lambda: -math.log(p[y]),
        "confidence": lambda: p[y],
        "modified_entropy": lambda: (
            -(1 - p[y]) * math.log(p[y]) - sum(p_j * math.log(1 - p_j) for _, p_j in rest)
        ),
        "correctness": lambda: float(all(p[y] > p_j for _, p_j in rest)),
        "logit_gap": lambda: math.log(p[y]) - math.log(sum(p_j for _, p_j in rest)),
    }[name]()


@pytest.mark.parametrize("score", WITH_LABELS, ids=lambda score: score.__name__)
def test_every_score_equals_a_slow_loop(score: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, labels = random_logits()
    found = score(logits, labels)
    assert found.dtype == torch.float64
    by_hand = [one_by_one(score.__name__, row, int(y)) for row, y in zip(logits, labels, strict=True)]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-9)


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [200.0, 0.0]])
    by_hand = [math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 0.0]
    assert entropy(logits).tolist() == pytest.approx(by_hand)


def test_modified_entropy_tells_a_sure_right_answer_from_a_sure_wrong_one() -> None:
    found = modified_entropy(SURE, RIGHT_AND_WRONG).tolist()
    assert found == pytest.approx([1.2e-7, 17.32], rel=1e-3)
    assert found == pytest.approx([one_by_one("modified_entropy", SURE[0], y) for y in (0, 1)])


def test_modified_entropy_of_a_row_is_its_own() -> None:
    logits, labels = random_logits()
    whole = modified_entropy(torch.cat([SURE, logits[:, :4]]), torch.cat([RIGHT_AND_WRONG, labels % 4]))
    assert whole[:2].tolist() == modified_entropy(SURE, RIGHT_AND_WRONG).tolist()
    assert whole[:1].tolist() == modified_entropy(SURE[:1], RIGHT_AND_WRONG[:1]).tolist()


def test_the_published_modified_entropy_does_neither() -> None:
    assert modified_entropy(SURE, RIGHT_AND_WRONG, legacy=True).tolist() == pytest.approx(
        [9.2113] * 2, abs=5e-5
    )
    alone = modified_entropy(SURE[:1], RIGHT_AND_WRONG[:1], legacy=True)
    assert float(alone) == pytest.approx(3e-4 * -math.log(0.9997) - 3e-4 * math.log(1e-4))


def test_large_logits_lose_nothing() -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    right, wrong = torch.tensor([0, 0]), torch.tensor([1, 1])
    two = math.log(2)
    assert logit_gap(logits, right).tolist() == pytest.approx([1000 - two, 40 - two], rel=1e-12)
    assert logit_gap(logits, wrong).tolist() == pytest.approx([-1000, -40], rel=1e-12)
    # (1 - p_y) loss + sum of p_j^2, both of order e^-80
    tiny = math.exp(-40)
    assert modified_entropy(logits, right).tolist() == pytest.approx([0, 4 * tiny**2 + 2 * tiny**2], rel=1e-9)
    assert modified_entropy(logits, wrong).tolist() == pytest.approx([2000 - two, 80 - two], rel=1e-9)
    assert loss(logits, right).tolist() == pytest.approx([0, 2 * tiny], rel=1e-3, abs=1e-16)
    assert confidence(logits, right).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("score", WITH_LABELS, ids=lambda score: score.__name__)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least one example and two classes"),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), "at least one example and two classes"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "1 of 1 examples hold NaN or inf"),
        (torch.tensor([[0.0, math.inf]]), torch.tensor([0]), "1 of 1 examples hold NaN or inf"),
        (torch.zeros(2, 3), torch.tensor([0]), r"labels must be int64 \(2,\)"),
        (torch.zeros(1, 3), torch.tensor([0.0]), r"labels must be int64 \(1,\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"labels must lie in 0..2, .* got 0..3"),
        (torch.zeros(2, 3), torch.tensor([-1, 2]), r"labels must lie in 0..2, .* got -1..2"),
    ],
)
def test_refusals(
    score: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        score(logits, labels)


def test_entropy_refuses_what_is_not_finite() -> None:
    with pytest.raises(InvalidInput, match="hold NaN or inf"):
        entropy(torch.tensor([[0.0, -math.inf]]))
