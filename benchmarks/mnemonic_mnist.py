"""One-shot forgetting of each digit of MNIST with mnemonic codes, beside a mask of the logit.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/mnemonic_mnist.py [--epochs 200] [--seed 0] [--law uniform]
       [--lambda1 1e-3 3e-3] [--weights FILE.safetensors] [--out FILE.json]

The experiment of Yamashita, Yamada, Shibata, arXiv 2306.05670: a perceptron with 1,000 sigmoid units, trained
with codes in place of a tenth of the images. Pixels are in [0, 1], not normalised. Training takes 2.5 to 5
seconds an epoch on one core; --weights keeps the trained model and reads it back.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from expunge.data.examples import Examples
from expunge.data.idx import load_mnist
from expunge.data.images import ImageData, ImageSource
from expunge.methods.base import Method, Request
from expunge.methods.logit_mask import LogitMask
from expunge.methods.mnemonic_code import MnemonicCode
from expunge.metrics.probes import class_mean_probe
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, predict
from expunge.training.numerics import Numerics
from expunge.training.preparations import MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe

NUMERICS = Numerics(channels_last=False)


def the_recipe(epochs: int, law: str) -> Recipe:
    return Recipe(
        model="expunge.models.mlp:MLP",
        epochs=epochs,
        batch_size=128,
        optimiser=Optimiser(lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule="constant",
        augment=False,
        codes=MnemonicCodes(share=0.1, law=law),
    )


def the_data() -> tuple[ImageData, Examples]:
    data = replace(load_mnist(), mean=(0.0,), std=(1.0,))
    source = ImageSource(data.train_images, data.mean, data.std)
    return data, Examples.all_of(source, data.train_labels, len(data.classes))


def build(recipe: Recipe, data: ImageData, seed: int) -> nn.Module:
    return recipe.build(data.shape, len(data.classes), generator(seed, "initialisation"))


@dataclass(frozen=True)
class Bench:
    """A trained model, the data and the codes; measures methods on it."""

    model: nn.Module
    train: Examples
    test: Examples
    codes: torch.Tensor
    seed: int
    numerics: Numerics = NUMERICS

    def figures(self, model: nn.Module, label: int) -> dict[str, float]:
        """A_R and E_F in percent, and the probe's accuracy on the class in percent."""
        forgotten = self.test.labels == label
        right = predict(model, self.test, self.numerics).argmax(1) == self.test.labels
        probe = class_mean_probe(model, self.train, self.test.select(forgotten), self.numerics)
        return {
            "a_r": 100 * float(right[~forgotten].double().mean()),
            "e_f": 100 - 100 * float(right[forgotten].double().mean()),
            "probe": 100 * probe,
        }

    def forget(self, method: Method, label: int, runs: int = 3) -> dict[str, float]:
        """The figures after forgetting ``label``, with the median seconds of ``runs``."""
        positions = (self.train.labels == label).nonzero().flatten()
        outcomes = []
        for _ in range(runs):
            request = Request(
                Split(self.train, positions), seed=self.seed, numerics=self.numerics, codes=self.codes
            )
            outcomes.append(method(self.model, request))
        last = outcomes[-1]
        logged = {key: value for row in last.log for key, value in row.items() if key != "seconds"}
        seconds = statistics.median(outcome.cost.seconds for outcome in outcomes)
        return {**self.figures(last.model, label), "forget_seconds": seconds, **logged}


def trained(
    recipe: Recipe, data: ImageData, train: Examples, seed: int, weights: Path | None
) -> tuple[nn.Module, dict[str, str]]:
    """Return the model, read from ``weights`` if that file is there, and what is known of its training."""
    model = build(recipe, data, seed)
    made = {"epochs": str(recipe.epochs), "law": recipe.codes.law, "seed": str(seed)}
    if weights is not None and weights.exists():
        with safe_open(weights, "pt") as stored:
            about = stored.metadata()
        if any(about.get(key) != value for key, value in made.items()):
            raise SystemExit(f"{weights} holds another training: {about}, wanted {made}")
        model.load_state_dict(load_file(weights))
        return model, about
    with Meter() as meter:
        recipe.train(model, train, seed, NUMERICS, meter)
    made["seconds"] = f"{meter.seconds:.1f}"
    if weights is not None:
        save_file(model.state_dict(), weights, made)
    return model, made


def show(results: list[dict[str, Any]], columns: list[str]) -> None:
    table = Table(title="A_R / E_F / probe of the forgotten class, in percent")
    for heading in ("class", *columns):
        table.add_column(heading, justify="right")
    for row in results:
        cells = [row[name] for name in columns]
        table.add_row(
            str(row["class"]), *(f"{c['a_r']:.1f} / {c['e_f']:.1f} / {c['probe']:.1f}" for c in cells)
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--law", choices=("uniform", "normal"), default="uniform")
    parser.add_argument("--lambda1", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--weights", type=Path, help="keep the trained model here, or read it")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()

    recipe = the_recipe(options.epochs, options.law)
    data, train = the_data()
    model, about = trained(recipe, data, train, options.seed, options.weights)
    codes = recipe.draw_codes(options.seed, data.shape, len(data.classes))
    bench = Bench(model, train, data.test(), codes, options.seed)

    methods: dict[str, Method] = {
        f"lambda1 {value:g}": MnemonicCode(lambda1=value) for value in options.lambda1
    }
    methods["logit mask"] = LogitMask()
    results = []
    for label in range(len(data.classes)):
        after = {name: bench.forget(method, label) for name, method in methods.items()}
        results.append({"class": label, "before": bench.figures(model, label), **after})
    show(results, ["before", *methods])

    with torch.no_grad():
        known = int((model(codes).argmax(1) == torch.arange(len(codes))).sum())
    summary = {
        "epochs": options.epochs,
        "law": options.law,
        "seed": options.seed,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "training_seconds": float(about["seconds"]),
        "test_accuracy": 100 * accuracy(model, bench.test, NUMERICS),
        "codes_classified": known,
        "classes": results,
    }
    print({key: value for key, value in summary.items() if key != "classes"})
    print(
        "forget phase, median seconds:",
        statistics.median(
            row[name]["forget_seconds"] for row in results for name in methods if name != "logit mask"
        ),
    )
    if options.out is not None:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
