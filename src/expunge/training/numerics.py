"""Devices, precision and memory format of the arithmetic, chosen for the machine."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput


@dataclass(frozen=True)
class Devices:
    """The devices of one machine that share the steps of one training.

    Every device has a process with all the data and takes its part of every batch. The result is that of one
    device up to rounding, batch normalisation included; only dropout of the network's own draws otherwise.

    Args:
        count: number of devices, a process each; on the CPU, of processes.
        strategy: "ddp": every device holds the network, its gradients and the optimiser's state. "fsdp": the
            latter two are divided among the devices, and the network too while a step does not need it; a whole
            network stays on each. "auto": "ddp".

    Raises:
        InvalidInput: a count below 1, or no such strategy.
    """

    count: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"the number of devices must be at least 1, got {self.count}")
        if self.strategy not in ("auto", "ddp", "fsdp"):
            raise InvalidInput(f"strategy must be 'auto', 'ddp' or 'fsdp', got {self.strategy!r}")

    @property
    def several(self) -> bool:
        """Whether there is anything to share."""
        return self.count > 1

    @property
    def sharded(self) -> bool:
        """Whether gradients and the optimiser's state are divided."""
        return self.several and self.strategy == "fsdp"


@dataclass(frozen=True)
class Numerics:
    """Where and how a network computes; parameters and optimiser stay float32.

    Args:
        device: torch device name.
        dtype: "float32", or "bfloat16" for convolutions and matrix products (autocast).
        channels_last: lay images out as (N, H, W, C), which convolutions prefer.
        devices: how many of them share a first training or the training of a method.

    Raises:
        InvalidInput: a dtype other than these, a device torch does not know, several devices that are neither
            "cpu" nor "cuda".
    """

    device: str = "cpu"
    dtype: str = "float32"
    channels_last: bool = True
    devices: Devices = field(default_factory=Devices)

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise InvalidInput(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise InvalidInput(f"device {self.device!r} is not one torch knows: {error}") from error
        if self.devices.several and self.device not in ("cpu", "cuda"):
            raise InvalidInput(
                f"several devices are named by their kind, 'cuda' or 'cpu', got {self.device!r}; each process takes "
                "one of them"
            )

    @classmethod
    def choose(cls, device: str | None = None, image_size: int = 32, dtype: str | None = None) -> Numerics:
        """Return the fastest setting that is safe on this machine.

        An accelerator where there is one and none is named; channels last for images above 8 pixels. Unless ``dtype``
        says otherwise, float32 for images below 16 pixels, and bfloat16 for others where the hardware multiplies it
        (elsewhere it is emulated, and 20 times slower).

        Raises:
            InvalidInput: ``device`` is not available here; a ``dtype`` other than "float32" and "bfloat16".
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = device.partition(":")[0]
        if kind == "cuda" and not torch.cuda.is_available():
            raise InvalidInput("device 'cuda' was asked for, but torch sees no CUDA device; use device='cpu'")
        if kind == "mps" and not torch.backends.mps.is_available():
            raise InvalidInput("device 'mps' was asked for, but torch finds none here; use device='cpu'")
        if dtype is None:
            # Below about 16 pixels a convolution is too small to gain what the conversion costs.
            dtype = "bfloat16" if image_size >= 16 and _multiplies_bfloat16(kind) else "float32"
        return cls(device, dtype, channels_last=image_size > 8)

    @classmethod
    def for_inputs(cls, device: str | None, shape: tuple[int, ...], dtype: str | None = None) -> Numerics:
        """Return :meth:`choose` for images of ``shape`` (C, H, W).

        Tokens and table rows count as small images: bfloat16 has 8 bits, and would round every whole number above 256.
        """
        return cls.choose(device, shape[-1] if len(shape) == 3 else 1, dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Move ``model`` to the device and memory format, in place, and return it."""
        if self.channels_last:
            # Only images have this format: torch would refuse the weights of a Conv3d.
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.ndim == 4:
                    tensor.data = tensor.data.to(memory_format=torch.channels_last)
        return model.to(self.device)

    def place_inputs(self, x: Tensor) -> Tensor:
        """Return inputs in the memory format the network was placed in."""
        if self.channels_last and x.ndim == 4:
            return x.to(self.device, memory_format=torch.channels_last)
        return x.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context in which a forward pass runs."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)


def has_float64(device: torch.device | str) -> bool:
    """Whether float64 can be computed on ``device``: not on MPS, and not on every other accelerator."""
    return torch.device(device).type in ("cpu", "cuda")


def _multiplies_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    # Public names for these two do not exist; a torch without them counts as a processor without them.
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
