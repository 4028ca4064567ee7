"""Distilling the model without its logit of the true class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.teacher import divergence, frozen, softened
from expunge.training.batchnorm import forget_statistics
from expunge.training.loop import Loss
from expunge.training.recipe import Recipe


def erased(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax of ``logits`` (B, C) over all classes but the label: float32 (B, C), zero at the label."""
    label = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    return softened(logits.float().masked_fill(label, -torch.inf))


@dataclass(frozen=True)
class DistilErased:
    """Objective: KL(softmax(Mask(z)) || q), where ``teacher`` gives z and the model q.

    Args:
        teacher: x -> logits of the frozen original.
    """

    teacher: Callable[[Tensor], Tensor]

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean over the batch."""
        with forget_statistics(model, batch):
            logits = model(batch.x)
        target = erased(self.teacher(batch.x), batch.y)
        return Loss(divergence(logits, target).mean(), len(batch))


@dataclass(frozen=True, kw_only=True)
class Delete(GradientMethod):
    """Distil the original model on the forget set with the logit of the label masked out (DELETE).

    min_theta  mean over D_f of KL(softmax(Mask(z)) || q), Mask(z)_k = -inf if k = u else z_k.
    z are the logits of the frozen original, q = softmax of the model's, u is the given label. The target
    has no mass at u, which forgets; its other masses keep their proportions, which retains.

    Args:
        augment: train on augmented inputs; the original sees the same ones.
        epochs: passes over the forget set.

    Raises:
        InvalidInput: fewer than two classes, or no forget set.

    Source: Zhou et al., CVPR 2025, arXiv 2503.23751, and the authors' code: SGD with momentum and no weight decay, 20
    passes, batches of 128, and the learning rate of its scripts for ResNet-18 on CIFAR-10 (1e-3). Its configurations
    name 1e-4 for that network where a script names none, and 5e-5 for a ViT.

    Departures: a forget set of one example is normalised by running statistics. The paper forgets whole classes; here
    u is each example's own given label.
    """

    name = "delete"
    needs = Needs.FORGET
    reference = Reference(
        "Decoupled Distillation to Erase: A General Unlearning Method for Any Class-centric Tasks",
        "Zhou, Zheng, Mo, Lu, Lin, Zheng",
        2025,
        "CVPR 2025, arXiv 2503.23751",
    )

    lr: float = searched(0.001, 5e-5, 0.1, log=True)
    batch_size: int = 128
    weight_decay: float = 0.0
    epochs: int = searched(20, 2, 40, log=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(epochs=self.epochs)

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a problem in which nothing is left once a class is masked."""
        if request.n_classes < 2:
            raise InvalidInput(
                f"DELETE masks one class and distils the others, got {request.n_classes} class; "
                "at least 2 are expected, choose another method"
            )
        if not len(request.forget):
            raise InvalidInput("the forget set has no examples, at least 1 is expected; name what to forget")

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        objective = DistilErased(frozen(model, request.numerics))
        self.fit(model, request.forget, objective, request, epochs=self.epochs)
        return model

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """About a tenth of the training set is forgotten, and the original sees it too."""
        return self.epochs * 0.1 * 4 / 3
