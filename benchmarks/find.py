"""Wrong labels of 10,000 CIFAR-10N images: found by relearning, in a recording, by folds, with and without a list.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/find.py [--labels aggre,worse] [--known 0,0.01,0.1] [--seed 0]
       [--how relearned,recorded] [--first-row 0] [--folds 0] [--threads 1] [--work find] [--out find.jsonl]

A ResNet-9 of width 32 is trained for 24 epochs on labels that people gave, with expunge.Recording; it is kept in --work
with the seconds it took. Then wrong labels are looked for by relearning and in the recording (and by --folds 3 new
models of 12 epochs), without a list and with shares of the errors known, beside confident learning as cleanlab does it
on the same probabilities. Every line of JSON: what is named, precision, recall, F1 and average precision over the rows
that are not known, processor seconds and their share of the first training.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from expunge.data.cifar import load_cifar10
from expunge.data.examples import Batch, Examples
from expunge.data.images import ImageSource
from expunge.detection.out_of_sample import out_of_sample
from expunge.detection.relearned import relearned
from expunge.detection.suspects import suspects
from expunge.recording.recording import Recording, read_recording
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.loop import Loss
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(
    model="resnet9",
    model_settings={"width": 32, "split_hidden": True},
    epochs=24,
    batch_size=64,
    augment=False,
    optimiser=Optimiser(lr=0.04),
)
ROWS = 10_000


def first_training(
    train: Examples, shape: tuple[int, int, int], seed: int, numerics: Numerics, file: Path
) -> tuple[nn.Module, Path, float]:
    """Return the trained network, what was recorded, and the processor seconds; from ``file`` if it is there."""
    model = numerics.place(RECIPE.build(shape, 10, generator(seed, "initialisation")))
    recorded, seconds = file.with_suffix(".recorded.safetensors"), file.with_suffix(".seconds")
    if file.exists():
        model.load_state_dict(load_file(file))
        return model, recorded, float(seconds.read_text())
    began = time.process_time()
    with Recording(train.labels, recorded) as recording:

        def objective(model: nn.Module, batch: Batch) -> Loss:
            logits = model(batch.x).float()
            recording.see(logits, batch.index)
            return Loss(nn.functional.cross_entropy(logits, batch.y), len(batch))

        RECIPE.train(model, train, seed, numerics, Meter(numerics.device), objective=objective)
    took = time.process_time() - began
    save_file(dict(model.state_dict()), file)
    seconds.write_text(str(took))
    return model, recorded, took


def figures(named: Tensor, scores: Tensor | None, bad: Tensor, known: Tensor) -> dict[str, Any]:
    """Against the truth about the rows that are not known."""
    open_ = ~known
    named, wrong = named & open_, bad & open_
    right = int((named & wrong).sum())
    precision, recall = right / max(1, int(named.sum())), right / max(1, int(wrong.sum()))
    found = {
        "named": int(named.sum()),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-12), 3),
    }
    if scores is not None:
        found["ap"] = round(float(average_precision_score(wrong[open_], scores[open_])), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", default="aggre,worse")
    parser.add_argument("--known", default="0,0.01,0.1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-row", type=int, default=0)
    parser.add_argument("--how", default="relearned,recorded")
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("find"))
    parser.add_argument("--out", type=Path, default=Path("find.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)

    for kind in options.labels.split(","):
        measure(kind, options)


def measure(kind: str, options: argparse.Namespace) -> None:
    """Train on the labels of one kind, look for the wrong ones, and write what was found."""
    root, numerics = Path(os.environ["EXPUNGE_DATA"]), Numerics.choose("cpu", 32)
    data = load_cifar10(root)
    rows = slice(options.first_row, options.first_row + ROWS)
    true = data.train_labels[rows]
    source = ImageSource(data.train_images[rows], data.mean, data.std, data.augmentation)
    given = np.load(root / "cifar_n" / "cifar10n.npz")[f"{kind}_label"][rows]
    train = Examples.all_of(source, torch.from_numpy(given.astype("int64")), 10)
    bad = train.labels != true
    wrong = bad.nonzero().flatten()
    order = wrong[torch.randperm(len(wrong), generator=generator(options.seed, "known"))]
    file = options.work / f"{kind}-{options.first_row}-{options.seed}.safetensors"
    model, recorded, training = first_training(train, data.shape, options.seed, numerics, file)

    def write(how: str, seconds: float, known: Tensor, found: dict[str, Any], **more: Any) -> None:
        row = {
            "labels": kind, "seed": options.seed, "wrong": len(wrong), "how": how, "known": int(known.sum()),
            **found, "seconds": round(seconds, 1), "share_of_training": round(seconds / training, 3), **more,
        }  # fmt: skip
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def look(how: str, known: Tensor, ask: Callable[[Tensor], dict[str, Any]], spent: float = 0.0) -> None:
        began = time.process_time()
        asked = ask(known)
        listed = suspects(train.labels, 10, known=known, **asked)
        seconds = spent + time.process_time() - began
        judged = listed.labels
        assert judged is not None
        p = asked["beliefs"].probabilities if "beliefs" in asked else asked["probabilities"]
        write(
            how, seconds, known, figures(listed.together.flagged, judged.found.scores, bad, known),
            expected_precision=judged.precision and round(judged.precision, 3),
            expected_wrong=round(judged.estimated), usable=listed.usable,
            neighbours=sum(part.detector == "neighbours" for part in listed.found),
            right=round(float((p.argmax(1) == train.labels).double().mean()), 3),
        )  # fmt: skip
        if not bool(known.any()):
            flagged = find_label_issues(train.labels.numpy(), p.double().numpy(), n_jobs=1)
            write(f"{how}, cleanlab", seconds, known, figures(torch.from_numpy(flagged), None, bad, known))

    def relearn(known: Tensor) -> dict[str, Any]:
        return {"beliefs": relearned(model, train, numerics, known=known, recipe=RECIPE, seed=options.seed)}

    def read(known: Tensor) -> dict[str, Any]:
        return {"probabilities": read_recording(recorded, train.labels, 10)["probabilities"]}

    known_ways = {"relearned": relearn, "recorded": read}
    ways = [(how, known_ways[how], 0.0) for how in options.how.split(",")]
    if options.folds:
        began = time.process_time()
        p = out_of_sample(
            lambda source: RECIPE.build(data.shape, 10, source), train, numerics,
            recipe=replace(RECIPE, epochs=12), folds=options.folds, seed=options.seed,
        )  # fmt: skip
        took = time.process_time() - began
        ways.append((f"{options.folds} folds", lambda known: {"probabilities": p}, took))
    for share in (float(text) for text in options.known.split(",")):
        known = torch.zeros(ROWS, dtype=torch.bool)
        known[order[: round(share * len(order))]] = True
        for how, ask, spent in ways:
            look(how, known, ask, spent)


if __name__ == "__main__":
    main()
