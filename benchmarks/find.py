"""Wrong labels of 10,000 CIFAR-10N images: found by relearning, in a recording, by folds, with and without a list.

Usage: EXPUNGE_DATA=FOLDER python benchmarks/find.py [--labels aggre,worse] [--known 0,0.01,0.1] [--seed 0]
       [--how relearned,recorded] [--first-row 0] [--folds 0] [--pretrained] [--threads 1] [--work find]
       [--out find.jsonl]

A ResNet-9 of width 32 is trained for 24 epochs on labels that people gave, with expunge.Recording; it is kept in --work
with the seconds it took. Then wrong labels are looked for by relearning and in the recording (and by --folds 3 new
models of 12 epochs), without a list and with shares of the errors known, beside confident learning as cleanlab does it
on the same probabilities. Every line of JSON: what is named, precision, recall, F1 and average precision over the rows
that are not known, processor seconds and their share of the first training. With --pretrained the network is that of
pretrained.py, EfficientNet-Lite0 fine-tuned on 5,000 images with the labels "worse" (and kept in --work as there).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from pretrained import load_case

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
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
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
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("find"))
    parser.add_argument("--out", type=Path, default=Path("find.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)

    if options.pretrained:
        measure(fine_tuned(options), options)
    else:
        for kind in options.labels.split(","):
            measure(photographs(kind, options), options)


@dataclass(frozen=True)
class Trained:
    """A network, what it was trained on, which labels are wrong, and how it was trained."""

    name: str
    model: nn.Module
    train: Examples
    bad: Tensor
    recipe: Recipe
    numerics: Numerics
    seconds: float
    recorded: Path | None = None
    base: dict[str, Tensor] | None = None
    fresh: Callable[[torch.Generator], nn.Module] | None = None


def fine_tuned(options: argparse.Namespace) -> Trained:
    """Return the damaged network of pretrained.py."""
    case = load_case("efficientnet_noise", options.work, options.seed)
    model, cost = case.fitted("damaged", case.train)
    return Trained(
        "worse, pretrained", model, case.train, case.data.bad, case.recipe, case.numerics, cost["cpu_seconds"],
        base=dict(case.base),
    )  # fmt: skip


def photographs(kind: str, options: argparse.Namespace) -> Trained:
    """Train on the labels of one kind."""
    root, numerics = Path(os.environ["EXPUNGE_DATA"]), Numerics.choose("cpu", 32)
    data = load_cifar10(root)
    rows = slice(options.first_row, options.first_row + ROWS)
    true = data.train_labels[rows]
    source = ImageSource(data.train_images[rows], data.mean, data.std, data.augmentation)
    given = np.load(root / "cifar_n" / "cifar10n.npz")[f"{kind}_label"][rows]
    train = Examples.all_of(source, torch.from_numpy(given.astype("int64")), 10)
    file = options.work / f"{kind}-{options.first_row}-{options.seed}.safetensors"
    model, recorded, training = first_training(train, data.shape, options.seed, numerics, file)
    return Trained(
        kind, model, train, train.labels != true, RECIPE, numerics, training, recorded,
        fresh=lambda source: RECIPE.build(data.shape, 10, source),
    )  # fmt: skip


def measure(on: Trained, options: argparse.Namespace) -> None:
    """Look for the wrong labels, and write what was found."""
    train, bad, training = on.train, on.bad, on.seconds
    wrong = bad.nonzero().flatten()
    order = wrong[torch.randperm(len(wrong), generator=generator(options.seed, "known"))]

    def write(how: str, seconds: float, known: Tensor, found: dict[str, Any], **more: Any) -> None:
        row = {
            "labels": on.name, "seed": options.seed, "wrong": len(wrong), "how": how, "known": int(known.sum()),
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
        found = relearned(
            on.model, train, on.numerics, known=known, recipe=on.recipe, seed=options.seed, start=on.base
        )
        return {"beliefs": found}

    def read(known: Tensor) -> dict[str, Any]:
        assert on.recorded is not None
        return {"probabilities": read_recording(on.recorded, train.labels, 10)["probabilities"]}

    known_ways = {"relearned": relearn, "recorded": read}
    ways = [(how, known_ways[how], 0.0) for how in options.how.split(",") if how != "recorded" or on.recorded]
    if options.folds and on.fresh is not None:
        began = time.process_time()
        p = out_of_sample(
            on.fresh, train, on.numerics,
            recipe=replace(RECIPE, epochs=12), folds=options.folds, seed=options.seed,
        )  # fmt: skip
        took = time.process_time() - began
        ways.append((f"{options.folds} folds", lambda known: {"probabilities": p}, took))
    for share in (float(text) for text in options.known.split(",")):
        known = torch.zeros(len(train), dtype=torch.bool)
        known[order[: round(share * len(order))]] = True
        for how, ask, spent in ways:
            look(how, known, ask, spent)


if __name__ == "__main__":
    main()
