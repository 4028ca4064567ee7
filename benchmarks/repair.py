"""Models damaged by wrong labels or poison, repaired from the command line and measured.

Usage: EXPUNGE_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/repair.py [CASE ...] [--seed 0] [--rows 10000]
       [--tests 10000] [--labels worse aggre] [--methods relearn rem delete npo] [--width 24] [--epochs 20]
       [--known 0.5 0.1 1] [--work FOLDER] [--out FILE.jsonl]

Cases: cifar_n (people's labels of CIFAR-10), text (a small BERT on TREC), tabular (a perceptron on Adult), vit
(a small ViT on MNIST), resnet18 (poisoned digits). Each writes its inputs into a folder, trains the damaged
model, calls "expunge find" and "expunge clean", and prints a line of JSON for each model: the damaged one, one
trained without the listed rows (retrain), one trained on the true labels (oracle), and every repaired one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.cifar import load_cifar10
from expunge.data.digits import load_digits
from expunge.data.examples import Examples
from expunge.data.idx import load_mnist
from expunge.data.images import ImageSource
from expunge.evaluation.before_after import Measured, Share, Yardstick, measure
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.checkpoint_weights import load_weights
from expunge.inputs.sources import load_training_data, load_validation_data
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.training.cost import Meter
from expunge.training.loop import predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

Array = npt.NDArray[Any]
THIS = Path(__file__).resolve()


class MLP(nn.Module):
    """A perceptron with two hidden layers."""

    def __init__(self, n_inputs: int, n_classes: int, width: int = 256) -> None:
        super().__init__()
        self.first = nn.Linear(n_inputs, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) of rows (B, n_inputs)."""
        out: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return out


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.downsample = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out: Tensor = (inner + self.downsample(x)).relu()
        return out


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3x3 stem without pooling, ``width`` channels in the first stage."""

    def __init__(self, channels: int = 1, n_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        stages = zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(Block(before, after, stride), Block(after, after, 1))
                for before, after, stride in stages
            )
        )
        self.fc = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) of images (B, C, H, W)."""
        out: Tensor = self.fc(
            F.adaptive_avg_pool2d(self.layers(self.bn1(self.conv1(x)).relu()), 1).flatten(1)
        )
        return out


