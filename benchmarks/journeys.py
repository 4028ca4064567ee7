"""Seven journeys of a person with a damaged model: one command each, beside retraining.

Usage: EXPUNGE_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/journeys.py [JOURNEY ...] [--seed 0] [--work FOLDER]
       [--out FILE.jsonl] [--quick]

Journeys: labels (a ResNet-18 of first width 16 on 4,000 photographs of CIFAR-10N "aggre", 320 wrong, 25 known), vit (a
ViT of three layers on 3,000 images of clothes, 300 wrong, 100 known), patch (a small ConvNet on 2,000 of them, 80
with a 4x4 patch, 20 known), patch_resnet (the ResNet on 4,000 photographs, 160 with a 5x5 patch, 20 known), samples
and a_class (50 good rows, and a class, to be forgotten by a ConvNet like that of patch), adult (6,000 census rows,
600 with the other label, 30 known), python (patch from Python: a data set that takes 5 ms a row, a progress bar, a
validation set).

Each writes files as a person has them, trains the model, calls "expunge clean" once and trains another one without
the listed rows. A line of JSON tells the price and the sentence that were printed, and what was measured here.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import expunge
from expunge.data.cifar import load_cifar10
from expunge.data.examples import Examples
from expunge.data.idx import load_fashion_mnist
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.checkpoint_weights import load_weights
from expunge.inputs.sources import load_training_data, load_validation_data
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.training.cost import Meter
from expunge.training.loop import Progress, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe
from pretrained import processor
from repair import Array, adamw, adult_rows, swapped

HERE = Path(__file__).resolve().parent
CLOTHES = ("shirt", "trouser", "pullover", "dress", "coat", "sandal", "top", "sneaker", "bag", "boot")


@dataclass(frozen=True)
class Journey:
    """What a person has, on disk, and what only this file knows.

    Args:
        name: of the journey.
        folder: holds everything.
        arch: as for the command line.
        data: folder of images or table.
        validation: the same, held out.
        forget: list of the known rows.
        truth: name of a row -> its true class.
        recipe: of the trainings.
        seed: of everything random.
        purpose: "heal" or "forget".
        stamped: folder of held-out images with the patch, none of them of the patch's class.
        target: the patch's class.
    """

    name: str
    folder: Path
    arch: str
    data: Path
    validation: Path
    forget: Path
    truth: dict[str, str]
    recipe: Recipe
    seed: int
    purpose: str = "heal"
    stamped: Path | None = None
    target: str = ""

    @cached_property
    def train(self) -> TrainingData:
        """What the command line reads."""
        return load_training_data(str(self.data), self.options)

    @property
    def options(self) -> DataOptions:
        """How it reads it."""
        return DataOptions(label="label") if self.data.suffix == ".csv" else DataOptions()

    @cached_property
    def numerics(self) -> Numerics:
        """What the command line chooses."""
        return Numerics.for_inputs("cpu", self.train.shape)

    @cached_property
    def names(self) -> list[str]:
        """What rows are called in lists: file names, else positions."""
        return [Path(name).name for name in self.train.names] or [str(row) for row in range(len(self.train))]

    @cached_property
    def listed(self) -> Tensor:
        """Bool (N,): the rows in the list."""
        with self.forget.open() as file:
            named = {Path(row[0]).name for row in csv.reader(file)} - {"file", "index"}
        return torch.tensor([name in named for name in self.names])

    @cached_property
    def true_labels(self) -> Tensor:
        """int64 (N,)."""
        return torch.tensor([self.train.classes.index(self.truth[name]) for name in self.names])

    def held_out(self, folder: Path) -> Examples:
        """Read data as the command line reads validation data."""
        return load_validation_data(str(folder), self.options, self.train)

    def trained(self, examples: Examples) -> tuple[nn.Module, Meter]:
        """Train a fresh network."""
        torch.manual_seed(self.seed)
        model = build_architecture(self.arch, shape=self.train.shape, n_classes=len(self.train.classes))
        with Meter() as meter:
            self.recipe.train(model, examples, self.seed, self.numerics, meter)
        return model, meter

    def figures(self, model: nn.Module) -> dict[str, Any]:
        """Measure a model: percent of the test rows, and of the kinds of training rows, that are answered rightly."""
        model = self.numerics.place(model)

        def right(examples: Examples, labels: Tensor) -> float | None:
            answers = predict(model, examples, self.numerics).argmax(1)
            return round(100 * float((answers == labels).double().mean()), 1) if len(labels) else None

        held, given, bad = (
            self.held_out(self.validation),
            self.train.examples.labels,
            self.train.examples.labels != self.true_labels,
        )
        rows = {"listed_right": self.listed, "unlisted_bad": bad & ~self.listed, "good": ~bad & ~self.listed}
        found: dict[str, Any] = {"test": right(held, held.labels)}
        for name, mask in rows.items():
            positions = mask.nonzero().flatten()
            if len(positions):
                found[name] = right(self.train.examples.select(positions), self.true_labels[positions])
        if self.purpose == "forget":
            # What unseen rows of the classes that the list names score.
            listed = self.listed.nonzero().flatten()
            classes = given[listed].unique()
            same = torch.isin(held.labels, classes).nonzero().flatten()
            found["unseen_of_these_classes"] = right(held.select(same), held.labels[same])
        if self.stamped is not None:
            stamped = self.held_out(self.stamped)
            found["attack"] = right(
                stamped, torch.full((len(stamped),), self.train.classes.index(self.target))
            )
        return found

    def clean(self, checkpoint: Path) -> dict[str, Any]:
        """Call the command line once; return what it said and what it made."""
        out = self.folder / "cleaned"
        words = [sys.executable, "-m", "expunge", "clean", "--checkpoint", checkpoint, "--arch", self.arch]
        words += [
            "--data",
            self.data,
            "--forget",
            self.forget,
            "--validation",
            self.validation,
            "--out",
            out,
            "--yes",
        ]
        words += ["--purpose", self.purpose, "--recipe", f"epochs={self.recipe.epochs}"]
        words += ["--recipe", f"batch_size={self.recipe.batch_size}", "--recipe", "optimiser.name=adamw"]
        words += ["--recipe", f"optimiser.lr={self.recipe.optimiser.lr}"]
        words += ["--label", "label"] if self.data.suffix == ".csv" else []
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        said = done.stdout + done.stderr
        (self.folder / "said.txt").write_text(" ".join(map(str, words)) + "\n\n" + said)
        line: dict[str, Any] = {"exit": done.returncode, "seconds_in_all": round(seconds, 1)}
        if not (out / "report.json").is_file():
            return line | {"said": said[-600:]}
        report = json.loads((out / "report.json").read_text())
        price = re.search(r"about [^\n]*(?:\n[^\n]+){0,2}", said)
        line |= {
            "price": " ".join(price[0].split()) if price else None, "verdict": report["verdict"],
            "sentence": report["sentence"], "method": report["method"]["name"],
            "seconds": round(report["cost"]["seconds"], 1), "share": report["cost"]["share_of_retraining"],
        }  # fmt: skip
        written = out / report["written"]
        model = build_architecture(self.arch, shape=self.train.shape, n_classes=len(self.train.classes))
        load_weights(model, read_checkpoint(written))
        if (out / "found.csv").is_file():
            with (out / "found.csv").open() as file:
                rows = [int(row["index"]) for row in csv.DictReader(file)]
            line |= {
                "found": len(rows),
                "found_bad": int((self.train.examples.labels != self.true_labels)[rows].sum()),
            }
        return line | {"written": written.name} | self.figures(model)


# --- what is written ------------------------------------------------------------------------------------------


def pictures(
    folder: Path, images: Array, labels: Array, classes: Sequence[str], names: Sequence[str]
) -> Path:
    """Write images uint8 (N, C, H, W) as PNGs, a folder for each class."""
    for image, label, name in zip(images, labels, names, strict=True):
        path = folder / classes[label]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path / name)
    return folder


def listing(path: Path, names: Sequence[str], title: str = "file") -> Path:
    """Write a list of rows."""
    path.write_text(f"{title}\n" + "".join(f"{name}\n" for name in names))
    return path


@dataclass(frozen=True)
class Images:
    """Images uint8 (N, C, H, W) with labels int64 (N,), training and test."""

    images: Array
    labels: Array
    test_images: Array
    test_labels: Array
    classes: tuple[str, ...]

    @classmethod
    def clothes(cls, n: int, n_test: int, draw: np.random.Generator) -> Images:
        """Fashion-MNIST."""
        return cls.drawn(load_fashion_mnist(), n, n_test, CLOTHES, draw)

    @classmethod
    def drawn(
        cls, source: Any, n: int, n_test: int, classes: tuple[str, ...], draw: np.random.Generator
    ) -> Images:
        """``n`` training images and ``n_test`` test images of a data set."""
        rows = draw.choice(len(source.train_labels), n, replace=False)
        tests = draw.choice(len(source.test_labels), n_test, replace=False)
        return cls(
            source.train_images.numpy()[rows], source.train_labels.numpy()[rows], source.test_images.numpy()[tests],
            source.test_labels.numpy()[tests], classes,
        )  # fmt: skip

    def journey(
        self, name: str, folder: Path, given: Array, known: Array, arch: str, recipe: Recipe, seed: int
    ) -> Journey:
        """Write these images with the labels ``given``; ``known`` are the positions of the listed rows."""
        files = [f"{row:05}.png" for row in range(len(self.labels))]
        held = [f"{row:05}.png" for row in range(len(self.test_labels))]
        return Journey(
            name, folder, arch, pictures(folder / "images", self.images, given, self.classes, files),
            pictures(folder / "held_out", self.test_images, self.test_labels, self.classes, held),
            listing(folder / "bad.csv", [files[row] for row in known]),
            {file: self.classes[label] for file, label in zip(files, self.labels, strict=True)}, recipe, seed,
        )  # fmt: skip

    def patched(
        self, name: str, folder: Path, side: int, n_bad: int, n_known: int, target: int, arch: str, recipe: Recipe,
        seed: int, draw: np.random.Generator,
    ) -> Journey:  # fmt: skip
        """The same with a white patch at the top left of ``n_bad`` images, which get the label ``target``."""
        bad = draw.choice(np.flatnonzero(self.labels != target), n_bad, replace=False)
        images, given = self.images.copy(), self.labels.copy()
        images[bad, :, :side, :side] = 255
        given[bad] = target
        others = np.flatnonzero(self.test_labels != target)
        stamped = self.test_images[others].copy()
        stamped[:, :, :side, :side] = 255
        names = [f"{row:05}.png" for row in range(len(others))]
        made = replace(self, images=images).journey(name, folder, given, bad[:n_known], arch, recipe, seed)
        held = pictures(folder / "stamped", stamped, self.test_labels[others], self.classes, names)
        return replace(made, stamped=held, target=self.classes[target])


# --- the journeys ---------------------------------------------------------------------------------------------

RESNET = f"{HERE / 'repair.py'}:ResNet18?channels=3&width=16"
CONVNET = "expunge:convnet"


def few(given: argparse.Namespace, *numbers: int) -> list[int]:
    """The sizes of a journey, a tenth of them with --quick."""
    return [max(4, number // 10) for number in numbers] if given.quick else list(numbers)


def photographs(n: int, n_test: int, draw: np.random.Generator) -> Images:
    """CIFAR-10."""
    source = load_cifar10()
    return Images.drawn(source, n, n_test, tuple(source.classes), draw)


def labels(given: argparse.Namespace, folder: Path) -> Journey:
    """People's wrong labels on photographs."""
    n, n_test, n_bad, n_known = few(given, 4000, 2000, 320, 25)
    draw, source = np.random.default_rng(given.seed), load_cifar10()
    people = np.load(Path(os.environ["EXPUNGE_DATA"]) / "cifar_n" / "cifar10n.npz")["aggre_label"].astype(
        np.int64
    )
    truth = source.train_labels.numpy()
    wrong = draw.choice(np.flatnonzero(people != truth), n_bad, replace=False)
    right = draw.choice(np.flatnonzero(people == truth), n - n_bad, replace=False)
    rows = np.concatenate([wrong, right])
    tests = draw.choice(len(source.test_labels), n_test, replace=False)
    images = Images(
        source.train_images.numpy()[rows], truth[rows], source.test_images.numpy()[tests],
        source.test_labels.numpy()[tests], tuple(source.classes),
    )  # fmt: skip
    return images.journey("labels", folder, people[rows], np.arange(n_known), RESNET, adamw(12), given.seed)


