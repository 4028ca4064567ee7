"""A mask of the forgotten classes' logits: the trivial reference for forgetting classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Request
from expunge.models.head import find_head

# Far below any logit, and still a number in half precision.
_NEVER = -30_000.0


@dataclass(frozen=True, kw_only=True)
class LogitMask(Method):
    """Make the head unable to answer the forgotten classes; nothing is unlearned.

    A head with bias: the class's row is set to zero and its bias to -30,000. A head without bias cannot be
    given a constant logit; there the row becomes the mean of the remaining classes' rows, so that the logit
    is the mean of theirs. A mean is below the largest unless all are equal, so the class is not predicted
    but where the remaining logits tie. That needs two remaining classes.

    What a method reaches beyond this is what it does to the features; see
    :func:`expunge.metrics.probes.class_mean_probe`.
    """

    name = "logit_mask"
    hides_only = True
    needs = Needs.CLASSES
    touches = "the forgotten classes' rows of the head"

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a model without a head, and to forget what leaves too few classes."""
        head = find_head(model, request.n_classes)
        remaining = request.n_classes - len(request.classes)
        if remaining < 1:
            raise InvalidInput(
                f"all of the {request.n_classes} classes are to be forgotten; none would remain"
            )
        if remaining == 1 and _bias(head) is None:
            raise InvalidInput(
                "a head without bias cannot be made to answer the one remaining class for every input; give "
                "it a bias, or forget fewer classes"
            )

    @torch.no_grad()
    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Rewrite the rows in place and return ``model``."""
        head = find_head(model, request.n_classes)
        forget = torch.zeros(request.n_classes, dtype=torch.bool, device=head.weight.device)
        forget[list(request.classes)] = True
        bias = _bias(head)
        if bias is None:
            head.weight[forget] = head.weight[~forget].mean(0)
        else:
            head.weight[forget] = 0
            bias[forget] = _NEVER
        request.progress(1.0)
        return model


def _bias(head: nn.Linear) -> Tensor | None:
    return head.bias
