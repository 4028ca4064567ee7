from __future__ import annotations

import pytest
import torch

from expunge.methods.teacher import divergence, softened


def test_divergence_by_hand() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    target = softened(teacher, 2.0)
    for row in range(5):
        p, q = target[row], softened(student, 2.0)[row]
        by_hand = sum(float(a) * float((a / b).log()) for a, b in zip(p, q, strict=True))
        assert float(divergence(student, target, 2.0)[row]) == pytest.approx(by_hand, abs=1e-6)


def test_a_class_without_mass_adds_nothing() -> None:
    assert float(divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))) == pytest.approx(
        0.6931472
    )