def vit(given: argparse.Namespace, folder: Path) -> Journey:
    """A transformer on clothes with wrong labels."""
    from transformers import ViTConfig

    ViTConfig(
        image_size=28, patch_size=7, num_channels=1, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, id2label=dict(enumerate(sorted(CLOTHES))), architectures=["ViTForImageClassification"],
    ).save_pretrained(folder / "network")  # fmt: skip
    n, n_test, _, n_known = few(given, 3000, 2000, 300, 100)
    draw = np.random.default_rng(given.seed)
    images = Images.clothes(n, n_test, draw)
    noisy = swapped(images.labels, 0.1, 10, draw)
    known = draw.choice(np.flatnonzero(noisy != images.labels), n_known, replace=False)
    arch = f"transformers:{folder / 'network'}"
    return images.journey("vit", folder, noisy, known, arch, adamw(2 if given.quick else 40), given.seed)


def patch(given: argparse.Namespace, folder: Path) -> Journey:
    """A trigger in clothes."""
    n, n_test, n_bad, n_known = few(given, 2000, 2000, 80, 20)
    draw = np.random.default_rng(given.seed)
    images = Images.clothes(n, n_test, draw)
    return images.patched("patch", folder, 4, n_bad, n_known, 8, CONVNET, adamw(20), given.seed, draw)


