from __future__ import annotations

import pytest
import torch

from expunge.detection.result import Detection, combine
from expunge.errors import InvalidInput

LABELS = torch.tensor([0, 0, 1, 2])


def found(
    name: str, scores: list[float], flagged: list[bool], suggested: list[int] | None = None
) -> Detection:
    wanted = None if suggested is None else torch.tensor(suggested)
    return Detection.of(name, torch.tensor(scores), torch.tensor(flagged), LABELS, 3, suggested=wanted)


def test_flagged_examples_are_counted_by_stored_label() -> None:
    part = found("a", [0.1, 0.2, 0.3, 0.4], [True, True, False, True])
    assert part.per_class == (2, 0, 1)
    assert part.positions.tolist() == [0, 1, 3]
    assert part.suggested.tolist() == [-1] * 4


def test_the_union_compares_scores_by_the_share_below() -> None:
    one = found("a", [1.0, 5.0, 5.0, 9.0], [False, False, False, True])
    other = found("b", [0.0, 0.0, 0.0, 0.001], [False, True, False, False], [-1, 2, -1, -1])
    both = combine([one, other], LABELS)
    # a: 0, 1/4, 1/4, 3/4 (ties count as not below); b: 0, 0, 0, 3/4
    assert both.scores.tolist() == [0.0, 0.25, 0.25, 0.75]
    assert both.flagged.tolist() == [False, True, False, True]
    assert both.per_class == (1, 0, 1)
    assert both.suggested.tolist() == [-1, 2, -1, -1]
    assert both.detector == "a+b"


def test_the_first_suggestion_counts() -> None:
    one = found("a", [0.0] * 4, [True] * 4, [1, -1, -1, -1])
    other = found("b", [0.0] * 4, [True] * 4, [2, 2, -1, -1])
    assert combine([one, other], LABELS).suggested.tolist() == [1, 2, -1, -1]


def test_detections_of_other_examples_are_refused() -> None:
    with pytest.raises(InvalidInput, match="detections of the 2 examples are expected, got"):
        combine([found("a", [0.0] * 4, [True] * 4)], LABELS[:2])
    with pytest.raises(InvalidInput, match=r"got \[\]"):
        combine([], LABELS)
