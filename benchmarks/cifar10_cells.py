"""Cells of the map on CIFAR-10 around one first model, without a store: for a machine that is lent for minutes.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/cifar10_cells.py [--images 10000] [--regularity poison] [--seed 0]
       [--discovery 0.1,0.5] [--methods relearn,rem,retrain] [--epochs 24] [--device cuda] [--threads 1]
       [--work FOLDER] [--out cells.jsonl]

10,000 images: the problem of the grid relearn-cifar10-10k (24 epochs without augmentation, 500 corrupted). 50,000:
24 epochs with crops and flips, batches of 128, learning rate 0.08 with a cosine, 1,000 corrupted. Every cell is a line
of JSON, written when it is done: U x H, utility, healed and attack success in percent, also with batch-norm statistics
of the retained data; seconds and sample gradients, and the seconds of the first training in the same process. Start
one process for each seed and regularity; they may share the file. A model found in --work is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.api import load_method
from expunge.data.cifar import load_cifar10
from expunge.evaluation.evaluate import evaluate
from expunge.methods.base import Request
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

SMALL = Recipe(
    model="resnet9",
    model_settings={"width": 32, "split_hidden": True},
    epochs=24,
    batch_size=64,
    augment=False,
    optimiser=Optimiser(lr=0.04),
)
WHOLE = replace(SMALL, batch_size=128, augment=True, optimiser=Optimiser(lr=0.08), schedule="cosine")
REM = {"batch_size": 128, "augment": False, "lr": 0.03, "rounds": 3, "score_floor": 0.0, "erase_mean": True}
"""Settings of the grid cifar10-10k; at 50,000 images the published ones are used."""


FIGURES = ("uxh", "utility", "healed", "asr")


def measured(model: nn.Module, problem: Problem, recipe: Recipe, numerics: Numerics) -> dict[str, Any]:
    """The figures in percent, and once more with batch-norm statistics of the retained data."""
    found = evaluate(model, problem, numerics, augment=recipe.augment)
    again = {name: found["metrics"].get(f"{name}_recalibrated") for name in FIGURES}
    return {name: _percent(found[name]) for name in FIGURES} | {
        "recalibrated": {name: _percent(share) for name, share in again.items()}
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--regularity", default="poison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--discovery", default="0.1,0.5")
    parser.add_argument("--methods", default="relearn,rem,retrain")
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--work", type=Path, help="folder of the original models")
    parser.add_argument("--out", type=Path, default=Path("cells.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numerics = Numerics.choose(options.device, 32)

    whole = options.images == 50_000
    recipe = replace(WHOLE if whole else SMALL, epochs=options.epochs)
    data = load_cifar10(Path(os.environ["EXPUNGE_DATA"]))
    data = (data if whole else data.subset(options.images)).to(numerics.device)

    def problem(discovery: float) -> Problem:
        return CorruptionTask(
            regularity=options.regularity,
            discovery=discovery,
            seed=options.seed,
            n_corrupted=1000 if whole else options.images // 20,
        ).build(data)

    def write(row: dict[str, Any]) -> None:
        common = {"images": options.images, "seed": options.seed, "regularity": options.regularity}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(common | row) + "\n")

    rates = [float(rate) for rate in options.discovery.split(",")]
    first = problem(rates[0])
    model = recipe.build(first.shape, first.n_classes, generator(options.seed, "initialisation"))
    numerics.place(model)
    kept = options.work and options.work / (
        f"{options.regularity}-{options.images}-{options.epochs}-{options.seed}.pt"
    )
    if kept and kept.exists():
        stored = torch.load(kept, weights_only=True, map_location=numerics.device)
        model.load_state_dict(stored["model"])
        training = stored["seconds"]
    else:
        began = time.perf_counter()
        recipe.train(model, first.split.train, options.seed, numerics, Meter(numerics.device))
        training = time.perf_counter() - began
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": model.state_dict(), "seconds": training}, kept)
    learned = evaluate(model, first, numerics)["corruption_learned"]
    write(
        {
            "method": "none",
            "seconds": round(training, 2),
            "learned": learned,
            **measured(model, first, recipe, numerics),
        }
    )
    for name in options.methods.split(","):
        for rate in rates:
            task = problem(rate)
            bad = torch.zeros(len(task.split.train), dtype=torch.bool, device=numerics.device)
            bad[task.truth.corrupted] = True
            request = Request(
                task.split, seed=options.seed, numerics=numerics, recipe=recipe, truth=task.truth
            )
            try:
                done = load_method(name, **(REM if name == "rem" and not whole else {}))(model, request)
            except Exception:  # a method that fails is a line too
                write({"method": name, "discovery": rate, "error": traceback.format_exc(limit=-4)})
                continue
            row: dict[str, Any] = {
                "method": name,
                "discovery": rate,
                "seconds": round(done.cost.seconds, 2),
                "training_seconds": round(training, 2),
                "gradients": done.cost.sample_gradients,
                "notes": list(done.notes),
                **measured(done.model, task, recipe, numerics),
            }
            if done.found is not None:
                found = done.found.positions
                row["found"], row["found_bad"] = len(found), int(bad[found].sum())
                row["expected_good"] = round(done.found.false_discovery, 3)
            write(row)


if __name__ == "__main__":
    main()
