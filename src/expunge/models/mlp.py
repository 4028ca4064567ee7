"""The multilayer perceptron with one hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.errors import InvalidInput

_ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Pixels in a row, one hidden layer, logits; 795,010 parameters on 28x28 grey images and ten classes.

    Args:
        channels: image channels.
        size: image height and width in pixels.
        n_classes: number of classes.
        hidden: units of the hidden layer.
        activation: of the hidden layer: "sigmoid", "relu" or "tanh".

    Raises:
        InvalidInput: an unknown activation, or a number below one.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        n_classes: int = 10,
        hidden: int = 1000,
        activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise InvalidInput(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if min(channels, size, n_classes, hidden) < 1:
            raise InvalidInput(
                "MLP needs at least one channel, pixel, class and hidden unit, got "
                f"channels {channels}, size {size}, n_classes {n_classes}, hidden {hidden}"
            )
        self.hidden = nn.Linear(channels * size * size, hidden)
        self.activation = _ACTIVATIONS[activation]()
        self.head = nn.Linear(hidden, n_classes)

    def reset_parameters(self) -> None:
        """Torch's initialisation of linear layers: uniform in +-1 / sqrt(inputs)."""
        self.hidden.reset_parameters()
        self.head.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) for images (B, C, H, W)."""
        logits: Tensor = self.head(self.activation(self.hidden(x.flatten(1))))
        return logits
