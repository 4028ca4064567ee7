"""Drawing a network's parameters anew, wholly or in part."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.seeding import global_generator

_STAYING = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm)


def reinitialise(model: nn.Module, source: torch.Generator, *, keep_frozen: bool = False) -> None:
    """Reset every parameter and running statistic of ``model`` in place, drawing from ``source``.

    A network with ``reset_parameters`` of its own is reset by it, else every module that has one is. With
    ``keep_frozen`` parameters that are frozen stay as they are, with the running statistics of their layers: the first
    training found them so.

    Raises:
        InvalidInput: a module owns parameters and cannot reset them; the message names it.
    """
    # On an accelerator the initialisers would draw from its global generator instead of ``source``.
    fresh = copy.deepcopy(model).cpu()
    frozen = [module for module in fresh.modules() if keep_frozen and _is_frozen(module)]
    held: list[torch.Tensor] = [
        parameter for parameter in fresh.parameters() if keep_frozen and not parameter.requires_grad
    ]
    held += [buffer for module in frozen for buffer in module.buffers(recurse=False)]
    kept = [(tensor, tensor.clone()) for tensor in held]
    left = _reset(fresh, source)
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
    model.load_state_dict(fresh.state_dict())


def fresh_copy(model: nn.Module, source: torch.Generator) -> nn.Module:
    """Return a copy of ``model`` that :func:`reinitialise` has drawn anew from ``source``."""
    made = copy.deepcopy(model)
    reinitialise(made, source)
    return made


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
def shrink_and_perturb(
    model: nn.Module, keep: float, source: torch.Generator, start: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Replace parameters theta by ``keep`` theta + (1 - ``keep``) theta_0, in place.

    theta_0 is what ``start`` has under the parameter's name, else a fresh initialisation drawn from ``source``. What
    single examples were memorised by fades first; ``keep`` = 1 changes nothing. Running statistics stay as they are:
    estimate those anew afterwards. So do frozen parameters and, where ``start`` does not have them, those of
    modules that cannot reset themselves, of embeddings (whose initial spread of 1 would drown what was learned) and
    of layer and group norms.

    Args:
        model: any network.
        keep: share of theta that is kept, in [0, 1].
        source: of the fresh initialisation.
        start: the weights that the first training began from, or an earlier checkpoint.

    Raises:
        InvalidInput: ``keep`` outside [0, 1]; a tensor of ``start`` with another shape than the parameter it is named
            after, the head apart; not one name of ``start`` that is a parameter's.

    Source: Ash, Adams, On warm-starting neural network training, NeurIPS 2020.
    """
    if not 0 <= keep <= 1:
        raise InvalidInput(f"keep is a share of the parameters in [0, 1], got {keep}")
    back = matching(model, start or {})
    if keep == 1:
        return
    # On an accelerator the initialisers would draw from its global generator instead of ``source``.
    fresh = copy.deepcopy(model).cpu()
    _reset(fresh, source)
    staying = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _STAYING)
        for parameter in module.parameters()
    }
    for (name, ours), theirs in zip(model.named_parameters(), fresh.parameters(), strict=True):
        if ours.requires_grad and name in back:
            ours.lerp_(back[name].to(ours.device, ours.dtype), 1 - keep)
        elif ours.requires_grad and id(ours) not in staying:
            ours.lerp_(theirs.to(ours.device), 1 - keep)


def matching(model: nn.Module, start: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of ``start`` that are parameters of the model; a head for other classes is none.

    Raises:
        InvalidInput: another shape than the parameter of that name has, the head apart; not one matching name.
    """
    parameters = dict(model.named_parameters())
    last = {id(parameter) for parameter in list(model.parameters())[-2:]}
    found = {}
    for name, tensor in start.items():
        if name not in parameters:
            continue
        if tensor.shape == parameters[name].shape:
            found[name] = tensor
        elif id(parameters[name]) not in last:
            raise InvalidInput(
                f"the weights to go back to have {name!r} of shape {tuple(tensor.shape)} and the model has "
                f"{tuple(parameters[name].shape)}; give the checkpoint that this network was trained from"
            )
    if start and not found:
        raise InvalidInput(
            f"none of the {len(start)} names in the weights to go back to is a parameter of the model (such as "
            f"{next(iter(start))!r}; the model has {next(iter(parameters))!r}); give a checkpoint of the same network"
        )
    return found
