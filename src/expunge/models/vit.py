"""The vision transformer for small data sets, with features, hidden units and heads that can be split."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.errors import InvalidInput
from expunge.models.split import Route, SplitLinear, SplitNetwork

STREAM = 0
"""Routing site of the residual stream. Every block adds to the same features, so all share one site."""


class SplitLayerNorm(nn.LayerNorm):
    """Layer normalisation of the base features among themselves and the spare ones among themselves.

    The base half is the same function with and without spare features. The affine bias moves closed
    spare features off zero, so a route has to follow.
    """

    def __init__(self, base: int, spare: int) -> None:
        self.base = base
        super().__init__(base + spare)

    def forward(self, x: Tensor, wide: bool = False) -> Tensor:
        """Return normalised ``x`` (..., base), or (..., base + spare) if ``wide``."""
        base = self._part(x[..., : self.base], slice(None, self.base))
        if not wide or self.base == self.normalized_shape[0]:
            return base
        return torch.cat((base, self._part(x[..., self.base :], slice(self.base, None))), dim=-1)

    def _part(self, x: Tensor, units: slice) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight[units], self.bias[units], self.eps)


def _open_features(x: Tensor, base: int, route: Route | None) -> Tensor:
    return x if route is None else route(x, base, STREAM, 2)


class ShiftedPatches(nn.Module):
    """Shifted patch tokenisation: patches of the image and of four copies moved by one pixel.

    A patch has ``patch`` pixels a side, a token ``dim`` = (base, spare) features.
    """

    def __init__(self, channels: int, patch: int, dim: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        values = 5 * channels * patch * patch
        self.norm = nn.LayerNorm(values)
        self.linear = SplitLinear((values, 0), dim)

    def patches(self, x: Tensor) -> Tensor:
        """Return float (B, patches, 5 * C * patch**2): patches row by row, values by channel, row, column.

        The channels are those of the image, then of its copies moved right, left, down and up.
        """
        moves = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
        shifted = torch.cat([x, *(F.pad(x, move) for move in moves)], dim=1)
        return F.unfold(shifted, self.patch, stride=self.patch).transpose(1, 2)

    def forward(self, x: Tensor, wide: bool = False) -> Tensor:
        """Return tokens (B, patches, features) of images (B, C, H, W)."""
        tokens: Tensor = self.linear(self.norm(self.patches(x)), wide)
        return tokens


class LocalSelfAttention(nn.Module):
    """Self-attention with a learned temperature in which no token attends to itself.

    The units to route, at ``site``, are whole heads of ``dim_head`` features; ``dim`` (of a token) and ``heads`` are
    (base, spare), the base heads the leading rows of every weight. A sequence has ``tokens``, at least 2.
    """

    no_self: Tensor

    def __init__(
        self, dim: tuple[int, int], heads: tuple[int, int], dim_head: int, tokens: int, site: int
    ) -> None:
        super().__init__()
        self.base_dim, self.base_heads, self.dim_head, self.site = dim[0], heads[0], dim_head, site
        inner = (heads[0] * dim_head, heads[1] * dim_head)
        self.norm = SplitLayerNorm(*dim)
        self.q = SplitLinear(dim, inner, bias=False)
        self.k = SplitLinear(dim, inner, bias=False)
        self.v = SplitLinear(dim, inner, bias=False)
        self.out = SplitLinear(inner, dim)
        self.temperature = nn.Parameter(torch.empty(()))
        diagonal = torch.zeros(tokens, tokens).fill_diagonal_(-math.inf)
        self.register_buffer("no_self", diagonal, persistent=False)
        self.reset_temperature()

    def reset_temperature(self) -> None:
        """Set the log temperature so that scores are scaled by ``dim_head ** -0.5``."""
        nn.init.constant_(self.temperature, -0.5 * math.log(self.dim_head))

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return the update (B, T, features) of tokens ``x`` of that shape."""
        wide = route is not None
        x = _open_features(self.norm(x, wide), self.base_dim, route)
        q, k, v = (self._heads(layer(x, wide)) for layer in (self.q, self.k, self.v))
        # The fused kernel takes a number as scale, and a number has no gradient: q carries the temperature.
        q = q * self.temperature.exp()
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.no_self.to(q.dtype), scale=1.0)
        if route is not None:
            x = route(x, self.base_heads, self.site, 1)
        update: Tensor = self.out(x.transpose(1, 2).flatten(2), wide)
        return update

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.dim_head).transpose(1, 2)


