"""A repair made ready: everything read and checked, the method chosen, nothing changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from expunge.api import check_retained, first_that_works, load_method, situation_of
from expunge.capacity.branches import check_branches
from expunge.choice import Choice, Situation, choose, starting_settings
from expunge.data.examples import Examples
from expunge.data.joined import join
from expunge.errors import InvalidInput
from expunge.evaluation.before_after import Yardstick
from expunge.inputs.checkpoint import Checkpoint
from expunge.inputs.first_training import FirstTraining, first_training, trained_on
from expunge.inputs.forget_list import UNKNOWN, ForgetList, read_true_labels
from expunge.inputs.layer_checks import Remark
from expunge.inputs.sources import load_validation_data
from expunge.inputs.training_data import TrainingData
from expunge.methods.base import Method, Needs, Request
from expunge.methods.request import suitable
from expunge.models.split import SplitNetwork
from expunge.registry import METHODS
from expunge.repair.job import Job
from expunge.repair.loaded import Loaded, load
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.launch import check_count
from expunge.training.numerics import Devices
from expunge.training.recipe import rate_known

_OPTION = {
    Needs.RECIPE: "how the model was first trained (--recipe epochs=... --recipe batch_size=...)",
    Needs.UNSEEN: "data the model was not trained on (--unseen)",
    Needs.CLASSES: "a list that is every row of some classes",
    Needs.CODES: "a checkpoint that holds its mnemonic codes under 'codes'",
    Needs.RETAIN: "the remaining data (--no-retain forbids it)",
    Needs.TRUTH: "the truth about all of the data, which only an experiment knows",
}


@dataclass(frozen=True)
class Prepared(Loaded):
    """Everything a repair needs; ``model`` is not the one that will be changed."""

    job: Job  # what was asked for
    split: Split  # what the method sees; after the data come the rows to be learned under their true labels
    on: Yardstick  # what is measured
    codes: Tensor | None  # mnemonic codes of the checkpoint
    choice: Choice  # which method and why; for a method the user named, that one
    method: Method  # configured
    changed: dict[str, object]  # the settings of ``method`` that are neither defaults nor the user's
    first: FirstTraining  # what is known of the first training
    optimiser: str  # what the method trains with and why, in words; empty if it does not train
    tried: Meter  # cost of finding a learning rate
    untouched: bool = False  # it has learned so little of the bad labels that it is left as it is


def prepare(job: Job) -> Prepared:
    """Read and check everything ``job`` names; nothing is written.

    Raises:
        CheckFailed: the model does not belong to the data.
        InvalidInput: anything that cannot be used: files, names, settings, a method that cannot work here.
        StoreError: the checkpoint cannot be read.
    """
    loaded = load(job)
    model, data, forget, check = loaded.model, loaded.data, loaded.forget, loaded.check
    devices = Devices(job.devices)
    if devices.several:
        check_count(replace(loaded.numerics, devices=devices))
    first = first_training(
        model, arch=job.arch, checkpoint=job.checkpoint, recipe=job.recipe, base=job.base, earlier=job.earlier
    )
    options = replace(job.options, device=loaded.numerics.device)
    validation = None if job.validation is None else load_validation_data(job.validation, options, data)
    unseen = None if job.unseen is None else load_validation_data(job.unseen, options, data)
    true_labels = None if job.truth is None else read_true_labels(job.truth, data)
    codes = _codes(loaded.checkpoint, len(data.classes))
    split = Split(_training_set(job, data, forget, true_labels), forget.positions, unseen)
    choice, method, changed = _method(job, loaded, split, codes, first)
    untouched = check.little_learned and job.purpose == "heal" and not job.force
    if untouched:
        said = (
            f"the model gives {check.numbers['forget_accuracy']:.0%} of the {len(forget.positions):,} listed rows "
            "their given label: there is little to repair, so it is left as it is; --force repairs it all the same"
        )
        choice, method, changed = Choice("none", said), load_method("none"), {}
    tried = Meter(loaded.numerics.device)
    optimiser, found = trained_on(
        method, model, split, loaded.numerics, first, seed=job.seed, meter=tried, given=job.settings
    )
    method, changed = replace(method, **found), changed | found
    if first.start is not None and Needs.START not in method.uses and not untouched:
        unused = Remark(
            "warning",
            "--earlier" if job.base is None else "--base",
            f"is not used: {method.name} does not go back to given weights",
            "leave it out, or use relearn",
        )
        check = replace(check, findings=(*check.findings, unused))
    whole = Split(data.examples, forget.positions)
    forgotten = whole.forget_classes if job.purpose == "forget" else ()
    on = Yardstick(data.examples, whole.forget_mask.cpu(), validation, true_labels, forgotten)
    return Prepared(
        **(vars(loaded) | {"check": check}), job=job, split=split, on=on, codes=codes, choice=choice, method=method,
        changed=changed, first=first, optimiser=optimiser, tried=tried, untouched=untouched,
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
            f"{job.truth} has no other label than the given one for any listed row; check both lists"
        )
    # A row of its own: what is done to the wrong label is not to be done to the right one.
    return join(data.examples, data.examples.select(forget.positions[wrong]).relabel(true[wrong]))


def _method(
    job: Job, loaded: Loaded, split: Split, codes: Tensor | None, first: FirstTraining
) -> tuple[Choice, Method, dict[str, object]]:
    """Return what is chosen, the method, and its settings that are neither defaults nor the user's."""
    model, changed = loaded.model, dict[str, object]()
    # What a trainer left says how to train on; it cannot be followed from a fresh initialisation.
    known = None if job.recipe is None else first.recipe
    request = Request(
        split, seed=job.seed, numerics=loaded.numerics, recipe=known, codes=codes, start=first.start
    )
    there = request.available if job.retain else request.available & ~Needs.RETAIN
    situation = replace(
        situation_of(
            model, split, purpose=job.purpose, discovery=job.discovery, recipe=first.recipe, codes=codes,
            start=first.start, pretrained=not first.scratch,
        ),
        retain=job.retain,
        attachable=_attachable(model, next(split.train.batches(3)).x),
    )  # fmt: skip

    def made(name: str) -> Method:
        nonlocal changed
        method, changed = _configured(job, name, split, first)
        _check(method, there, situation)
        check_retained(method, split)
        method.check(model, request.grant(method.name, method.needs, method.uses))
        if method.trains and job.devices > 1:
            method.check_devices(Devices(job.devices))
        return method

    if job.method is not None:
        method = made(job.method)
        return Choice(method.name, "you named it"), method, changed
    choice = choose(situation)
    method, refused = first_that_works(choice, made)
    if refused is not None:
        choice = Choice(method.name, f"the first choice, {choice.method}, cannot work here ({refused})")
    return choice, method, changed


