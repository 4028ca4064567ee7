"""The bounded ascent of negative preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def npo(excess: Tensor, beta: float) -> Tensor:
    """Return -(2 / beta) log sigmoid(beta z), element by element.

    Minimising it raises the cross-entropy above the reference's and fades out once it has: the
    derivative is -2 sigmoid(-beta z). Its negative pulls the cross-entropy down with the same weight.

    Symbols: z = ce - ce_ref -> ``excess``, beta -> ``beta``.

    Args:
        excess: cross-entropy of the model minus that of the reference, in nats.
        beta: inverse temperature, above 0.

    Source: Zhang et al., "Negative Preference Optimization", 2024; in this form Schoepf et al., 2025.
    """
    return -(2 / beta) * F.logsigmoid(beta * excess)
