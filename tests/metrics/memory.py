"""Models that remember images exactly, so that what they were trained on is known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.images import ImageData
from expunge.data.synthetic import learnable_images
from expunge.metrics.base import Evaluated
from expunge.tasks.base import Problem
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def noisy_images() -> ImageData:
    """Images that a nearest neighbour gets wrong now and then, unless it has seen them."""
    data = learnable_images(n_train=240, n_test=200, n_classes=4, size=6)
    draw = torch.Generator().manual_seed(0)

    def blurred(images: Tensor) -> Tensor:
        noise = 140 * torch.randn(images.shape, generator=draw)
        return (images + noise).round().clamp(0, 255).to(torch.uint8)

    return replace(data, train_images=blurred(data.train_images), test_images=blurred(data.test_images))


DATA = noisy_images()


class Memory(nn.Module):
    """Logit of a class: minus its nearest remembered image's squared distance, per pixel; one for no image."""

    def __init__(self, examples: Examples, sharpness: float = 4.0) -> None:
        super().__init__()
        batch = next(examples.batches(len(examples)))
        self.register_buffer("images", batch.x.flatten(1))
        self.register_buffer("labels", batch.y)
        self.sharpness, self.n_classes = sharpness, examples.n_classes

    def forward(self, x: Tensor) -> Tensor:
        distances = torch.cdist(x.flatten(1), self.images) ** 2 / x[0].numel()
        nearest = [
            distances[:, self.labels == label].amin(1)
            if bool((self.labels == label).any())
            else torch.full((len(x),), 10.0)
            for label in range(self.n_classes)
        ]
        return -self.sharpness * torch.stack(nearest, 1)


class Constant(nn.Module):
    """The same logits for every input."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def random_problem(share: float = 0.2) -> Problem:
    return ForgetRandom(share=share).build(DATA)


def class_problem() -> Problem:
    return ForgetClasses(classes=(1,)).build(DATA)


def evaluated(problem: Problem, model: nn.Module | None = None) -> Evaluated:
    """The model (by default one that forgot nothing) beside the original and the retrained one."""
    original = Memory(problem.split.train)
    others = {
        "original": Evaluated(original, problem, CPU),
        "retrained": Evaluated(Memory(problem.split.retain), problem, CPU),
    }
    return Evaluated(original if model is None else model, problem, CPU, others)