class FeedForward(nn.Module):
    """LayerNorm, linear, GELU, linear; the units to route are the hidden ones, at ``site``."""

    def __init__(self, dim: tuple[int, int], hidden: tuple[int, int], site: int) -> None:
        super().__init__()
        self.base_dim, self.base_hidden, self.site = dim[0], hidden[0], site
        self.norm = SplitLayerNorm(*dim)
        self.up = SplitLinear(dim, hidden)
        self.down = SplitLinear(hidden, dim)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return the update (B, T, features) of tokens ``x`` of that shape."""
        wide = route is not None
        x = F.gelu(self.up(_open_features(self.norm(x, wide), self.base_dim, route), wide))
        if route is not None:
            x = route(x, self.base_hidden, self.site, 2)
        update: Tensor = self.down(x, wide)
        return update


class ViT(SplitNetwork):
    """Vision transformer for small data sets; 11,013,518 parameters at full capacity.

    Shifted patch tokenisation, class token, learned positions, then ``depth`` blocks of
    ``x + attention(x)`` and ``x + feed_forward(x)``, then LayerNorm and linear on the class token.
    Spare units are features, never tokens: embedding features (routing site 0, the same at every depth),
    heads (sites 1, 3, 5, ...) and hidden units of the blocks (sites 2, 4, 6, ...). Closed units
    contribute exactly zero to all others.

    Args:
        channels: image channels.
        size: image height and width in pixels.
        n_classes: number of classes.
        dim: embedding features at full capacity.
        heads: attention heads at full capacity.
        dim_head: features of a head, whatever the capacity.
        mlp: hidden units of a block at full capacity.
        depth: number of blocks.
        patch: patch height and width in pixels, a divisor of ``size``; ``size // 4`` if None.
        capacity: share of features, heads and hidden units the base path has, in (0, 1].
        spare: spare units for each base unit; with capacity 0.5, 1.0 restores the full width.

    Raises:
        InvalidInput: a patch that does not divide the size, or settings that leave no unit.

    Source: Lee, Lee and Song, "Vision Transformer for Small-Size Datasets", arXiv 2112.13492; the sizes
    are those of Schoepf et al., "Redirection for Erasing Memory", arXiv 2505.17730.

    Departures: the published redirection code drops tokens of this network and splits no features.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        n_classes: int = 10,
        dim: int = 512,
        heads: int = 8,
        dim_head: int = 64,
        mlp: int = 1536,
        depth: int = 4,
        patch: int | None = None,
        capacity: float = 1.0,
        spare: float = 0.0,
    ) -> None:
        super().__init__()
        if patch is None:
            patch = size // 4
        self.keep_settings(locals())
        if patch < 1 or size % patch:
            raise InvalidInput(
                f"ViT needs a patch that divides the image size, got patch {patch} for {size}x{size} pixels; "
                f"give patch= one of the divisors of the size, or resize the images"
            )
        units = (dim, heads, mlp)
        valid = 0 < capacity <= 1 and spare >= 0
        if not valid or min(dim_head, depth, *(self.parts(full)[0] for full in units)) < 1:
            raise InvalidInput(
                "ViT needs capacity in (0, 1], spare >= 0, dim_head and depth of at least 1, and at least "
                f"one feature, head and hidden unit at that capacity; got capacity {capacity}, spare {spare}, "
                f"dim_head {dim_head}, depth {depth}, dim {dim}, heads {heads}, mlp {mlp}"
            )
        features, attention, hidden = map(self.parts, units)
        tokens = 1 + (size // patch) ** 2
        self.base_dim = features[0]
        self.embed = ShiftedPatches(channels, patch, features)
        self.class_token = nn.Parameter(torch.empty(1, 1, sum(features)))
        self.positions = nn.Parameter(torch.empty(tokens, sum(features)))
        self.attention = nn.ModuleList(
            LocalSelfAttention(features, attention, dim_head, tokens, 1 + 2 * block) for block in range(depth)
        )
        self.feed_forward = nn.ModuleList(
            FeedForward(features, hidden, 2 + 2 * block) for block in range(depth)
        )
        self.norm = SplitLayerNorm(*features)
        self.fc = SplitLinear(features, (n_classes, 0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's defaults, N(0, 1) for class token and positions, and untrained temperatures."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, LocalSelfAttention):
                module.reset_temperature()
        nn.init.normal_(self.class_token)
        nn.init.normal_(self.positions)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes) for images (B, C, H, W).

        Raises:
            InvalidInput: images of another shape than the network was made for.
        """
        wide = self.require_spare(route)
        made_for = (self.settings["channels"], self.settings["size"], self.settings["size"])
        if tuple(x.shape[1:]) != made_for:
            raise InvalidInput(
                f"this ViT was made for images (B, {', '.join(map(str, made_for))}), got {tuple(x.shape)}; "
                "resize the images or make a network with their channels and size"
            )
        units = slice(None) if wide else slice(self.base_dim)
        patches = self.embed(x, wide)
        token = self.class_token[..., units].expand(len(x), -1, -1)
        # Under autocast the patches come in half precision; torch.cat follows the wider of the two.
        x = torch.cat((token, patches), dim=1) + self.positions[:, units]
        x = _open_features(x, self.base_dim, route)
        for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
            x = _open_features(x + attention(x, route), self.base_dim, route)
            x = _open_features(x + feed_forward(x, route), self.base_dim, route)
        # The route knows tokens (B, T, features), so the class token stays a sequence of one.
        x = _open_features(self.norm(x[:, :1], wide), self.base_dim, route)
        logits: Tensor = self.fc(x[:, 0], wide)
        return logits
