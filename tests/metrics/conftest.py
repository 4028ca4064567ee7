from __future__ import annotations

import pytest
import torch
from torch import nn
from trained_models import RECIPE, Trained, trained

from expunge.data.synthetic import learnable_images
from expunge.seeding import generator
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom


def pytest_itemcollected(item: pytest.Item) -> None:
    """What is asserted of the trained models is to hold for every processor."""
    if {"forgotten_class", "forgotten_samples"} & set(getattr(item, "fixturenames", ())):
        item.add_marker("trains")


@pytest.fixture(scope="session")
def forgotten_class() -> Trained:
    data = learnable_images(n_train=240, n_test=120, n_classes=4)
    return trained(ForgetClasses(classes=(1,)).build(data))


@pytest.fixture(scope="session")
def forgotten_samples() -> Trained:
    data = learnable_images(n_train=240, n_test=120, n_classes=4)
    return trained(ForgetRandom(share=0.1).build(data))


@pytest.fixture
def diverged(forgotten_class: Trained) -> nn.Module:
    model = RECIPE.build(forgotten_class.problem.shape, 4, generator(1, "model"))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model