def _attachable(model: nn.Module, x: Tensor) -> bool:
    if isinstance(model, SplitNetwork):
        return True
    try:
        check_branches(model, x)
    except InvalidInput:
        return False
    return True


def _configured(job: Job, name: str, split: Split, first: FirstTraining) -> tuple[Method, dict[str, object]]:
    kind = type(load_method(name))
    followed = first.recipe if rate_known(first.recipe) else None
    started = starting_settings(kind, len(split.train), job.purpose, followed)
    if job.force and "least_learned" in kind.__dataclass_fields__:
        started["least_learned"] = 0.0
    # A learning rate belongs to its optimiser.
    given: set[str] = set(job.settings)
    given |= {"lr", "optimiser"} if given & {"lr", "optimiser"} else set()
    changed: dict[str, Any] = {key: value for key, value in started.items() if key not in given}
    return load_method(name, **{**changed, **job.settings}), changed


def _check(method: Method, there: Needs, situation: Situation) -> None:
    """Refuse a method that needs what is not there, in the words of the command's options."""
    lacking = method.needs & ~there
    if lacking:
        raise InvalidInput(
            f"method {method.name!r} needs what is not there: "
            f"{'; '.join(text for need, text in _OPTION.items() if need in lacking)}. Methods that would do: "
            f"{', '.join(suitable(there)) or 'none'}"
        )
    if not situation.floating and method.perturbs_inputs:
        others = [name for name in suitable(there) if not METHODS.get(name).perturbs_inputs]
        raise InvalidInput(
            f"method {method.name!r} makes new inputs by changing given ones, and these are token ids, which cannot "
            f"be changed by a little. Methods that would do: {', '.join(others)}"
        )
