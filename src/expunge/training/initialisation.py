"""Drawing a network's parameters anew, wholly or in part."""

from __future__ import annotations

import copy

import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.seeding import global_generator


def reinitialise(model: nn.Module, source: torch.Generator, *, keep_frozen: bool = False) -> None:
    """Reset every parameter and running statistic of ``model`` in place, drawing from ``source``.

    A network with ``reset_parameters`` of its own is reset by it, else every module that has one is. With
    ``keep_frozen`` parameters that are frozen stay as they are, with the running statistics of their layers: the first
    training found them so.

    Raises:
        InvalidInput: a module owns parameters and cannot reset them; the message names it.
    """
    frozen = [module for module in model.modules() if keep_frozen and _is_frozen(module)]
    held = [parameter for parameter in model.parameters() if keep_frozen and not parameter.requires_grad]
    held += [buffer for module in frozen for buffer in module.buffers(recurse=False)]
    kept = [(tensor, tensor.clone()) for tensor in held]
    left = _reset(model, source)
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)
    for name, module in left:
        if module in frozen:
            continue
        raise InvalidInput(
            f"{type(module).__name__} {name or '(the model itself)'!r} owns parameters but has no "
            "reset_parameters(); give it one, or retrain a fresh model yourself"
        )


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def _reset(model: nn.Module, source: torch.Generator) -> list[tuple[str, nn.Module]]:
    """Reset in place what can be; return the modules that own parameters and cannot, by name."""
    own = getattr(model, "reset_parameters", None)
    left = []
    with global_generator(source):
        if callable(own):
            own()
            return []
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                left.append((name, module))
    return left


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, keep: float, source: torch.Generator) -> None:
    """Replace every parameter theta by ``keep`` theta + (1 - ``keep``) theta_0, in place.

    theta_0 is a fresh initialisation drawn from ``source``. What single examples were memorised by fades
    first; ``keep`` = 1 changes nothing. Frozen parameters, those of modules that cannot reset themselves and
    embeddings (whose initial spread of 1 would drown what was learned) stay as they are, and so do running
    statistics: estimate those anew afterwards.

    Raises:
        InvalidInput: ``keep`` outside [0, 1].

    Source: Ash, Adams, On warm-starting neural network training, NeurIPS 2020.
    """
    if not 0 <= keep <= 1:
        raise InvalidInput(f"keep is a share of the parameters in [0, 1], got {keep}")
    if keep == 1:
        return
    # On an accelerator the initialisers would draw from its global generator instead of ``source``.
    fresh = copy.deepcopy(model).cpu()
    _reset(fresh, source)
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters()
    }
    for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
        if ours.requires_grad and id(ours) not in tables:
            ours.lerp_(theirs.to(ours.device), 1 - keep)
