from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import expunge.sweep.execute as module
from expunge.methods.no_unlearning import NoUnlearning
from expunge.sweep.execute import worker_threads
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.tasks.forgetting import ForgetClasses
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


def plan_of(data: DataChoice) -> Plan:
    recipe = Recipe(epochs=1, model_settings={"width": 8})
    return make_plan(data, [ForgetClasses(classes=(1,))], recipe, [NoUnlearning()], [0], Numerics())


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


@pytest.fixture
def large(tmp_path: Path) -> DataChoice:
    images = np.zeros((8, 32, 32), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez(tmp_path / "large.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    return DataChoice(str(tmp_path / "large.npz"))


def test_small_images_get_one_thread(easy: DataChoice) -> None:
    assert worker_threads(plan_of(easy), 1) == 1


@pytest.mark.parametrize(("workers", "expected"), [(1, 8), (3, 2), (20, 1)])
def test_larger_ones_share_the_cores(large: DataChoice, workers: int, expected: int) -> None:
    assert worker_threads(plan_of(large), workers) == expected


def test_what_torch_was_limited_to_counts(large: DataChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert worker_threads(plan_of(large), 1) == 3
    assert worker_threads(plan_of(large), 4) == 2


@pytest.mark.parametrize(("asked", "expected"), [("4", 4), ("0", 1), ("", 1), ("2,1", 1)])
def test_the_variable_comes_first(
    easy: DataChoice, monkeypatch: pytest.MonkeyPatch, asked: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert worker_threads(plan_of(easy), 1) == expected
