from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from expunge.data.examples import Batch
from expunge.training.difficulty import LossRecorder


def test_means_over_visits() -> None:
    model = nn.Linear(2, 3)
    x, y = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    losses = F.cross_entropy(model(x), y, reduction="none").detach()
    recorder = LossRecorder(6, "cpu")
    value = recorder(model, Batch(x, y, torch.tensor([5, 0, 1, 2]))).value
    assert torch.allclose(value, losses.mean())
    with torch.no_grad():
        model.weight.mul_(2)
    later = F.cross_entropy(model(x[:1]), y[:1]).detach()
    recorder(model, Batch(x[:1], y[:1], torch.tensor([5])))
    expected = torch.tensor([losses[1], losses[2], losses[3], 0, 0, (losses[0] + later) / 2])
    assert torch.allclose(recorder.means(), expected)
