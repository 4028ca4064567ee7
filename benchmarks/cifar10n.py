"""Labels that people gave to 10,000 CIFAR-10 images: relearning beside retraining and the oracle, in one process.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/cifar10n.py [--labels aggre] [--listed 0.1,1] [--seed 0] [--rows 10000]
       [--retrain 0.1] [--augment] [--threads 1] [--device cpu] [--out cifar10n.jsonl]

A ResNet-9 of width 32 is trained for 24 epochs on the labels of CIFAR-10N (the first 10,000 images), once on all of
them (damaged), once on the true ones (oracle), and once without the listed wrong ones for each share in --retrain.
relearn repairs the damaged one for each share in --listed. Every line of JSON: test accuracy, the listed and the
unlisted wrong rows that are given their true label, seconds, all in the same process with the same threads. --augment
trains and relearns with crops and flips.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from expunge.api import load_method
from expunge.data.cifar import load_cifar10
from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.methods.base import Request
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", default="aggre", choices=["aggre", "worse"])
    parser.add_argument("--listed", default="0.1")
    parser.add_argument("--retrain", default="0.1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default=None)
    parser.add_argument("--out", type=Path, default=Path("cifar10n.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    root = Path(os.environ["EXPUNGE_DATA"])
    numerics = Numerics.choose(options.device, 32)
    data = load_cifar10(root).to(numerics.device)
    given = np.load(root / "cifar_n" / "cifar10n.npz")[f"{options.labels}_label"][: options.rows]
    labels = torch.from_numpy(given.astype("int64")).to(numerics.device)
    true = data.train_labels[: options.rows]
    source = ImageSource(data.train_images[: options.rows], data.mean, data.std, data.augmentation)
    train, test = Examples.all_of(source, labels, 10), data.test()
    wrong = (labels != true).nonzero().flatten()
    order = torch.randperm(len(wrong), generator=generator(options.seed, "listed"))
    recipe = Recipe(
        model="resnet9",
        model_settings={"width": 32, "split_hidden": True},
        epochs=options.epochs,
        batch_size=64,
        augment=options.augment,
        optimiser=Optimiser(lr=0.04),
    )

    def listed(share: float) -> Tensor:
        return wrong[order[: max(1, round(share * len(wrong)))].to(wrong.device)].sort().values

    def write(name: str, model: nn.Module, seconds: float, share: float | None, **more: object) -> None:
        row: dict[str, object] = {"labels": options.labels, "seed": options.seed, "augment": options.augment}
        right = predict(model, train, numerics).argmax(1) == true
        if share is not None:
            known = torch.zeros_like(right)
            known[listed(share)] = True
            bad = labels != true
            row |= {
                "listed": int(known.sum()),
                "healed_listed": round(100 * float(right[known].float().mean()), 1),
            }
            if bool((bad & ~known).any()):
                row["healed_unlisted"] = round(100 * float(right[bad & ~known].float().mean()), 1)
        row |= {
            "model": name,
            "test": round(100 * accuracy(model, test, numerics), 2),
            "seconds": round(seconds, 1),
        }
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | more) + "\n")

    def trained(examples: Examples) -> tuple[nn.Module, float]:
        model = numerics.place(recipe.build(data.shape, 10, generator(options.seed, "initialisation")))
        began = time.perf_counter()
        recipe.train(model, examples, options.seed, numerics, Meter(numerics.device))
        return model, time.perf_counter() - began

    damaged, seconds = trained(train)
    write("damaged", damaged, seconds, None, wrong=len(wrong))
    for share in (float(text) for text in options.listed.split(",")):
        split = Split(train, listed(share))
        request = Request(split, seed=options.seed, numerics=numerics, recipe=recipe)
        done = load_method("relearn")(damaged, request)
        found = 0 if done.found is None else len(done.found.positions)
        write("relearn", done.model, done.cost.seconds, share, flagged=found, notes=list(done.notes))
    for share in (float(text) for text in options.retrain.split(",")):
        model, seconds = trained(Split(train, listed(share)).retain)
        write("retrain", model, seconds, share)
    write("oracle", *trained(train.relabel(true)), None)


if __name__ == "__main__":
    main()
