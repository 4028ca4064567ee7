"""What a part of the remaining data is enough for: a method that is given only a share of it, on digits.

Usage: python benchmarks/remaining_share.py [--shares 1,0.5,0.25,0.1] [--seed 4] [--discovery 0.1] [--method NAME]

The forget set is given whole, of the rest a share drawn at random, the same for every regularity; everything is
evaluated on the whole data.
"""

from __future__ import annotations

import argparse

import torch

from expunge.data.loading import load_data
from expunge.evaluation.evaluate import evaluate
from expunge.methods.base import Request
from expunge.sweep.original_model import train_original
from expunge.sweep.preset import Preset
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics


def part(split: Split, share: float, seed: int) -> Split:
    """Return the split with ``share`` of the training examples outside the forget set."""
    drawn = torch.rand(len(split.train), generator=torch.Generator().manual_seed(seed)) < share
    rows = (drawn | split.forget_mask).nonzero().flatten()
    return Split(split.train.select(rows), split.forget_mask[rows].nonzero().flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", default="1,0.5,0.25,0.1")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--discovery", type=float, default=0.1)
    parser.add_argument("--method", default="relearn")
    options = parser.parse_args()
    preset, numerics, data = Preset.of("digits"), Numerics(), load_data("digits")
    method, recipe = preset.make_method(options.method), preset.make_recipe()
    regularities = ("random", "interclass", "poison")
    problems = [
        preset.make_task(regularity=name, discovery=options.discovery, seed=options.seed).build(data)
        for name in regularities
    ]
    models = [train_original(recipe, problem, options.seed, numerics).model for problem in problems]
    print(f"{options.method}, {options.discovery:.0%} known, seed {options.seed}; U x H (utility), %\n")
    print("| share | " + " | ".join(regularities) + " | passes over all of it |\n|---|---|---|---|---|")
    for share in (float(text) for text in options.shares.split(",")):
        row, gradients = [], 0
        for problem, model in zip(problems, models, strict=True):
            split = part(problem.split, share, options.seed)
            request = Request(split, seed=options.seed, numerics=numerics, recipe=recipe)
            outcome = method(model, request)
            seen = evaluate(outcome.model, problem, numerics)
            row.append(f"{100 * seen['uxh']:.0f} ({100 * seen['utility']:.1f})")
            gradients += outcome.cost.sample_gradients
        cost = gradients / len(problems) / len(problems[0].split.train)
        print(f"| {share:g} | " + " | ".join(row) + f" | {cost:.1f} |")


if __name__ == "__main__":
    main()
