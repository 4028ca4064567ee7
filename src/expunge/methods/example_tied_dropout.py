"""Example-tied dropout: drop the units in which single examples were memorised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request
from expunge.models.split import SplitNetwork


@dataclass(frozen=True, kw_only=True)
class ExampleTiedDropout(Method):
    """Close for good all units that single examples had to themselves in training.

    w <- 0 for every weight that leads into or out of a spare unit, and every bias and normalisation of one.

    The network must have been trained with example-tied dropout: an example saw the base units and a part
    of the spare ones that was its own. All spare units go, whatever the forget set is: what was memorised
    in them is lost for everybody, what the base units learned stays for everybody. It takes no settings.

    What is guaranteed: the base path, ``model(x)``, returns what it returned before, bit for bit; shapes stay;
    and with any spare units opened, ``model(x, route)`` in evaluation mode equals the base path up to
    rounding, since a closed unit passes on zero whatever comes in.

    Raises:
        InvalidInput: a model without spare units.

    Source: the paper; with this split and as a baseline, Schoepf et al., arXiv 2505.17730.

    Departures: the units are emptied, not only left out, so that nothing memorised stays in the weights;
    frozen ones too. As published, the base path goes on normalising by the statistics that training with
    open spare units left: estimating them anew takes retained examples, and this needs none
    (``expunge.training.batchnorm.recalibrate`` does it where there are some).
    """

    name = "example_tied_dropout"
    # A request always has a forget set; it is not looked at.
    needs = Needs.FORGET
    touches = "spare units"
    preparation = "example_tied"
    reference = Reference(
        "Can Neural Network Memorization Be Localized?",
        "Maini, Mozer, Sedghi, Lipton, Kolter, Zhang",
        2023,
        "ICML 2023; arXiv 2307.09542",
    )

    def check(self, model: nn.Module, request: Request) -> None:
        """Raise :class:`InvalidInput` where the model has no spare units."""
        if not isinstance(model, SplitNetwork) or not model.spare:
            raise InvalidInput(
                f"method {self.name!r} drops the spare units of a network that was trained with example-tied "
                f"dropout, and this {type(model).__name__} has none; train it by "
                "Recipe(example_tied=ExampleTied())"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Empty the spare units in place and return ``model``."""
        assert isinstance(model, SplitNetwork)
        emptied = empty_spare(model)
        request.meter.write(emptied=emptied)
        # No gradient is computed, and the meter counts none.
        request.progress(1.0)
        return model


@torch.no_grad()
def empty_spare(model: SplitNetwork) -> int:
    """Set everything that belongs to spare units to zero, in place, and their running variances to one.

    Returns the number of parameters outside the base part.
    """
    # Base units come first along every dimension: what a narrow copy has is the leading corner.
    narrow = model.narrow().state_dict()
    # A variance of zero would divide by almost nothing whatever is put there later.
    variances = {
        f"{name}.running_var" for name, module in model.named_modules() if isinstance(module, _BatchNorm)
    }
    parameters = {name for name, _ in model.named_parameters()}
    emptied = 0
    for name, tensor in model.state_dict().items():
        outside = torch.ones_like(tensor, dtype=torch.bool)
        outside[tuple(slice(size) for size in narrow[name].shape)] = False
        tensor.masked_fill_(outside, 1.0 if name in variances else 0.0)
        if name in parameters:
            emptied += int(outside.sum())
    return emptied