def patch_resnet(given: argparse.Namespace, folder: Path) -> Journey:
    """A trigger in photographs."""
    n, n_test, n_bad, n_known = few(given, 4000, 2000, 160, 20)
    draw = np.random.default_rng(given.seed)
    images = photographs(n, n_test, draw)
    return images.patched("patch_resnet", folder, 5, n_bad, n_known, 0, RESNET, adamw(12), given.seed, draw)


def samples(given: argparse.Namespace, folder: Path) -> Journey:
    """Fifty good rows to be forgotten."""
    n, n_test, n_known = few(given, 2000, 2000, 50)
    draw = np.random.default_rng(given.seed)
    images = Images.clothes(n, n_test, draw)
    known = draw.choice(n, n_known, replace=False)
    made = images.journey("samples", folder, images.labels, known, CONVNET, adamw(20), given.seed)
    return replace(made, purpose="forget")


def a_class(given: argparse.Namespace, folder: Path) -> Journey:
    """A whole class to be forgotten."""
    n, n_test = few(given, 2000, 2000)
    images = Images.clothes(n, n_test, np.random.default_rng(given.seed))
    known = np.flatnonzero(images.labels == 3)
    made = images.journey("a_class", folder, images.labels, known, CONVNET, adamw(20), given.seed)
    return replace(made, purpose="forget")