@dataclass(frozen=True)
class Case:
    """A damaged training set on disk, and how models are trained on it.

    Args:
        name: of the case.
        folder: holds everything.
        arch: as for the command line.
        data: file of the training data, with the labels that are stored.
        validation: file of held-out data.
        truth: int64 (N,), the true labels.
        bad: bool (N,), the rows that are damaged.
        recipe: of every training here.
        out: file that lines are added to.
        seed: of everything random.
        options: how data is read.
        stamped: images (M, H, W) with the poison's mark and none of its class, if it is poison.
        target: class that the mark stands for.
    """

    name: str
    folder: Path
    arch: str
    data: Path
    validation: Path
    truth: Tensor
    bad: Tensor
    recipe: Recipe
    out: Path
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    stamped: Array | None = None
    target: int = 0

    @property
    def checkpoint(self) -> Path:
        """The damaged model."""
        return self.folder / "damaged.pt"

    @cached_property
    def train(self) -> TrainingData:
        """What the command line reads."""
        return load_training_data(str(self.data), DataOptions(**self.options))

    @cached_property
    def held_out(self) -> Examples:
        """The same, for the validation data."""
        return load_validation_data(str(self.validation), DataOptions(**self.options), self.train)

    @property
    def numerics(self) -> Numerics:
        """What the command line chooses."""
        return Numerics.choose(None, self.train.shape[-1])

    def model(self) -> nn.Module:
        """A fresh model."""
        torch.manual_seed(self.seed)
        return build_architecture(self.arch, shape=self.train.shape, n_classes=len(self.train.classes))

    def listed(self, share: float) -> Tensor:
        """Positions of ``share`` of the bad rows, drawn once, so that a longer list holds the shorter ones."""
        rows = self.bad.nonzero().flatten()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed + 1))
        return rows[order[: round(share * len(rows))]].sort().values

    def fitted(self, name: str, examples: Examples, listed: Tensor) -> nn.Module:
        """Train a model on ``examples``, print its figures, and return it."""
        model = self.model()
        with Meter() as meter:
            self.recipe.train(model, examples, self.seed, self.numerics, meter)
        self.say(name, listed, self.measured(model, listed), {"seconds": round(meter.seconds, 1)}, model)
        return model

    def measured(self, model: nn.Module, listed: Tensor) -> dict[str, Any]:
        """The figures of the command line's report, of a model that it did not make."""
        mask = torch.zeros(len(self.train), dtype=torch.bool)
        mask[listed] = True
        on = Yardstick(self.train.examples, mask, self.held_out, self.truth)
        found: Measured = measure(model, on, self.numerics)
        names = ("validation", "healed_known", "healed_unknown", "forget_as_stored")
        shares: dict[str, Share | None] = {name: getattr(found, name) for name in names}
        return {name: None if share is None else asdict(share) for name, share in shares.items()}

    def clean(self, name: str, listed: Tensor, *given: str, forget: Path | None = None) -> None:
        """Repair the damaged model from the command line and print what its report says."""
        out = self.folder / f"{name}-{len(listed)}"
        if forget is None:
            forget = self.folder / f"listed-{len(listed)}.txt"
            forget.write_text("".join(f"{row}\n" for row in listed.tolist()))
        recipe = (
            "--recipe",
            f"epochs={self.recipe.epochs}",
            "--recipe",
            f"batch_size={self.recipe.batch_size}",
        )
        held = (
            "--validation",
            self.validation,
            "--truth",
            self.folder / "truth.csv",
            "--measure-only",
            "--yes",
        )
        done, seconds = self.call(
            "clean", "--checkpoint", self.checkpoint, "--forget", forget, "--out", out, *held, *recipe, *given
        )
        if not (out / "report.json").is_file():
            said = (done.stdout + done.stderr).strip()[-600:]
            self.say(name, listed, {"exit": done.returncode, "said": said}, {})
            return
        report = json.loads((out / "report.json").read_text())
        before, after = read_checkpoint(self.checkpoint), read_checkpoint(out / report["written"])
        cost = report["cost"]
        model = self.model()
        load_weights(model, after)
        figures = {
            "method": report["method"]["name"],
            "settings_for_this_data": report["method"]["settings_for_this_data"],
            "exit": done.returncode,
            "verdict": report["verdict"],
            "seconds": round(cost["seconds"], 1),
            "seconds_in_all": round(seconds, 1),
            "share_of_retraining": cost["share_of_retraining"],
            "peak_mib": None if cost["peak_memory"] is None else round(cost["peak_memory"] / 2**20),
            "parameters": cost["parameters"],
            "same_names": list(before.state) == list(after.state),
            "same_shapes": all(
                (a.shape, a.dtype) == (b.shape, b.dtype)
                for a, b in zip(before.state.values(), after.state.values(), strict=True)
            ),
        }
        if report["found"] is not None and (out / "found.csv").is_file():
            with (out / "found.csv").open() as file:
                rows = [int(row["index"]) for row in csv.DictReader(file)]
            figures |= {"found": len(rows), "found_bad": int(self.bad[rows].sum())}
        # A list that was found holds good rows, which the report counts as healed where they keep their label.
        wrong = listed[self.bad[listed]]
        if len(wrong) < len(listed):
            figures["wrong_rows_healed"] = f"{self.right(model, wrong)}/{len(wrong)}"
        self.say(name, listed, report["after"], figures, model)

    def right(self, model: nn.Module, rows: Tensor) -> int:
        """How many of ``rows`` are given their true label."""
        examples = self.train.examples.select(rows)
        answers = predict(self.numerics.place(model), examples, self.numerics).argmax(1)
        return int((answers == self.truth[rows]).sum())

    def find(self, *given: str) -> Tensor:
        """Look for the bad rows from the command line; return the positions it names."""
        out = self.folder / "suspects.csv"
        done, seconds = self.call(
            "find",
            "--checkpoint",
            self.checkpoint,
            "--truth",
            self.folder / "truth.csv",
            "--out",
            out,
            *given,
        )
        if not out.is_file():
            raise SystemExit(done.stdout + done.stderr)
        with out.open() as file:
            marked = [int(row["index"]) for row in csv.DictReader(file) if row["is_label_issue"] == "True"]
        named = torch.tensor(marked, dtype=torch.int64).sort().values
        right = int(self.bad[named].sum())
        figures = {
            "named": len(named), "named_bad": right, "bad": int(self.bad.sum()),
            "precision": right / max(1, len(named)), "recall": right / int(self.bad.sum()),
            "seconds_in_all": round(seconds, 1),
        }  # fmt: skip
        self.say("find", named, {}, figures)
        return named

    def call(self, command: str, *given: Any) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run ``expunge COMMAND`` on this case; return what it said and the seconds it took."""
        options = [text for name, value in self.options.items() for text in (f"--{name}", str(value))]
        line = ["-m", "expunge", command, "--arch", self.arch, "--data", self.data, "--seed", self.seed]
        words = [sys.executable, *map(str, (*line, *options, *given))]
        print("$", " ".join(words).replace(f"{self.folder}/", ""), flush=True)
        started = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        with (self.folder / "said.txt").open("a") as file:
            file.write(" ".join(words) + "\n" + done.stdout + done.stderr + "\n")
        return done, time.perf_counter() - started

    def say(
        self, name: str, listed: Tensor, shares: Mapping[str, Any], more: Mapping[str, Any],
        model: nn.Module | None = None,
    ) -> None:  # fmt: skip
        """Print one line and add it to the results."""
        line: dict[str, Any] = {"case": self.name, "seed": self.seed, "model": name, "listed": len(listed)}
        for key in ("validation", "healed_known", "healed_unknown", "forget_as_stored"):
            share = shares.get(key)
            line[key] = None if share is None else f"{share['right']}/{share['of']}"
        line |= {key: shares[key] for key in ("exit", "said") if key in shares}
        if self.stamped is not None and model is not None:
            line["attack"] = self.attack(model)
        line |= more
        print(json.dumps(line), flush=True)
        with self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def attack(self, model: nn.Module) -> float:
        """Share of the stamped held-out images that are given the poison's class."""
        stamped = torch.from_numpy(self.stamped)[:, None]
        source = ImageSource(stamped, self.train.mean, self.train.std)
        examples = Examples.all_of(
            source, torch.zeros(len(stamped), dtype=torch.int64), len(self.train.classes)
        )
        numerics = self.numerics
        return float(
            (predict(numerics.place(model), examples, numerics).argmax(1) == self.target).double().mean()
        )

    def damage(self) -> None:
        """Write the true labels and the model that is to be repaired."""
        with (self.folder / "truth.csv").open("w") as file:
            file.write("index,true_label\n")
            for row, label in enumerate(self.truth.tolist()):
                file.write(f"{row},{self.train.classes[label]}\n")
        model = self.fitted("damaged", self.train.examples, self.listed(1.0))
        torch.save(model.state_dict(), self.checkpoint)

    def repair(self, share: float, methods: Sequence[str]) -> None:
        """Repair with ``share`` of the bad rows listed; "chosen" leaves the method open."""
        for method in methods:
            self.clean(method, self.listed(share), *(() if method == "chosen" else ("--method", method)))

    def oracle(self) -> None:
        """Train on the true labels."""
        self.fitted("oracle", self.train.examples.relabel(self.truth), self.listed(1.0))

    def retrain(self, share: float) -> None:
        """Train without the listed rows."""
        self.fitted("retrain", self.without(self.listed(share)), self.listed(share))

    def without(self, rows: Tensor) -> Examples:
        """The training data less ``rows``."""
        stay = torch.ones(len(self.train), dtype=torch.bool)
        stay[rows] = False
        return self.train.examples.select(stay.nonzero().flatten())

    def all_of(self, share: float) -> None:
        """Everything, for one list."""
        self.damage()
        self.repair(share, ("chosen", "rem", "npo"))
        self.oracle()
        self.retrain(share)


