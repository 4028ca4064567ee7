"""One-shot forgetting of each class of CIFAR-10 with mnemonic codes, beside a mask of the logit and retraining.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/mnemonic_cifar10.py [--images 10000] [--epochs 24] [--seed 0]
       [--lambda1 1e-6 1e-5 1e-4] [--lambda2 1e4] [--retrain 0 3] [--work FOLDER] [--out FILE.jsonl]

A ResNet-18 of half width, trained with codes in place of three tenths of the images (Yamashita, Yamada, Shibata, arXiv
2306.05670). lambda_1 is chosen by A_R + E_F on 2,000 training images that were held out, once for all classes together
and once for each of them; lambda_2 is the paper's. The figures are of the test images. --retrain names classes without
which a network is trained, with the same codes.
Every row is a line of JSON, written when it is done; networks found in --work are not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.cifar import load_cifar10
from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.methods.logit_mask import LogitMask
from expunge.methods.mnemonic_code import MnemonicCode
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.preparations import MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe
from mnemonic_mnist import Bench
from repair import ResNet18

_HELD_OUT = 2000


def recipe(epochs: int) -> Recipe:
    return Recipe(
        model="resnet18",
        epochs=epochs,
        batch_size=64,
        optimiser=Optimiser(lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule="cosine",
        augment=True,
        codes=MnemonicCodes(share=0.3),
    )


def trained(
    how: Recipe, examples: Examples, seed: int, numerics: Numerics, kept: Path | None
) -> tuple[nn.Module, float]:
    """Return a network and the seconds that its training took, from ``kept`` if that file is there."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = numerics.place(ResNet18(3, examples.n_classes, 32))
    if kept is not None and kept.exists():
        stored = torch.load(kept, weights_only=True)
        model.load_state_dict(stored["model"])
        return model, float(stored["seconds"])
    began = time.perf_counter()
    how.train(model, examples, seed, numerics, Meter(numerics.device))
    seconds = time.perf_counter() - began
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": model.state_dict(), "seconds": seconds}, kept)
    return model, seconds


def best_gains(held_out: Bench, gains: list[float], lambda2: float) -> tuple[float, list[float]]:
    """Return the lambda_1 with the highest mean of A_R + E_F over the classes, and the best one of each class."""
    merit = []
    for gain in gains:
        method = MnemonicCode(lambda1=gain, lambda2=lambda2)
        found = [held_out.forget(method, label, runs=1) for label in range(held_out.train.n_classes)]
        merit.append([row["a_r"] + row["e_f"] for row in found])
        print(f"{gain:g}", [round(value, 1) for value in merit[-1]], flush=True)
    each = [gains[max(range(len(gains)), key=column.__getitem__)] for column in zip(*merit, strict=True)]
    return gains[max(range(len(gains)), key=lambda i: statistics.mean(merit[i]))], each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lambda1", type=float, nargs="+", default=[1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    parser.add_argument("--lambda2", type=float, default=1e4)
    parser.add_argument("--retrain", type=int, nargs="*", default=[])
    parser.add_argument("--work", type=Path, help="folder of the trained networks")
    parser.add_argument("--out", type=Path, default=Path("mnemonic-cifar10.jsonl"))
    options = parser.parse_args()

    data = load_cifar10().subset(options.images + _HELD_OUT)
    numerics = Numerics.choose("cpu", data.shape[1])
    source = ImageSource(data.train_images, data.mean, data.std)
    everything = Examples.all_of(source, data.train_labels, len(data.classes))
    order = torch.randperm(len(everything), generator=generator(options.seed, "held out"))
    train, held_out = everything.select(order[_HELD_OUT:]), everything.select(order[:_HELD_OUT])
    how = recipe(options.epochs)

    def kept(name: str) -> Path | None:
        return options.work and options.work / f"{name}-{options.images}-{options.epochs}-{options.seed}.pt"

    def write(row: dict[str, Any]) -> None:
        common = {"images": options.images, "epochs": options.epochs, "seed": options.seed}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(common | row) + "\n")

    model, seconds = trained(how, train, options.seed, numerics, kept("original"))
    codes: Tensor = how.draw_codes(options.seed, data.shape, len(data.classes))
    on_test = Bench(model, train, data.test(), codes, options.seed, numerics)
    on_held_out = Bench(model, train, held_out, codes, options.seed, numerics)
    gain, each = best_gains(on_held_out, options.lambda1, options.lambda2)
    write({"method": "original", "seconds": seconds, "lambda2": options.lambda2})
    for label in range(len(data.classes)):
        write({"method": "none", "class": label, **on_test.figures(model, label)})
        for chosen, lambda1 in (("for all", gain), ("for the class", each[label])):
            method = MnemonicCode(lambda1=lambda1, lambda2=options.lambda2)
            row = {"method": "mnemonic_code", "class": label, "chosen": chosen, "lambda1": lambda1}
            write(row | on_test.forget(method, label))
        write({"method": "logit_mask", "class": label, **on_test.forget(LogitMask(), label)})
    for label in options.retrain:
        retained = train.select(train.labels != label)
        again, seconds = trained(how, retained, options.seed, numerics, kept(f"without-{label}"))
        write({"method": "retrain", "class": label, "seconds": seconds, **on_test.figures(again, label)})


if __name__ == "__main__":
    main()
