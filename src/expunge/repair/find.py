"""Find bad examples: from what the user names to the list of suspects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.detection.nearest import nearest
from expunge.detection.out_of_sample import in_large_classes, out_of_sample, short_training
from expunge.detection.poison import activation_clustering, spectral_signatures
from expunge.detection.relearned import relearned
from expunge.detection.result import Detection
from expunge.detection.suspect_files import Rows
from expunge.detection.suspects import Suspects, suspects
from expunge.errors import InvalidInput, first_few
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import FreshNetwork, build_architecture
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.first_training import FirstTraining, first_training
from expunge.inputs.forget_list import KnownTruth, read_forget_list, read_truth
from expunge.inputs.preflight import fit_reading_of
from expunge.inputs.provenance import arch_hash, data_hash
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.inputs.training_scores import chance
from expunge.recording.recording import RECORDED, read_recording
from expunge.repair.job import check_start
from expunge.repair.loaded import build_loaded
from expunge.seeding import generator
from expunge.store.weights import WeightStore
from expunge.training.features import features
from expunge.training.logits import check_logits
from expunge.training.loop import Progress, accuracy
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_WEAK = 0.7
"""Out-of-sample accuracy below which the user is warned."""


@dataclass(frozen=True, kw_only=True)
class FindJob:
    """What a user asks for."""

    data: str  # the training data, see ``load_training_data``
    arch: str  # the network, see ``build_architecture``
    checkpoint: Path | None = None  # the trained model; without it see ``folds`` and ``recorded``
    options: DataOptions = field(default_factory=DataOptions)  # how data is read
    labels: bool = True  # look for wrong labels
    poison: tuple[str, ...] = ()  # "activation", "spectral"
    known: str | None = None  # list of rows known to be bad, see ``read_forget_list``
    folds: int | None = None  # models to train, each without a part of the data, in place of relearning
    recorded: Path | None = None  # what was recorded of the first training, in place of relearning
    recipe: Recipe | None = None  # how the model was first trained; for relearning
    base: Path | None = None  # file of the pretrained weights that the training began from
    earlier: Path | None = None  # file of an earlier checkpoint of that training
    truth: str | None = None  # true labels or bad rows, to measure with
    epochs: int | None = None  # passes of each fold
    batch_size: int = 64  # examples a step, of each fold
    lr: float = 1e-3  # learning rate of each fold
    poison_share: float = 0.05  # upper bound on a class's poisoned share, for "spectral"
    seed: int = 0  # of everything random
    device: str | None = None  # torch device; by default an accelerator if there is one
    kept: Path = Path(".folds")  # folder in which finished folds are kept for a run that goes on

    def __post_init__(self) -> None:
        if self.folds is not None and self.recorded is not None:
            raise InvalidInput(
                "give --folds or --recorded, not both: either trains models or reads what was recorded"
            )
        check_start(self.base, self.earlier)
        if self.source == "relearn" and self.checkpoint is None:
            raise InvalidInput(
                "relearning begins from the trained model: give it with --checkpoint; without one, --folds 5 trains "
                "models of its own, and --recorded FILE reads what was recorded of a training"
            )
        if self.poison and self.checkpoint is None:
            raise InvalidInput(
                f"{self.poison[0]} reads the features of the trained model: give it with --checkpoint"
            )
        if (self.base or self.earlier) and self.source != "relearn":
            raise InvalidInput("--base and --earlier are for relearning; leave them out")

    @property
    def source(self) -> str:
        """Where the probabilities of labels come from: "relearn", "folds", "recorded", or nowhere ("")."""
        if not self.labels:
            return ""
        return "folds" if self.folds is not None else "recorded" if self.recorded is not None else "relearn"


@dataclass(frozen=True)
class FindReady:
    """Everything read and checked, nothing searched yet."""

    job: FindJob  # what was asked for
    data: TrainingData  # the training data
    model: nn.Module  # on the device, with the checkpoint's weights if there is one
    known: Tensor  # bool (N,), the rows known to be bad
    truth: KnownTruth | None  # to measure with
    first: FirstTraining | None  # what is known of the first training
    numerics: Numerics  # where to compute


@dataclass(frozen=True)
class FoundRows:
    """What a search found."""

    suspects: Suspects  # the list
    rows: Rows  # what its rows are called, with their neighbours
    seconds: float  # that the search took


def ready_to_find(job: FindJob) -> FindReady:
    """Read and check everything ``job`` names.

    Raises:
        InvalidInput: files, names or settings that cannot be used; a model that has not learned this data.
        DataError: data or lists that cannot be read.
        StoreError: the checkpoint cannot be read.
    """
    place = Numerics.choose(job.device).device
    data = load_training_data(job.data, replace(job.options, device=place))
    numerics = Numerics.for_inputs(place, data.shape)
    truth = None if job.truth is None else read_truth(job.truth, data)
    known = torch.zeros(len(data), dtype=torch.bool)
    if job.known is not None:
        known[read_forget_list(job.known, data).positions] = True
    if job.checkpoint is None:
        model = build_architecture(job.arch, shape=data.shape, n_classes=len(data.classes))
    else:
        model, _ = build_loaded(read_checkpoint(job.checkpoint), job.arch, data)
    first = None
    numerics.place(model)
    data = data.with_n_classes(check_logits(model, next(data.examples.batches(3)).x, numerics).n_logits)
    if job.checkpoint is not None:
        if job.options.open:
            said, data = fit_reading_of(model, data, numerics, 256, generator(job.seed, "reading"))
            data = replace(data, notes=(*data.notes, *(f"{each.where}: {each.what}" for each in said)))
        _check_learned(model, data, numerics)
        first = first_training(
            model,
            arch=job.arch,
            checkpoint=job.checkpoint,
            recipe=job.recipe,
            base=job.base,
            earlier=job.earlier,
        )
    return FindReady(job, data, model, known, truth, first, numerics)


def search(ready: FindReady, progress: Progress) -> FoundRows:
    """Look for bad rows.

    Raises:
        InvalidInput: too few examples of a class, one class only, no linear head to read features from.
        DataError: a recording of other data.
        Diverged: a training became NaN.
    """
    began = time.perf_counter()
    job, data, model = ready.job, ready.data, ready.model
    labels, n_classes = data.examples.labels.cpu(), len(data.classes)
    seen = features(model, data.examples, ready.numerics) if job.poison else None
    others = [] if seen is None else list(_poison(job, seen, data))
    evidence: dict[str, Any] = {}
    if job.source == "relearn":
        assert ready.first is not None
        beliefs = relearned(
            model, data.examples, ready.numerics, known=ready.known, recipe=ready.first.recipe,
            start=ready.first.start, seed=job.seed, progress=progress,
        )  # fmt: skip
        model, evidence = beliefs.model, {"beliefs": beliefs}
    elif job.source == "folds":
        evidence = _of_folds(ready, progress)
    elif job.source == "recorded":
        assert job.recorded is not None
        recorded = read_recording(job.recorded, labels, n_classes)["probabilities"]
        evidence = {"probabilities": recorded, "notes": [RECORDED]}
    found = suspects(labels, n_classes, known=ready.known, others=others, **evidence)
    rows = Rows(
        labels, data.classes, data.names, None if ready.truth is None else ready.truth.labels,
        _neighbours(found, model if job.checkpoint else None, seen, ready),
    )  # fmt: skip
    return FoundRows(found, rows, time.perf_counter() - began)


def _check_learned(model: nn.Module, data: TrainingData, numerics: Numerics) -> None:
    """A model that has learned nothing of this data says nothing about it."""
    right = accuracy(model, data.examples, numerics)
    guess = chance(data.examples.labels, data.examples.n_classes)
    if right <= guess + 0.1 * (1 - guess):
        raise InvalidInput(
            f"the checkpoint's accuracy on its training data is {right:.1%}, and {guess:.1%} would be chance; check "
            "that it is read in the same way: --normalise, --mean, --std, --size, --classes"
        )


def _of_folds(ready: FindReady, progress: Progress) -> dict[str, Any]:
    """Return probabilities of models that did not see the row, which rows have some, and what is doubtful."""
    job, data = ready.job, ready.data
    labels, folds = data.examples.labels.cpu(), job.folds or 0
    recipe = short_training(
        len(data) - len(data) // max(folds, 2), epochs=job.epochs, batch_size=job.batch_size, lr=job.lr,
        augment=job.options.pad > 0 or job.options.flip,
    )  # fmt: skip
    among = in_large_classes(labels, folds)
    p = torch.full((len(data), len(data.classes)), 1 / len(data.classes), dtype=torch.float64)
    p[among] = out_of_sample(
        FreshNetwork(job.arch, data.shape, len(data.classes)), data.examples.select(among), ready.numerics,
        recipe=recipe, folds=folds, seed=job.seed, kept=WeightStore(job.kept),
        key=fingerprint(arch_hash(job.arch), data_hash(data)), progress=progress,
    )  # fmt: skip
    right = float((p.argmax(1) == labels)[among].double().mean())
    notes = [f"out-of-sample accuracy on the given labels is {right:.1%}"]
    if right < _WEAK:
        notes[0] += ": the list of so weak models is short or poor; train longer, or with a better network"
    if not bool(among.all()):
        small = [data.classes[label] for label in torch.unique(labels[~among]).tolist()]
        notes.append(
            f"classes of fewer than {folds} examples were not searched: {first_few(small, 8)}; choose fewer --folds"
        )
    return {"probabilities": p, "searched": among, "notes": notes}


def _poison(job: FindJob, seen: Tensor, data: TrainingData) -> Iterator[Detection]:
    labels, n_classes = data.examples.labels, len(data.classes)
    for name in job.poison:
        if name == "activation":
            yield activation_clustering(seen, labels, n_classes, seed=job.seed)
        else:
            yield spectral_signatures(seen, labels, n_classes, share=job.poison_share)


def _neighbours(
    found: Suspects, model: nn.Module | None, seen: Tensor | None, ready: FindReady
) -> Tensor | None:
    """Retained rows that are like the suspects, by the features of the network that knows most."""
    if model is None or not len(found.worst_first):
        return None
    try:
        seen = features(model, ready.data.examples, ready.numerics)
    except InvalidInput:  # no linear head: the page does without
        if seen is None:
            return None
    return nearest(seen.cpu(), found.worst_first, ~found.together.flagged)
