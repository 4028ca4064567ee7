"""A repair made ready: everything read and checked, the method chosen, nothing changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from expunge.api import load_method
from expunge.capacity.branches import check_branches
from expunge.data.examples import Examples
from expunge.data.joined import join
from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Request
from expunge.methods.request import suitable
from expunge.models.split import SplitNetwork
from expunge.registry import METHODS
from expunge.repair.architecture import build_architecture
from expunge.repair.checkpoint import Checkpoint, read_checkpoint
from expunge.repair.choice import PERTURBING, Choice, Situation, choose, starting_settings
from expunge.repair.findings import Finding
from expunge.repair.forget_list import ForgetList, read_forget_list
from expunge.repair.job import Job
from expunge.repair.known_truth import UNKNOWN, read_true_labels
from expunge.repair.measure import Yardstick
from expunge.repair.memory import enough_memory
from expunge.repair.preflight import Preflight, preflight
from expunge.repair.sources import load_training_data, load_validation_data
from expunge.repair.training_data import TrainingData
from expunge.repair.weights import load_weights
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics

_OPTION = {
    Needs.RECIPE: "how the model was first trained (--recipe epochs=... --recipe batch_size=...)",
    Needs.UNSEEN: "data the model was not trained on (--unseen)",
    Needs.CLASSES: "a list that is every row of some classes",
    Needs.CODES: "a checkpoint that holds its mnemonic codes under 'codes'",
    Needs.RETAIN: "the remaining data (--no-retain forbids it)",
    Needs.TRUTH: "the truth about all of the data, which only an experiment knows",
}


@dataclass(frozen=True)
class Prepared:
    """Everything a repair needs.

    Args:
        job: what was asked for.
        checkpoint: as it was read.
        model: with its weights, on the device; not the one that will be changed.
        data: the training data.
        forget: the listed rows.
        true_labels: int64 (N,), negative where not known; ``None`` if none is.
        train: what the method is given: the data and, after it, the rows to be learned under their true
            labels.
        validation: to measure with.
        unseen: for the method.
        codes: mnemonic codes of the checkpoint.
        check: what the pre-flight check found.
        choice: which method and why; for a method the user named, that one.
        method: configured.
        changed: the settings of ``method`` that are neither defaults nor the user's.
        on: what is measured.
        numerics: where to compute.
    """

    job: Job
    checkpoint: Checkpoint
    model: nn.Module
    data: TrainingData
    forget: ForgetList
    true_labels: Tensor | None
    train: Examples
    validation: Examples | None
    unseen: Examples | None
    codes: Tensor | None
    check: Preflight
    choice: Choice
    method: Method
    changed: dict[str, object]
    on: Yardstick
    numerics: Numerics

    @property
    def split(self) -> Split:
        """What the method sees."""
        return Split(self.train, self.forget.positions, self.unseen)


class CheckFailed(InvalidInput):
    """The pre-flight check found errors; ``findings`` are those and the rest."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        errors = [finding for finding in findings if finding.level == "error"]
        lines = [f"{finding.where} {finding.what}. {finding.remedy}" for finding in errors]
        count = "an error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(
            "\n".join((f"the check before the repair found {count}; nothing was changed", *lines))
        )
        self.findings = findings


def prepare(job: Job) -> Prepared:
    """Read and check everything ``job`` names; nothing is written.

    Raises:
        CheckFailed: the model does not belong to the data.
        InvalidInput: anything that cannot be used: files, names, settings, a method that cannot work here.
        StoreError: the checkpoint cannot be read.
    """
    checkpoint = read_checkpoint(job.checkpoint)
    place = Numerics.choose(job.device).device
    options = replace(job.options, device=place)
    data = load_training_data(job.data, options)
    numerics = Numerics.for_inputs(place, data.shape)
    forget = read_forget_list(job.forget, data)
    model = build_architecture(job.arch, shape=data.shape, n_classes=len(data.classes))
    checkpoint = load_weights(model, checkpoint)
    with enough_memory("checking the model", f"use --measure-batch {max(1, job.measure_batch // 4)}"):
        numerics.place(model)
        check = preflight(
            model, data, forget.positions, numerics,
            checkpoint=checkpoint, batch_size=job.measure_batch, seed=job.seed, fit_reading=options.open,
            force=job.force,
        )  # fmt: skip
    if check.errors:
        raise CheckFailed(check.findings)
    data = check.data
    validation = None if job.validation is None else load_validation_data(job.validation, options, data)
    unseen = None if job.unseen is None else load_validation_data(job.unseen, options, data)
    true_labels = None if job.truth is None else read_true_labels(job.truth, data)
    codes = _codes(checkpoint, len(data.classes))
    split = Split(_training_set(job, data, forget, true_labels), forget.positions, unseen)
    choice, method, changed = _method(job, model, data, split, codes, numerics)
    mask = torch.zeros(len(data), dtype=torch.bool)
    mask[forget.positions] = True
    forgotten = Split(data.examples, forget.positions).forget_classes if job.purpose == "forget" else ()
    on = Yardstick(data.examples, mask, validation, true_labels, forgotten)
    return Prepared(
        job, checkpoint, model, data, forget, true_labels, split.train, validation, unseen, codes, check, choice,
        method, changed, on, numerics,
    )  # fmt: skip


