"""Random wrong labels, learned only by the weights that matter to the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.methods.amnesiac import Amnesiac
from expunge.methods.base import Reference, Request, searched
from expunge.methods.importance import saliency, trainable
from expunge.models.head import find_head


@dataclass(frozen=True, kw_only=True)
class SalUn(Amnesiac):
    """Give forgotten examples random labels and fine-tune only the entries with the largest forget gradient.

    m = 1(|grad_theta L_f(theta_o)| >= gamma), L_f = mean over D_f of CE(f_theta(x), y);
    min_delta  mean over D_r ∪ D_f' of CE(f_theta(x), y), theta = theta_o + m * delta,
    D_f' = {(x, y') : (x, y) in D_f}, y' != y drawn once.

    Symbols: gamma -> the value above which a share ``keep`` of all entries lies, y' -> ``labels``.

    Args:
        weight_decay: on the entries that are trained ("adamw": decoupled).
        keep: share of the parameter entries that are trained, over all layers together. A head that is drawn anew is
            trained whole: its random entries know nothing.

    Raises:
        InvalidInput: a setting out of its range; no wrong label to be had.

    Source: Fan et al. (ICLR 2024). Learning rate, decay, passes and schedule are those with which NatMU
    (He et al., 2025) compares on CIFAR-10, sample-wise; there ``keep`` is 0.05.

    Departures: the entries outside the mask are put back after every step, so that neither decay nor
    momentum moves them; ties at gamma are broken by position, so that exactly the share is trained. Running
    statistics of normalisation layers follow the data, as published. The loss on D_r has weight 1.
    """

    name = "salun"
    reference = Reference(
        "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency", "Fan et al.", 2024, "ICLR"
    )

    lr: float = searched(5e-5, 1e-5, 1e-3, log=True)
    weight_decay: float = searched(3e-4, 0.0, 1e-3)
    keep: float = searched(0.5, 0.01, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise InvalidInput(f"keep must lie in (0, 1], the share of entries to train, got {self.keep}")

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        slopes = saliency(model, request.forget, request.numerics, request.meter, batch_size=self.batch_size)
        masks = largest(list(slopes.values()), self.keep)
        named = trainable(model)
        if self.draws_head(request):
            head = find_head(model, request.n_classes).weight
            for mask, parameter in zip(masks, named.values(), strict=True):
                if parameter is head:
                    mask.fill_(True)
        self.prepare_head(model, request)
        optimizer = self.optimiser_over(model)
        _hold(optimizer, list(named.values()), masks)
        self.learn(model, request, self.relabelled(request), optimizer=optimizer)
        return model


def largest(values: list[Tensor], share: float) -> list[Tensor]:
    """Return bool masks of the largest ``share`` of all entries together, at least one entry.

    Among equal values the earlier ones are taken, so that the count is exact on every device.
    """
    flat = torch.cat([value.flatten() for value in values])
    count = max(1, round(share * len(flat)))
    mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    mask[torch.sort(flat, descending=True, stable=True).indices[:count]] = True
    sizes = [value.numel() for value in values]
    return [part.view(value.shape) for part, value in zip(torch.split(mask, sizes), values, strict=True)]


def _hold(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], masks: list[Tensor]) -> None:
    """Put the entries outside the masks back after every step of ``optimizer``.

    Masking the gradient would not do: decoupled decay moves entries without one. The optimisers work entry
    by entry, so what happens to the entries outside does not reach those inside.
    """
    fixed = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def restore(*_: Any) -> None:
        for parameter, mask, value in zip(parameters, masks, fixed, strict=True):
            parameter.copy_(torch.where(mask, parameter, value))

    optimizer.register_step_post_hook(restore)