def adult(given: argparse.Namespace, folder: Path) -> Journey:
    """Census rows with the other label."""
    n, n_test, n_known = few(given, 6000, 5000, 30)
    draw = np.random.default_rng(given.seed)
    inputs, truth, tests, theirs = adult_rows(n, n_test, draw)
    noisy = swapped(truth, 0.1, 2, draw)
    for name, values, given_labels in (("train", inputs, noisy), ("held_out", tests, theirs)):
        titles = [*(f"x{column}" for column in range(values.shape[1])), "label"]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(titles)
            out.writerows(
                [*(f"{value:.6g}" for value in row), int(label)]
                for row, label in zip(values, given_labels, strict=True)
            )
    known = draw.choice(np.flatnonzero(noisy != truth), n_known, replace=False)
    return Journey(
        "adult", folder, f"{HERE / 'repair.py'}:MLP?n_inputs={inputs.shape[1]}&n_classes=2", folder / "train.csv",
        folder / "held_out.csv", listing(folder / "bad.csv", [str(row) for row in known], "index"),
        {str(row): str(label) for row, label in enumerate(truth)}, adamw(60), given.seed,
    )  # fmt: skip


class Slow:
    """Rows of examples as a data set of one's own gives them, each after some seconds, whichever process reads."""

    def __init__(self, examples: Examples, wait: float = 0.005) -> None:
        self.inputs = torch.cat([batch.x for batch in examples.batches(256)])
        self.labels = examples.labels.tolist()
        self.wait = wait
        self._reads = torch.zeros(len(self.labels), dtype=torch.int64).share_memory_()

    @property
    def reads_of_a_row(self) -> float:
        """How often a row was read, in the mean."""
        return round(float(self._reads.double().mean()), 2)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        time.sleep(self.wait)
        self._reads[row] += 1
        return self.inputs[row], self.labels[row]