def _codes(checkpoint: Checkpoint, n_classes: int) -> Tensor | None:
    found = checkpoint.content.get("codes") if checkpoint.entry else None
    return found if isinstance(found, Tensor) and found.ndim > 1 and len(found) == n_classes else None


def _training_set(job: Job, data: TrainingData, forget: ForgetList, true_labels: Tensor | None) -> Examples:
    if true_labels is None or not job.learn_truth:
        return data.examples
    true = true_labels[forget.positions]
    wrong = (true != UNKNOWN) & (true != data.examples.labels.cpu()[forget.positions])
    if not bool(wrong.any()):
        raise InvalidInput(
            f"{job.truth} has no other label than the stored one for any listed row; check both lists"
        )
    # A row of its own: what is done to the wrong label is not to be done to the right one.
    return join(data.examples, data.examples.select(forget.positions[wrong]).relabel(true[wrong]))


def _method(
    job: Job,
    model: nn.Module,
    data: TrainingData,
    split: Split,
    codes: Tensor | None,
    numerics: Numerics,
) -> tuple[Choice, Method, dict[str, object]]:
    request = Request(split, seed=job.seed, numerics=numerics, recipe=job.recipe, codes=codes)
    there = request.available if job.retain else request.available & ~Needs.RETAIN
    situation = Situation(
        purpose=job.purpose,
        whole_classes=bool(split.forget_classes),
        retain=job.retain,
        codes=codes is not None,
        images=len(data.shape) == 3,
        floating=not data.sequences,
        attachable=_attachable(model, next(data.examples.batches(3)).x),
        discovery=job.discovery,
    )
    if job.method is not None:
        method, changed = _configured(job, job.method, len(split.train))
        _check(method, model, request, there, situation)
        return Choice(method.name, "you named it"), method, changed
    choice = choose(situation, METHODS.names())
    method, changed = _configured(job, choice.method, len(split.train))
    try:
        _check(method, model, request, there, situation)
    except InvalidInput as error:
        if not choice.runner_up:
            raise
        method, changed = _configured(job, choice.runner_up, len(split.train))
        _check(method, model, request, there, situation)
        return (
            Choice(method.name, f"the first choice, {choice.method}, cannot work here ({error})"),
            method,
            changed,
        )
    return choice, method, changed


def _attachable(model: nn.Module, x: Tensor) -> bool:
    if isinstance(model, SplitNetwork):
        return True
    try:
        check_branches(model, x)
    except InvalidInput:
        return False
    return True


def _configured(job: Job, name: str, n_train: int) -> tuple[Method, dict[str, object]]:
    default = load_method(name)
    started = starting_settings(type(default), n_train, job.purpose)
    changed = {key: value for key, value in started.items() if key not in job.settings}
    return load_method(name, **{**changed, **job.settings}), changed


def _check(method: Method, model: nn.Module, request: Request, there: Needs, situation: Situation) -> None:
    lacking = method.needs & ~there
    if lacking:
        raise InvalidInput(
            f"method {method.name!r} needs what is not there: "
            f"{'; '.join(text for need, text in _OPTION.items() if need in lacking)}. Methods that would do: "
            f"{', '.join(suitable(there)) or 'none'}"
        )
    if not situation.floating and method.name in PERTURBING:
        others = [name for name in suitable(there) if name not in PERTURBING]
        raise InvalidInput(
            f"method {method.name!r} makes new inputs by changing given ones, and these are token ids, which cannot "
            f"be changed by a little. Methods that would do: {', '.join(others)}"
        )
    method.check(model, request.grant(method.name, method.needs))
