from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from expunge.capacity.route import SHARED, Router, channel_mask
from expunge.errors import InvalidInput

WRAP = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def finalise(z: int) -> int:
    """The output function of splitmix64, on Python integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WRAP
    return z ^ (z >> 31)


def slow_mask(ids: list[int], units: int, p: float, seed: int, site: int) -> list[list[bool]]:
    """One unit of one example after the other."""
    salt = finalise((seed + site * 0x632BE59BD9B4E019) % WRAP)
    limit = round(p * 2**24)
    rows = []
    for i in ids:
        row = finalise(((i + 1) * GOLDEN + salt) % WRAP)
        rows.append(
            [finalise((row + c * GOLDEN) % WRAP) >> 40 & 0xFFFFFF < limit for c in range(1, units + 1)]
        )
    return rows


def none(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


def within(share: float, p: float, draws: int) -> bool:
    """Whether a share lies within five standard deviations of a binomial's."""
    return abs(share - p) < 5 * math.sqrt(p * (1 - p) / draws)


def test_slow_finaliser_is_splitmix64() -> None:
    # the published first outputs of splitmix64 for the seed 1234567
    outputs = [finalise((1234567 + step * GOLDEN) % WRAP) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 12345, 2**63 - 1])
@pytest.mark.parametrize("site", [0, 5, 1000])
@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_masks_equal_a_slow_loop(seed: int, site: int, p: float) -> None:
    ids = [SHARED, 0, 1, 49_999, 2**40]
    mask = channel_mask(torch.tensor(ids), 33, p, seed, site)
    assert mask.dtype == torch.bool
    assert mask.tolist() == slow_mask(ids, 33, p, seed, site)


def test_discovered_examples_share_a_mask() -> None:
    index = torch.tensor([4, 8, 15, 16, 23, 42])
    shared = torch.tensor([True, False, True, False, True, False])
    mask = Router(p=0.2, seed=7)(index, shared).mask(128, site=3)
    assert torch.equal(mask[0], mask[2])
    assert torch.equal(mask[0], mask[4])
    assert len({tuple(row) for row in mask.tolist()}) == 4
    alone = Router(p=0.2, seed=7)(torch.tensor([8]), none(1)).mask(128, site=3)
    assert torch.equal(mask[1], alone[0])


def test_no_example_owns_the_shared_mask() -> None:
    index = torch.arange(20_000)
    own = Router()(index, none(20_000)).mask(128, site=0)
    shared = Router()(index[:1], ~none(1)).mask(128, site=0)
    assert not (own == shared).all(dim=1).any()
    assert len(torch.unique(own, dim=0)) == 20_000


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_share_of_open_units(p: float) -> None:
    examples, units = 5000, 64
    mask = Router(p=p, seed=3)(torch.arange(examples), none(examples)).mask(units, site=1).double()
    assert within(float(mask.mean()), p, mask.numel())
    assert all(within(share, p, examples) for share in mask.mean(dim=0).tolist())
    # rows and columns vary as independent draws do: chi-square within five of its standard deviations
    for dim, draws in ((0, examples), (1, units)):
        squares = (mask.mean(dim=dim) - p) ** 2 * draws / (p * (1 - p))
        assert abs(float(squares.mean()) - 1) < 5 * math.sqrt(2 / len(squares))


def test_all_open_at_one() -> None:
    assert Router(p=1.0)(torch.arange(50), none(50)).mask(40, site=2).all()


def test_units_sites_seeds_and_examples_are_independent() -> None:
    p, examples, units = 0.2, 5000, 32
    index = torch.arange(examples)

    def mask(seed: int = 0, site: int = 0, shift: int = 0) -> Tensor:
        return Router(p=p, seed=seed)(index + shift, none(examples)).mask(units, site)

    one = mask()
    for other in (mask(site=1), mask(site=2), mask(seed=1), mask(shift=1), mask(shift=examples)):
        assert within(float((one & other).double().mean()), p * p, one.numel())
    both = one.double().T @ one.double() / examples
    pairs = both[~torch.eye(units, dtype=torch.bool)]
    assert all(within(share, p * p, examples) for share in pairs.tolist())


