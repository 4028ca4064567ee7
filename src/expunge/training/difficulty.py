"""How hard an example was to learn: its mean loss over the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch
from expunge.training.loop import Loss
from expunge.training.numerics import has_float64
from expunge.training.team import current_team


class LossRecorder:
    """Cross-entropy that also keeps every example's mean over the visits; no pass is added.

    Args:
        rows: number of rows of the source the examples come from.
        device: where the sums are kept.
    """

    def __init__(self, rows: int, device: torch.device | str) -> None:
        dtype = torch.float64 if has_float64(device) else torch.float32
        self._sums = torch.zeros(rows, dtype=dtype, device=device)
        self._visits = torch.zeros(rows, dtype=dtype, device=device)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean cross-entropy of the given labels."""
        losses = F.cross_entropy(model(batch.x).float(), batch.y, reduction="none")
        self._sums.index_add_(0, batch.index, losses.detach().to(self._sums.dtype))
        self._visits.index_add_(0, batch.index, torch.ones_like(losses, dtype=self._visits.dtype))
        return Loss(losses.mean(), len(batch))

    def means(self) -> Tensor:
        """Mean loss float32 (rows,), in nats; 0 for a row that was never visited.

        A batch smaller than a team that shares the training is visited by every process.
        """
        team = current_team()
        sums, visits = (self._sums, self._visits) if team is None else team.sum(self._sums, self._visits)
        return (sums / visits.clamp(min=1)).float().cpu()
