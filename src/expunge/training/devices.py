"""On how many devices one network is trained."""

from __future__ import annotations

from dataclasses import dataclass

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