def test_same_on_repeat_and_in_any_batch() -> None:
    router = Router(p=0.3, seed=11)
    index = torch.randperm(1000)
    mask = router(index, none(1000)).mask(50, site=4)
    before = torch.random.get_rng_state()
    assert torch.equal(Router(p=0.3, seed=11)(index, none(1000)).mask(50, site=4), mask)
    assert torch.equal(router(index[300:], none(700)).mask(50, site=4), mask[300:])
    assert torch.equal(router(index, none(1000)).mask(20, site=4), mask[:, :20])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_mask_for_all() -> None:
    shared = torch.tensor([True, False, False])
    mask = Router(own_masks=False)(torch.arange(3), shared).mask(128, site=0)
    assert torch.equal(mask, Router()(torch.zeros(3, dtype=torch.int64), ~none(3)).mask(128, site=0))
    assert (mask == mask[0]).all()


def test_one_hash_for_all_sites() -> None:
    index = torch.arange(200)
    same, distinct = Router(site_masks=False)(index, none(200)), Router()(index, none(200))
    assert torch.equal(same.mask(32, site=0), same.mask(128, site=5)[:, :32])
    assert torch.equal(same.mask(32, site=7), distinct.mask(32, site=0))
    assert not torch.equal(distinct.mask(32, site=0), distinct.mask(128, site=5)[:, :32])


@pytest.mark.parametrize(("shape", "dim"), [((6, 9, 4, 4), 1), ((6, 5, 9), 2), ((6, 9, 5, 3), 1)])
def test_route_closes_units_along_its_dimension(shape: tuple[int, ...], dim: int) -> None:
    route = Router(p=0.5)(torch.arange(6), none(6))
    x = torch.randn(shape, requires_grad=True)
    routed = route(x, 3, 2, dim)
    mask = route.mask(6, site=2)
    assert mask.any()
    assert not mask.all()
    for example in range(6):
        for unit in range(9):
            expected = x[example].select(dim - 1, unit)
            if unit >= 3 and not mask[example, unit - 3]:
                expected = torch.zeros_like(expected)
            assert torch.equal(routed[example].select(dim - 1, unit), expected)
    routed.sum().backward()
    assert torch.equal(x.grad, (routed != 0).float())
    assert torch.equal(route(x, 9, 2, dim), x)


def test_fifty_thousand_examples() -> None:
    index, shared = torch.arange(50_000), torch.arange(50_000) < 1000
    seconds = []
    for _ in range(3):  # the best of three, because a busy machine says nothing about the function
        start = time.perf_counter()
        mask = Router()(index, shared).mask(128, site=0)
        seconds.append(time.perf_counter() - start)
        assert mask.shape == (50_000, 128)
    assert min(seconds) < 2.0


@pytest.mark.parametrize("p", [0.0, -0.2, 1.01, math.nan])
def test_share_must_be_possible(p: float) -> None:
    with pytest.raises(InvalidInput, match=rf"share of open units p must lie in \(0, 1\], got {p}"):
        Router(p=p)


@pytest.mark.parametrize(("shape", "dim"), [((18, 9), 1), ((12, 9, 2, 2), 1), ((6, 3, 9), 2)])
def test_rows_in_a_whole_multiple_get_their_example_s_mask(shape: tuple[int, ...], dim: int) -> None:
    route = Router(p=0.5)(torch.arange(6), none(6))
    x = torch.randn(shape)
    routed, mask, repeats = route(x, 3, 2, dim), route.mask(6, site=2), len(x) // 6
    for row in range(len(x)):
        for unit in range(9):
            expected = x[row].select(dim - 1, unit)
            if unit >= 3 and not mask[row // repeats, unit - 3]:
                expected = torch.zeros_like(expected)
            assert torch.equal(routed[row].select(dim - 1, unit), expected)


@pytest.mark.parametrize("rows", [1, 5, 7, 13])
def test_other_numbers_of_rows_are_refused(rows: int) -> None:
    route = Router()(torch.arange(6), none(6))
    message = (
        rf"a layer was given {rows} rows for a batch of 6 examples, so masks by example cannot be applied "
        r"there; name other layers to attach to \(layers=\.\.\.\)"
    )
    with pytest.raises(InvalidInput, match=message):
        route(torch.ones(rows, 4), 0, 0)
