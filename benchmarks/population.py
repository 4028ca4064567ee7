"""Cost of a population of models on digits, and how much sooner it is ready than one model after the other.

Usage: python benchmarks/population.py [--models 64] [--workers N] [--alone 4] [--method finetune]
       [--architecture mlp64|mlp256|resnet9] [--folder FOLDER]

First some models of U-LiRA's halves are trained one after the other by Recipe.train, alternating with a stack;
then the whole population by workers of one thread, in stacks where these are faster. The processor time does not
depend on what else runs on the machine, the wall time does. Then every population metric of one method is
computed, and once more from the stored scores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from expunge.api import load_method
from expunge.data.digits import load_digits
from expunge.populations.assess import assess_population
from expunge.populations.build import Crew, Setting, train_members
from expunge.populations.population import Member, PopulationSettings, draw_halves
from expunge.populations.stacked import LARGEST, train_together, worth_stacking
from expunge.seeding import generator
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem
from expunge.tasks.forgetting import ForgetRandom
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

_PLAIN = {"epochs": 30, "augment": False}
RECIPES = {
    "mlp64": Recipe(
        model="mlp", model_settings={"hidden": 64, "activation": "relu"}, batch_size=32,
        optimiser=Optimiser(lr=0.05), **_PLAIN,
    ),
    "mlp256": Recipe(
        model="mlp", model_settings={"hidden": 256, "activation": "relu"}, batch_size=32,
        optimiser=Optimiser(lr=0.05), **_PLAIN,
    ),
    "resnet9": Recipe(
        model="resnet9", model_settings={"width": 8}, batch_size=128, optimiser=Optimiser(lr=0.05), **_PLAIN
    ),
}  # fmt: skip


class Timed(NamedTuple):
    """Seconds of one model, on one thread."""

    wall: float
    processor: float


def timed(problem: Problem, recipe: Recipe, members: list[Member]) -> Timed:
    """Train one member by its recipe, or several in a stack, in this process; return the cost of a model."""
    numerics = Numerics.choose("cpu", problem.shape[1])
    models = [
        recipe.build(problem.shape, problem.n_classes, generator(member.seed, "initialisation"))
        for member in members
    ]
    parts = [problem.split.train.select(member.positions) for member in members]
    seeds = [member.seed for member in members]
    meter = Meter()
    wall, processor = time.perf_counter(), time.process_time()
    with meter:
        if len(members) == 1:
            recipe.train(models[0], parts[0], seeds[0], numerics, meter)
        else:
            train_together(recipe, models, parts, seeds, numerics, meter)
    count = len(members)
    return Timed((time.perf_counter() - wall) / count, (time.process_time() - processor) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", type=int, default=4, help="models timed one after the other")
    parser.add_argument("--method", default="finetune")
    parser.add_argument("--architecture", choices=RECIPES, default="mlp64")
    parser.add_argument("--folder", type=Path, help="keep the population here; by default it is thrown away")
    options = parser.parse_args()

    recipe = RECIPES[options.architecture]
    problem = ForgetRandom(share=0.1).build(load_digits())
    numerics = Numerics.choose("cpu", problem.shape[1])
    settings = PopulationSettings(recipe=recipe, n_models=options.models)
    members = draw_halves(problem, settings, numerics)
    model = recipe.build(problem.shape, problem.n_classes, generator(0))
    chosen = "stacks" if worth_stacking(recipe, model, numerics) else "one by one"
    print(
        f"{options.architecture}: {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{len(members[0].positions)} examples, {recipe.epochs} epochs of batches of {recipe.batch_size}; "
        f"{options.workers} workers, {chosen}; torch {torch.__version__}"
    )
    torch.set_num_threads(1)
    alone, stacked = [], []
    for member in members[: options.alone]:
        alone.append(timed(problem, recipe, [member]))
        stacked.append(timed(problem, recipe, members[:LARGEST]))
    one, many = (Timed(*map(statistics.median, zip(*rows, strict=True))) for rows in (alone, stacked))
    print(f"one thread: {one.wall:.3f} s a model alone, {one.processor:.3f} s of the processor")
    print(
        f"one thread: {many.wall:.3f} s a model in a stack of {min(LARGEST, len(members))}, "
        f"{many.processor:.3f} s of the processor: {one.processor / many.processor:.2f} x less"
    )

    with tempfile.TemporaryDirectory() as scratch:
        with Crew(Setting(problem, recipe, numerics, scratch), options.workers) as crew:
            started = time.perf_counter()
            train_members(crew, members, keep_weights=True)
            cold = time.perf_counter() - started
            # Workers that are there already: what the next populations of the same call cost.
            others = draw_halves(
                problem, PopulationSettings(recipe=recipe, n_models=options.models, seed=1), numerics
            )
            started = time.perf_counter()
            train_members(crew, others, keep_weights=True)
            warm = time.perf_counter() - started
        count = options.models
        print(f"{cold:9.1f} s for {count} models, start of the workers included; {warm:.1f} s once they run")
        print(
            f"{count * one.wall / cold:9.2f} x  sooner than one after the other; "
            f"{count * one.wall / warm:.2f} x once the workers run"
        )

        store = WeightStore(options.folder or Path(scratch) / "assessed")
        method = load_method(options.method, **({"epochs": 3, "batch_size": 32, "augment": False}
                                                if options.method == "finetune" else {}))  # fmt: skip
        for _ in range(2):
            report = assess_population(method, problem, settings, store, workers=options.workers)
            print(
                f"{report.seconds:9.1f} s to assess {options.method}: {report.trained} models trained, "
                f"{report.unlearned} unlearned"
            )
    print(f"{'':24}{'value':>8}  95 % interval     comparable   floor")
    for entry in report.values.values():
        if entry.value is None:
            print(f"{entry.name:24}not defined: {entry.because}")
            continue
        interval = "" if entry.low is None or entry.high is None else f"{entry.low:.3f} .. {entry.high:.3f}"
        both = [" " * 8 if value is None else f"{value:8.3f}" for value in (entry.comparable, entry.floor)]
        print(f"{entry.name:24}{entry.value:8.3f}  {interval:16}  {both[0]}  {both[1]}")


if __name__ == "__main__":
    main()
