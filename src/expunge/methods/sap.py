"""Projecting the weights of every layer onto what trusted examples excite (SAP)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request, positive, searched
from expunge.training.loop import predict
from expunge.training.numerics import Numerics, has_float64
from expunge.training.recipe import Recipe

Layer = nn.Linear | nn.Conv2d


def scaled_projection(gram: Tensor, alpha: float) -> Tensor:
    """U diag(lambda) U^T, lambda_i = alpha s_i / ((alpha - 1) s_i + 1), s_i = sigma_i^2 / sum_j sigma_j^2.

    U and sigma are the left singular vectors and the singular values of the activations A (D, n).

    Args:
        gram: A A^T, float (D, D).
        alpha: 1 weighs a direction by its share of the variance, infinity keeps all that occur alike.
    """
    squares, directions = torch.linalg.eigh(gram)
    shares = squares.clamp_min(0) / squares.clamp_min(0).sum().clamp_min(torch.finfo(gram.dtype).tiny)
    # Rounding leaves a little in directions that no activation has.
    shares = torch.where(shares > len(shares) * torch.finfo(gram.dtype).eps, shares, 0.0)
    weights = alpha * shares / ((alpha - 1) * shares + 1)
    projection: Tensor = (directions * weights) @ directions.T
    return projection


@dataclass(frozen=True, kw_only=True)
class SAP(Method):
    """Project each layer's weights onto the directions in which trusted examples activate it.

    For every linear and convolutional layer with weight W (out, D) and inputs a_1 .. a_n in R^D (for a convolution
    the patches under its kernel) on the trusted examples, A = [a_1 .. a_n] = U Sigma V^T:
        W <- W U Lambda U^T, Lambda_ii = alpha s_i / ((alpha - 1) s_i + 1), s_i = sigma_i^2 / sum_j sigma_j^2.
    Trusted are the retained examples whose given label the model predicts with the lowest cross-entropy.

    Args:
        alpha: the larger, the more of what trusted examples seldom excite is kept; at least 1.
        trusted: number of trusted examples, at most half of the retain set.
        batch_size: examples a forward pass; the result does not depend on it.

    Raises:
        InvalidInput: a setting out of its range; fewer than two retained examples; no layer that can be projected.

    Source: Kodge, Ravikumar, Saha and Roy, AAAI 2025, arXiv 2403.08618, and the authors' examples, which trust 1,000
    examples and search alpha from 1e4 to 1e6.

    Departures: alpha is one value (published: the best of several on held-out data; ``expunge tune`` does that). Listed
    examples are never trusted. Layers that group their channels, and those of attention that are no ``nn.Linear``, stay
    as they are; so do biases and normalisation.
    """

    name = "sap"
    needs = Needs.RETAIN
    touches = "weights of linear and convolutional layers"
    reference = Reference(
        "SAP: Corrective Machine Unlearning with Scaled Activation Projection for Label Noise Robustness",
        "Kodge, Ravikumar, Saha, Roy",
        2025,
        "AAAI 2025, arXiv 2403.08618",
    )

    alpha: float = searched(1e5, 1e3, 1e6, log=True)
    trusted: int = 1000
    batch_size: int = 512

    def __post_init__(self) -> None:
        positive(trusted=self.trusted, batch_size=self.batch_size)
        if not (self.alpha >= 1 and math.isfinite(self.alpha)):
            raise InvalidInput(f"alpha must be at least 1 and finite, got {self.alpha}")

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a request without anybody to trust, and a model without a layer to project."""
        if len(request.retain) < 2:
            raise InvalidInput(
                f"SAP trusts half of the retain set at the most, got {len(request.retain)} examples; leave at least 2 "
                "out of the forget set"
            )
        if not projected(model):
            raise InvalidInput(
                f"{type(model).__name__} has no nn.Linear and no ungrouped nn.Conv2d, whose weights could be projected"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Project in place and return ``model``."""
        chosen = self.choose(model, request.retain, request.numerics)
        # In float32: a direction with a millionth of the variance decides.
        numerics = Numerics(request.numerics.device, channels_last=request.numerics.channels_last)
        layers = projected(model)
        with collected(layers) as grams:
            predict(model, chosen, numerics, self.batch_size)
        with torch.no_grad():
            for number, (name, gram) in enumerate(grams.items()):
                weight = layers[name].weight
                flat = weight.flatten(1)
                projection = scaled_projection(gram, self.alpha).to(flat)
                weight.copy_((flat @ projection).view_as(weight))
                request.progress((number + 1) / len(grams))
        request.meter.write(trusted=len(chosen), layers=len(grams))
        return model

    def choose(self, model: nn.Module, retain: Examples, numerics: Numerics) -> Examples:
        """Return the trusted examples, the surest first."""
        logits = predict(model, retain, numerics, self.batch_size)
        losses = F.cross_entropy(logits, retain.labels, reduction="none")
        count = min(self.trusted, len(retain) // 2)
        return retain.select(torch.sort(losses, stable=True).indices[:count])

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """A forward pass over the training set."""
        return 1 / 3


def projected(model: nn.Module) -> dict[str, Layer]:
    """Return the layers whose weights are projected, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }


@contextmanager
def collected(layers: dict[str, Layer]) -> Iterator[dict[str, Tensor]]:
    """Yield name -> A A^T (D, D) of each layer's inputs, summed over the forward passes made within."""
    grams: dict[str, Tensor] = {}

    def watch(name: str, layer: Layer, inputs: tuple[Tensor, ...]) -> None:
        rows = patches(layer, inputs[0].detach())
        # Rounding in float32 would hide directions with a millionth of the variance.
        rows = (rows if has_float64(rows.device) else rows.cpu()).double()
        grams[name] = grams.get(name, 0) + rows.T @ rows

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(watch, name)))
        yield grams


def patches(layer: Layer, x: Tensor) -> Tensor:
    """Return what ``layer`` multiplies with its weight: (n, D)."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    if isinstance(layer.padding, str):
        spans = [
            d * (k - 1) * (layer.padding == "same")
            for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        around = [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
    else:
        around = [side for width in reversed(layer.padding) for side in (width, width)]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, around, mode=mode)
    columns = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)
