"""Dedicated neurons for any network: parallel branches beside its layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput, near_miss
from expunge.models.split import Route, SplitNetwork
from expunge.seeding import global_generator

_Layer = nn.Conv2d | nn.Linear


class _Branch(nn.Module):
    """A layer of the same kind and geometry, normalisation, ReLU; the mask; a map back, 1x1 or linear."""

    def __init__(self, layer: _Layer, spare: float) -> None:
        super().__init__()
        self.down: nn.Module
        self.norm: nn.Module
        self.up: nn.Module
        if isinstance(layer, nn.Conv2d):
            self.units, self.dim = max(1, round(layer.out_channels * spare)), 1
            same: dict[str, Any] = {
                name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")
            }
            self.down = nn.Conv2d(layer.in_channels, self.units, **same, bias=False)
            self.norm = nn.BatchNorm2d(self.units)
            self.up = nn.Conv2d(self.units, layer.out_channels, 1, bias=False)
        else:
            inputs, outputs = layer.in_features, layer.out_features
            # At inputs * outputs / (inputs + outputs) units a branch has as many weights as its layer.
            self.units, self.dim = max(1, round(inputs * outputs / (inputs + outputs) * spare)), -1
            self.down = nn.Linear(inputs, self.units, bias=False)
            self.norm = nn.LayerNorm(self.units)
            self.up = nn.Linear(self.units, outputs, bias=False)

    def forward(self, x: Tensor, route: Route, site: int) -> Tensor:
        up: Tensor = self.up(route(self.norm(self.down(x)).relu(), 0, site, self.dim % x.ndim))
        return up


class Branched(nn.Module):
    """A network with a masked branch added to the output of its layers.

    ``forward(x)`` is the network itself, untouched. ``forward(x, route)`` adds each branch. Branches are
    put beside every ungrouped Conv2d and every Linear but the last one (the classifier head); frozen layers, which
    could not learn what a branch takes from them, and the linear layers inside ``nn.MultiheadAttention``, which are
    never called, are left out.

    Along dimension 0 a layer must be given examples, or a whole number of rows for each, one example after the
    other; :func:`check_branches` looks whether it is.

    Args:
        model: any module that maps a batch, examples along dimension 0, to logits; held, not copied.
        spare: size of a branch for that of its layer: units beside a convolution, parameters beside a linear layer,
            whose branch has no smaller kernel and would else be twice as large.
        source: generator of the initial values.
        layers: names or patterns of those layers that get a branch; all of them if empty.

    Raises:
        InvalidInput: the network has no layer a branch can stand beside, or none of the names given.
    """

    def __init__(
        self, model: nn.Module, spare: float, source: torch.Generator, layers: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.model = model
        places = _places(model)
        if layers and places:
            known = [name for name, _ in places]
            for pattern in layers:
                if not any(fnmatchcase(name, pattern) for name in known):
                    raise InvalidInput(
                        f"no layer of {type(model).__name__} that can have a branch is called {pattern!r}"
                        f"{near_miss(pattern, known)} (there are: {', '.join(known)})"
                    )
            places = [place for place in places if any(fnmatchcase(place[0], pattern) for pattern in layers)]
        self._names = [name for name, _ in places]
        if not self._names:
            raise InvalidInput(
                f"{type(model).__name__} has no Conv2d, and no Linear beside its head, that dedicated neurons "
                "could be attached to; choose a method that adds none, such as 'npo'"
            )
        with global_generator(source):
            branches = nn.ModuleList(_Branch(layer, spare) for _, layer in places)
        reference = next(model.parameters())
        self.branches = branches.to(reference.device, reference.dtype)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes), through the branches when there is a route."""
        # Hooks live for one call: the caller's network keeps none, and copies share none.
        with ExitStack() as hooks:
            if route is not None:
                for site, (name, branch) in enumerate(zip(self._names, self.branches, strict=True)):
                    add = partial(_add_branch, name=name, branch=branch, route=route, site=site)
                    layer = self.model.get_submodule(name)
                    hooks.enter_context(layer.register_forward_hook(add, with_kwargs=True))
            logits: Tensor = self.model(x)
        return logits

    def _inputs(self, x: Tensor) -> dict[str, Tensor]:
        """What each layer with a branch is given, by its name, when the network reads ``x``."""
        found: dict[str, Tensor] = {}

        def keep(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], *, name: str) -> None:
            found[name] = inputs[0] if inputs else named["input"]

        with ExitStack() as hooks:
            for name in self._names:
                layer = self.model.get_submodule(name)
                hooks.enter_context(
                    layer.register_forward_pre_hook(partial(keep, name=name), with_kwargs=True)
                )
            self.model(x)
        return found

    def narrow(self) -> nn.Module:
        """Return the network without its branches."""
        return self.model