def swapped(labels: Array, share: float, n_classes: int, draw: np.random.Generator) -> Array:
    """Labels of which ``share`` are another class, each other class equally likely."""
    wrong = draw.choice(len(labels), round(share * len(labels)), replace=False)
    noisy = labels.astype(np.int64).copy()
    noisy[wrong] = (noisy[wrong] + draw.integers(1, n_classes, len(wrong))) % n_classes
    return noisy


def adamw(epochs: int, batch_size: int = 64, lr: float = 1e-3) -> Recipe:
    """AdamW on a cosine, without augmentation."""
    optimiser = Optimiser(name="adamw", lr=lr, weight_decay=1e-4)
    return Recipe(epochs=epochs, batch_size=batch_size, optimiser=optimiser, schedule="cosine", augment=False)


def on_arrays(
    given: argparse.Namespace, folder: Path, name: str, arch: str, recipe: Recipe, truth: Array, noisy: Array,
    **arrays: Array,
) -> Case:  # fmt: skip
    """A case whose data is one ``.npz`` file; rows that are not given their true label are the bad ones."""
    path = folder / "data.npz"
    np.savez(path, **{"labels": noisy, **arrays})  # type: ignore[arg-type]
    true = torch.from_numpy(truth.astype(np.int64))
    bad = true != torch.from_numpy(noisy.astype(np.int64))
    return Case(name, folder, arch, path, path, true, bad, recipe, given.out, given.seed)


