"""Training on without the forget set, towards few weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, batch_count
from expunge.errors import InvalidInput
from expunge.methods.base import Reference, Request, searched
from expunge.methods.finetune import FineTune
from expunge.methods.importance import trainable
from expunge.training.loop import Loss, Objective, cross_entropy
from expunge.training.numerics import Devices


def l1_norm(model: nn.Module) -> Tensor:
    """Sum of the absolute values of all trainable parameters."""
    return torch.stack([parameter.abs().sum() for parameter in trainable(model).values()]).sum()


@dataclass
class DecayingL1:
    """Cross-entropy plus a penalty on the L1 norm whose weight falls linearly, step by step.

    CE + gamma (1 - t / T) ||theta||_1 at step t = 0 ... T - 1, and CE alone from T on.

    Args:
        gamma: weight at the first step.
        steps: T.
    """

    gamma: float
    steps: int
    step: int = field(default=0, init=False)

    @property
    def weight(self) -> float:
        """Weight of the penalty in the next step."""
        return self.gamma * max(0.0, 1 - self.step / self.steps)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the penalised loss of the batch and move on by one step."""
        plain = cross_entropy(model, batch)
        penalised = plain.value + self.weight * l1_norm(model)
        self.step += 1
        return Loss(penalised, plain.gradients)


@dataclass(frozen=True, kw_only=True)
class L1Sparse(FineTune):
    """Train on with the retain set only, while a fading penalty drives weights to zero.

    min_theta  mean over D_r of CE(f_theta(x), y) + gamma_t ||theta||_1, gamma_t = gamma (1 - t / T).

    t is the step, T their number.

    Args:
        gamma: weight of the penalty at the first step.

    Raises:
        InvalidInput: a setting outside its range.

    Source: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, NeurIPS 2023, equation 3 with the linearly decreasing
    schedule of section 4.

    Departures: the penalty falls from step to step (published code: from epoch to epoch) and leaves out parameters
    the caller froze. The defaults are the authors' for CIFAR-10 as far as we know them; the range of gamma is ours.
    """

    name = "l1_sparse"
    reference = Reference(
        "Model Sparsity Can Simplify Machine Unlearning",
        "Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu",
        2023,
        "NeurIPS 2023, arXiv 2304.04934",
    )

    lr: float = searched(0.01, 1e-3, 0.1, log=True)
    batch_size: int = 256
    gamma: float = searched(5e-4, 1e-6, 1e-2, log=True)
    schedule: str = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.gamma >= 0 and math.isfinite(self.gamma)):
            raise InvalidInput(f"gamma must be at least 0 and finite, got {self.gamma}")

    def check_devices(self, devices: Devices) -> None:
        """Refuse "fsdp", where a device does not have all parameters at once to take the norm of."""
        if devices.sharded:
            raise InvalidInput(
                f"method {self.name!r} takes the norm of all parameters in every step, which does not go with "
                "strategy 'fsdp'; use 'ddp'"
            )

    def objective(self, request: Request) -> Objective:
        """Return the penalised loss."""
        return DecayingL1(self.gamma, self.epochs * batch_count(len(request.retain), self.batch_size))
