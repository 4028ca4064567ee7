"""The nine-layer residual network of the corrective-unlearning benchmarks."""

from __future__ import annotations

import functools

from torch import Tensor, nn
from torch.nn import functional as F

from expunge.models.split import Route, SplitLinear, SplitNetwork, SplitUnit

_celu = functools.partial(F.celu, alpha=0.075)


class ResNet9(SplitNetwork):
    """Nine-layer residual network; 2,276,224 parameters at width 64, 940,032 at half capacity.

    Stages conv1 (3x3), conv2 (5x5, stride 2), a residual pair, conv3 (3x3, max-pool 2), a residual pair,
    conv4 (3x3, no padding), global max-pool, linear without bias. A unit is convolution with bias, batch
    normalisation, CELU(0.075). Spare channels exist after conv1, conv2, both residual sums, conv3 and conv4
    (routing sites 0 to 5); the layers inside the residual branches keep their full width in every path,
    as in the published network, unless ``split_hidden``.

    Args:
        channels: image channels.
        size: image height and width in pixels, at least 8.
        n_classes: number of classes.
        width: channels of the first stage at full capacity; the others have 2, 4 and 2 times as many.
        capacity: share of the width the base path has, in (0, 1]. The paper's split is 0.5.
        spare: spare channels for each base channel; with capacity 0.5, 1.0 restores the full width.
        split_hidden: also split the layers inside the residual branches (sites 6 and 7).

    Raises:
        InvalidInput: a size below 8, or settings that leave no channel.

    Source: Schoepf et al., "Redirection for Erasing Memory", arXiv 2505.17730; the network is that of
    Goel et al., "Corrective Machine Unlearning", 2024.

    Departures: below 12 pixels conv4 is padded by one pixel, because nothing would be left to convolve.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        n_classes: int = 10,
        width: int = 64,
        capacity: float = 0.5,
        spare: float = 0.0,
        split_hidden: bool = False,
    ) -> None:
        super().__init__()
        self.keep_settings(locals())
        self.require_size(8)
        one, two, three = self.parts(width), self.parts(2 * width), self.parts(4 * width)
        hidden_two = two if split_hidden else (2 * width, 0)
        hidden_three = three if split_hidden else (4 * width, 0)
        after_pool = ((size - 1) // 2 + 1) // 2
        self.conv1 = SplitUnit((channels, 0), one, _celu)
        self.conv2 = SplitUnit(one, two, _celu, 5, 2, 2)
        self.res1 = nn.ModuleList([SplitUnit(two, hidden_two, _celu), SplitUnit(hidden_two, two, _celu)])
        self.conv3 = SplitUnit(two, three, _celu)
        self.res2 = nn.ModuleList(
            [SplitUnit(three, hidden_three, _celu), SplitUnit(hidden_three, three, _celu)]
        )
        self.conv4 = SplitUnit(three, two, _celu, padding=0 if after_pool >= 3 else 1)
        self.fc = SplitLinear(two, (n_classes, 0), bias=False)
        self.base = (one[0], two[0], three[0], two[0])
        self._hidden_base = (hidden_two[0], hidden_three[0])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform weights, zero biases, neutral normalisation."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes) for images (B, C, H, W)."""
        wide = self.require_spare(route)

        def open_units(x: Tensor, stage: int, site: int) -> Tensor:
            return x if route is None else route(x, self.base[stage], site)

        x = open_units(self.conv1(x, wide), 0, 0)
        x = open_units(self.conv2(x, wide), 1, 1)
        x = open_units(x + self._branch(self.res1, x, route, 0), 1, 2)
        x = open_units(F.max_pool2d(self.conv3(x, wide), 2), 2, 3)
        x = open_units(x + self._branch(self.res2, x, route, 1), 2, 4)
        x = open_units(self.conv4(x, wide), 3, 5)
        x = x.amax(dim=(2, 3))
        logits: Tensor = self.fc(x, wide)
        return logits

    def _branch(self, pair: nn.ModuleList, x: Tensor, route: Route | None, number: int) -> Tensor:
        wide = route is not None
        x = pair[0](x, wide)
        if route is not None and self.settings["split_hidden"]:
            x = route(x, self._hidden_base[number], 6 + number)
        branch: Tensor = pair[1](x, wide)
        return branch
