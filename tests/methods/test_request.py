from __future__ import annotations

import pytest
import torch

from expunge.data.joined import in_memory
from expunge.errors import UndeclaredNeed
from expunge.methods.base import Needs, Request
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics


def request(progress: list[float]) -> Request:
    train = in_memory(torch.zeros(6, 1), torch.arange(6) % 3, 3)
    return Request(Split(train, torch.tensor([0])), seed=0, numerics=Numerics(), progress=progress.append)


def test_a_stage_runs_from_its_begin_to_its_end() -> None:
    seen: list[float] = []
    given = request(seen)
    for begin, end in ((0.0, 1 / 3), (1 / 3, 0.6), (0.6, 1.0)):
        stage = given.stage(begin, end)
        for share in (0.0, 0.5, 1.0):
            stage(share)
    assert seen == pytest.approx([0, 1 / 6, 1 / 3, 1 / 3, 7 / 15, 0.6, 0.6, 0.8, 1])
    assert seen[2] == seen[3] == 1 / 3
    assert seen[-1] == 1


@pytest.mark.parametrize("declared", [Needs.FORGET, Needs.RETAIN, Needs.RECIPE])
def test_whether_classes_are_whole_is_read_from_both_sets(declared: Needs) -> None:
    given = request([])
    given._granted = declared
    with pytest.raises(UndeclaredNeed, match="reads 'forget, retain' but declares only"):
        _ = given.whole_classes