@torch.no_grad()
def check_branches(model: nn.Module, x: Tensor, layers: Sequence[str] = ()) -> None:
    """Attach branches to a copy of ``model``, and run it on batches of 2 and 3.

    A network that puts time first would route examples by the masks of others, and no shape would tell where its
    length is a multiple of the batch.

    Args:
        model: in any mode; it stays untouched.
        x: some inputs (B, ...), at least one.
        layers: as for :class:`Branched`.

    Raises:
        InvalidInput: no layer a branch can stand beside, a layer that is not given examples along dimension 0, or a
            branch that does not fit its layer.
    """
    network = Branched(copy.deepcopy(model).eval(), 1e-6, torch.Generator(), layers).eval()
    x = x[torch.arange(3, device=x.device) % len(x)].to(next(model.parameters()).device)
    # The first example replaced: only its rows may change.
    other = torch.cat([1 - x[:1] if x.is_floating_point() else x[-1:], x[1:]])
    two, three, again, changed = (network._inputs(part) for part in (x[:2], x, x, other))
    for name, small in two.items():
        large = three[name]
        own = len(large) // 3
        apart = not torch.equal(large, again[name]) or torch.equal(large[own:], changed[name][own:])
        if 3 * len(small) != 2 * len(large) or not apart:
            raise InvalidInput(
                f"layer {name!r} of {type(model).__name__} is not given one example after the other along dimension 0 "
                "(does it put time first?), so that neurons beside it cannot be given to single examples; choose a "
                "method that adds none, such as 'npo'"
            )
    try:
        network(x[:2], lambda hidden, base, site, dim=1: hidden)
    # A user's own module can fail in any way.
    except Exception as error:
        raise InvalidInput(
            f"neurons cannot be attached to {type(model).__name__}: {error}; choose a method that adds none, such as "
            "'npo'"
        ) from error


def _places(model: nn.Module) -> list[tuple[str, _Layer]]:
    """Name and module of every layer a branch can stand beside."""
    uncalled = {
        id(inner)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    found: list[tuple[str, _Layer]] = [
        (name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and id(module) not in uncalled)
        or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    linear = [name for name, module in found if isinstance(module, nn.Linear)]
    return [
        (name, module)
        for name, module in found
        if (not linear or name != linear[-1]) and any(p.requires_grad for p in module.parameters())
    ]


def _add_branch(
    layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor, *, name: str,
    branch: nn.Module, route: Route, site: int,
) -> Tensor:  # fmt: skip
    try:
        added: Tensor = branch(inputs[0] if inputs else named["input"], route, site)
    except InvalidInput as error:
        raise InvalidInput(f"at layer {name!r}: {error}") from error
    return output + added


def add_capacity(model: nn.Module, spare: float, source: torch.Generator) -> SplitNetwork | Branched:
    """Give ``model`` dedicated neurons: spare units where it can be widened, else branches.

    The result has ``forward(x)``, the base path, ``forward(x, route)`` and ``narrow()``.
    """
    if isinstance(model, SplitNetwork):
        return model if model.spare else model.widen(spare, source)
    return Branched(model, spare, source)
