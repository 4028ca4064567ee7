"""The check before anything is touched: does this checkpoint belong to this data and this forget list?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput, first_few
from expunge.inputs.checkpoint import Checkpoint
from expunge.inputs.layer_checks import Level, Remark, check_layers, check_lazy, ranked
from expunge.inputs.training_data import TrainingData
from expunge.inputs.training_scores import (
    best_class_order,
    better_normalisation,
    chance,
    confusion,
    fit,
    sample,
)
from expunge.seeding import generator
from expunge.training.logits import check_logits
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

_LITTLE = 0.2
"""Share of the listed examples, given their given label, up to which there is little to repair."""
_ENOUGH = 10
"""Listed examples from which that share is known well enough."""
_SCORED = 5000
"""Training examples, and listed ones, that are scored at most, drawn at random."""


@dataclass(frozen=True)
class Preflight:
    """What was found and measured; accuracies are fractions in [0, 1] of given labels.

    Args:
        findings: errors first, then warnings, then notes.
        numbers: those that could be measured of "n_train", "n_forget", "n_classes", "n_logits", "n_scored" (training
            examples the scores are over), "chance", "train_accuracy", "forget_accuracy" (the share of the forget list's
            given labels that the model has learned), "retain_accuracy", "best_order_accuracy".
        data: the training data; where its labels are numbers, with as many classes as the model has logits, and read
            as fits the model where that was left open.
    """

    findings: tuple[Remark, ...]
    numbers: dict[str, float]
    data: TrainingData

    @property
    def little_learned(self) -> bool:
        """Whether the model gives few of the listed examples, and these are enough to say so, their given label."""
        share = self.numbers.get("forget_accuracy", 1.0)
        return self.numbers["n_forget"] >= _ENOUGH and share <= _LITTLE

    @property
    def errors(self) -> list[Remark]:
        """The findings that stop a repair."""
        return [finding for finding in self.findings if finding.level == "error"]


def preflight(
    model: nn.Module,
    data: TrainingData,
    positions: Tensor,
    numerics: Numerics,
    *,
    checkpoint: Checkpoint | None = None,
    batch_size: int = 256,
    seed: int = 0,
    fit_reading: bool = False,
    force: bool = False,
) -> Preflight:
    """Return what speaks against a repair of ``model``; model and data stay untouched.

    Args:
        model: with its weights, on the device of ``numerics``.
        data: what it was trained on.
        positions: int64 (F,), the forget list, as ``read_forget_list`` gives it.
        numerics: where to compute.
        checkpoint: where the weights came from; its other entries are looked at.
        batch_size: examples a step of the repair will have.
        seed: of the draw of examples that are scored.
        fit_reading: normalise the images in the usual way that clearly fits the model best, and say so; else another
            way that fits better is an error.
        force: a model that scores badly is a warning, not an error.
    """
    numbers = {"n_train": float(len(data)), "n_forget": float(len(positions))}
    lazy = check_lazy(model)
    findings = lazy or list(_logits(model, data, numerics, numbers))
    if "n_logits" in numbers and not data.named_classes and numbers["n_logits"] > len(data.classes):
        data = data.with_n_classes(int(numbers["n_logits"]))
    numbers["n_classes"] = float(len(data.classes))
    if not lazy:
        findings += check_layers(model, len(data.classes), batch_size, numerics.device)
    findings += [*_forget_list(data, positions), *_carried(checkpoint)]
    if not any(finding.level == "error" for finding in findings):
        draw = generator(seed, "preflight")
        if fit_reading:
            note, data = fit_reading_of(model, data, numerics, batch_size, draw)
            findings += note
        level: Level = "warning" if force else "error"
        findings += _scores(model, data, positions, numerics, numbers, batch_size, draw, level)
    return Preflight(tuple(ranked(findings)), numbers, data)


def _forget_list(data: TrainingData, positions: Tensor) -> Iterator[Remark]:
    mask = torch.zeros(len(data), dtype=torch.bool)
    mask[positions.cpu()] = True
    labels, n_classes = data.examples.labels.cpu(), len(data.classes)
    count, left = (torch.bincount(part, minlength=n_classes) for part in (labels, labels[~mask]))
    share = len(positions) / len(data)
    if share > 0.5:
        yield Remark(
            "warning",
            "forget list",
            f"names {share:.0%} of the data",
            "check that it lists the bad rows, not the good ones; else train anew on what remains",
        )
    emptied = [data.classes[i] for i in ((count > 0) & (left == 0)).nonzero().flatten().tolist()]
    if emptied:
        what = f"holds every example of {first_few(emptied)}: the model will no longer know the class"
        yield Remark("note", "forget list", what)
    absent = [data.classes[i] for i in (count == 0).nonzero().flatten().tolist()]
    if absent:
        yield Remark("note", "data", f"has no example of {first_few(absent)}")


def _carried(checkpoint: Checkpoint | None) -> Iterator[Remark]:
    if checkpoint is not None and checkpoint.carried:
        yield Remark(
            "warning",
            checkpoint.path.name,
            f"also holds tensors under {first_few(checkpoint.carried)}; they are written back unchanged and still "
            "carry what is to be forgotten",
            "drop these entries before the repaired file is handed on or trained further",
        )


def _logits(
    model: nn.Module, data: TrainingData, numerics: Numerics, numbers: dict[str, float]
) -> Iterator[Remark]:
    """Run the model: its output must be logits for the classes, and repeatable."""
    try:
        answer = check_logits(model, next(data.examples.batches(3)).x, numerics)
    except InvalidInput as error:
        what, _, remedy = str(error).removeprefix("the model ").rpartition("; ")
        yield Remark("error", "model", what, remedy)
        return
    numbers["n_logits"] = float(answer.n_logits)
    fewer, more = answer.n_logits < len(data.classes), answer.n_logits > len(data.classes)
    # Numbers as labels do not say how many classes there are beyond the largest.
    if fewer or (more and data.named_classes):
        yield Remark(
            "error",
            "model",
            f"has {answer.n_logits} logits, but the data has {len(data.classes)} classes "
            f"({first_few(list(data.classes), 5)})",
            "give the data it was trained on, or all class names in the order of its logits (--classes)",
        )
        return
    if answer.several:
        yield Remark("note", "model", f"returns {answer.several} in training mode: the first is trained on")
    if not answer.repeatable:
        yield Remark(
            "warning",
            "model",
            "gives other logits when the same batch is run again in evaluation mode",
            "take what is random out of the forward pass in evaluation mode; scores will vary until then",
        )


def _scores(
    model: nn.Module, data: TrainingData, positions: Tensor, numerics: Numerics, numbers: dict[str, float],
    batch_size: int, draw: torch.Generator, level: Level,
) -> Iterator[Remark]:  # fmt: skip
    examples = sample(data.examples, _SCORED, draw)
    logits = predict(model, examples, numerics, batch_size)
    if bool(logits.isnan().any()):
        yield Remark(
            "error",
            "model",
            f"gives NaN on {int(logits.isnan().any(1).sum())} of {len(logits)} examples",
            "check the checkpoint and the inputs; with bfloat16, try float32",
        )
        return
    guess, right = chance(examples.labels, examples.n_classes), _accuracy(logits, examples.labels)
    order = best_class_order(confusion(examples.labels, logits.argmax(1), examples.n_classes))
    forget = sample(data.examples.select(positions), _SCORED, draw)
    learned = _accuracy(predict(model, forget, numerics, batch_size), forget.labels)
    mask = torch.isin(examples.index, data.examples.index[positions.to(data.examples.device)])
    numbers |= {
        "n_scored": float(len(examples)),
        "chance": guess,
        "train_accuracy": right,
        "forget_accuracy": learned,
        "best_order_accuracy": order.accuracy,
    }
    if not bool(mask.all()):
        numbers["retain_accuracy"] = _accuracy(logits[~mask], examples.labels[~mask])
    # Three standard errors of the sample, and a quarter of the way to a perfect score.
    near = guess + max(3 * math.sqrt(guess * (1 - guess) / len(examples)), 0.25 * (1 - guess))
    said = f"accuracy on the training data is {right:.1%}"
    if len(order.moved) > 1:
        moved = [f"{data.classes[i]} is read as {data.classes[order.assigned[i]]}" for i in order.moved]
        what = f"are in another order than the model's: {first_few(moved)}; {said}, in the model's order "
        what += f"{order.accuracy:.1%}"
        yield Remark("error", "classes", what, _reordering(data, order.names(data.classes)))
        return
    few = sample(examples, 512, draw)
    other = better_normalisation(model, data, few, numerics, batch_size, right)
    if other is not None:
        what = f"{said}, but {other.accuracy:.1%} with {other.option}"
        yield Remark(level, "normalisation", what, f"read the images as in training: {other.option}")
        return
    if right <= near:
        yield Remark(
            level,
            "model",
            f"accuracy on its training data is {right:.1%}, and {guess:.1%} would be chance",
            "check that the checkpoint was trained on this data, and that it is read in the same way: "
            "normalisation (--mean, --std, --normalise), size, tokenizer, order of the classes; --force goes on",
        )
        return
    if right < 0.5 + 0.5 * guess:
        yield Remark(
            "warning",
            "model",
            f"accuracy on its training data is only {right:.1%} (chance {guess:.1%})",
            "check the normalisation and size of the inputs; a trained model usually scores higher",
        )
    if learned <= guess:
        yield Remark(
            "warning",
            "forget list",
            f"the model predicts the given label of only {learned:.1%} of the {len(positions)} listed examples",
            "it has hardly learned them: check that the list is of this data; there may be little to forget",
        )


def fit_reading_of(
    model: nn.Module, data: TrainingData, numerics: Numerics, batch_size: int, draw: torch.Generator
) -> tuple[list[Remark], TrainingData]:
    """Return the data, its images normalised in the usual way that clearly fits ``model`` best, and a note if so."""
    examples = sample(data.examples, 512, draw)
    right = fit(model, examples, numerics, batch_size)
    other = better_normalisation(model, data, examples, numerics, batch_size, right)
    if other is None:
        return [], data
    what = f"accuracy on the training data is {right:.1%}, but {other.accuracy:.1%} with {other.option}"
    return [Remark("note", "normalisation", f"{what}: the images are read so")], other.data


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def _reordering(data: TrainingData, names: list[str]) -> str:
    if data.named_classes:
        return f"name the classes in the model's order: --classes {shlex.quote(','.join(names))}"
    return f"renumber the labels; the model's logits 0, 1, 2, ... stand for the labels {', '.join(names)}"
