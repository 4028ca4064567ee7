"""Training a model that unlearned ones are held against."""

from __future__ import annotations

from torch import nn

from expunge.data.examples import Examples
from expunge.errors import Diverged
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

RETRAINED, SECOND, ORACLE = "retrained", "second_retrained", "oracle"
"""Roles: trained on the retain set, the same with another seed, and on everything with the true labels."""


def train_reference(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    numerics: Numerics,
    role: str,
    progress: Progress = silent,
) -> float:
    """Train ``model`` in place, no batch of a single example among the steps; return the seconds that took.

    Args:
        model: drawn anew.
        examples: what its role lets it see.
        recipe: how the original was trained.
        seed: of the order.
        numerics: where to compute.
        role: named in the error.
        progress: called with the share of the work that is done.

    Raises:
        Diverged: the training led to NaN; the message names the role.
    """
    try:
        with Meter(numerics.device) as meter:
            recipe.train(model, examples, seed, numerics, meter, progress)
    except Diverged as error:
        raise Diverged(f"the {role.replace('_', ' ')} model: {error}") from error
    return meter.seconds
