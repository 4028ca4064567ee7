"""The plain convolutional network."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from expunge.models.split import Route, SplitLinear, SplitNetwork, SplitUnit


class ConvNet(SplitNetwork):
    """Three convolutions, no residual: 96,586 parameters on grey images at width 64 and half capacity.

    Each layer is a 3x3 convolution, batch normalisation and a ReLU; their channels are 1, 2 and 4 times the
    first's. Max-pool 2 after the second, global mean, linear. Every layer is split, so nothing is shared by
    the paths of the base and of the spare units (routing sites 0 to 2).

    Args:
        channels: image channels.
        size: image height and width in pixels, at least 4.
        n_classes: number of classes.
        width: channels of the first layer at full capacity.
        capacity: share of the width the base path has, in (0, 1].
        spare: spare channels for each base channel; with capacity 0.5, 1.0 restores the full width.

    Raises:
        InvalidInput: a size below 4, or settings that leave no channel.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 8,
        n_classes: int = 10,
        width: int = 64,
        capacity: float = 0.5,
        spare: float = 0.0,
    ) -> None:
        super().__init__()
        self.keep_settings(locals())
        self.require_size(4)
        widths = [(channels, 0), *(self.parts(factor * width) for factor in (1, 2, 4))]
        self.base = tuple(base for base, _ in widths[1:])
        self.layers = nn.ModuleList(
            SplitUnit(inputs, outputs, F.relu) for inputs, outputs in itertools.pairwise(widths)
        )
        self.head = SplitLinear(widths[-1], (n_classes, 0))

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes) for images (B, C, H, W)."""
        wide = self.require_spare(route)
        for site, layer in enumerate(self.layers):
            x = layer(x, wide)
            if route is not None:
                x = route(x, self.base[site], site)
            if site == 1:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.head(x.mean(dim=(2, 3)), wide)
        return logits
