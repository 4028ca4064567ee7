"""The model as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Method, Needs, Request


@dataclass(frozen=True, kw_only=True)
class NoUnlearning(Method):
    """Leave the model as it is: the starting point every other row is read against."""

    name = "none"
    needs = Needs.NOTHING
    touches = "nothing"

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Return ``model``."""
        return model
