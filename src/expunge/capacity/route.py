"""Which dedicated units each example may use: masks that follow from the example index."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.errors import InvalidInput

SHARED = -1
"""Mask id of the one route all discovered examples share; no example has this index."""


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# The finaliser of the splitmix64 generator (Steele, Lea, Flood 2014); integers wrap modulo 2**64.
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _salt(seed: int, site: int) -> int:
    """:func:`_mix` of a seed and a site, in Python: a number that need not be sent to a device."""
    state = (seed + site * 0x632BE59BD9B4E019) % 2**64
    state = (state ^ (state >> 30)) * _FIRST % 2**64
    state = (state ^ (state >> 27)) * _SECOND % 2**64
    return _signed(state ^ (state >> 31))


def _mix(state: Tensor) -> Tensor:
    # torch shifts int64 arithmetically; the mask turns that into the logical shift the function needs
    state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * _FIRST
    state = (state ^ ((state >> 27) & 0x1FFFFFFFFF)) * _SECOND
    return state ^ ((state >> 31) & 0x1FFFFFFFF)


def channel_mask(ids: Tensor, units: int, p: float, seed: int, site: int) -> Tensor:
    """Return bool (B, units): unit c is open for id i with probability ``p``, independently.

    The value is a hash of (seed, site, i, c): nothing is stored, no random state is touched, and an
    id's mask is the same on every call, batch and device.

    Args:
        ids: int64 (B,), example indices or :data:`SHARED`.
        units: number of spare units.
        p: probability that a unit is open, in [0, 1].
        seed: 63-bit seed.
        site: number of the place in the network; sites have unrelated masks.
    """
    rows = _mix((ids + 1) * _GOLDEN + _salt(seed, site))  # (B,)
    columns = torch.arange(1, units + 1, device=ids.device) * _GOLDEN  # (units,)
    bits = _mix(rows[:, None] + columns[None, :])
    return ((bits >> 40) & 0xFFFFFF) < round(p * 2**24)


@dataclass(frozen=True)
class Router:
    """Makes the route of a batch.

    Discovered examples share one mask; every other example has its own.

    Args:
        p: probability that a spare unit is open for a mask, in (0, 1]. The paper's p_mem, 0.2.
        seed: of the hash.
        own_masks: if false, all examples share the one mask (an ablation).
        shared: id of the mask that discovered examples share.
        site_masks: if false, every site uses the same hash, so that narrower sites see a prefix of wider
            sites' masks, as in the published code.
    """

    p: float = 0.2
    seed: int = 0
    own_masks: bool = True
    shared: int = SHARED
    site_masks: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise InvalidInput(f"the share of open units p must lie in (0, 1], got {self.p}")

    def __call__(self, index: Tensor, shared: Tensor) -> BatchRoute:
        """Return the route of examples ``index`` int64 (B,); ``shared`` bool (B,) marks the discovered."""
        common = torch.full_like(index, self.shared)
        ids = torch.where(shared, common, index) if self.own_masks else common
        return BatchRoute(ids, self)


@dataclass(frozen=True)
class BatchRoute:
    """The route of one batch of mask ids."""

    ids: Tensor
    router: Router

    def mask(self, units: int, site: int) -> Tensor:
        """Open spare units at ``site``: bool (B, units)."""
        site = site if self.router.site_masks else 0
        return channel_mask(self.ids, units, self.router.p, self.router.seed, site)

    def __call__(self, x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
        """Zero the closed units of ``x`` along ``dim``; units before ``base`` stay open.

        Rows of ``x`` are examples, or a whole number of rows for each example, one example after the other.

        Raises:
            InvalidInput: the rows are no whole multiple of the batch.
        """
        units, repeats = x.shape[dim], len(x) // max(1, len(self.ids))
        if len(x) != repeats * len(self.ids):
            raise InvalidInput(
                f"a layer was given {len(x)} rows for a batch of {len(self.ids)} examples, so masks by example "
                "cannot be applied there; name other layers to attach to (layers=...)"
            )
        opened = x.new_ones(len(x), units)
        opened[:, base:] = self.mask(units - base, site).repeat_interleave(repeats, 0)
        shape = [1] * x.ndim
        shape[0], shape[dim] = len(x), units
        return x * opened.view(shape)
