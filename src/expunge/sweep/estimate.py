"""How long a plan will take, from a few timed steps of its original models on this machine."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import torch

from expunge.sweep.execute import worker_threads
from expunge.sweep.plan import Plan, Training, training_problem
from expunge.training.cost import Meter
from expunge.training.numerics import Devices

_SECONDS = 1.0
_MOST_STEPS = 50
_REPEATS = 3
_CPU_BATCH = 128
"""A processor is as fast with this batch as with a larger one, and sooner done with it."""


def estimate_seconds(plan: Plan, trained: Container[str], workers: int) -> float:
    """Return the estimated wall time of all cells of ``plan`` and those of its shared models not in ``trained``.

    seconds = max(sum of work, longest original model with its longest cell) * seconds per epoch / workers, with the
    work in epochs of the original model's training and the seconds per epoch timed for each recipe. What methods do
    on the forget set alone, reading data and starting workers is not counted.

    Args:
        plan: what is to be run.
        trained: keys of the original models and references that exist.
        workers: processes that share the work.
    """
    speed: dict[str, float] = {}
    former = torch.get_num_threads()
    torch.set_num_threads(worker_threads(plan, workers))
    try:
        for training in plan.trainings:
            recipe = repr(training.recipe)
            if recipe not in speed:
                speed[recipe] = images_per_second(training)
    finally:
        torch.set_num_threads(former)

    def epoch(training: Training) -> float:
        images = training.data.load(training.numerics.device)
        return len(images.train_labels) / speed[repr(training.recipe)]

    total = sum(job.work * epoch(job.training) for job in plan.references if job.key not in trained)
    longest = 0.0
    for training in plan.trainings:
        first = 0.0 if training.key in trained else training.work * epoch(training)
        cells = [cell.work * epoch(training) for cell in plan.cells if cell.training.key == training.key]
        total += first + sum(cells)
        longest = max(longest, first + max(cells, default=0.0))
    return max(total / workers, longest)


def images_per_second(training: Training) -> float:
    """Time a few training steps of a fresh model."""
    # On one device: to start the processes of several takes longer than the steps.
    numerics = replace(training.numerics, devices=Devices())
    problem = training_problem(training.data, training.task, numerics.device)
    train = problem.split.train
    model = training.recipe.build(problem.shape, problem.n_classes, torch.Generator())
    batch = min(training.recipe.batch_size, len(train))
    if numerics.device == "cpu":
        batch = min(batch, _CPU_BATCH)
    recipe = replace(training.recipe, epochs=1, batch_size=batch)
    most = min(_MOST_STEPS, len(train) // batch)

    def timed(steps: int) -> float:
        part = train.select(torch.arange(steps * batch))
        with Meter(numerics.device) as meter:
            recipe.train(model, part, training.seed, numerics, meter)
        return meter.seconds

    timed(1)  # the first step allocates
    once = min(timed(1) for _ in range(_REPEATS))
    steps = max(1, min(most, int(_SECONDS / _REPEATS / max(once, 1e-6))))
    # The least of several: a step that another program interrupts takes many times as long.
    return steps * batch / min(timed(steps) for _ in range(_REPEATS))