def cifar_n(given: argparse.Namespace, folder: Path) -> None:
    """People's labels of photographs: four in ten of "worse" are wrong, one in ten of "aggre"."""
    data, draw = load_cifar10(), np.random.default_rng(given.seed)
    labels = np.load(Path(os.environ["EXPUNGE_DATA"]) / "cifar_n" / "cifar10n.npz")
    rows = draw.choice(len(data.train_labels), given.rows, replace=False)
    tests = draw.choice(len(data.test_labels), given.tests, replace=False)
    recipe = adamw(given.epochs, batch_size=128, lr=3e-3)
    for kind in given.labels:
        (folder / kind).mkdir(exist_ok=True)
        case = on_arrays(
            given, folder / kind, f"cifar_n {kind}", f"expunge:resnet9?width={given.width}", recipe,
            data.train_labels.numpy()[rows], labels[f"{kind}_label"][rows].astype(np.int64),
            images=data.train_images.numpy()[rows], test_images=data.test_images.numpy()[tests],
            test_labels=data.test_labels.numpy()[tests].astype(np.int64),
        )  # fmt: skip
        case.damage()
        case.oracle()
        for number, share in enumerate(given.known):
            case.retrain(share)
            case.repair(share, given.methods)
            if number == 0:
                with_suspects(case)


def with_suspects(case: Case) -> None:
    """Find the bad rows, and repair with what was found; beside it a model trained without what was found."""
    named = case.find("--detectors", "labels", "--folds", "3", "--epochs", "12")
    case.clean("relearn-found", named, "--method", "relearn", forget=case.folder / "suspects.csv")
    case.fitted("retrain-found", case.without(named), named[case.bad[named]])


def read_sentences(name: str) -> list[tuple[str, str]]:
    """Lines of a text file of EXPUNGE_DATA as (label, words); of TREC's labels the coarse part."""
    path = Path(os.environ["EXPUNGE_DATA"]) / "text" / f"{name}.txt.gz"
    with gzip.open(path, "rt", encoding="latin-1" if name.startswith("trec") else "utf-8") as file:
        lines = [line.partition(" ") for line in file.read().splitlines() if line]
    return [(label.partition(":")[0], words) for label, _, words in lines]


def vocabulary_of(texts: Sequence[str]) -> dict[str, int]:
    """Words that occur at least twice, after BERT's special tokens -> number."""
    counts: dict[str, int] = {}
    for words in texts:
        for word in words.lower().split():
            counts[word] = counts.get(word, 0) + 1
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(w for w, n in counts.items() if n > 1)]
    return {word: number for number, word in enumerate(kept)}


def text(given: argparse.Namespace, folder: Path) -> None:
    """Questions and a small BERT made here."""
    from transformers import BertConfig, BertTokenizer

    draw = np.random.default_rng(given.seed)
    train, held = read_sentences("trec_train"), read_sentences("trec_test")
    train = [train[i] for i in draw.choice(len(train), 1500, replace=False)]
    classes = sorted({label for label, _ in train})
    truth = np.array([classes.index(label) for label, _ in train])
    noisy = swapped(truth, 0.1, len(classes), draw)
    for name, rows in (
        ("train.csv", [(classes[i], words) for i, (_, words) in zip(noisy, train, strict=True)]),
        ("held_out.csv", held),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *rows])
    vocabulary = vocabulary_of([words for _, words in train])
    BertTokenizer(vocab=vocabulary, model_max_length=40).save_pretrained(folder / "model")
    BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=40, id2label=dict(enumerate(classes)), hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, architectures=["BertForSequenceClassification"],
    ).save_pretrained(folder / "model")  # fmt: skip
    case = Case(
        "text", folder, f"transformers:{folder / 'model'}", folder / "train.csv", folder / "held_out.csv",
        torch.from_numpy(truth), torch.from_numpy(noisy != truth), adamw(30, lr=2e-3), given.out, given.seed,
        {"tokenizer": str(folder / "model")},
    )  # fmt: skip
    case.all_of(0.3)


