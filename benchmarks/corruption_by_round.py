"""Where REM's corrupted information sits: accuracy on stored labels, round by round, with and without the branches.

Usage: python benchmarks/corruption_by_round.py [--seeds 4,5,6] [--discovery 0.1] [--method rem_discovery]

Digits, the settings of the packaged grid. "without" is the network that is returned, "through" the same with the
branches each example is routed through, on the statistics of the batch: those of the branches are never gathered. A
stored label that the corruption gave should be lost without the branches and may stay in them; one that is right
should stay in both.
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import Tensor

from expunge.benchmark.first_model import train_first
from expunge.benchmark.preset import Preset
from expunge.data.loading import load_data
from expunge.methods.base import Request
from expunge.methods.rem_discovery import REMDiscovery, _Search
from expunge.tasks.base import Problem
from expunge.training.batchnorm import momentum
from expunge.training.numerics import Numerics

PARTS = ("known", "unknown", "clean")


class Traced(_Search):
    """Notes after each round how many stored labels of each part are given, by either path."""

    rounds: list[dict[str, tuple[float, float]]]
    parts: dict[str, Tensor]

    def _judge(self, number: int, loss: float) -> float:
        without, through = self._right(False), self._right(True)
        self.rounds.append(
            {
                name: (float(without[rows].float().mean()), float(through[rows].float().mean()))
                for name, rows in self.parts.items()
            }
        )
        return super()._judge(number, loss)

    @torch.no_grad()
    def _right(self, through: bool) -> Tensor:
        found = []
        self.network.train(through)
        # In the order of the file whole batches would be of few classes, which their statistics would tell.
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        for rows in order.split(256):
            batch = next(self.train.select(rows).batches(len(rows)))
            x = self.request.numerics.place_inputs(batch.x)
            with momentum(self.network, 0.0):
                route = (self.router(batch.index, self.rows[batch.index]),) if through else ()
                found.append(self.network(x, *route).argmax(1) == batch.y)
        self.network.eval()
        right = torch.empty(len(self.train), dtype=torch.bool)
        right[order] = torch.cat(found)
        return right


def trace(
    method: REMDiscovery, problem: Problem, seed: int, numerics: Numerics
) -> list[dict[str, tuple[float, float]]]:
    """Train a first model, unlearn, and return what was seen after each round."""
    recipe = Preset.of("digits").make_recipe()
    model = train_first(recipe, problem, seed, numerics).model
    split, truth = problem.split, problem.truth
    request = Request(split, seed=seed, numerics=numerics, recipe=recipe).grant(method.name, method.needs)
    run = Traced(method.fitted_to(len(split.train)), copy.deepcopy(model), request)
    clean = torch.ones(len(split.train), dtype=torch.bool)
    clean[truth.corrupted] = False
    run.parts = {"known": truth.known, "unknown": truth.unknown, "clean": clean.nonzero().flatten()}
    run.rounds = []
    with request.meter:
        run.run()
    return run.rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="4,5,6")
    parser.add_argument("--discovery", type=float, default=0.1)
    parser.add_argument("--method", default="rem_discovery", choices=["rem_discovery", "rem_attached"])
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    preset, numerics, data = Preset.of("digits"), Numerics(), load_data("digits")
    method = preset.make_method(options.method)
    assert isinstance(method, REMDiscovery)
    print(
        f"{options.method}, {options.discovery:.0%} known, seeds {options.seeds}; "
        "stored labels given, %: without / through"
    )
    for regularity in ("random", "interclass", "poison"):
        runs = []
        for seed in seeds:
            task = preset.make_task(regularity=regularity, discovery=options.discovery, seed=seed)
            runs.append(trace(method, task.build(data), seed, numerics))
        print(f"\n| {regularity}, round | " + " | ".join(PARTS) + " |\n|---|---|---|---|")
        for number, rows in enumerate(zip(*runs, strict=True), 1):
            cells = []
            for part in PARTS:
                pair = [100 * sum(row[part][path] for row in rows) / len(rows) for path in (0, 1)]
                cells.append("{:.0f} / {:.0f}".format(*pair))
            print(f"| {number} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
