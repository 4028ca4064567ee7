"""Distance between the weights of two models, layer by layer."""

from __future__ import annotations

import math

from torch import nn

from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, Value


def weight_distances(first: nn.Module, second: nn.Module) -> dict[str, float]:
    """Name of each module that owns parameters -> ||theta_a - theta_b||_2 over its own parameters.

    Buffers, such as running statistics, are left out.

    Symbols: theta_a -> ``first``, theta_b -> ``second``.

    Raises:
        InvalidInput: the models differ in a parameter's name or shape, have none, or hold NaN or inf.
    """
    mine, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    odd = [
        name
        for name in sorted(mine.keys() | theirs.keys())
        if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape
    ]
    if odd or not mine:
        raise InvalidInput(
            "two models of one architecture, with parameters, are expected; they differ in "
            f"{', '.join(odd[:3]) or 'nothing, but have no parameters'}"
        )
    squares: dict[str, float] = {}
    for name, parameter in mine.items():
        difference = parameter.detach().cpu().double() - theirs[name].detach().cpu().double()
        layer = name.rpartition(".")[0] or name
        squares[layer] = squares.get(layer, 0.0) + float(difference.square().sum())
    broken = [layer for layer, square in squares.items() if not math.isfinite(square)]
    if broken:
        raise InvalidInput(f"the weights of layer {broken[0]!r} hold NaN or inf; the model has diverged")
    return {layer: math.sqrt(square) for layer, square in squares.items()}


class WeightDistance(Metric):
    """L2 distance between the weights of the unlearned and the retrained model.

    The value is taken over all parameters; "weight_distance_" + layer is that of one layer. Retrainings that
    differ in nothing but the seed are far apart: read it beside the distance between two of them.
    """

    name = "weight_distance"
    unit = "L2"
    better = "lower"
    compares = Compares.RETRAINED
    source = "the layer-wise distance of Tarun et al. (UNSIR), TNNLS 2023"

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The distance over all parameters, then one value a layer."""
        layers = weight_distances(evaluated.model, evaluated.retrained.model)
        total = math.hypot(*layers.values())
        return {
            self.name: Value(total),
            **{f"{self.name}_{layer}": Value(distance) for layer, distance in layers.items()},
        }
