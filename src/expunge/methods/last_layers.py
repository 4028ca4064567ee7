"""Training the last layers alone without the forget set: as they are (CF-k), or from scratch (EU-k)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods.base import Reference, Request, positive, searched
from expunge.methods.finetune import FineTune
from expunge.seeding import global_generator
from expunge.training.loop import Loss, cross_entropy
from expunge.training.numerics import Devices

_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)

Layer = list[tuple[str, nn.Module]]
"""A layer: the module that owns its weights with its name, then the normalisations that follow it."""


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the layers of ``model`` in the order of registration.

    A layer is a module that owns parameters itself, not only through its children. A normalisation belongs to the
    layer before it; one that comes first of all belongs to the layer after it.
    """
    found: list[Layer] = []
    early: Layer = []
    for name, module in model.named_modules():
        if isinstance(module, _NORMS):
            (found[-1] if found else early).append((name, module))
        elif any(True for _ in module.parameters(recurse=False)):
            found.append([*early, (name, module)])
            early = []
    return found


@dataclass(frozen=True, kw_only=True)
class CFk(FineTune):
    """Train the last k layers on with the retain set only, and leave the others as they are.

    min over theta_{L-k+1 .. L} of  mean over D_r of CE(f_theta(x), y), from the weights as they are.

    A layer is a module that owns parameters of its own; layers are counted from the end in the order in which the
    network registers them, and a normalisation goes with the layer before it. The parameters and the running
    statistics of the other layers stay bit for bit.

    Args:
        k: number of layers that are trained.

    Raises:
        InvalidInput: a setting outside its range, or more layers than the network has.

    Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, arXiv 2201.06640, section 4.

    Departures: the paper varies k over the depth of the network; the default and the other settings are ours,
    those of the REM benchmark. How it counts layers is reconstructed. A network that registers its layers
    in another order than it runs them, as our ViT does, is cut by the former.
    """

    name = "cf_k"
    touches = "the last k layers"
    reference = Reference(
        "Towards Adversarial Evaluations for Inexact Machine Unlearning",
        "Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru",
        2022,
        "arXiv 2201.06640",
    )

    k: int = searched(2, 1, 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(k=self.k)

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a ``k`` beyond the number of layers."""
        layers = layers_of(model)
        if self.k > len(layers):
            raise InvalidInput(
                f"k = {self.k} layers are to be trained, but {type(model).__name__} has {len(layers)}; "
                f"choose k from 1 to {len(layers)}"
            )

    def check_devices(self, devices: Devices) -> None:
        """Refuse "fsdp", which trains a copy: the first layers could not be kept still."""
        if devices.sharded:
            raise InvalidInput(
                f"method {self.name!r} holds layers still, which strategy 'fsdp' does not know; use 'ddp'"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train the last layers in place and return ``model``."""
        layers = layers_of(model)
        self.prepare(layers[-self.k :], request)
        others = {module for layer in layers[: -self.k] for _, module in layer}
        last = {p for layer in layers[-self.k :] for _, m in layer for p in m.parameters(recurse=False)}
        for parameter in model.parameters():
            # A weight that is shared with an early layer moves with the last one.
            parameter.requires_grad_(parameter.requires_grad and parameter in last)

        def loss(model: nn.Module, batch: Batch) -> Loss:
            # Training mode is set by the loop on every module; here the early ones leave it again.
            for module in others:
                module.training = False
            return cross_entropy(model, batch)

        self.fit(model, request.retain, loss, request, epochs=self.epochs, schedule=self.schedule)
        return model

    def prepare(self, layers: Sequence[Layer], request: Request) -> None:
        """Do to the last layers what comes before training: nothing."""


@dataclass(frozen=True, kw_only=True)
class EUk(CFk):
    """Re-initialise the last k layers and train them with the retain set only; leave the others as they are.

    min over theta_{L-k+1 .. L} of  mean over D_r of CE(f_theta(x), y), from a random initialisation.

    Layers are counted as in :class:`CFk`. A parameter of the last layers is trained even where the caller froze it,
    because it was drawn anew.

    Args:
        k: number of layers that are drawn anew and trained.

    Raises:
        InvalidInput: a setting outside its range, more layers than the network has, or a layer that cannot reset
            its parameters.

    Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, arXiv 2201.06640, section 4.

    Departures: those of :class:`CFk`; the learning rate is that of a first training, as random weights need it.
    """

    name = "eu_k"
    touches = "the last k layers, from scratch"

    lr: float = searched(0.025, 0.0025, 0.1, log=True)

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a ``k`` beyond the number of layers, and layers that cannot be reset."""
        super().check(model, request)
        for layer in layers_of(model)[-self.k :]:
            for name, module in layer:
                if not _can_reset(module):
                    raise InvalidInput(
                        f"{type(module).__name__} {name or '(the model itself)'!r} is among the last {self.k} layers "
                        "and has no reset_parameters() of its own; give it one, lower k, or use 'cf_k'"
                    )

    def prepare(self, layers: Sequence[Layer], request: Request) -> None:
        """Draw the layers anew, and thaw them."""
        with global_generator(request.generator("initialisation")):
            for layer in layers:
                for _, module in layer:
                    if any(True for _ in module.state_dict()):
                        module.reset_parameters()  # type: ignore[operator]
                    for parameter in module.parameters(recurse=False):
                        parameter.requires_grad_(True)


def _can_reset(module: nn.Module) -> bool:
    """Whether a layer's own parameters can be drawn anew without touching those of others."""
    if not any(True for _ in module.state_dict()):
        return True
    # That of a module with children would reset these too, and they may be layers that are to stay.
    return callable(getattr(module, "reset_parameters", None)) and not any(True for _ in module.children())