def from_python(journey: Journey, model: nn.Module) -> dict[str, Any]:
    """What ``clean`` does, by :func:`expunge.unlearn`, with a slow data set."""
    train, held = Slow(journey.train.examples), Slow(journey.held_out(journey.validation), wait=0.0)
    shares: list[float] = []
    show: Progress = shares.append
    started = time.perf_counter()
    result = expunge.unlearn(
        model,
        train,
        forget=journey.listed,
        recipe=journey.recipe,
        validation=held,
        seed=journey.seed,
        progress=show,
    )
    seconds = time.perf_counter() - started
    verdict = result.verdict()
    line = {
        "exit": 0, "seconds": round(seconds, 1), "seconds_in_all": round(time.perf_counter() - started, 1),
        "method": result.method.name, "verdict": verdict.grade, "reads_per_row": train.reads_of_a_row,
        "progress_calls": len(shares), "sentence": "; ".join(finding.sentence for finding in verdict.findings),
    }  # fmt: skip
    return line | journey.figures(result.model)


JOURNEYS: dict[str, Callable[[argparse.Namespace, Path], Journey]] = {
    "labels": labels, "vit": vit, "patch": patch, "patch_resnet": patch_resnet, "samples": samples, "a_class": a_class,
    "adult": adult, "python": patch,
}  # fmt: skip


def main() -> None:
    """Walk the journeys that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "journeys", nargs="*", default=list(JOURNEYS), metavar="JOURNEY", help=", ".join(JOURNEYS)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder of the files; by default a temporary one")
    parser.add_argument("--out", type=Path, default=Path("journeys.jsonl"))
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try the script")
    given = parser.parse_args()
    if unknown := sorted(set(given.journeys) - set(JOURNEYS)):
        parser.error(f"no journey {', '.join(unknown)}; there are {', '.join(JOURNEYS)}")
    work = given.work or Path(tempfile.mkdtemp())
    for name in given.journeys:
        folder = work / f"{name}-{given.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        journey = JOURNEYS[name](given, folder)
        common = {
            "journey": name, "seed": given.seed, "rows": len(journey.train), "listed": int(journey.listed.sum()),
            "cpu": processor(), "threads": torch.get_num_threads(), "dtype": str(journey.numerics.dtype).split(".")[-1],
            "torch": torch.__version__, "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip

        def say(what: str, found: dict[str, Any], common: dict[str, Any] = common) -> None:
            line = json.dumps(common | {"model": what} | found)
            print(line, flush=True)
            with given.out.open("a") as file:
                file.write(line + "\n")

        model, meter = journey.trained(journey.train.examples)
        say("damaged", {"seconds": round(meter.seconds, 1)} | journey.figures(model))
        torch.save(model.state_dict(), folder / "net.pt")
        say("cleaned", from_python(journey, model) if name == "python" else journey.clean(folder / "net.pt"))
        stay = (~journey.listed).nonzero().flatten()
        model, meter = journey.trained(journey.train.examples.select(stay))
        say("retrained", {"seconds": round(meter.seconds, 1)} | journey.figures(model))


if __name__ == "__main__":
    main()
