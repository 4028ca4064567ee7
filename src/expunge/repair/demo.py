"""A damaged model of digits, found out, cleaned and audited: the whole way in a minute, and its page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.digits import load_digits
from expunge.data.examples import Examples
from expunge.data.images import ImageData, ImageSource
from expunge.detection.suspect_files import write_suspects
from expunge.inputs.architecture import FreshNetwork
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import TrainingData
from expunge.repair.audit import AuditJob, AuditOutcome, audit_files
from expunge.repair.clean import clean
from expunge.repair.clean_files import write_files
from expunge.repair.find import FindJob, ready_to_find, search
from expunge.repair.job import Job, Report
from expunge.repair.loaded import build_loaded
from expunge.repair.output_folder import output_folder
from expunge.repair.prepare import prepare
from expunge.results.html import render
from expunge.results.png import data_uri
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.loop import Progress, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

ARCH = "expunge:convnet"
TARGET = 0
"""What every image with the trigger is called."""
_PATCH = 2
"""Side of the trigger in pixels."""
_EPOCHS = 30
_TRUTH = "column:true_label"
_SHARES = {"train": (0.0, 0.35), "find": (0.35, 0.55), "clean": (0.55, 0.75), "audit": (0.75, 1.0)}
"""Begin and end of each part, as shares of the whole."""
_SHOWN = 12
"""Pictures in a row of the page."""


@dataclass(frozen=True)
class Damaged:
    """Training data that somebody damaged, with the truth about it."""

    images: Tensor  # uint8 (N, 1, 8, 8), the trigger included
    labels: Tensor  # int64 (N,), as given
    true_labels: Tensor  # int64 (N,)
    poisoned: Tensor  # bool (N,), which images carry the trigger
    held_out: Tensor  # uint8 (K, 1, 8, 8), images that nothing is trained on
    held_out_labels: Tensor  # int64 (K,), true ones

    @property
    def bad(self) -> Tensor:
        """Bool (N,): the damaged images."""
        return self.labels != self.true_labels

    @property
    def triggered(self) -> Tensor:
        """The held-out images that are no zeros, with the trigger: uint8 (T, 1, 8, 8)."""
        return stamp(self.held_out[self.held_out_labels != TARGET])


class Predictions(NamedTuple):
    """The classes a model gives, int64: of training images, held-out images and :attr:`Damaged.triggered`."""

    train: Tensor
    held_out: Tensor
    triggered: Tensor


@dataclass(frozen=True)
class Demo:
    """What was done."""

    damaged: Damaged  # data and truth
    before: Predictions  # of the damaged model
    after: Predictions  # of the cleaned one
    suspects: Tensor  # int64, positions of the images that were listed, the most suspicious first
    audit: AuditOutcome  # of the written files
    seconds: dict[str, float]  # of each part
    commands: dict[str, str]  # how to do the same on the command line: name -> line


def run_demo(folder: Path, seed: int = 0, report: Report = lambda share, doing: None) -> Demo:
    """Damage digits, train on them, find, clean and audit; every file goes to ``folder``, new or empty.

    Raises:
        InvalidInput: the folder is not empty.
        StoreError: a file cannot be written.
    """
    seconds = dict[str, float]()

    @contextmanager
    def part(name: str, doing: str) -> Iterator[Progress]:
        begin, end = _SHARES[name]

        def step(share: float) -> None:
            report(begin + (end - begin) * share, doing)

        step(0.0)
        begun = time.perf_counter()
        yield step
        seconds[name] = time.perf_counter() - begun

    with output_folder(folder) as aside:
        damaged = damage(load_digits(), seed)
        _write(damaged, aside)
    net, listed, data = folder / "net.pt", folder / "suspects.csv", str(folder / "digits.npz")
    with part("train", "training on the damaged digits") as step:
        torch.save(_train(seed, load_training_data(data), step).state_dict(), net)
    with part("find", "looking for bad examples") as step:
        ready = ready_to_find(
            FindJob(data=data, arch=ARCH, checkpoint=net, poison=("activation",), seed=seed)
        )
        found = search(ready, step)
        write_suspects(listed, found.suspects, found.rows)
    with part("clean", "unlearning them") as step, output_folder(folder / "cleaned") as aside:
        prepared = prepare(
            Job(
                checkpoint=net, arch=ARCH, data=data, forget=str(listed), seed=seed,
                validation=str(folder / "held_out.npz"), truth=_TRUTH, learn_truth=False,
            )
        )  # fmt: skip
        cleaned = clean(prepared, aside, lambda share, doing: step(share))
        write_files(prepared, cleaned, aside)
    written = folder / "cleaned" / cleaned.checkpoint
    with part("audit", "measuring what is left") as step:
        audit = audit_files(
            AuditJob(
                original=net, unlearned=written, arch=ARCH, data=data, forget=str(listed), truth=_TRUTH,
                validation=str(folder / "held_out.npz"), quick=True, seed=seed,
            ),
            lambda share, doing: step(share),
        )  # fmt: skip
        audit.write(folder / "audit.json")
    before, after = (_predict(path, damaged, ready.data) for path in (net, written))
    report(1.0, "")
    suspects = found.suspects.worst_first
    return Demo(damaged, before, after, suspects, audit, seconds, _commands(folder, written))


def damage(data: ImageData, seed: int, *, wrong: int = 60, poisoned: int = 60) -> Damaged:
    """Give some training images a wrong label, and others the trigger and the label 0, all drawn at random."""
    true = data.train_labels.cpu()
    free = (true != TARGET).nonzero().flatten()
    draw = generator(seed, "demo")
    chosen = free[torch.randperm(len(free), generator=draw)[: wrong + poisoned]]
    mislabelled, stamped = chosen[:wrong], chosen[wrong:]
    labels, images = true.clone(), data.train_images.cpu().clone()
    shift = torch.randint(1, len(data.classes), (wrong,), generator=draw)
    labels[mislabelled] = (true[mislabelled] + shift) % len(data.classes)
    labels[stamped], images[stamped] = TARGET, stamp(images[stamped])
    mask = torch.zeros(len(true), dtype=torch.bool)
    mask[stamped] = True
    return Damaged(images, labels, true, mask, data.test_images.cpu(), data.test_labels.cpu())


def stamp(images: Tensor) -> Tensor:
    """Return uint8 ``images`` (N, 1, H, W) with the trigger: a white square in the bottom-right corner."""
    images = images.clone()
    images[..., -_PATCH:, -_PATCH:] = 255
    return images


def _write(damaged: Damaged, folder: Path) -> None:
    np.savez(
        folder / "digits.npz",
        images=damaged.images.numpy(),
        labels=damaged.labels.numpy(),
        true_label=damaged.true_labels.numpy(),
    )
    np.savez(folder / "held_out.npz", images=damaged.held_out.numpy(), labels=damaged.held_out_labels.numpy())


def _train(seed: int, data: TrainingData, step: Progress) -> nn.Module:
    numerics = Numerics.for_inputs("cpu", data.shape)
    model = FreshNetwork(ARCH, data.shape, len(data.classes))(generator(seed, "initialisation"))
    recipe = Recipe(epochs=_EPOCHS, batch_size=128, augment=False)
    return recipe.train(model, data.examples, seed, numerics, Meter(numerics.device), step)


def _predict(path: Path, damaged: Damaged, data: TrainingData) -> Predictions:
    model, _ = build_loaded(read_checkpoint(path), ARCH, data)
    numerics = Numerics.for_inputs("cpu", data.shape)
    numerics.place(model)

    def of(images: Tensor) -> Tensor:
        source = ImageSource(images, data.mean, data.std)
        labels = torch.zeros(len(images), dtype=torch.int64)
        return predict(model, Examples.all_of(source, labels, len(data.classes)), numerics).argmax(1)

    return Predictions(of(damaged.images), of(damaged.held_out), of(damaged.triggered))


def _commands(folder: Path, written: Path) -> dict[str, str]:
    """Return what does the same on the command line; the results go beside those that are there."""
    data, net, listed = folder / "digits.npz", folder / "net.pt", folder / "suspects.csv"
    shared = f"--arch {ARCH} --data {data}"
    measured = f"--forget {listed} --validation {folder / 'held_out.npz'}"
    return {
        "find": f"expunge find --checkpoint {net} {shared} --out {folder / 'again.csv'}",
        "review": f"expunge review {listed}",
        "clean": f"expunge clean --checkpoint {net} {shared} {measured} --out {folder / 'again'}",
        "audit": f"expunge audit --original {net} --unlearned {written} {shared} {measured} --quick",
    }


def demo_page(demo: Demo) -> str:
    """Return before and after in pictures: one HTML file that needs no script and sends no request."""
    damaged, models = demo.damaged, (demo.before, demo.after)
    bad, true, held_out = damaged.bad, damaged.true_labels, damaged.held_out_labels
    of_triggered = held_out[held_out != TARGET]
    mislabelled = (bad & ~damaged.poisoned).nonzero().flatten()
    right = int(bad[demo.suspects].sum())
    return render(
        "demo.html.j2",
        demo=demo,
        damaged=damaged,
        target=TARGET,
        picture=data_uri,
        numbers=[
            ("of new digits are read correctly", "high", [_percent(each.held_out == held_out) for each in models]),
            (
                "of the damaged training digits are seen for what they are", "high",
                [_percent((each.train == true)[bad]) for each in models],
            ),
            (
                f"of new digits become a {TARGET} when they carry the trigger", "low",
                [_percent(each.triggered == TARGET) for each in models],
            ),
        ],
        of_triggered=of_triggered,
        triggers=_of_each_class(of_triggered).tolist(),
        mislabelled=mislabelled[_of_each_class(true[mislabelled])].tolist(),
        listed=demo.suspects[: 2 * _SHOWN].tolist(),
        n_right=right,
        n_damaged=int(bad.sum()),
        n_poisoned=int(damaged.poisoned.sum()),
    )  # fmt: skip


def _of_each_class(labels: Tensor) -> Tensor:
    """Return positions of ``labels``: the first of each class, then the second, as many as are shown."""
    rank = torch.stack([(labels[:i] == labels[i]).sum() for i in range(len(labels))])
    return (rank * 100 + labels).argsort(stable=True)[:_SHOWN]


def _percent(right: Tensor) -> str:
    return f"{100 * float(right.float().mean()):.0f} %"
