"""Fisher forgetting: noise on every parameter, the more the less the retained examples need it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request, positive, searched
from expunge.methods.importance import Importances, trainable
from expunge.models.head import find_head
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent, training_mode
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_DAMPING = 1e-8
"""Added to the Fisher information before it is inverted, as published."""
_GRADIENT_ELEMENTS = 2**26
"""Most elements of per-example gradients at once: 256 MiB of float32."""


@dataclass(frozen=True, kw_only=True)
class FisherForgetting(Method):
    """Add Gaussian noise to every parameter, scaled by the inverse of its Fisher information on the rest.

    w <- w + n,  n ~ N(0, alpha v),  v = min(1 / (F_R + 1e-8), ``clamp``)

    F_R: diagonal Fisher information on D_r, the mean over examples of
    sum over classes c of p_c(x) (gradient of -log p_c(x))^2, p the model's own distribution; evaluation mode.

    The published code changes v further: it is averaged over the second dimension of every weight; the last
    layer is clamped at ``head_clamp``; the last layer and all one-dimensional parameters get ``boost`` times
    the variance; and where the forget set is all of some classes, their rows of the last layer are drawn
    anew from N(0, ``boost`` * ``forget_variance``).

    Args:
        alpha: scale of the noise's variance; 0.00000001 to 0.00001 in the published code.
        max_examples: at most this many of the retained examples, drawn at random, enter F_R; 0 for all.
            Each costs one backward pass for every class.
        clamp: upper bound of the inverse Fisher information.
        head_clamp: that of the last layer's.
        average_inputs: average v over the second dimension of weights, so that a row has one variance.
        boost: factor on the variance of the last layer and of one-dimensional parameters.
        reset_head: draw the rows of forgotten classes anew.
        forget_variance: their variance, before ``boost``.

    Raises:
        InvalidInput: a setting outside its range; no retained examples; a model without a linear layer of
            one output per class; no parameter requires a gradient.

    Departures: F_R is estimated on a sample (published: on all of D_r); the last layer is found by what it
    is, not by the length of its first dimension, which hidden layers and norms may share; frozen parameters
    get no noise and batch-norm statistics stay. Everything follows the request's seed: report several.
    """

    name = "fisher_forgetting"
    needs = Needs.FORGET | Needs.RETAIN
    reference = Reference(
        "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks",
        "Golatkar, Achille, Soatto",
        2020,
        "CVPR 2020; arXiv 1911.04933",
    )

    alpha: float = searched(1e-6, 1e-8, 1e-5, log=True)
    max_examples: int = 1000
    clamp: float = 1e3
    head_clamp: float = 1e2
    average_inputs: bool = True
    boost: float = 10.0
    reset_head: bool = True
    forget_variance: float = 1e-4

    def __post_init__(self) -> None:
        positive(
            alpha=self.alpha, clamp=self.clamp, head_clamp=self.head_clamp, boost=self.boost,
            forget_variance=self.forget_variance,
        )  # fmt: skip
        if self.max_examples < 0:
            raise InvalidInput(f"max_examples must be at least 0 (0 for all), got {self.max_examples}")

    def check(self, model: nn.Module, request: Request) -> None:
        """Raise :class:`InvalidInput` where there is no last layer to find."""
        find_head(model, request.n_classes)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """A thousand examples and ten classes, on a training set of some 50,000."""
        return 0.2

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Add the noise in place and return ``model``."""
        retain = request.retain
        drawn = torch.randperm(len(retain), generator=request.generator("fisher sample"))
        drawn = drawn[: self.max_examples or len(retain)]
        fisher = diagonal_fisher(
            model,
            retain.select(drawn),
            request.numerics,
            request.meter,
            progress=request.progress,
        )
        head = {id(parameter) for parameter in find_head(model, request.n_classes).parameters()}
        rows = self._forgotten(request) if self.reset_head else torch.empty(0, dtype=torch.int64)
        source = request.generator("noise")
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                last = id(parameter) in head
                variance = self.variance(fisher[name], last=last)
                noise = torch.randn(parameter.shape, generator=source).to(parameter.device)
                if last and len(rows):
                    parameter[rows] = 0.0
                    variance[rows] = self.boost * self.forget_variance
                parameter.add_(variance.sqrt() * noise)
        request.meter.write(examples=len(drawn), reset_rows=len(rows))
        request.progress(1.0)
        return model

    def variance(self, fisher: Tensor, *, last: bool) -> Tensor:
        """Return the variance of the noise on a parameter, a new tensor of its shape; ``last``: last layer."""
        variance = (1 / (fisher + _DAMPING)).clamp(
            max=min(self.clamp, self.head_clamp) if last else self.clamp
        )
        if self.average_inputs and variance.ndim > 1:
            variance = variance.mean(dim=1, keepdim=True).expand_as(fisher).clone()
        return self.alpha * (self.boost if last or fisher.ndim == 1 else 1.0) * variance

    def _forgotten(self, request: Request) -> Tensor:
        """Classes that the forget set is all of, if it is made of such; none otherwise."""
        inside = torch.bincount(request.forget.labels, minlength=request.n_classes)
        outside = torch.bincount(request.retain.labels, minlength=request.n_classes)
        if bool(((inside > 0) & (outside > 0)).any()):
            return torch.empty(0, dtype=torch.int64)
        return inside.nonzero().flatten().to(request.numerics.device)


def diagonal_fisher(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    meter: Meter,
    *,
    progress: Progress = silent,
) -> Importances:
    """Mean over ``examples`` of sum_c p_c(x) (gradient of -log p_c(x))^2, evaluation mode, float32.

    Per-example gradients are computed by ``torch.func``; a network whose forward pass it cannot transform
    (data-dependent control flow) raises its error.

    Args:
        model: left as it is; no gradient stays on it.
        examples: their labels are ignored.
        numerics: device and memory format; the arithmetic is float32, squares of small numbers being smaller.
        meter: counts sample gradients, one for each example and class.
        progress: receives the share of the examples that are done.

    Raises:
        InvalidInput: no examples, or no parameter that requires a gradient.
    """
    if len(examples) == 0:
        raise InvalidInput("Fisher information is not defined over no examples; nothing is retained here")
    parameters = {name: parameter.detach() for name, parameter in trainable(model).items()}
    others = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    others |= {name: buffer.detach() for name, buffer in model.named_buffers()}

    def log_probability(values: dict[str, Tensor], x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, (values, others), (x[None],))[0].float()
        chosen = logits.log_softmax(0)[label]
        return chosen, chosen

    per_example = vmap(grad(log_probability, has_aux=True), in_dims=(None, 0, None))
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    at_once = max(1, min(64, _GRADIENT_ELEMENTS // sum(p.numel() for p in parameters.values())))
    done = 0
    # The fused attention kernels cannot be vectorised over examples; the plain one can.
    with training_mode(model, False), sdpa_kernel(SDPBackend.MATH):
        for batch in examples.batches(at_once):
            x = numerics.place_inputs(batch.x)
            for label in torch.arange(examples.n_classes, device=numerics.device):
                gradients, log_p = per_example(parameters, x, label)
                weight = log_p.exp()
                for name, total in sums.items():
                    total += torch.tensordot(weight, gradients[name].float().square(), dims=1)
            meter.count(len(batch) * examples.n_classes)
            done += len(batch)
            progress(done / len(examples))
    return {name: total / len(examples) for name, total in sums.items()}