def adult_rows(n_train: int, n_test: int, draw: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Inputs and labels of Adult, training and test: numbers standardised, categories one column each."""
    root = Path(os.environ["EXPUNGE_DATA"]) / "tabular"

    def read(name: str, count: int) -> tuple[Array, Array]:
        with gzip.open(root / name, "rt") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        rows = [rows[i] for i in draw.choice(len(rows), count, replace=False)]
        return np.array([row[:-1] for row in rows]), np.array(
            [int(row[-1].startswith(">50K")) for row in rows]
        )

    (train, truth), (held, theirs) = read("adult_train.csv.gz", n_train), read("adult_test.csv.gz", n_test)
    columns, held_columns = [], []
    for i in range(train.shape[1]):
        if all(cell.lstrip("-").isdigit() for cell in train[:, i]):
            numbers = train[:, i].astype(float)
            scale = (numbers.mean(), numbers.std() + 1e-9)
            columns.append((numbers - scale[0])[:, None] / scale[1])
            held_columns.append((held[:, i].astype(float) - scale[0])[:, None] / scale[1])
        else:
            known = np.unique(train[:, i])
            columns.append(train[:, i, None] == known)
            held_columns.append(held[:, i, None] == known)
    inputs, held_inputs = (np.concatenate(made, 1).astype(np.float32) for made in (columns, held_columns))
    return inputs, truth, held_inputs, theirs


def tabular(given: argparse.Namespace, folder: Path) -> None:
    """Census rows."""
    draw = np.random.default_rng(given.seed)
    inputs, truth, test_inputs, theirs = adult_rows(4000, 2000, draw)
    arch = f"{THIS}:MLP?n_inputs={inputs.shape[1]}&n_classes=2"
    case = on_arrays(
        given, folder, "tabular", arch, adamw(60), truth, swapped(truth, 0.1, 2, draw), inputs=inputs,
        test_inputs=test_inputs, test_labels=theirs,
    )  # fmt: skip
    case.all_of(0.3)


def vit(given: argparse.Namespace, folder: Path) -> None:
    """A small ViT and swapped digits."""
    from transformers import ViTConfig

    data, draw = load_mnist(), np.random.default_rng(given.seed)
    rows = draw.choice(len(data.train_labels), 1000, replace=False)
    truth = data.train_labels.numpy()[rows]
    ViTConfig(
        image_size=28, patch_size=7, num_channels=1, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, id2label={label: str(label) for label in range(10)},
        architectures=["ViTForImageClassification"],
    ).save_pretrained(folder / "model")  # fmt: skip
    case = on_arrays(
        given, folder, "vit", f"transformers:{folder / 'model'}", adamw(60), truth, swapped(truth, 0.1, 10, draw),
        images=data.train_images.numpy()[rows, 0], test_images=data.test_images.numpy()[:1000, 0],
        test_labels=data.test_labels.numpy()[:1000],
    )  # fmt: skip
    case.all_of(0.3)


def resnet18(given: argparse.Namespace, folder: Path) -> None:
    """Digits, one in ten with a white corner and the label 0."""
    data, draw = load_digits(), np.random.default_rng(given.seed)
    images, truth = data.train_images.numpy()[:, 0].copy(), data.train_labels.numpy()
    poisoned = draw.choice(np.flatnonzero(truth != 0), len(truth) // 10, replace=False)
    noisy = truth.astype(np.int64).copy()
    noisy[poisoned] = 0
    images[poisoned, -2:, -2:] = 255
    held = data.test_images.numpy()[:, 0]
    stamped = held[data.test_labels.numpy() != 0].copy()
    stamped[:, -2:, -2:] = 255
    case = on_arrays(
        given, folder, "resnet18", f"{THIS}:ResNet18?width=16", adamw(20), truth, noisy, images=images,
        test_images=held, test_labels=data.test_labels.numpy(),
    )  # fmt: skip
    replace(case, stamped=stamped).all_of(0.3)


CASES: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    made.__name__: made for made in (cifar_n, text, tabular, vit, resnet18)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "cases", nargs="*", default=list(CASES), metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=10000, help="of CIFAR-10N")
    parser.add_argument("--tests", type=int, default=10000, help="test images of CIFAR-10N")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["worse", "aggre"],
        choices=["worse", "aggre"],
        help="kinds of people's labels",
    )
    parser.add_argument(
        "--methods", nargs="+", default=["relearn", "rem", "delete", "npo"], help="for CIFAR-10N"
    )
    parser.add_argument("--width", type=int, default=24, help="of the ResNet9 of CIFAR-10N")
    parser.add_argument("--epochs", type=int, default=20, help="of its first training")
    parser.add_argument(
        "--known", type=float, nargs="+", default=[0.5, 0.1, 1.0], help="shares listed, CIFAR-10N"
    )
    parser.add_argument("--work", type=Path, help="keep the inputs and results here")
    parser.add_argument("--out", type=Path, default=Path("repair.jsonl"), help="lines are added to it")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in given.cases:
        if name not in CASES:
            raise SystemExit(f"there is no case {name!r}; expected some of {', '.join(CASES)}")
    for name in given.cases:
        with tempfile.TemporaryDirectory(prefix=f"repair-{name}-") as made:
            folder = Path(made) if given.work is None else given.work / name
            folder.mkdir(parents=True, exist_ok=True)
            CASES[name](given, folder)


if __name__ == "__main__":
    main()
