from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from expunge.seeding import derive_seed, generator, global_generator

CALLS: list[tuple[int, tuple[str | int | float, ...]]] = [
    (0, ()),
    (1, ()),
    (0, ("order",)),
    (0, ("corruption",)),
    (0, ("order", 1)),
    (0, ("order", "1")),
    (0, ("order", 1.0)),
    (0, (1, "order")),
    (0, ("a", "b")),
    (0, ("ab",)),
    (0, ("a\x1fb",)),
    (-1, ("order",)),
    (2**70, ()),
]


def test_every_role_gives_a_seed_of_its_own() -> None:
    seeds = [derive_seed(base, *roles) for base, roles in CALLS]
    assert len(set(seeds)) == len(CALLS)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_seeds_are_unrelated() -> None:
    different = [bin(derive_seed(base, "x") ^ derive_seed(base + 1, "x")).count("1") for base in range(400)]
    # bits that differ, of 63: mean 31.5, standard deviation of the mean of 400 is 0.2
    assert 30.5 < sum(different) / 400 < 32.5


def test_another_process_derives_the_same() -> None:
    code = f"from expunge.seeding import derive_seed\nprint([derive_seed(b, *r) for b, r in {CALLS!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([derive_seed(base, *roles) for base, roles in CALLS])


def test_a_true_base_counts_as_its_integer() -> None:
    assert derive_seed(True, "x") == derive_seed(1, "x")


def test_generators_are_fresh() -> None:
    first, second, other = generator(3, "x"), generator(3, "x"), generator(3, "y")
    drawn = torch.rand(5, generator=first)
    assert torch.equal(drawn, torch.rand(5, generator=second))
    assert not torch.equal(drawn, torch.rand(5, generator=other))
    assert first.device.type == "cpu"


def test_global_draws_follow_the_source_and_are_undone() -> None:
    before = torch.get_rng_state()
    source = generator(0)
    with global_generator(source):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with global_generator(source):
        second = torch.rand(4)
    with global_generator(generator(0)):
        again = torch.rand(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_global_state_returns_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), global_generator(generator(0)):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_deriving_touches_no_global_state() -> None:
    before = torch.get_rng_state()
    generator(0, "x")
    derive_seed(0, "x")
    assert torch.equal(torch.get_rng_state(), before)
