"""Intervals for what is computed from a whole population of models."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.stats import t
from torch import Tensor

from expunge.errors import InvalidInput


def jackknife(
    statistic: Callable[[Tensor], float], n_models: int, groups: int = 8
) -> tuple[float, float] | None:
    """95 % t-interval of ``statistic`` over models: each of ``groups`` groups is left out in turn.

    With theta the value on all models and theta_(g) that without group g,

        theta -+ t_{G-1, 0.975} sqrt((G - 1) / G sum_g (theta_(g) - mean theta_(.))^2).

    It is the uncertainty of a finite number of models; the examples are held fixed, they are the forget
    set in question. For a statistic with jumps, such as a quantile over few examples, it is rough.

    Symbols: G -> ``groups``.

    Args:
        statistic: of the positions int64 of the models that are kept.
        n_models: in the population.
        groups: at most as many as models, at least two; model i is in group i mod G.

    Returns:
        Its two ends, ``None`` where too few models are left for the statistic.

    Raises:
        InvalidInput: a number of groups out of range.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 11.5.
    """
    if not 2 <= groups <= n_models:
        raise InvalidInput(f"a jackknife takes 2 groups to one a model, got {groups} for {n_models} models")
    every = torch.arange(n_models)
    try:
        value = statistic(every)
        left = [statistic(every[every % groups != group]) for group in range(groups)]
    except InvalidInput:
        return None
    mean = sum(left) / groups
    error = math.sqrt((groups - 1) / groups * sum((entry - mean) ** 2 for entry in left))
    half = float(t.ppf(0.975, groups - 1)) * error
    return value - half, value + half
