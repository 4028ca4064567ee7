from __future__ import annotations

import math

import pytest
import torch

from expunge.methods.removal import npo


@pytest.mark.parametrize(("z", "value"), [(0.0, 1.3863), (3.0, 0.0972), (-3.0, 6.0972)])
def test_values(z: float, value: float) -> None:
    assert float(npo(torch.tensor(z, dtype=torch.float64), 1.0)) == pytest.approx(value, abs=5e-5)


def test_its_negative_at_zero() -> None:
    assert float(-npo(torch.zeros(()), 1.0)) == pytest.approx(-1.3863, abs=5e-5)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_derivative_is_minus_one_at_zero(beta: float) -> None:
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(npo(z, beta), z)
    assert float(slope) == pytest.approx(-1.0, abs=1e-15)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_equals_the_closed_form(beta: float) -> None:
    z = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    values = npo(z, beta)
    (slopes,) = torch.autograd.grad(values.sum(), z)
    for excess, value, slope in zip(z.tolist(), values.tolist(), slopes.tolist(), strict=True):
        assert value == pytest.approx(2 / beta * math.log1p(math.exp(-beta * excess)), rel=1e-12)
        assert slope == pytest.approx(-2 / (1 + math.exp(beta * excess)), rel=1e-12)


def test_stays_finite_far_out() -> None:
    z = torch.tensor([-1e6, -1e3, 1e3, 1e6], requires_grad=True)
    values = npo(z, 1.0)
    (slopes,) = torch.autograd.grad(values.sum(), z)
    assert values.tolist() == [2e6, 2e3, 0.0, 0.0]
    assert slopes.tolist() == [-2.0, -2.0, 0.0, 0.0]


def test_beta_only_rescales() -> None:
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert torch.allclose(npo(z, 2.5), npo(2.5 * z, 1.0) / 2.5, rtol=1e-14)
